"""Keep embeddings in a database that any number of processes of a host share."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_clipsid._cache_database import CacheDatabase, DamagedValueError
from sklearn_clipsid._claim_owner import CLAIM_SECONDS, begin_run, end_run, is_held
from sklearn_clipsid._content_hash import FileSignature
from sklearn_clipsid._embedding_memo import MEMO, CacheInfo

# Questions about more images are asked in parts.
MAX_ASKED = 500


class EmbeddingCache:
    """One SQLite file of rows under the content of images, for one run.

    Rows are written once per batch, each with a checksum. Runs that meet at one
    database share the work: an image that one of them has claimed is left to it.
    Answers the same questions as `EmbeddingMemo`, which it falls back on when the
    database cannot be written.

    Parameters
    ----------
    folder : str or PathLike
        Where the database lies; created when missing.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._database = CacheDatabase(folder)
        self._owner = ""
        self._has_claims = False

    def __enter__(self) -> EmbeddingCache:
        self._owner = begin_run()
        self._database.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was claimed, and close every connection."""
        try:
            self._release()
        finally:
            end_run(self._owner)
            self._database.close()

    def is_there(self) -> bool:
        """Return whether there is a database yet, without creating one."""
        return self._database.is_there()

    def info(self) -> CacheInfo:
        """Return what the database holds, and how often it was of use."""

        def question(connection: sqlite3.Connection) -> CacheInfo:
            (n_rows,) = connection.execute("SELECT count(*) FROM rows").fetchone()
            counts = dict(connection.execute("SELECT name, value FROM counts"))
            n_bytes = self._database.n_bytes()
            hits, misses = counts.get("hits", 0), counts.get("misses", 0)
            return CacheInfo(n_rows, n_bytes, hits, misses)

        return self._database.ask(question, CacheInfo(0, 0, 0, 0))

    def clear(self) -> None:
        """Forget everything and give the space back."""

        def command(connection: sqlite3.Connection) -> None:
            for table in ("rows", "files", "encoders", "counts", "claims"):
                connection.execute(f"DELETE FROM {table}")

        self._database.write(command)
        self._database.give_space_back()

    def count(self, hits: int, misses: int) -> None:
        """Add to the numbers of images answered and embedded, over all processes."""

        def command(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
                "value = value + excluded.value",
                [("hits", hits), ("misses", misses)],
            )

        self._database.write(command)

    def described(self, identity: str) -> dict[str, Any] | None:
        """Return what is known of an encoder, or None.

        Parameters
        ----------
        identity : str
            How the encoder was asked for.

        Returns
        -------
        description : dict or None
            As given to `describe`.
        """

        def question(connection: sqlite3.Connection) -> dict[str, Any] | None:
            found = connection.execute(
                "SELECT description, checksum FROM encoders WHERE identity = ?",
                (identity,),
            ).fetchone()
            if found is None:
                return None
            _check(found[1], identity, found[0])
            return json.loads(found[0])

        return self._database.ask(question, None)

    def describe(self, identity: str, description: Mapping[str, object]) -> None:
        """Note what an encoder is, so that it need not be built to be known.

        Parameters
        ----------
        identity : str
            How the encoder was asked for.

        description : dict
            What JSON can hold.
        """
        text = json.dumps(description, sort_keys=True)
        row = (identity, text, _checksum(identity, text))
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO encoders VALUES (?, ?, ?)", row
            )
        )

    def contents_of(
        self, signatures: Sequence[FileSignature]
    ) -> dict[FileSignature, bytes]:
        """Recognise files that are as they were when they were hashed.

        Parameters
        ----------
        signatures : sequence of FileSignature
            The files, as they are now.

        Returns
        -------
        contents : dict
            Hashes of those that are known.
        """

        def question(connection: sqlite3.Connection) -> dict[FileSignature, bytes]:
            stored = {}
            for part in _parts([signature.path for signature in signatures]):
                for path, stamp, content, checksum in connection.execute(
                    "SELECT path, stamp, content, checksum FROM files "
                    f"WHERE path IN ({_marks(part)})",
                    part,
                ):
                    _check(checksum, path, stamp, content)
                    stored[path, stamp] = content
            keys = {signature: _file_key(signature) for signature in signatures}
            return {s: stored[key] for s, key in keys.items() if key in stored}

        return self._database.ask(question, {})

    def rows_of(
        self, setting: bytes, contents: Iterable[bytes]
    ) -> dict[bytes, np.ndarray]:
        """Return the known rows of images under an encoder.

        Parameters
        ----------
        setting : bytes
            Digest of everything but the image that decides the row.

        contents : iterable of bytes
            Hashes of the images.

        Returns
        -------
        rows : dict of ndarray of shape (n_features,)
            By content; what is unknown is left out.
        """
        contents = list(contents)
        none: dict[bytes, np.ndarray] = {}
        rows = self._database.ask(
            lambda connection: _rows(connection, setting, contents), none
        )
        if not self._database.can_write:
            rows |= MEMO.rows_of(setting, set(contents) - rows.keys())
        return rows

    def claim(
        self, setting: bytes, contents: Sequence[bytes]
    ) -> tuple[dict[bytes, np.ndarray], set[bytes]]:
        """Ask for images to embed.

        Parameters
        ----------
        setting : bytes
            As in `rows_of`.

        contents : sequence of bytes
            Hashes of images whose rows were unknown.

        Returns
        -------
        rows, mine : dict, set
            Rows that have become known, and the contents left to the caller. The
            others are being embedded by another run: ask again.
        """

        def command(
            connection: sqlite3.Connection,
        ) -> tuple[dict[bytes, np.ndarray], set[bytes]]:
            rows = _rows(connection, setting, contents)
            wanted = [content for content in contents if content not in rows]
            mine = set(wanted) - self._held_by_others(connection, setting, wanted)
            now = time.time()
            connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)",
                [(setting, content, self._owner, now) for content in mine],
            )
            return rows, mine

        self._has_claims = True
        answer = self._database.write(command)
        if answer is None:
            rows = self.rows_of(setting, contents)
            return rows, set(contents) - rows.keys()
        return answer

    def _held_by_others(
        self, connection: sqlite3.Connection, setting: bytes, contents: Sequence[bytes]
    ) -> set[bytes]:
        held = set()
        for part in _parts(contents):
            for content, owner, since in connection.execute(
                "SELECT content, owner, since FROM claims "
                f"WHERE setting = ? AND content IN ({_marks(part)})",
                [setting, *part],
            ):
                if owner != self._owner and is_held(owner, since):
                    held.add(content)
        return held

    def keep(
        self,
        setting: bytes,
        rows: Mapping[bytes, np.ndarray],
        files: Mapping[FileSignature, bytes],
    ) -> bool:
        """Write rows, and what files contain, at once or not at all.

        Parameters
        ----------
        setting : bytes
            As in `rows_of`.

        rows : dict of ndarray of shape (n_features,)
            Embeddings by content.

        files : dict
            Hashes of files by signature.

        Returns
        -------
        fits : bool
            Whether there was room for all rows.
        """

        def command(connection: sqlite3.Connection) -> bool:
            connection.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?) "
                "ON CONFLICT (setting, content) DO NOTHING",
                [(*row, _checksum(*row)) for row in stored],
            )
            connection.executemany(
                "DELETE FROM claims WHERE setting = ? AND content = ?",
                [(setting, content) for content in rows],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(*file, _checksum(*file)) for file in hashed],
            )
            return True

        stored = [(setting, c, row.astype("<f4").tobytes()) for c, row in rows.items()]
        hashed = [(*_file_key(file), content) for file, content in files.items()]
        return self._database.write(command) or MEMO.keep(setting, rows, files)

    def _release(self) -> None:
        if self._has_claims:
            self._database.write(
                lambda connection: connection.execute(
                    "DELETE FROM claims WHERE owner = ? OR since < ?",
                    (self._owner, time.time() - CLAIM_SECONDS),
                )
            )


def _rows(
    connection: sqlite3.Connection, setting: bytes, contents: Sequence[bytes]
) -> dict[bytes, np.ndarray]:
    rows = {}
    for part in _parts(contents):
        for content, row, checksum in connection.execute(
            "SELECT content, row, checksum FROM rows "
            f"WHERE setting = ? AND content IN ({_marks(part)})",
            [setting, *part],
        ):
            _check(checksum, setting, content, row)
            rows[content] = np.frombuffer(row, dtype="<f4")
    return rows


def _parts(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(values), MAX_ASKED):
        yield values[start : start + MAX_ASKED]


def _marks(values: Sequence[bytes]) -> str:
    return ", ".join("?" * len(values))


def _file_key(signature: FileSignature) -> tuple[bytes, str]:
    return signature.path, " ".join(map(str, signature[1:]))


def _checksum(*values: bytes | str) -> int:
    checksum = 0
    for value in values:
        # Damage may also move a border, or make a text of bytes.
        checksum = zlib.crc32(
            f"{type(value).__name__} {len(value)} ".encode(), checksum
        )
        data = value.encode() if isinstance(value, str) else value
        checksum = zlib.crc32(data, checksum)
    return checksum


def _check(checksum: object, *values: object) -> None:
    # SQLite does not notice a bit that flips inside a value.
    stored = [value for value in values if isinstance(value, (bytes, str))]
    if len(stored) < len(values) or _checksum(*stored) != checksum:
        raise DamagedValueError("a value is not the one that was written")
