"""Read the embeddings of millions of images from disk, a few rows at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid._path_rows import PathRows, as_paths, path_keys
from sklearn_clipsid._shard_contents import COLUMNS
from sklearn_clipsid._shard_files import (
    FORMAT,
    PATH_ROWS,
    STORE,
    ShardFolder,
    ShardPlan,
    embeddings_name,
    metadata_name,
    read_json,
)

# Shards that stay mapped, each with an open file; of more, all are let go and mapped
# again when they are needed.
MAX_MAPPED = 64


class EmbeddingStore:
    """Embeddings that `embed_to_shards` wrote, read from disk as they are needed.

    Opening reads one small file. Rows come from memory maps, so that a store may be
    larger than the memory, and processes of one machine share what they have read. It
    is immutable: clones of an estimator share it, and a copy sent to another process
    is the folder's name, opened again there.

    Parameters
    ----------
    out_dir : str or PathLike
        The folder.

    Attributes
    ----------
    folder : str
        Its absolute path.

    shape : tuple of int
        (n_images, n_features).

    fingerprint : dict of str
        The encoder and its settings, as ``CLIPEmbedder.fingerprint_``.

    n_failed : int
        Images that could not be read; their rows are NaN.

    See Also
    --------
    embed_to_shards : Writes it.
    PrecomputedEmbedder : Puts it in the place of CLIPEmbedder.

    Notes
    -----
    Rows are stored as float16, which keeps three significant digits, and returned as
    float32. Files are those of clip-retrieval, which can index them:
    ``img_emb/img_emb_00000.npy`` with ``metadata/metadata_00000.parquet``.

    Opening checks that every file is there in its recorded size; `verify` reads them
    all.

    Examples
    --------
    Train on more rows than the memory holds:

    >>> from sklearn.linear_model import SGDClassifier
    >>> from sklearn.utils import gen_batches
    >>> from sklearn_clipsid import EmbeddingStore
    >>> store = EmbeddingStore("embeddings")  # doctest: +SKIP
    >>> detector = SGDClassifier(loss="log_loss")
    >>> for rows in gen_batches(len(store), 10_000):  # doctest: +SKIP
    ...     detector.partial_fit(store.take(rows), y[rows], classes=[0, 1])
    """

    folder: str
    shape: tuple[int, int]
    fingerprint: dict[str, str]
    n_failed: int

    def __init__(self, out_dir: str | os.PathLike) -> None:
        if not isinstance(out_dir, (str, os.PathLike)):
            raise TypeError(
                f"Got out_dir={out_dir!r:.60} but expected the path of a folder that "
                "embed_to_shards wrote."
            )
        self._files = ShardFolder(out_dir)
        self.folder = self._files.root
        manifest = _read_store(self._files)
        self._plan: ShardPlan = manifest["plan"]
        self._recorded: dict[str, dict[str, Any]] = manifest["files"]
        self._failed_in: dict[int, int] = manifest["failed"]
        self.shape = (self._plan.n_images, manifest["n_features"])
        self.fingerprint = dict(manifest["fingerprint"])
        self.n_failed = sum(self._failed_in.values())
        self._identity: str = manifest["identity"]
        self._maps: dict[int, np.ndarray] = {}
        self._path_rows: PathRows | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"EmbeddingStore({self.folder!r})"

    def __sklearn_clone__(self) -> EmbeddingStore:
        return self

    def __reduce__(self) -> tuple[Callable[..., EmbeddingStore], tuple[str, str]]:
        return _reopened, (self.folder, self._identity)

    @property
    def paths(self) -> Any:
        """Paths of all images, as a `pyarrow.ChunkedArray` of shape (n_images,).

        A path takes as many bytes as it has characters there, a third of what it takes
        as a Python string; ``store.paths.to_pylist()`` makes strings.
        """
        return self.metadata(["image_path"]).column("image_path")

    def take(self, indices: Any) -> np.ndarray:
        """Read rows.

        Parameters
        ----------
        indices : slice or array-like of int or bool of shape (n_taken,)
            Which ones, as numpy takes rows; negative indices are refused.

        Returns
        -------
        rows : ndarray of shape (n_taken, n_features), dtype float32
            In the order of `indices`.
        """
        indices = self._as_indices(indices)
        rows = np.empty((len(indices), self.shape[1]), dtype=np.float32)
        shards = indices // self._plan.shard_size
        order = np.argsort(indices, kind="stable")  # files are read forwards
        edges = np.flatnonzero(np.diff(shards[order])) + 1
        for part in np.split(order, edges):
            if len(part) == 0:
                continue
            shard = int(shards[part[0]])
            local = indices[part] - shard * self._plan.shard_size
            rows[part] = self._mapped(shard)[local]  # (n_part, n_features)
        return rows

    def index_of(self, paths: Any) -> np.ndarray:
        """Find rows by path.

        Parameters
        ----------
        paths : sequence of str or PathLike of shape (n_wanted,)
            Written as they were given to `embed_to_shards`: a relative path is another
            one than the absolute path of the same file.

        Returns
        -------
        indices : ndarray of shape (n_wanted,), dtype int64
            Row of each path, the first one where the store holds it twice.

        Raises
        ------
        ValueError
            When a path is not in the store; the first few are named.
        """
        paths = as_paths(paths)
        if self._path_rows is None:
            self._path_rows = PathRows(self._files.path(PATH_ROWS), len(self))
        indices = self._path_rows.find(path_keys(paths))  # (n_wanted,)
        missing = np.flatnonzero(indices < 0)
        if len(missing):
            known = self._shard_metadata(0, ["image_path"]).column(0)[0].as_py()
            named = first_few([repr(paths[i]) for i in missing])
            raise ValueError(
                f"Got {len(missing)} of {len(paths)} paths that are not in the store "
                f"{self.folder!r} ({named}), but expected them as they were embedded, "
                f"such as {known!r}; embed the others too, or write the paths alike."
            )
        return indices

    def metadata(self, columns: Sequence[str] | None = None) -> Any:
        """Read what is known about each image.

        Parameters
        ----------
        columns : sequence of str, default=None
            Any of "image_path", "content_hash", "status" ("success" or "failed") and
            "error" (why an image could not be read, else null). None for all.

        Returns
        -------
        metadata : pyarrow.Table of n_images rows
            In the order of the rows.
        """
        columns = list(COLUMNS) if columns is None else columns
        if isinstance(columns, str) or not set(columns) <= set(COLUMNS):
            raise ValueError(
                f"Got columns={columns!r} but expected a list of some of "
                f"{', '.join(COLUMNS)}."
            )
        pyarrow = import_optional(
            "pyarrow", extra="distributed", caller="EmbeddingStore.metadata"
        )
        return pyarrow.concat_tables(
            self._shard_metadata(index, columns) for index in range(self._plan.n_shards)
        )

    def failures(self, indices: Any = None) -> dict[int, str]:
        """Tell why images could not be read.

        Parameters
        ----------
        indices : slice or array-like of int or bool, default=None
            Rows to look at, as in `take`. None for all.

        Returns
        -------
        failures : dict of int -> str
            The reason for each row that is NaN, in the order of the store.
        """
        indices = self._as_indices(slice(None) if indices is None else indices)
        failures: dict[int, str] = {}
        shards = indices // self._plan.shard_size
        for shard in sorted(self._failed_in.keys()):
            wanted = np.unique(indices[shards == shard])
            if len(wanted) == 0:
                continue
            errors = self._shard_metadata(shard, ["error"]).column("error").to_pylist()
            start = shard * self._plan.shard_size
            failures |= {
                index: errors[index - start]
                for index in wanted.tolist()
                if errors[index - start] is not None
            }
        return failures

    def verify(self) -> None:
        """Read every file and compare it with the digest of what was written.

        Raises
        ------
        ValueError
            When files have changed; the first few are named.
        """
        changed = [
            name
            for name, recorded in self._recorded.items()
            if not self._files.is_whole({name: recorded})
        ]
        if changed:
            raise ValueError(
                f"Got {len(changed)} files in {self.folder!r} that are not those which "
                f"were written ({first_few(changed)}); copy them again, or remove them "
                "and call embed_to_shards with the same paths."
            )

    def _as_indices(self, indices: Any) -> np.ndarray:
        n_rows = len(self)
        if isinstance(indices, slice):
            return np.arange(*indices.indices(n_rows), dtype=np.int64)
        array = np.asarray(indices)
        if array.dtype == bool and array.shape == (n_rows,):
            return np.flatnonzero(array)
        if array.size == 0 and array.ndim == 1:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"Got indices of shape {array.shape} and dtype {array.dtype} but "
                f"expected a slice, whole numbers of shape (n_taken,) or bool of shape "
                f"({n_rows},); find rows by path with index_of()."
            )
        outside = array[(array < 0) | (array >= n_rows)]
        if len(outside):
            raise IndexError(
                f"Got index {outside[0]} but expected 0 to {n_rows - 1}; the store has "
                f"{n_rows} rows."
            )
        return array.astype(np.int64)

    def _mapped(self, shard: int) -> np.ndarray:
        rows = self._maps.get(shard)
        if rows is not None:
            return rows
        name = embeddings_name(shard)
        held = self._plan.rows(shard)
        expected = (held.stop - held.start, self.shape[1])
        try:
            rows = np.load(self._files.path(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{name} cannot be read: {error}") from error
        if rows.shape != expected or rows.dtype != np.float16:
            found = f"{name} holds {rows.dtype} of shape {rows.shape}"
            raise _damaged(self.folder, f"{found}, not float16 of {expected}")
        if len(self._maps) >= MAX_MAPPED:
            self._maps = {}
        self._maps[shard] = rows
        return rows

    def _shard_metadata(self, shard: int, columns: Sequence[str]) -> Any:
        parquet = import_optional(
            "pyarrow.parquet", extra="distributed", caller="EmbeddingStore"
        )
        name = metadata_name(shard)
        held = self._plan.rows(shard)
        try:
            with open(self._files.path(name), "rb") as file:
                table = parquet.ParquetFile(file).read(columns=list(columns))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise _damaged(self.folder, f"{name} cannot be read: {error}") from error
        if table.num_rows != held.stop - held.start:
            raise _damaged(self.folder, f"{name} holds {table.num_rows} rows")
        return table


def _read_store(files: ShardFolder) -> dict[str, Any]:
    """Read and check the manifest of a complete store."""
    content = read_json(files.path(STORE))
    if content is None:
        raise _incomplete(files)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"Got {files.root!r} in format {content.get('format')!r} but expected "
            f"{FORMAT}; install the sklearn_clipsid that wrote it."
        )
    try:
        plan = ShardPlan.read(content["plan"])
        recorded = {
            name: {"bytes": int(of["bytes"]), "blake2b": str(of["blake2b"])}
            for name, of in content["files"].items()
        }
        names = {PATH_ROWS}
        for index in range(plan.n_shards):
            names |= {embeddings_name(index), metadata_name(index)}
        if names != recorded.keys():
            raise ValueError("it does not list the files of its shards")
        manifest = {
            "plan": plan,
            "files": recorded,
            "n_features": int(content["n_features"]),
            "fingerprint": {str(k): str(v) for k, v in content["fingerprint"].items()},
            "failed": {int(k): int(v) for k, v in content["failed"].items()},
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(files.root, f"{STORE} says {error}") from error
    if not files.has_files(recorded):
        raise _damaged(files.root, "files are missing or of another size")
    described = repr(sorted((k, repr(v)) for k, v in manifest.items())).encode()
    return {**manifest, "identity": blake2b(described, digest_size=16).hexdigest()}


def _incomplete(files: ShardFolder) -> ValueError:
    plan = files.read_plan()
    if plan is None:
        return ValueError(
            f"Got {files.root!r}, which holds no {STORE}, but expected a folder that "
            "embed_to_shards wrote; check the path."
        )
    shards = range(plan.n_shards)
    n_finished = sum(files.finished(plan, index) is not None for index in shards)
    return ValueError(
        f"Got {files.root!r}, which is not complete: {n_finished} of {plan.n_shards} "
        "shards are finished; run embed_to_shards again with the same paths."
    )


def _damaged(folder: str, what: str) -> ValueError:
    return ValueError(
        f"Got {folder!r}, a damaged store: {what}. Run embed_to_shards again with the "
        "same paths, which redoes the shards whose files are gone or cut, or copy the "
        "folder again."
    )


def _reopened(folder: str, identity: str) -> EmbeddingStore:
    """Open a store in another process, where nothing else may lie by now."""
    store = EmbeddingStore(folder)
    if store._identity != identity:
        raise ValueError(
            f"Got {folder!r}, which was overwritten since this copy of the store was "
            "made, but expected the same embeddings; open it anew with EmbeddingStore."
        )
    return store
