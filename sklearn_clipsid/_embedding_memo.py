"""Remember embeddings in the memory of one process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sklearn_clipsid._content_hash import FileSignature

# 131,000 rows of 1,024 float32 numbers, 5,400 of all blocks of a ViT-L.
MAX_BYTES = 512 * 2**20


class CacheInfo(NamedTuple):
    """What a cache holds, and how often it was of use since it was cleared."""

    rows: int
    bytes: int
    hits: int
    misses: int


class EmbeddingMemo:
    """Bounded memory of embeddings for one process, shared by all its threads.

    `EmbeddingCache` answers the same questions from a database.

    Parameters
    ----------
    max_bytes : int, default=MAX_BYTES
        Room for rows; those of other encoders make way, oldest use first.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything, also who holds the lock: for a forked child alone."""
        self._lock = threading.RLock()
        self.clear()

    def __enter__(self) -> EmbeddingMemo:
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was claimed; what is remembered outlives the run."""
        me = threading.get_ident()
        with self._lock:
            for key in [key for key, owner in self._claims.items() if owner == me]:
                del self._claims[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows: OrderedDict[tuple[bytes, bytes], np.ndarray] = OrderedDict()
            self._contents: OrderedDict[FileSignature, bytes] = OrderedDict()
            # The thread that embeds an image meanwhile.
            self._claims: dict[tuple[bytes, bytes], int] = {}
            self._bytes = self._hits = self._misses = 0

    def info(self) -> CacheInfo:
        """Return what is remembered, and how often that was of use."""
        with self._lock:
            return CacheInfo(len(self._rows), self._bytes, self._hits, self._misses)

    def count(self, hits: int, misses: int) -> None:
        """Count images answered from memory, and images embedded."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def described(self, identity: str) -> None:
        """Return None: a process that knows rows knows their encoder as well."""

    def describe(self, identity: str, description: Mapping[str, object]) -> None:
        """Leave encoders to the registry of built towers."""

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
        with self._lock:
            return {s: self._contents[s] for s in signatures if s in self._contents}

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
        found = {}
        with self._lock:
            for content in contents:
                row = self._rows.get((setting, content))
                if row is not None:
                    self._rows.move_to_end((setting, content))
                    found[content] = row
        return found

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
            others are being embedded by another thread: ask again.
        """
        me = threading.get_ident()
        with self._lock:
            rows = self.rows_of(setting, contents)
            mine = {
                content
                for content in contents
                if content not in rows
                and self._claims.setdefault((setting, content), me) == me
            }
            return rows, mine

    def keep(
        self,
        setting: bytes,
        rows: Mapping[bytes, np.ndarray],
        files: Mapping[FileSignature, bytes],
    ) -> bool:
        """Remember rows, and what files contain.

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
        with self._lock:
            self._contents.update(files)
            while len(self._contents) > self.max_bytes // 1024:
                self._contents.popitem(last=False)
            for content in rows:
                self._claims.pop((setting, content), None)
            for content, row in rows.items():
                if (setting, content) in self._rows:
                    continue
                if not self._make_room(setting, row.nbytes):
                    return False
                # A copy, or one row would keep its whole batch in memory and change
                # with the caller's array.
                self._rows[setting, content] = row.copy()
                self._bytes += row.nbytes
            return True

    def _make_room(self, setting: bytes, n_bytes: int) -> bool:
        """Forget rows of other encoders, never of this one.

        Repeated passes over more images than fit would find nothing if each new row
        replaced the oldest; this way they find all that were kept.
        """
        while self._bytes + n_bytes > self.max_bytes:
            oldest = next(iter(self._rows), None)
            if oldest is None or oldest[0] == setting:
                return False
            self._bytes -= self._rows.pop(oldest).nbytes
        return True


# One for the process: clones, folds and grid candidates share what is known.
MEMO = EmbeddingMemo()

if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the moment of the fork.
    os.register_at_fork(after_in_child=MEMO.start_anew)
