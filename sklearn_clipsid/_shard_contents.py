"""Write the rows and the table of a shard as clip-retrieval lays them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

import numpy as np

COLUMNS = ("image_path", "content_hash", "status", "error")


def as_half(rows: np.ndarray) -> np.ndarray:
    """Round rows to float16, or say that they do not fit.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        The embeddings.

    Returns
    -------
    half : ndarray of shape (n_rows, n_features), dtype float16
    """
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16, order="C")
    if np.isinf(half).any():
        raise ValueError(
            f"Got features of up to {np.nanmax(np.abs(rows)):.3g} but expected at most "
            "65504, the largest number of float16; embed with normalize=True."
        )
    return half


def rows_writer(rows: np.ndarray) -> Callable[[BinaryIO], None]:
    """Return what writes rows as a .npy file.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        In C order.

    Returns
    -------
    write : callable
        Takes the open file.
    """

    def write(file: BinaryIO) -> None:
        header = np.lib.format.header_data_from_array_1_0(rows)
        np.lib.format.write_array_header_1_0(file, header)
        # Not `np.save`, which does not say why a write fails.
        file.write(memoryview(rows).cast("B"))

    return write


def metadata_writer(
    paths: Sequence[str],
    contents: Sequence[bytes | None],
    errors: Mapping[int, str],
) -> Callable[[BinaryIO], None]:
    """Return what writes the table of a shard as a Parquet file.

    Parameters
    ----------
    paths : sequence of str
        The images.

    contents : sequence of bytes or None
        The hash of each file, None where it could not be read.

    errors : dict of int -> str
        Why images could not be read.

    Returns
    -------
    write : callable
        Takes the open file.
    """
    import pyarrow
    from pyarrow import parquet

    rows = range(len(paths))
    columns = (
        paths,
        [None if content is None else content.hex() for content in contents],
        ["failed" if row in errors else "success" for row in rows],
        [errors.get(row) for row in rows],
    )
    # A column of nothing but nulls, as of no errors, would be of no type.
    arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
    table = pyarrow.table(arrays, names=list(COLUMNS))

    def write(file: BinaryIO) -> None:
        memory = pyarrow.BufferOutputStream()
        parquet.write_table(table, memory)
        file.write(memory.getvalue())

    return write
