"""Write out the images that lie in parquet files of a hub, and return their paths."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.datasets._hub_fetch import HubFetch
from sklearn_clipsid.datasets._hub_files import (
    HubFile,
    download_file,
    list_files,
    lock,
    write,
)
from sklearn_clipsid.datasets._label_words import TARGET_NAMES

_COLUMNS = ("image", "label", "image_id", "source")
_LEAVES = ("image.bytes", *_COLUMNS[1:])
_BATCH_ROWS = 8
# How the image formats begin; "." is any byte.
_SUFFIXES = {
    rb"\xff\xd8\xff": ".jpg",
    rb"\x89PNG\r\n\x1a\n": ".png",
    rb"RIFF....WEBP": ".webp",
    rb"GIF8[79]a": ".gif",
    rb"BM": ".bmp",
    rb"II\*\x00|MM\x00\*": ".tif",
    rb"....ftypavi[fs]": ".avif",
}


class _Row(NamedTuple):
    """An image that was written out, and what its row says about it."""

    image: str
    size: int
    label: int
    generator: str
    pair_id: str


def fetch_hub_images(fetch: HubFetch) -> Bunch:
    """Download what is missing, write out its images, and return where they lie.

    Parameters
    ----------
    fetch : HubFetch
        What, and how.

    Returns
    -------
    images : Bunch
        As the fetchers document it.
    """
    commit, splits = list_files(fetch)
    tables = {file: _read_table(file, fetch) for file in splits}
    missing = [file for file, rows in tables.items() if rows is None]
    if missing:
        tables |= _write_out(missing, commit, fetch)
    rows = [
        (row, split) for file, split in splits.items() for row in tables[file] or ()
    ]
    _check_rows(rows, fetch)
    return _as_bunch(rows, fetch)


def _table(file: HubFile, fetch: HubFetch) -> Path:
    # It is there once all images of the parquet file are.
    return fetch.version / "tables" / (quote(file.path, safe="") + ".csv")


def _read_table(file: HubFile, fetch: HubFetch) -> list[_Row] | None:
    """Read the rows of a parquet file, None unless all images are there."""
    table, parquet = _table(file, fetch), fetch.parquet / file.path
    # By the time of the change, as a copy may bear the date of its original.
    if not table.is_file() or (
        parquet.is_file() and parquet.stat().st_ctime_ns > table.stat().st_ctime_ns
    ):
        return None
    with open(table, encoding="utf-8", newline="") as stream:
        rows = [
            _Row(image, int(size), int(label), *texts)
            for image, size, label, *texts in list(csv.reader(stream))[1:]
        ]
    there = all(_has_size(fetch.images / row.image, row.size) for row in rows)
    return rows if there else None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _write_out(
    files: list[HubFile], commit: str, fetch: HubFetch
) -> dict[HubFile, list[_Row]]:
    """Download files, write out their images, and return their rows."""
    tables: dict[HubFile, list[_Row]] = {}
    n_bytes = sum(file.size for file in files)
    bar = slow_bar(None, fetch.dataset.name, n_bytes, unit="B", unit_scale=True)
    with lock(fetch), bar:
        for file in files:
            start = sum(done.size for done in tables)
            # Another call may have been faster.
            rows = _read_table(file, fetch)
            if rows is None:
                parquet = fetch.parquet / file.path
                if not parquet.is_file():
                    download_file(file, commit, fetch, partial(_advance, bar, start))
                rows = _unpack(parquet, fetch)
                write(_table(file, fetch), _as_csv(rows))
                if fetch.download_if_missing:  # else it was copied by hand
                    parquet.unlink()
            tables[file] = rows
            _advance(bar, start, file.size)
    return tables


def _advance(bar: Any, start: int, n_bytes: int) -> None:
    bar.update(start + n_bytes - bar.n)  # back as well, when a part is given up


def _unpack(parquet: Path, fetch: HubFetch) -> list[_Row]:
    """Write out the images of a parquet file as they are stored."""
    pyarrow = import_optional("pyarrow", extra="datasets", caller=fetch.caller)
    pq = import_optional("pyarrow.parquet", extra="datasets", caller=fetch.caller)
    rows: list[_Row] = []
    try:
        with pq.ParquetFile(parquet) as source:
            _check_columns(source.schema_arrow, parquet)
            for record in _records(source):
                where = f"row {len(rows)} of {str(parquet)!r}"
                data = _image_bytes(record, where)
                name = hashlib.sha256(data).hexdigest() + _suffix(data, where)
                if not _has_size(fetch.images / name, len(data)):
                    write(fetch.images / name, data)
                rows.append(_as_row(record, name, len(data), where))
    # Of a damaged footer or a damaged page.
    except (pyarrow.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk is at fault, not the file
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Got {str(parquet)!r}, which cannot be read ({reason}), but expected a "
            "whole parquet file; remove it and fetch or copy it again."
        ) from error
    return rows


def _records(source: Any) -> Iterator[dict[str, Any]]:
    # Group by group, as the next would otherwise be read beside the last.
    for group in range(source.num_row_groups):
        batches = source.iter_batches(
            _BATCH_ROWS, row_groups=[group], columns=list(_COLUMNS)
        )
        for batch in batches:
            yield from batch.to_pylist()


def _check_columns(schema: Any, parquet: Path) -> None:
    found = [leaf.name for field in schema for leaf in field.flatten()]
    lacking = [name for name in _LEAVES if name not in found]
    if lacking:
        raise ValueError(
            f"Got the columns {found} in {str(parquet)!r} but expected "
            f"{list(_LEAVES)}, and {lacking} is missing; pass the revision that has "
            "them all."
        )


def _image_bytes(record: dict[str, Any], where: str) -> bytes:
    data = (record["image"] or {}).get("bytes")
    if not data:
        raise ValueError(
            f"Got no bytes of the image in {where} but expected the encoded image; "
            "pass a revision that embeds the images."
        )
    return data


def _suffix(data: bytes, where: str) -> str:
    for start, suffix in _SUFFIXES.items():
        if re.match(start, data, re.DOTALL):
            return suffix
    raise ValueError(
        f"Got an image in {where} that begins with {data[:12]!r} but expected one of "
        f"the formats {' '.join(_SUFFIXES.values())}; report it to the repository."
    )


def _as_row(record: dict[str, Any], name: str, size: int, where: str) -> _Row:
    label, generator = record["label"], record["source"]
    if label not in (0, 1):
        raise ValueError(
            f"Got label {label!r} in {where} but expected 0 (real) or 1 (synthetic); "
            "pass the revision that has these labels."
        )
    if generator in (None, ""):
        if label == 1:
            raise ValueError(
                f"Got an empty source for a synthetic image in {where} but expected "
                "the name of its generator; pass the revision that has it."
            )
        generator = "real"
    pair_id = "" if record["image_id"] is None else str(record["image_id"])
    return _Row(name, size, int(label), str(generator), pair_id)


def _as_csv(rows: list[_Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_Row._fields, *rows])
    return text.getvalue().encode()


def _check_rows(rows: list[tuple[_Row, str]], fetch: HubFetch) -> None:
    counts = Counter(split for _, split in rows)
    labels = {(split, row.label) for row, split in rows}
    for split, sizes in fetch.dataset.split_sizes.items():
        if fetch.split not in (None, split):
            continue
        if counts[split] not in sizes:
            raise ValueError(
                f"Got {counts[split]} images in the part {split!r} of "
                f"{fetch.dataset.repo_id!r} at revision {fetch.revision!r} but "
                f"expected {' or '.join(map(str, sizes))}; pass the revision that the "
                "paper used or, if parquet files were copied by hand, copy those that "
                f"lack to {str(fetch.parquet)!r}."
            )
        if not {(split, 0), (split, 1)} <= labels:
            raise ValueError(
                f"Got images of one class in the part {split!r} of "
                f"{fetch.dataset.repo_id!r} but expected real and synthetic ones; pass "
                "the revision that has both."
            )


def _as_bunch(rows: list[tuple[_Row, str]], fetch: HubFetch) -> Bunch:
    descr = Path(__file__).parent / "descr" / f"{fetch.dataset.name}.rst"
    folder = str(fetch.images)
    return Bunch(
        # Objects, because one long path would widen every row of a str array.
        data=np.array(
            [os.path.join(folder, row.image) for row, _ in rows], dtype=object
        ),
        target=np.array([row.label for row, _ in rows], dtype=np.int64),
        generator=np.array([row.generator for row, _ in rows]),
        pair_id=np.array([row.pair_id for row, _ in rows]),
        split=np.array([split for _, split in rows]),
        target_names=list(TARGET_NAMES),
        DESCR=descr.read_text(encoding="utf-8"),
    )
