"""Tell contents apart, and recognise files that have not changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import NamedTuple

import numpy as np

# A file as young as the clock tick of some file systems can change once more without
# changing its times, so that its signature proves nothing yet.
SETTLED_NS = 2_000_000_000
# Of a file that is being written while it is read.
MAX_READS = 3


class FileSignature(NamedTuple):
    """What changes when a file does."""

    path: bytes
    size: int
    mtime_ns: int
    # The change time betrays an overwrite whose size and mtime were restored.
    ctime_ns: int
    inode: int


class FileContent(NamedTuple):
    """A file that was read once: bytes and hash belong together."""

    data: bytes
    content: bytes
    signature: FileSignature | None  # None when it proves nothing yet


def content_hash(source: bytes | np.ndarray) -> bytes:
    """Hash encoded bytes or decoded pixels.

    Parameters
    ----------
    source : bytes or ndarray of uint8
        An encoded image, or pixels.

    Returns
    -------
    content : bytes of length 20
    """
    # Encoded bytes never share a digest with pixels of the same bytes.
    person = b"pixels" if isinstance(source, np.ndarray) else b"file"
    digest = hashlib.blake2b(digest_size=20, person=person)
    if isinstance(source, np.ndarray):
        digest.update(f"{source.shape}".encode())
        source = np.ascontiguousarray(source)
    digest.update(source)
    return digest.digest()


def signature_of(path: str | bytes | os.PathLike) -> FileSignature:
    """Describe a file without reading it.

    Parameters
    ----------
    path : str, bytes or PathLike
        The file.

    Returns
    -------
    signature : FileSignature
        Equal for as long as the file is the same.

    Raises
    ------
    OSError
        When there is no such file, or when it is none that can be read whole.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        # Opening a pipe waits for a writer, and a device may never end.
        raise OSError("it is a pipe, socket or device, not a file")
    return FileSignature(
        os.fsencode(os.path.abspath(path)),
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino,
    )


def is_settled(signature: FileSignature) -> bool:
    """Return whether any later change of a file would change its signature.

    Parameters
    ----------
    signature : FileSignature
        Taken just now.

    Returns
    -------
    settled : bool
        False for files changed in the last two seconds or in the future, and on
        Windows, which does not tell when a file was changed behind a restored mtime.
    """
    newest = max(signature.mtime_ns, signature.ctime_ns)
    return os.name != "nt" and time.time_ns() - newest >= SETTLED_NS


def read_file(path: str | os.PathLike) -> FileContent:
    """Read a file once and hash the bytes that were read.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    file : FileContent
        Its bytes, their hash, and the signature under which it may be recognised.

    Raises
    ------
    OSError
        When it cannot be read, or changes each time it is.
    """
    for _ in range(MAX_READS):
        signature = signature_of(path)
        settled = is_settled(signature)
        with open(path, "rb") as file:
            data = file.read()
        if signature_of(path) == signature:
            return FileContent(data, content_hash(data), signature if settled else None)
    raise OSError("it is being written: it changed each time it was read")
