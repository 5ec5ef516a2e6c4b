"""Fetch data sets whose images lie in parquet files on a hub, and write them out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.datasets._label_words import TARGET_NAMES

_COLUMNS = ("image", "label", "image_id", "source", "ds_name")
_LEAVES = ("image.bytes", *_COLUMNS[1:])
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
# What a broken connection costs at most, and what one request returns.
_BLOCK_BYTES = 32 * 2**20
_BATCH_ROWS = 8
_DIGEST_BYTES = {64: "sha256", 40: "sha1"}
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

# Of every fetcher.
FETCH_CONSTRAINTS: dict[str, list[Any]] = {
    "data_home": [str, os.PathLike, None],
    "split": [StrOptions({"train", "validation", "test"}), None],
    "download_if_missing": ["boolean"],
    "revision": [str],
    "n_retries": [Interval(Integral, 0, None, closed="left")],
    "delay": [Interval(Real, 0, None, closed="left")],
    "endpoint": [str, None],
    "verbose": ["verbose"],
}


class HubDataset(NamedTuple):
    """What is known about a data set before it is fetched."""

    name: str  # of its folder and its description
    repo_id: str
    split_sizes: dict[str, tuple[int, ...]]  # numbers of images that are published


class _File(NamedTuple):
    """A parquet file of the repository."""

    path: str
    size: int
    # sha256, or the sha1 of a file that git itself keeps; None if copied by hand.
    digest: str | None


class _Row(NamedTuple):
    """An image that was written out, and what its row says about it."""

    image: str
    size: int
    label: int
    generator: str
    pair_id: str
    ds_name: str


@dataclass(frozen=True, kw_only=True)
class HubFetch:
    """One call of a fetcher, with its parameters."""

    dataset: HubDataset
    caller: str
    data_home: str | os.PathLike[str] | None
    split: str | None
    download_if_missing: bool
    revision: str
    n_retries: int
    delay: float
    endpoint: str | None
    verbose: bool | int

    @property
    def folder(self) -> Path:
        """Where everything of the data set lies."""
        return Path(get_data_home(self.data_home), "clipsid", self.dataset.name)

    @property
    def images(self) -> Path:
        """Where the images of all revisions lie, named for their contents."""
        return self.folder / "images"

    @property
    def version(self) -> Path:
        """Where the list of files and the tables of this revision lie."""
        return self.folder / quote(self.revision, safe="")

    @property
    def parquet(self) -> Path:
        """Where parquet files lie until their images are written out."""
        return self.version / "parquet"


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
    commit, files = _list_files(fetch)
    wanted = {
        file: split
        for split in fetch.dataset.split_sizes
        for file in files
        if _splits_of(file.path) == {split} and fetch.split in (None, split)
    }
    tables = {file: _read_table(file, fetch) for file in wanted}
    missing = [file for file, rows in tables.items() if rows is None]
    if missing:
        tables |= _write_out(missing, commit, fetch)
    rows = [
        (row, split) for file, split in wanted.items() for row in tables[file] or ()
    ]
    _check_rows(rows, fetch)
    return _as_bunch(rows, fetch)


def _list_files(fetch: HubFetch) -> tuple[str, list[_File]]:
    """Return the commit and the parquet files, as they were when first asked for."""
    listing = fetch.version / "files.json"
    if listing.is_file():
        known = json.loads(listing.read_text(encoding="utf-8"))
        return known["commit"], [_File(*file) for file in known["files"]]
    if not fetch.download_if_missing:
        return "", _list_copied_files(fetch)
    hub = import_optional("huggingface_hub", extra="datasets", caller=fetch.caller)
    api = hub.HfApi(endpoint=fetch.endpoint)
    repo = fetch.dataset.repo_id
    info = _retry(
        lambda: api.dataset_info(repo, revision=fetch.revision, files_metadata=True),
        f"the list of files of {repo!r} at revision {fetch.revision!r}",
        fetch,
    )
    files = [
        _File(
            _safe_path(file.rfilename, repo),
            file.size,
            file.lfs["sha256"] if file.lfs else file.blob_id,
        )
        for file in sorted(info.siblings, key=lambda file: file.rfilename)
        if file.rfilename.endswith(".parquet")
    ]
    if not files:
        raise ValueError(
            f"Got no parquet files in {repo!r} at revision {fetch.revision!r} but "
            "expected those of the images; pass another revision."
        )
    listed = json.dumps({"repo_id": repo, "commit": info.sha, "files": files}, indent=1)
    with _lock(fetch):
        _write(listing, listed.encode())
    return info.sha, files


def _list_copied_files(fetch: HubFetch) -> list[_File]:
    """List what was copied here by hand, and what was written out of such copies."""
    copied = {
        path.relative_to(fetch.parquet).as_posix(): path.stat().st_size
        for path in fetch.parquet.rglob("*.parquet")
    }
    done = {unquote(path.stem): 0 for path in fetch.version.glob("tables/*.csv")}
    if not copied and not done:
        raise OSError(
            f"Got download_if_missing=False but nothing of {fetch.dataset.repo_id!r} "
            f"in {str(fetch.version)!r}; allow the download, or copy the parquet files "
            f"of that repository to {str(fetch.parquet)!r}."
        )
    return [_File(path, size, None) for path, size in sorted((done | copied).items())]


def _safe_path(path: str, repo: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or re.search(r"[\\:]", path):
        raise ValueError(
            f"Got the file {path!r} in {repo!r}, which would be written outside of "
            "its folder; do not use this repository."
        )
    return path


def _splits_of(path: str) -> set[str]:
    # "data/train-00000-of-00004.parquet", or "default/train/0000.parquet". Others are
    # tables beside the images, or the sizes of the parts will not be right.
    words = set(re.split("[^a-z]+", path.lower()))
    return {_SPLIT_WORDS[word] for word in words & set(_SPLIT_WORDS)}


def _table(file: _File, fetch: HubFetch) -> Path:
    # It is there once all images of the parquet file are.
    return fetch.version / "tables" / (quote(file.path, safe="") + ".csv")


def _read_table(file: _File, fetch: HubFetch) -> list[_Row] | None:
    """Read the rows of a parquet file, None unless all images are there."""
    path = _table(file, fetch)
    if not path.is_file():
        return None
    with open(path, encoding="utf-8", newline="") as stream:
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
    files: list[_File], commit: str, fetch: HubFetch
) -> dict[_File, list[_Row]]:
    """Download files, write out their images, and return their rows."""
    tqdm = import_optional("tqdm", extra="datasets", caller=fetch.caller)
    tables: dict[_File, list[_Row]] = {}
    with (
        _lock(fetch),
        tqdm.tqdm(
            total=sum(file.size for file in files),
            desc=fetch.dataset.name,
            unit="B",
            unit_scale=True,
            delay=5,  # seconds, below which nobody wants to see a bar
            disable=not fetch.verbose,
        ) as bar,
    ):
        for file in files:
            start = sum(done.size for done in tables)
            # Another call may have been faster.
            rows = _read_table(file, fetch)
            if rows is None:
                parquet = fetch.parquet / file.path
                if not parquet.is_file():
                    _download(file, commit, fetch, partial(_advance, bar, start))
                rows = _unpack(parquet, fetch)
                _write_table(rows, _table(file, fetch))
                parquet.unlink()
            tables[file] = rows
            _advance(bar, start, file.size)
    return tables


def _lock(fetch: HubFetch) -> Any:
    # Two calls would download the same files, and append to the same parts.
    filelock = import_optional("filelock", extra="datasets", caller=fetch.caller)
    fetch.folder.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(fetch.folder / ".lock")


def _advance(bar: Any, start: int, n_bytes: int) -> None:
    bar.update(start + n_bytes - bar.n)  # back as well, when a part is given up


def _download(
    file: _File, commit: str, fetch: HubFetch, tell: Callable[[int], None]
) -> None:
    """Append to the part that is there until it is the file that the hub declares."""
    repo = fetch.dataset.repo_id
    if not fetch.download_if_missing:
        raise OSError(
            f"Got download_if_missing=False but not all images of {file.path!r} of "
            f"{repo!r} in {str(fetch.images)!r}; allow the download, or copy that file "
            f"to {str(fetch.parquet / file.path)!r}."
        )
    hub = import_optional("huggingface_hub", extra="datasets", caller=fetch.caller)
    part = fetch.parquet / (file.path + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)

    def append() -> None:
        # Each call asks for the rest. The hub client's own download would begin a
        # file that was interrupted from the start.
        remote = hub.HfFileSystem(endpoint=fetch.endpoint, skip_instance_cache=True)
        with open(part, "ab") as local:
            tell(local.tell())
            if local.tell() < file.size:
                name = f"datasets/{repo}@{commit}/{file.path}"
                with remote.open(name, block_size=_BLOCK_BYTES, cache_type="none") as f:
                    for block in _blocks(f, local.tell(), file):
                        local.write(block)
                        local.flush()
                        tell(local.tell())
        _check_digest(part, file, repo)

    _retry(append, f"the file {file.path!r} of {repo!r}", fetch)
    os.replace(part, fetch.parquet / file.path)


def _blocks(remote: Any, start: int, file: _File) -> Iterator[bytes]:
    remote.seek(start)
    while start < file.size:
        n_bytes = min(_BLOCK_BYTES, file.size - start)
        block = remote.read(n_bytes)
        # A server that knows no ranges would answer with the whole file.
        if len(block) != n_bytes:
            raise OSError(
                f"Got {len(block)} bytes at byte {start} of {file.path!r} but expected "
                f"{n_bytes}; use an endpoint that serves ranges of bytes."
            )
        yield block
        start += n_bytes


def _check_digest(part: Path, file: _File, repo: str) -> None:
    assert file.digest is not None  # of files that are downloaded
    size = part.stat().st_size
    kind = _DIGEST_BYTES[len(file.digest)]
    # Git puts this before what it hashes.
    start = b"" if kind == "sha256" else b"blob %d\0" % size
    with open(part, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(kind, start))
    if (size, digest.hexdigest()) != (file.size, file.digest):
        part.unlink()  # or each later try would fail as well
        raise OSError(
            f"Got {size} bytes with the {kind} {digest.hexdigest()} for {file.path!r} "
            f"of {repo!r} but expected {file.size} bytes with {file.digest}; try again."
        )


def _retry(action: Callable[[], Any], what: str, fetch: HubFetch) -> Any:
    for n_left in range(fetch.n_retries, -1, -1):
        try:
            return action()
        # The hub client raises from several libraries, and any may be passing.
        except Exception as error:
            if n_left == 0:
                reason = next(iter(str(error).strip().splitlines()), repr(error))
                raise OSError(
                    f"Could not get {what} ({reason}). Call {fetch.caller} again: it "
                    "goes on where it stopped. On a machine without access, copy the "
                    f"repository's parquet files to {str(fetch.parquet)!r} and pass "
                    "download_if_missing=False."
                ) from error
        time.sleep(fetch.delay)


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
                    _write(fetch.images / name, data)
                rows.append(_as_row(record, name, len(data), where))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"Got {str(parquet)!r}, which cannot be read ({error}), but expected a "
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
    pair_id, ds_name = (
        "" if record[key] is None else str(record[key])
        for key in ("image_id", "ds_name")
    )
    return _Row(name, size, int(label), str(generator), pair_id, ds_name)


def _write_table(rows: list[_Row], path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_Row._fields, *rows])
    _write(path, text.getvalue().encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".part")  # one name, so that no rubbish collects
    part.write_bytes(data)
    os.replace(part, path)


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
        ds_name=np.array([row.ds_name for row, _ in rows]),
        target_names=list(TARGET_NAMES),
        DESCR=descr.read_text(encoding="utf-8"),
        folder=folder,
    )
