"""Find the rows of images by their paths, without holding the paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np

from sklearn_clipsid._image_sequence import as_images

# 128 bits: among 10 million paths two share a key with a probability of 1e-25, so
# that a found key is the path.
KEY = np.dtype("S16")
ROW = np.dtype("<i8")


def as_paths(images: Any) -> list[str]:
    """Return paths as plain strings, or say what is wrong with them.

    Parameters
    ----------
    images : sequence of str or PathLike
        A list, a 1-D array, a Series or a frame of one column.

    Returns
    -------
    paths : list of str
        As they were given: neither made absolute nor normalised.
    """
    paths = []
    for index, image in enumerate(as_images(images)):
        path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
        if not isinstance(path, str):
            raise ValueError(
                f"Got {type(image).__name__} at index {index} but expected paths only, "
                "as str or PathLike, by which rows are found again; embed other images "
                "with CLIPEmbedder."
            )
        paths.append(str(path))  # numpy has a str of its own
    return paths


def path_keys(paths: Sequence[str]) -> np.ndarray:
    """Hash each path.

    Parameters
    ----------
    paths : sequence of str
        The paths.

    Returns
    -------
    keys : ndarray of shape (n_paths,), dtype S16
        Equal where the paths are.
    """
    try:
        keys = [blake2b(path.encode(), digest_size=16).digest() for path in paths]
    except UnicodeEncodeError as error:
        index = next(i for i, path in enumerate(paths) if path == error.object)
        raise ValueError(
            f"Got {error.object!r} at index {index}, a file name that is no valid "
            "Unicode, but expected text, as Parquet stores nothing else; rename the "
            "file."
        ) from error
    return np.frombuffer(b"".join(keys), dtype=KEY)


def path_rows_writer(keys: np.ndarray) -> Callable[[BinaryIO], None]:
    """Return what writes the file that `PathRows` reads.

    Parameters
    ----------
    keys : ndarray of shape (n_paths,)
        Of all paths, in the order of their rows.

    Returns
    -------
    write : callable
        Takes the open file.
    """

    def write(file: BinaryIO) -> None:
        order = np.argsort(keys, kind="stable")  # of twins the first comes first
        file.write(memoryview(keys[order]).cast("B"))
        file.write(memoryview(order.astype(ROW)).cast("B"))

    return write


class PathRows:
    """Sorted keys and their rows in a file, shared by all processes of a machine.

    Parameters
    ----------
    filename : str
        Written by `path_rows_writer`.

    n_paths : int
        How many keys it holds.
    """

    def __init__(self, filename: str, n_paths: int) -> None:
        n_bytes = n_paths * KEY.itemsize
        self.keys = np.memmap(filename, KEY, "r", shape=(n_paths,))
        self.rows = np.memmap(filename, ROW, "r", offset=n_bytes, shape=(n_paths,))

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the rows of some paths.

        Parameters
        ----------
        keys : ndarray of shape (n_wanted,)
            Their keys.

        Returns
        -------
        rows : ndarray of shape (n_wanted,), dtype int64
            -1 for a path that is not there, the first row for one that is there twice.
        """
        # In their order, neighbours in the file are read together.
        order = np.argsort(keys)
        wanted = keys[order]
        places = np.searchsorted(self.keys, wanted)  # (n_wanted,)
        places[places == len(self.keys)] = 0
        found = np.where(self.keys[places] == wanted, self.rows[places], -1)
        rows = np.empty(len(keys), dtype=np.int64)
        rows[order] = found
        return rows
