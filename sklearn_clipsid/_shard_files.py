"""Name, write and check the files of embedded shards, so that nothing half counts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple
from uuid import uuid4

FORMAT = 1
# Names keep five digits, as readers of this layout sort the files by name.
MAX_SHARDS = 100_000
# That may fill one folder at the same time.
MAX_RUNS = 10

PLAN = "manifest/plan.json"
PATH_ROWS = "manifest/path_rows.bin"
STORE = "manifest.json"
PARTIAL = "partial"
COUNTS = ("n_rows", "n_features", "n_failed")
OURS = re.compile(
    r"manifest\.json"
    r"|manifest/(manifest_\d{5}|encoder)\.json"
    r"|img_emb/img_emb_\d{5}\.npy"
    r"|metadata/metadata_\d{5}\.parquet"
    r"|manifest/path_rows\.bin"
    r"|partial/[0-9a-f]{32}"
)


def embeddings_name(index: int) -> str:
    """Return where the rows of a shard lie, as clip-retrieval names it."""
    return f"img_emb/img_emb_{index:05d}.npy"


def metadata_name(index: int) -> str:
    """Return where the paths of a shard lie, as clip-retrieval names it."""
    return f"metadata/metadata_{index:05d}.parquet"


def manifest_name(index: int) -> str:
    """Return where the file lies that makes a shard count."""
    return f"manifest/manifest_{index:05d}.json"


class ShardPlan(NamedTuple):
    """Which images lie in which shard."""

    n_images: int
    shard_size: int
    paths: str  # digest of all, in their order

    @classmethod
    def read(cls, content: Any) -> ShardPlan:
        """Check a plan that was read from a file.

        Parameters
        ----------
        content : dict
            As ``plan._asdict()``.

        Returns
        -------
        plan : ShardPlan

        Raises
        ------
        ValueError
            When it is none.
        """
        if not isinstance(content, dict) or content.keys() != set(cls._fields):
            raise ValueError("a plan needs " + ", ".join(cls._fields))
        plan = cls(**content)
        numbers = (plan.n_images, plan.shard_size)
        if not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError("numbers of images are whole and positive")
        if plan.n_shards > MAX_SHARDS:
            raise ValueError(f"there are at most {MAX_SHARDS} shards")
        return plan

    @property
    def n_shards(self) -> int:
        """How many shards there are."""
        return -(-self.n_images // self.shard_size)

    def rows(self, index: int) -> slice:
        """Return the rows of one shard."""
        start = index * self.shard_size
        return slice(start, min(start + self.shard_size, self.n_images))


class ShardFolder:
    """The files of one store, complete or not.

    Every file is written under a name of its own in a folder aside, flushed to the
    disk, and put in its place by renaming; a shard's manifest comes after its data.

    Parameters
    ----------
    root : str or PathLike
        The folder, which need not be there.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        # Workers may have another working directory.
        self.root = os.path.abspath(os.fspath(root))

    def path(self, name: str) -> str:
        """Return the path of a file of this folder."""
        return os.path.join(self.root, *name.split("/"))

    def claim(self, plan: ShardPlan, *, overwrite: bool) -> None:
        """Make the folder ready for a plan, or say why it cannot be.

        Parameters
        ----------
        plan : ShardPlan
            What will be embedded.

        overwrite : bool
            Whether shards of another plan or encoder make way.
        """
        with worded_write_errors(self.root):
            os.makedirs(self.root, exist_ok=True)
        there = self.read_plan()
        if there is None and (name := self._file_of_others()) is not None:
            there = self.read_plan()  # of a run that has begun in this moment
            if there is None:
                raise ValueError(
                    f"Got out_dir={self.root!r}, where {name!r} was not written by "
                    f"embed_to_shards ({PLAN} is missing or damaged), but expected a "
                    "new folder or one of its own; pass another folder. Nothing was "
                    "changed in this one."
                )
        if there not in (None, plan) and not overwrite:
            raise ValueError(
                f"Got {_described(plan, there)}, but expected those that "
                f"{self.root!r} was begun with; pass another folder, or "
                "overwrite=True to start it anew."
            )
        with worded_write_errors(self.root):
            if there is not None and overwrite:
                self.clear()
            if there != plan:
                self.write_json(PLAN, {"format": FORMAT, "plan": plan._asdict()})

    def read_plan(self) -> ShardPlan | None:
        """Return the plan that the folder was begun with, or None."""
        content = read_json(self.path(PLAN)) or {}
        with suppress(ValueError):
            return ShardPlan.read(content.get("plan"))
        return None

    def finished(self, plan: ShardPlan, index: int) -> dict[str, Any] | None:
        """Return the manifest of a shard that counts, or None.

        Parameters
        ----------
        plan : ShardPlan
            The images it must hold.

        index : int
            The shard.

        Returns
        -------
        manifest : dict or None
            None when it or a file is missing, torn, or of another plan.
        """
        manifest = read_json(self.path(manifest_name(index)))
        try:
            counts = (
                manifest is not None
                and manifest["plan"] == plan._asdict()
                and manifest["shard"] == index
                and all(type(manifest[key]) is int for key in COUNTS)
                and isinstance(manifest["fingerprint"], dict)
                and self.has_files(manifest["files"])
                and {embeddings_name(index), metadata_name(index)}
                == manifest["files"].keys()
            )
        except (AttributeError, KeyError, TypeError):
            return None
        return manifest if counts else None

    def is_whole(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether all files hold what was recorded; reads them."""
        with suppress(FileNotFoundError):
            return all(
                measured(self.path(name)) == recorded
                for name, recorded in files.items()
            )
        return False

    def has_files(self, files: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether all files are there in their recorded sizes."""
        with suppress(FileNotFoundError):
            return all(
                os.path.getsize(self.path(name)) == recorded["bytes"]
                for name, recorded in files.items()
            )
        return False

    def publish(
        self,
        index: int,
        writers: Mapping[str, Callable[[BinaryIO], None]],
        manifest: Mapping[str, Any],
        published_before: Callable[[], dict[str, Any] | None],
    ) -> dict[str, Any]:
        """Write the files of a shard and then its manifest.

        Parameters
        ----------
        index : int
            The shard.

        writers : dict of str -> callable
            For each file what writes it.

        manifest : dict
            What else to record.

        published_before : callable
            Returns the manifest of another attempt that makes this one superfluous, or
            None. Asked when only renaming is left to do.

        Returns
        -------
        manifest : dict
            The one that counts.
        """
        partials = {}
        try:
            for name, write in writers.items():
                partials[name] = self._write_aside(write)
            files = {name: measured(partial) for name, partial in partials.items()}
            if (before := published_before()) is not None:
                return before
            # From here until the end neither the store nor the shard counts.
            self.remove(STORE)
            self.remove(manifest_name(index))
            for name, partial in partials.items():
                self._put_in_place(partial, name)
            published = {**manifest, "files": files}
            self.write_json(manifest_name(index), published)
        finally:
            for partial in partials.values():
                with suppress(FileNotFoundError):
                    os.unlink(partial)
        return published

    def write(self, name: str, write: Callable[[BinaryIO], None]) -> dict[str, Any]:
        """Write one file, which is seen whole or not at all.

        Parameters
        ----------
        name : str
            The file.

        write : callable
            Takes the open file.

        Returns
        -------
        size_and_digest : dict
            As `measured` returns them.
        """
        for _ in range(MAX_RUNS):
            with suppress(FileNotFoundError):  # swept up by another run at its end
                return self._write_once(name, write)
        return self._write_once(name, write)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one JSON file, which is seen whole or not at all."""

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(content, indent=1, sort_keys=True).encode())

        self.write(name, write)

    def clear(self) -> None:
        """Remove what was written here, and first what makes it count."""
        self.remove(STORE)
        for folder in ("manifest", "img_emb", "metadata", PARTIAL):
            self._remove_ours(folder)

    def sweep(self) -> None:
        """Remove what killed attempts left."""
        self._remove_ours(PARTIAL)
        with suppress(OSError):  # another run writes there
            os.rmdir(self.path(PARTIAL))

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def _remove_ours(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            for entry in os.listdir(self.path(folder)):
                if OURS.fullmatch(f"{folder}/{entry}"):
                    self.remove(f"{folder}/{entry}")

    def _file_of_others(self) -> str | None:
        for name in ("img_emb", "metadata", "manifest", STORE):
            path = self.path(name)
            is_empty = os.path.isdir(path) and not os.listdir(path)
            if os.path.lexists(path) and not is_empty:
                return name
        return None

    def _write_once(
        self, name: str, write: Callable[[BinaryIO], None]
    ) -> dict[str, Any]:
        partial = self._write_aside(write)
        try:
            size_and_digest = measured(partial)
            self._put_in_place(partial, name)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)
        return size_and_digest

    def _write_aside(self, write: Callable[[BinaryIO], None]) -> str:
        os.makedirs(self.path(PARTIAL), exist_ok=True)
        partial = self.path(f"{PARTIAL}/{uuid4().hex}")
        try:
            with open(partial, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(partial)
            raise
        return partial

    def _put_in_place(self, partial: str, name: str) -> None:
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        os.replace(partial, self.path(name))


@contextmanager
def worded_write_errors(root: str) -> Iterator[None]:
    """Say what a full disk or a forbidden folder means for the shards."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"Could not write to the folder {root!r} ({error.strerror or error}); make "
            "room or pass a folder that can be written. Finished shards are kept.",
        ) from error


def read_json(path: str) -> dict[str, Any] | None:
    """Return what a JSON file says, or None where it is missing or torn."""
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def measured(path: str) -> dict[str, Any]:
    """Return the size of a file in "bytes" and its digest in "blake2b"."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
    return {"bytes": os.path.getsize(path), "blake2b": digest.hexdigest()}


def _described(plan: ShardPlan, there: ShardPlan) -> str:
    """Name what a plan does not share with the one that is there."""
    if plan.shard_size != there.shard_size:
        return f"shard_size={plan.shard_size} instead of {there.shard_size}"
    if plan.n_images != there.n_images:
        return f"{plan.n_images} paths instead of {there.n_images}"
    return f"{plan.n_images} other paths, or the same in another order"
