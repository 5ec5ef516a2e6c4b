"""Remember embeddings by what an image contains, never by its name alone."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np

# 131,000 rows of 1,024 float32 numbers, 5,400 of all blocks of a ViT-L.
MAX_BYTES = 512 * 2**20
# A file as young as the clock tick of some file systems can change once more without
# changing its times, so that its signature proves nothing yet.
SETTLED_NS = 2_000_000_000


def content_hash(source: bytes | np.ndarray) -> bytes:
    """Hash encoded bytes or decoded pixels.

    Parameters
    ----------
    source : bytes or ndarray of uint8
        An encoded image, or pixels.

    Returns
    -------
    digest : bytes of length 20
    """
    # Encoded bytes never share a digest with pixels of the same bytes.
    person = b"pixels" if isinstance(source, np.ndarray) else b"file"
    digest = hashlib.blake2b(digest_size=20, person=person)
    if isinstance(source, np.ndarray):
        digest.update(f"{source.shape}".encode())
        source = np.ascontiguousarray(source)
    digest.update(source)
    return digest.digest()


class EmbeddingMemo:
    """Bounded memory of embeddings for one process, shared by all its threads.

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
        self._lock = threading.Lock()
        self._rows: OrderedDict[tuple[str, bytes], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._hashes: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._hashes.clear()
            self._bytes = 0

    def get(self, fingerprint: str, content: bytes) -> np.ndarray | None:
        """Return the row of an image under an encoder, or None.

        Parameters
        ----------
        fingerprint : str
            Digest of everything but the image that decides the row.

        content : bytes
            Hash of the image.

        Returns
        -------
        row : ndarray of shape (n_features,) or None
        """
        with self._lock:
            row = self._rows.get((fingerprint, content))
            if row is not None:
                self._rows.move_to_end((fingerprint, content))
            return row

    def put(self, fingerprint: str, contents: list[bytes], rows: np.ndarray) -> bool:
        """Store a batch of rows.

        Parameters
        ----------
        fingerprint : str
            Digest of everything but the image that decides the row.

        contents : list of bytes
            Hashes of the images.

        rows : ndarray of shape (n_images, n_features)
            Their embeddings.

        Returns
        -------
        fits : bool
            Whether there was room for all.
        """
        with self._lock:
            for content, row in zip(contents, rows):
                if (fingerprint, content) in self._rows:
                    continue
                if not self._make_room(fingerprint, row.nbytes):
                    return False
                # A copy, or one row would keep its whole batch in memory and change
                # with the caller's array.
                self._rows[fingerprint, content] = row.copy()
                self._bytes += row.nbytes
            return True

    def _make_room(self, fingerprint: str, n_bytes: int) -> bool:
        """Forget rows of other encoders, never of this one.

        Repeated passes over more images than fit would find nothing if each new row
        replaced the oldest; this way they find all that were kept.
        """
        while self._bytes + n_bytes > self.max_bytes:
            oldest = next(iter(self._rows), None)
            if oldest is None or oldest[0] == fingerprint:
                return False
            self._bytes -= self._rows.pop(oldest).nbytes
        return True

    def hash_of_file(self, path: str) -> bytes | None:
        """Return the hash of a file that has not changed since it was hashed.

        Parameters
        ----------
        path : str
            The file.

        Returns
        -------
        content : bytes or None
            None when the file is new, changed, or too young to tell.
        """
        signature = _signature(path)
        with self._lock:
            return self._hashes.get(signature)

    def remember_file(
        self, path: str, signature: tuple[Any, ...], content: bytes
    ) -> None:
        """Note the hash of a file, if its signature will tell a later change.

        Parameters
        ----------
        path : str
            The file.

        signature : tuple
            Its signature before it was read.

        content : bytes
            The hash of what was read.
        """
        newest = max(signature[2], signature[3])
        if time.time_ns() - newest < SETTLED_NS or _signature(path) != signature:
            return
        with self._lock:
            self._hashes[signature] = content
            while len(self._hashes) > self.max_bytes // 1024:
                self._hashes.popitem(last=False)


def _signature(path: str) -> tuple[Any, ...]:
    # ctime betrays an overwrite whose size and mtime were restored.
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe waits for a writer, and a device may never end.
        raise OSError("it is a pipe, socket or device, not a file")
    return (
        os.path.abspath(path),
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        found.st_ino,
    )


def read_file(memo: EmbeddingMemo, path: str) -> tuple[bytes, bytes]:
    """Read a file once and hash the bytes that were read.

    Parameters
    ----------
    memo : EmbeddingMemo
        Learns the hash.

    path : str
        The file.

    Returns
    -------
    data, content : bytes, bytes
        The file and its hash, which belong together even when the file is being
        overwritten.
    """
    signature = _signature(path)
    with open(path, "rb") as file:
        data = file.read()
    content = content_hash(data)
    memo.remember_file(path, signature, content)
    return data, content


# One for the process: clones, folds and grid candidates share what is known.
MEMO = EmbeddingMemo()

if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the moment of the fork.
    os.register_at_fork(after_in_child=MEMO.start_anew)
