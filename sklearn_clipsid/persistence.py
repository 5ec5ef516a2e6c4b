"""Save detectors to one file that is safe to load, and load them."""

from __future__ import annotations

import copy
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from sklearn_clipsid._abstaining import AbstainingClassifier
from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._detector_archive import check_archive, check_stamp, with_stamp
from sklearn_clipsid._loaded_parts import check_fingerprint, check_part, parts_of
from sklearn_clipsid._portable_part import leave_machine_behind
from sklearn_clipsid._skops_import import import_skops

__all__ = ["dump", "load", "TRUSTED_TYPES"]


#: Every type that `load` may build beside those that skops itself trusts: exact names,
#: never prefixes. Class paths are part of the file format.
TRUSTED_TYPES = frozenset(
    {
        "sklearn_clipsid._abstaining.AbstainingClassifier",
        "sklearn_clipsid._block_mixer.BlockMixer",
        "sklearn_clipsid._block_selector.BlockSelector",
        "sklearn_clipsid._clip_embedder.CLIPEmbedder",
        "sklearn_clipsid._clip_fine_tune.CLIPFineTuneClassifier",
        "sklearn_clipsid._clip_quality.CLIPQualityRegressor",
        "sklearn_clipsid._common_support.CommonSupportClassifier",
        "sklearn_clipsid._component_eliminator.ComponentEliminator",
        "sklearn_clipsid._concept_bottleneck.ConceptBottleneckClassifier",
        "sklearn_clipsid._head_selector.HeadSelector",
        "sklearn_clipsid._orthogonal_linear.OrthogonalLinearDetector",
        "sklearn_clipsid._source_eraser.SourceEraser",
        "sklearn_clipsid._text_span.TextSpan",
        "sklearn_clipsid._view_augmented.ViewAugmentedClassifier",
        # CalibratedClassifierCV
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        # VotingClassifier and StackingClassifier
        "sklearn.utils._bunch.Bunch",
    }
)

_BEST = "dump(search.best_estimator_, file)"
_SEARCH = "holds scorers and splitters that a safe file does not carry"
#: What cannot be saved: why, and what to type instead.
INSTEAD = {
    "GridSearchCV": (_SEARCH, _BEST),
    "RandomizedSearchCV": (_SEARCH, _BEST),
    "HalvingGridSearchCV": (_SEARCH, _BEST),
    "HalvingRandomSearchCV": (_SEARCH, _BEST),
    "TunedThresholdClassifierCV": (
        _SEARCH,
        "dump(FixedThresholdClassifier(FrozenEstimator(m.estimator_), "
        "threshold=m.best_threshold_, response_method=m.response_method).fit(X, y), "
        "file)",
    ),
    "PrecomputedEmbedder": (
        "knows the images of one store alone",
        "embedder = CLIPEmbedder(...).fit(paths[:1]), check that its fingerprint_ is "
        "that of the PrecomputedEmbedder, and dump(make_pipeline(embedder, pipe[1:]), "
        "file)",
    ),
}


