"""List the parquet files of a data set on a hub, and download what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from sklearn_clipsid._optional import import_optional
from sklearn_clipsid.datasets._hub_fetch import HubFetch

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


class HubFile(NamedTuple):
    """A parquet file of the repository."""

    path: str
    size: int
    sha256: str | None  # None where the hub declares none, or the file was copied


def list_files(fetch: HubFetch) -> tuple[str, dict[HubFile, str]]:
    """List the parquet files, as they were when they were first asked for.

    Parameters
    ----------
    fetch : HubFetch
        What, and how.

    Returns
    -------
    commit : str
        Which the files are of, "" where they were copied by hand.

    splits : dict of str
        Part of the data set that each of the files that are wanted belongs to.
    """
    listing = fetch.version / "files.json"
    if listing.is_file():
        known = json.loads(listing.read_text(encoding="utf-8"))
        commit, files = known["commit"], [HubFile(*file) for file in known["files"]]
    elif fetch.download_if_missing:
        commit, files = _ask_hub(fetch)
        text = json.dumps({"commit": commit, "files": files}, indent=1)
        with lock(fetch):
            write(listing, text.encode())
    else:
        commit, files = "", _list_copied_files(fetch)
    splits = {
        file: split
        for split in fetch.dataset.split_sizes
        for file in files
        if _splits_of(file.path) == {split} and fetch.split in (None, split)
    }
    return commit, splits


def _ask_hub(fetch: HubFetch) -> tuple[str, list[HubFile]]:
    hub = import_optional("huggingface_hub", extra="datasets", caller=fetch.caller)
    api = hub.HfApi(endpoint=fetch.endpoint)
    repo = fetch.dataset.repo_id
    info = _retry(
        lambda: api.dataset_info(repo, revision=fetch.revision, files_metadata=True),
        f"the list of files of {repo!r} at revision {fetch.revision!r}",
        fetch,
    )
    files = [
        HubFile(
            _safe_path(file.rfilename, repo),
            file.size,
            file.lfs["sha256"] if file.lfs else None,
        )
        for file in sorted(info.siblings, key=lambda file: file.rfilename)
        if file.rfilename.endswith(".parquet")
    ]
    if not files:
        raise ValueError(
            f"Got no parquet files in {repo!r} at revision {fetch.revision!r} but "
            "expected those of the images; pass another revision."
        )
    return info.sha, files


def _list_copied_files(fetch: HubFetch) -> list[HubFile]:
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
    return [HubFile(path, size, None) for path, size in sorted((done | copied).items())]


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


def lock(fetch: HubFetch) -> Any:
    """Return what keeps two calls from writing at once.

    Parameters
    ----------
    fetch : HubFetch
        Of the data set that is locked.

    Returns
    -------
    lock : context manager
        Entering waits for the other call.
    """
    filelock = import_optional("filelock", extra="datasets", caller=fetch.caller)
    fetch.folder.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(fetch.folder / ".lock")


def write(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, under the lock.

    Parameters
    ----------
    path : Path
        The file.

    data : bytes
        What it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".part")  # one name, so that no rubbish collects
    part.write_bytes(data)
    os.replace(part, path)


def download_file(
    file: HubFile, commit: str, fetch: HubFetch, tell: Callable[[int], None]
) -> None:
    """Append to the part that is there until it is the file that the hub declares.

    Parameters
    ----------
    file : HubFile
        Which to download.

    commit : str
        Of the repository.

    fetch : HubFetch
        How.

    tell : callable
        Called with the number of bytes that are there, also when it falls.
    """
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
        _check_part(part, file, repo)

    _retry(append, f"the file {file.path!r} of {repo!r}", fetch)
    os.replace(part, fetch.parquet / file.path)


def _blocks(remote: Any, start: int, file: HubFile) -> Iterator[bytes]:
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


def _check_part(part: Path, file: HubFile, repo: str) -> None:
    size = part.stat().st_size
    with open(part, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if size != file.size or file.sha256 not in (None, digest):
        part.unlink()  # or each later try would fail as well
        raise OSError(
            f"Got {size} bytes with the sha256 {digest} for {file.path!r} of {repo!r} "
            f"but expected {file.size} bytes with {file.sha256 or 'any'}; try again."
        )


def _retry(action: Callable[[], Any], what: str, fetch: HubFetch) -> Any:
    for n_left in range(fetch.n_retries, -1, -1):
        try:
            return action()
        # The hub client raises from several libraries, and any may be passing.
        except Exception as error:
            if n_left == 0:
                reason = " ".join(str(error).split()) or repr(error)
                raise OSError(
                    f"Could not get {what} ({reason}). Call {fetch.caller} again: it "
                    "goes on where it stopped. On a machine without access, copy the "
                    f"repository's parquet files to {str(fetch.parquet)!r} and pass "
                    "download_if_missing=False."
                ) from error
        time.sleep(fetch.delay)
