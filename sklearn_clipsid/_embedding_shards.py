"""Embed millions of images into shards, on as many machines as there are."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from hashlib import blake2b
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from sklearn_clipsid._embedding_store import EmbeddingStore
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._model_card import package_versions
from sklearn_clipsid._optional import import_optional
from sklearn_clipsid._path_rows import as_paths, path_keys, path_rows_writer
from sklearn_clipsid._progress import RowProgress
from sklearn_clipsid._shard_contents import as_half, metadata_writer, rows_writer
from sklearn_clipsid._shard_encoder import agree_on_encoder, refuse_other_encoder
from sklearn_clipsid._shard_files import (
    FORMAT,
    MAX_SHARDS,
    PATH_ROWS,
    STORE,
    ShardFolder,
    ShardPlan,
    embeddings_name,
    metadata_name,
    worded_write_errors,
)
from sklearn_clipsid._warn_user import warn_user

_PARAMETER_CONSTRAINTS = {
    "out_dir": [str, os.PathLike],
    "shard_size": [Interval(Integral, 1, None, closed="left")],
    "overwrite": ["boolean"],
    "n_jobs": [Integral, None],
}
# Two attempts at one shard may mix their files; each looks afterwards and repairs.
MAX_ATTEMPTS = 3


def embed_to_shards(
    embedder: Any,
    paths: Any,
    out_dir: str | os.PathLike,
    shard_size: int = 10_000,
    overwrite: bool = False,
    *,
    n_jobs: int | None = None,
) -> EmbeddingStore:
    """Embed images into files, one shard after another.

    A shard counts once it is complete. Whatever stops the work, the same call goes on
    where it was: finished shards are never redone.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Which features; it is not changed. Its cache is neither read nor written.

        Its `on_error` decides about images that cannot be read. "raise" names those of
        the first shard that has any, and leaves that shard out. "nan" gives them rows
        of NaN, records the reasons and warns once. Called with "raise" again, for
        instance after their repair, shards with such rows are redone.

    paths : sequence of str or PathLike of shape (n_images,)
        The images, in a list, a 1-D array, a Series or a frame of one column. Rows are
        found again by the paths as they are written here.

    out_dir : str or PathLike
        The folder, which all workers must be able to write: a new one, or one that was
        begun with the same paths, shard size and encoder.

    shard_size : int, default=10_000
        Images per shard. What is in work when a worker dies is lost.

    overwrite : bool, default=False
        Whether to remove the shards that `out_dir` holds and start anew.

    n_jobs : int, default=None
        Shards that are embedded at once, each in a process of its own. None means 1
        unless in a :func:`joblib.parallel_config` context, which also chooses where:
        ``backend="dask"`` spreads the shards over the workers of a cluster. -1 means
        all cores, which is rarely right: each process holds the model.

    Returns
    -------
    store : EmbeddingStore
        The rows of all images, read from disk as they are needed.

    See Also
    --------
    EmbeddingStore : Reads the shards.
    PrecomputedEmbedder : Puts them in the place of the embedder in a pipeline.

    Notes
    -----
    Shard i is ``img_emb/img_emb_0000i.npy``, float16 of shape (n_rows, n_features), and
    ``metadata/metadata_0000i.parquet`` with the columns image_path, content_hash
    (``hashlib.blake2b(data, digest_size=20, person=b"file")``), status ("success" or
    "failed") and error: the layout of clip-retrieval, whose tools read it as it is.

    Each worker process loads the model once. A worker uses the first GPU that it sees:
    start one worker per GPU, with ``CUDA_VISIBLE_DEVICES`` set.

    With ``precision="auto"`` workers of different hardware would take different
    precisions; the first one to begin decides, and the others stop with an error.

    Examples
    --------
    >>> from sklearn_clipsid import CLIPEmbedder, embed_to_shards
    >>> embedder = CLIPEmbedder(precision="bf16", on_error="nan")
    >>> store = embed_to_shards(embedder, paths, "embeddings")  # doctest: +SKIP

    On the machines of a Dask cluster:

    >>> import joblib
    >>> from dask.distributed import Client  # doctest: +SKIP
    >>> client = Client("scheduler:8786")  # doctest: +SKIP
    >>> with joblib.parallel_config(backend="dask"):  # doctest: +SKIP
    ...     store = embed_to_shards(embedder, paths, "/shared/embeddings")
    """
    import_optional("pyarrow.parquet", extra="distributed", caller="embed_to_shards")
    validate_parameter_constraints(
        _PARAMETER_CONSTRAINTS,
        {
            "out_dir": out_dir,
            "shard_size": shard_size,
            "overwrite": overwrite,
            "n_jobs": n_jobs,
        },
        caller_name="embed_to_shards",
    )
    paths = as_paths(paths)
    keys = path_keys(paths)
    plan = _plan(keys, int(shard_size))
    if not os.fspath(out_dir):
        raise ValueError("Got out_dir='' but expected a folder; pass '.' for this one.")
    files = ShardFolder(out_dir)
    job = _job(embedder, files, plan)
    if overwrite:
        # An encoder that cannot be loaded must not cost the shards that are there.
        list(Parallel(n_jobs=n_jobs)([delayed(job.embedder.fit)(paths[:1])]))
    files.claim(plan, overwrite=overwrite)
    finished = {
        index: manifest
        for index in range(plan.n_shards)
        if (manifest := _finished(job, index)) is not None
    }
    try:
        if finished:
            agree_on_encoder(files, next(iter(finished.values()))["fingerprint"])
        _embed_those_left(job, paths, finished, embedder, n_jobs)
        store = _completed(job, finished, keys)
    except BaseException as error:
        error.add_note(
            f"{len(finished)} of {plan.n_shards} shards are finished in "
            f"{files.root!r}; the same call goes on from there."
        )
        raise
    _warn_of_failures(store, paths)
    return store


class _Job(NamedTuple):
    """What is the same for all shards."""

    embedder: Any  # unfitted, silent, without a cache, and lets every image pass
    fitted: dict[str, str] | None  # fingerprint of the embedder as it was given
    keep_failed: bool  # whether a shard with unreadable images counts
    files: ShardFolder
    plan: ShardPlan
    folder: str  # that relative paths start from


def _job(embedder: Any, files: ShardFolder, plan: ShardPlan) -> _Job:
    if not hasattr(embedder, "_embed_apart"):
        raise TypeError(
            f"Got {type(embedder).__name__} but expected a CLIPEmbedder; of a pipeline "
            "pass its first step, such as pipeline[0]."
        )
    return _Job(
        embedder=clone(embedder).set_params(
            cache_dir=None, on_error="nan", verbose=False
        ),
        fitted=getattr(embedder, "fingerprint_", None),
        keep_failed=embedder.on_error == "nan",
        files=files,
        plan=plan,
        folder=os.getcwd(),
    )


def _plan(keys: np.ndarray, shard_size: int) -> ShardPlan:
    digest = blake2b(memoryview(keys).cast("B"), digest_size=20).hexdigest()
    plan = ShardPlan(len(keys), shard_size, digest)
    if plan.n_shards > MAX_SHARDS:
        raise ValueError(
            f"Got shard_size={shard_size} for {len(keys)} images, which makes "
            f"{plan.n_shards} shards, but expected at most {MAX_SHARDS}; pass "
            f"shard_size={-(-len(keys) // MAX_SHARDS)} or more."
        )
    return plan


def _finished(job: _Job, index: int) -> dict[str, Any] | None:
    manifest = job.files.finished(job.plan, index)
    if manifest is None or (manifest["n_failed"] and not job.keep_failed):
        return None
    return manifest


def _whole(job: _Job, index: int) -> dict[str, Any] | None:
    manifest = _finished(job, index)
    return manifest if manifest and job.files.is_whole(manifest["files"]) else None


def _embed_those_left(
    job: _Job,
    paths: list[str],
    finished: dict[int, dict[str, Any]],
    embedder: Any,
    n_jobs: int | None,
) -> None:
    """Spread the other shards, and note each one when it is finished."""
    plan = job.plan
    left = [index for index in range(plan.n_shards) if index not in finished]
    # One shard at a time, or what a killed worker had finished would be lost with what
    # it had in work.
    parallel = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
    if not left:
        # Nobody would notice that the shards are those of another encoder.
        list(parallel([delayed(_agree)(job, paths[0])]))
        return
    slices = {index: plan.rows(index) for index in left}
    with RowProgress(
        embedder,
        sum(rows.stop - rows.start for rows in slices.values()),
        plan.shard_size,
        description=f"{len(left)} of {plan.n_shards} shards",
        verbose=embedder.verbose,
    ) as progress:
        for manifest in parallel(
            delayed(_embed_shard)(job, index, paths[rows])
            for index, rows in slices.items()
        ):
            finished[manifest["shard"]] = manifest
            progress.update(manifest["n_rows"])


def _embed_shard(job: _Job, index: int, paths: list[str]) -> dict[str, Any]:
    """Embed one shard in a worker and return its manifest."""
    # A scheduler may repeat what a worker had finished when it died.
    if (done := _finished(job, index)) is not None:
        return done
    fingerprint = _agree(job, paths[0])
    embedded = job.embedder._embed_apart(
        [os.path.join(job.folder, path) for path in paths]
    )
    if embedded.errors and not job.keep_failed:
        raise ValueError(_unreadable(job.plan, index, paths, embedded.errors))
    rows = as_half(embedded.rows)  # (n_rows, n_features)
    manifest = {
        "format": FORMAT,
        "plan": job.plan._asdict(),
        "shard": index,
        "n_rows": rows.shape[0],
        "n_features": rows.shape[1],
        "n_failed": len(embedded.errors),
        "fingerprint": fingerprint,
        "versions": package_versions(),
    }
    writers = {
        embeddings_name(index): rows_writer(rows),
        metadata_name(index): metadata_writer(
            paths, embedded.contents, embedded.errors
        ),
    }
    _agree(job, paths[0])  # as others may have begun at the same time
    for _ in range(MAX_ATTEMPTS):
        try:
            with worded_write_errors(job.files.root):
                published = job.files.publish(
                    index, writers, manifest, lambda: _whole(job, index)
                )
        except FileNotFoundError:
            # Another run has completed the store and swept up what lay aside.
            if (done := _finished(job, index)) is not None:
                return done
            raise
        if job.files.is_whole(published["files"]):
            return published
    raise RuntimeError(
        f"Another run writes shard {index} in {job.files.root!r} at the same time; let "
        "one of them end."
    )


def _agree(job: _Job, path: str) -> dict[str, str]:
    """Return the fingerprint of this worker's encoder, the same for all shards."""
    if job.files.read_plan() != job.plan:
        raise ValueError(
            f"Got out_dir={job.files.root!r}, where the worker on {platform.node()!r} "
            "does not find what the caller began, but expected a folder that all "
            "machines share and that no other run overwrites."
        )
    fingerprint = job.embedder.fit([path]).fingerprint_
    refuse_other_encoder(
        fingerprint,
        job.fitted or fingerprint,
        "the embedder was fitted with; use the same model, weights and settings on all "
        "machines, or fit it again.",
    )
    agree_on_encoder(job.files, fingerprint)
    return fingerprint