def dump(estimator: Any, file: str | os.PathLike | BinaryIO) -> None:
    """Save a fitted detector to one file.

    The file is a skops archive: arrays and strings, no code. It also holds the versions
    of the packages, the fingerprint of the encoder, a digest of every member, and a
    model card (README.md). Paths of this machine are left out: `cache_dir`,
    `weights_dir`, `views_dir` and the `memory` of pipelines become None, the device
    "auto", and a local checkpoint its file name. As a splitter may be anything, a
    fitted `AbstainingClassifier` becomes one with ``cv="prefit"``, and the `cv` of a
    fitted `ComponentEliminator` or `HeadSelector` becomes None.

    Parameters
    ----------
    estimator : estimator
        A fitted detector or pipeline of this package's and scikit-learn's estimators.

    file : str, PathLike or binary file object
        Where to write. A file on disk is replaced only when the new one is complete.

    Raises
    ------
    TypeError
        For GridSearchCV, TunedThresholdClassifierCV and the like, which hold scorers
        and splitters, and for PrecomputedEmbedder; the message says what to dump
        instead.

    ValueError
        When the estimator holds a type that `load` would refuse, with its name.

    See Also
    --------
    load : Reads the file.

    Examples
    --------
    >>> import io
    >>> from sklearn_clipsid import OrthogonalLinearDetector
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> from sklearn_clipsid.persistence import dump, load
    >>> X, y = load_sample_embeddings(return_X_y=True)
    >>> detector = OrthogonalLinearDetector(random_state=0).fit(X, y)
    >>> file = io.BytesIO()
    >>> dump(detector, file)
    >>> same = load(io.BytesIO(file.getvalue()))
    >>> bool((same.predict_proba(X) == detector.predict_proba(X)).all())
    True
    """
    from sklearn.utils.validation import check_is_fitted

    skops_io = import_skops()
    _refuse_what_cannot_travel(estimator)
    check_is_fitted(estimator)
    portable = _portable_copy(estimator)
    data = skops_io.dumps(portable, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    foreign = sorted(set(skops_io.get_untrusted_types(data=data)) - TRUSTED_TYPES)
    if foreign:
        raise ValueError(
            f"Got an estimator that holds {', '.join(foreign)}, which `load` would "
            "refuse, but expected this package's and scikit-learn's linear, "
            "brute-force neighbour, calibrated, voting and stacking models only; ship "
            "one of those, or save this one by other means that you trust."
        )
    data = with_stamp(data, portable)
    if hasattr(file, "write"):
        file.write(data)
        return
    path = Path(file)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(
    file: str | os.PathLike | BinaryIO,
    *,
    pretrained: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    allow_other_weights: bool = False,
) -> Any:
    """Load a detector that `dump` saved.

    Nothing is downloaded and no model is built while loading. The first embedding
    looks for the encoder under the name that the file gives, which may be a repository
    on a hub, and checks that it is the one the detector was fitted with.

    Parameters
    ----------
    file : str, PathLike or binary file object
        The file.

    pretrained : str, default=None
        Where this machine has the encoder's weights, for a detector that was fitted
        with a local checkpoint: a path, or a tag of the same weights. Not needed in the
        process that fitted it.

    cache_dir : str or PathLike, default=None
        Where embeddings are kept on this machine; see CLIPEmbedder.

    allow_other_weights : bool, default=False
        Whether to let the detector score features of other weights than those it was
        fitted with. Its scores mean nothing then, unless you have shown otherwise.

    Returns
    -------
    estimator : estimator
        The fitted detector.

    Raises
    ------
    ValueError
        When the file is no skops archive, holds a type that is not in `TRUSTED_TYPES`
        (all are named), was changed after it was saved, or holds fitted arrays that no
        fit can have made.

    Warns
    -----
    UserWarning
        When the file was not written by `dump`, or by other minor versions of
        sklearn_clipsid or scikit-learn.

    See Also
    --------
    dump : Writes the file.

    Examples
    --------
    >>> from sklearn_clipsid.persistence import load
    >>> load("detector.skops", pretrained="ViT-B-16.safetensors")  # doctest: +SKIP
    """
    skops_io = import_skops()
    name = getattr(file, "name", repr(file)) if hasattr(file, "read") else repr(file)
    data = file.read() if hasattr(file, "read") else Path(file).read_bytes()
    check_archive(data, name)
    try:
        types = set(skops_io.get_untrusted_types(data=data))
    # A damaged archive makes its readers fail in any way.
    except Exception as error:
        raise ValueError(_unreadable(name, error)) from error
    if types - TRUSTED_TYPES:
        raise ValueError(
            f"Got {name}, which holds types that are not trusted: "
            f"{', '.join(sorted(types - TRUSTED_TYPES))}. Nothing of it was built. "
            "A detector of this package never needs them; ask whoever made the file."
        )
    check_stamp(data, name)
    try:
        estimator = skops_io.loads(data, trusted=sorted(types))
    except Exception as error:
        raise ValueError(_unreadable(name, error)) from error
    for part in parts_of(estimator):
        check_part(part, name)
        leave_machine_behind(part)
        if isinstance(part, CLIPEmbedder):
            check_fingerprint(part, name)
            part.set_params(cache_dir=cache_dir)
            _place_embedder(part, pretrained, allow_other_weights)
    return estimator


def _unreadable(name: str, error: Exception) -> str:
    return (
        f"Got {name}, which cannot be read ({type(error).__name__}: {error}), but "
        "expected a file as sklearn_clipsid.persistence.dump wrote it; get the "
        "original file again."
    )


def _refuse_what_cannot_travel(estimator: Any) -> None:
    for part in parts_of(estimator):
        kind = type(part).__name__
        if kind in INSTEAD:
            why, instead = INSTEAD[kind]
            raise TypeError(
                f"Got {kind}, which {why}, but expected a model that works on any "
                f"machine; type {instead}."
            )


def _portable_copy(estimator: Any) -> Any:
    """Copy an estimator without what belongs to this machine or this session."""
    portable = copy.deepcopy(estimator)
    # A part is changed before the walk goes on to what it holds.
    for part in parts_of(portable):
        if isinstance(part, AbstainingClassifier) and hasattr(part, "estimator_"):
            # Splitters are not trusted, and the thresholds that they led to are there.
            part.set_params(estimator=part.estimator_, cv="prefit")
        # Both hold references back to the estimator: skops 0.16 recurses on the first
        # without end and does not trust the second.
        state = getattr(part, "__dict__", {})
        state.pop("_metadata_request", None)
        state.pop("_skl_callbacks", None)
        if isinstance(part, CLIPEmbedder) and not hasattr(part, "fingerprint_"):
            part.fit(["not read"])
        leave_machine_behind(part)
    return portable


def _place_embedder(
    embedder: CLIPEmbedder,
    pretrained: str | None,
    allow_other_weights: bool,
) -> None:
    """Point a loaded embedder to the weights of this machine."""
    known = _known_weights(embedder.fingerprint_)
    if pretrained is not None:
        embedder.set_params(pretrained=pretrained)
        if embedder.model_name.startswith("local-dir:"):
            embedder.set_params(model_name=pretrained)
    elif known is not None:
        embedder.set_params(model_name=known[0], pretrained=known[1])
    if allow_other_weights:
        del embedder.fingerprint_


def _known_weights(fingerprint: dict[str, str]) -> tuple[str, str] | None:
    # Where no model was built, none is known, and torch need not be imported to ask.
    weights: Any = sys.modules.get("sklearn_clipsid._clip._weights")
    find: Callable[..., tuple[str, str] | None] | None = getattr(
        weights, "known_weights", None
    )
    if find is None:
        return None
    return find(fingerprint["weights"], fingerprint["config"])
