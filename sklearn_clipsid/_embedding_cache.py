"""Keep embeddings in a database that any number of processes of a host share."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from sklearn_clipsid._content_hash import FileSignature
from sklearn_clipsid._embedding_memo import MEMO, CacheInfo
from sklearn_clipsid._network_drive import is_network_drive
from sklearn_clipsid._warn_user import warn_user

Answer = TypeVar("Answer")

# A change of the tables gets a file of its own, beside which older ones are left alone.
FORMAT = "embeddings-v1"
TABLES = (
    """CREATE TABLE IF NOT EXISTS rows (
        setting BLOB NOT NULL, content BLOB NOT NULL, row BLOB NOT NULL,
        checksum INTEGER NOT NULL, PRIMARY KEY (setting, content))""",
    """CREATE TABLE IF NOT EXISTS files (
        path BLOB PRIMARY KEY, stamp TEXT NOT NULL, content BLOB NOT NULL,
        checksum INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS encoders (
        identity TEXT PRIMARY KEY, description TEXT NOT NULL,
        checksum INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS counts (
        name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID""",
    # Who is embedding what. Last, as it tells that all tables are there.
    """CREATE TABLE IF NOT EXISTS claims (
        setting BLOB NOT NULL, content BLOB NOT NULL, owner TEXT NOT NULL,
        expires REAL NOT NULL, PRIMARY KEY (setting, content)) WITHOUT ROWID""",
)
# Several rows of a ViT fit into one page.
PAGE_BYTES = 16384
# Questions about more images are asked in parts.
MAX_ASKED = 500
# Writers wait for one another; a transaction takes milliseconds.
BUSY_SECONDS = 60.0
# A claim that is not honoured in this time falls to others, should the host of a dead
# process not be this one. Longer than any batch takes.
CLAIM_SECONDS = 600.0
# The file is there but not what this module wrote.
DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH,
}


class _DamagedRowError(Exception):
    """A row is not the one that was written."""


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
        self.folder = os.path.abspath(folder)
        self.is_network = False
        self.can_write = True
        self.can_read = True
        self._host = platform.node()
        self._owner = f"{self._host}|{os.getpid()}|{uuid.uuid4().hex}"
        self._has_claims = False
        self._thread = threading.get_ident()
        self._local = threading.local()  # connections are not shared between threads
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._unsaid: list[str] = []

    def __enter__(self) -> EmbeddingCache:
        _make_folder(self.folder)
        self.is_network = is_network_drive(self.folder)
        if self.is_network:
            self._say(
                f"cache_dir={self.folder!r} lies on a network drive, where a database "
                "is slow and must not be shared between hosts: each host gets a file "
                "of its own there. Choose a folder on a local disk."
            )
        # One database per host, as locks of network drives cannot be relied upon.
        host = f"-{re.sub(r'[^A-Za-z0-9.-]', '-', self._host)}"
        self._stem = FORMAT + (host if self.is_network else "")
        self._path = _newest(self.folder, self._stem)
        self._ask(lambda connection: None, None)
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was claimed, and close every connection."""
        try:
            self._release()
        finally:
            with self._lock:
                for connection in self._connections:
                    connection.close()
                self._connections.clear()
            self._speak()

    def info(self) -> CacheInfo:
        """Return what the database holds, and how often it was of use."""

        def question(connection: sqlite3.Connection) -> CacheInfo:
            (n_rows,) = connection.execute("SELECT count(*) FROM rows").fetchone()
            counts = dict(connection.execute("SELECT name, value FROM counts"))
            return CacheInfo(
                n_rows, self._n_bytes(), counts.get("hits", 0), counts.get("misses", 0)
            )

        return self._ask(question, CacheInfo(0, 0, 0, 0))

    def clear(self) -> None:
        """Forget everything and give the space back."""

        def command(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                for table in ("rows", "files", "encoders", "counts", "claims"):
                    connection.execute(f"DELETE FROM {table}")
            # Fails beside other runs, which will fill the space again.
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._write(command)

    def count(self, hits: int, misses: int) -> None:
        """Add to the numbers of images answered and embedded, over all processes."""

        def command(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(
                    "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
                    "value = value + excluded.value",
                    [("hits", hits), ("misses", misses)],
                )

        self._write(command)

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

        return self._ask(question, None)

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
        self._write(
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

        return self._ask(question, {})

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
        rows = self._ask(lambda connection: _rows(connection, setting, contents), none)
        if not self.can_write:
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
            with _transaction(connection):
                rows = _rows(connection, setting, contents)
                wanted = [content for content in contents if content not in rows]
                taken = self._taken(connection, setting, wanted)
                mine = set(wanted) - taken
                expires = time.time() + CLAIM_SECONDS
                connection.executemany(
                    "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)",
                    [(setting, content, self._owner, expires) for content in mine],
                )
            self._has_claims = True
            return rows, mine

        answer = self._write(command)
        if answer is None:
            rows = self.rows_of(setting, contents)
            return rows, set(contents) - rows.keys()
        return answer

    def _taken(
        self, connection: sqlite3.Connection, setting: bytes, contents: Sequence[bytes]
    ) -> set[bytes]:
        """Return the contents that another living run has claimed."""
        alive: dict[str, bool] = {self._owner: False}
        taken = set()
        for part in _parts(contents):
            for content, owner, expires in connection.execute(
                "SELECT content, owner, expires FROM claims "
                f"WHERE setting = ? AND content IN ({_marks(part)})",
                [setting, *part],
            ):
                if owner not in alive:
                    alive[owner] = _is_alive(owner, self._host)
                if alive[owner] and time.time() < expires:
                    taken.add(content)
        return taken

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
            stored = [(c, row.astype("<f4").tobytes()) for c, row in rows.items()]
            hashed = [(*_file_key(file), content) for file, content in files.items()]
            with _transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)",
                    [
                        (setting, c, row, _checksum(setting, c, row))
                        for c, row in stored
                    ],
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

        return self._write(command) or MEMO.keep(setting, rows, files)

    def _release(self) -> None:
        if self._has_claims:
            self._write(
                lambda connection: connection.execute(
                    "DELETE FROM claims WHERE owner = ? OR expires < ?",
                    (self._owner, time.time()),
                )
            )

    def _write(self, command: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Run a command, or return None when the database cannot be written."""
        return self._ask(command, None, needs_write=True)

    def _ask(
        self,
        question: Callable[[sqlite3.Connection], Answer],
        otherwise: Answer,
        *,
        needs_write: bool = False,
    ) -> Answer:
        """Ask the database; when it fails, say so once and go on without it."""
        while self.can_read and (self.can_write or not needs_write):
            path = self._path
            try:
                return question(self._connection(path))
            except (sqlite3.DatabaseError, _DamagedRowError) as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                if isinstance(error, sqlite3.ProgrammingError):
                    raise  # ours
                if code & 0xFF in DAMAGE and self.can_write:
                    self._set_aside(path, error)
                else:
                    self._do_without(error)
        return otherwise

    def _connection(self, path: str) -> sqlite3.Connection:
        opened = getattr(self._local, "opened", None)
        if opened is not None and opened[0] == path:
            return opened[1]
        connection = _connect(
            path, self.can_write, "DELETE" if self.is_network else "WAL"
        )
        with self._lock:
            self._connections.append(connection)
        self._local.opened = (path, connection)
        return connection

    def _set_aside(self, path: str, error: Exception) -> None:
        """Take a damaged file out of use; the next one gets a new name.

        A process that still has it open removes its journal by name when it closes it:
        under the same name that would be the new one's.
        """
        with self._lock:
            if path != self._path:
                return  # another thread did
            aside = f"{path}.damaged"
            for end in ("", "-wal", "-shm", "-journal"):
                # Another process may have been faster.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path + end, aside + end)
            self._path = _newest(self.folder, self._stem)
        self._say(
            f"The embedding cache {path!r} is damaged ({error}). It was set aside as "
            f"{os.path.basename(aside)!r} and a new one begun; its rows will be "
            "embedded again. Delete it when you do not want to examine it."
        )

    def _do_without(self, error: Exception) -> None:
        with self._lock:
            could_write, self.can_write = self.can_write, False
            self.can_read = could_write
        if could_write:
            self._say(
                f"Cannot write to the embedding cache in {self.folder!r} ({error}): "
                "rows that it holds are used, new ones are remembered in this process "
                "alone. Make room there or make it writable, or choose another "
                "cache_dir."
            )
        else:
            self._say(
                f"Cannot read the embedding cache in {self.folder!r} ({error}): going "
                "on without it. Choose another cache_dir."
            )

    def _say(self, message: str) -> None:
        """Warn, or leave it to the caller's thread, whose line is to be named."""
        with self._lock:
            self._unsaid.append(message)
        if threading.get_ident() == self._thread:
            self._speak()

    def _speak(self) -> None:
        while self._unsaid:
            warn_user(self._unsaid.pop(0))

    def _n_bytes(self) -> int:
        files = [self._path, f"{self._path}-wal"]
        return sum(os.path.getsize(file) for file in files if os.path.exists(file))


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        os.listdir(folder)
    except OSError as error:
        raise ValueError(
            f"Got cache_dir={folder!r}, which is no folder that can be used "
            f"({error.strerror}), but expected one on a local disk; choose another."
        ) from error


def _newest(folder: str, stem: str) -> str:
    """Return the path of the database in use, or of the one to begin."""
    pattern = re.compile(re.escape(stem) + r"\.(\d+)\.sqlite(\.damaged)?")
    found = [match for name in os.listdir(folder) if (match := pattern.fullmatch(name))]
    used = max((int(match[1]) for match in found if not match[2]), default=None)
    if used is None:
        used = 1 + max((int(match[1]) for match in found), default=-1)
    return os.path.join(folder, f"{stem}.{used}.sqlite")


def _connect(path: str, can_write: bool, journal: str) -> sqlite3.Connection:
    # Closed by whoever ends the run, in another thread than used it.
    options: dict[str, Any] = {
        "uri": True,
        "timeout": BUSY_SECONDS,
        "isolation_level": None,
        "check_same_thread": False,
    }
    address = f"file:{quote(path)}?mode="
    if not can_write:
        connection = sqlite3.connect(address + "ro", **options)
        try:
            connection.execute("SELECT 1 FROM rows LIMIT 1")
        except sqlite3.OperationalError:
            # A log cannot be opened without writing beside it. Without the log, rows
            # of a run that is still going on may be missing; checksums guard the rest.
            connection.close()
            connection = sqlite3.connect(address + "ro&immutable=1", **options)
        return connection
    connection = sqlite3.connect(address + "rwc", **options)
    try:
        _prepare(connection, journal)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, journal: str) -> None:
    """Create what is missing; killed half-way, the next one goes on."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            tables = "SELECT 1 FROM sqlite_master WHERE name = 'claims'"
            if connection.execute(tables).fetchone() is None:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            (now,) = connection.execute("PRAGMA journal_mode").fetchone()
            if now.upper() != journal:
                connection.execute(f"PRAGMA journal_mode = {journal}")
            if journal == "WAL":
                # Power failure may lose the last batches, and never damages.
                connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute(tables).fetchone() is None:
                with _transaction(connection):
                    for table in TABLES:
                        connection.execute(table)
            return
        except sqlite3.OperationalError as error:
            # Who changes the journal does not wait for others by itself.
            busy = (error.sqlite_errorcode or 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
        checksum = zlib.crc32(
            value.encode() if isinstance(value, str) else value, checksum
        )
    return checksum


def _check(checksum: int, *values: bytes | str) -> None:
    # SQLite does not notice a bit that flips inside a value.
    if _checksum(*values) != checksum:
        raise _DamagedRowError("a value is not the one that was written")


def _is_alive(owner: str, host: str) -> bool:
    """Return False for a process of this host that has ended."""
    its_host, pid, _ = owner.rsplit("|", 2)
    if its_host != host or os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