def _warn_of_failures(store: EmbeddingStore, paths: list[str]) -> None:
    if not store.n_failed:
        return
    failures = store.failures().items()
    named = first_few([f"{paths[i]!r}: {reason}" for i, reason in failures])
    warn_user(
        f"{store.n_failed} of {len(store)} images could not be read, and their rows "
        f"are NaN ({named}); store.failures() lists them."
    )


def _unreadable(
    plan: ShardPlan, index: int, paths: list[str], errors: dict[int, str]
) -> str:
    start = plan.rows(index).start
    named = [f"index {start + i}, {paths[i]!r}: {why}" for i, why in errors.items()]
    return (
        f"Could not read {len(errors)} of the {len(paths)} images from index {start} "
        f"on ({first_few(named)}). Repair them and call again, or embed with "
        "on_error='nan' to get rows of NaN for them."
    )


def _completed(
    job: _Job, finished: dict[int, dict[str, Any]], keys: np.ndarray
) -> EmbeddingStore:
    """Write what makes the shards a store, last of all."""
    files, plan = job.files, job.plan
    # The first shard that is written takes the manifest of the store away.
    with suppress(ValueError):
        store = EmbeddingStore(files.root)
        files.sweep()
        return store
    fingerprint = finished[0]["fingerprint"]
    for index, manifest in finished.items():
        refuse_other_encoder(
            manifest["fingerprint"],
            fingerprint,
            f"made shard 0 of {files.root!r}: shard {index} was made at the same time "
            "with another one; pass another folder, or overwrite=True to start anew.",
        )
    content = {
        "format": FORMAT,
        "plan": plan._asdict(),
        "n_features": finished[0]["n_features"],
        "dtype": "float16",
        "failed": {i: it["n_failed"] for i, it in finished.items() if it["n_failed"]},
        "fingerprint": fingerprint,
        "versions": package_versions(),
    }
    listed = {
        name: recorded
        for index in sorted(finished)
        for name, recorded in finished[index]["files"].items()
    }
    with worded_write_errors(files.root):
        listed[PATH_ROWS] = files.write(PATH_ROWS, path_rows_writer(keys))
        files.write_json(STORE, {**content, "files": listed})
        files.sweep()
    return EmbeddingStore(files.root)
