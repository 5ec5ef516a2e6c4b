"""Save detectors to one file that is safe to load, and load them."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._model_card import package_versions, render_card

__all__ = ["dump", "load", "TRUSTED_TYPES"]

FORMAT = 1
STAMP_NAME = "sklearn_clipsid.json"
CARD_NAME = "README.md"

#: Every type that `load` may build beside those that skops itself trusts: exact names,
#: never prefixes. Class paths are part of the file format.
TRUSTED_TYPES = frozenset(
    {
        "sklearn_clipsid._block_selector.BlockSelector",
        "sklearn_clipsid._clip_embedder.CLIPEmbedder",
        "sklearn_clipsid._orthogonal_linear.OrthogonalLinearDetector",
        # CalibratedClassifierCV
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        # VotingClassifier and StackingClassifier
        "sklearn.utils._bunch.Bunch",
    }
)

# Other versions of these may compute something else from the same arrays.
COMPARED_PACKAGES = ("sklearn_clipsid", "scikit-learn")

INSTEAD_OF_SEARCH = {
    "GridSearchCV": "dump(search.best_estimator_, file)",
    "RandomizedSearchCV": "dump(search.best_estimator_, file)",
    "HalvingGridSearchCV": "dump(search.best_estimator_, file)",
    "HalvingRandomSearchCV": "dump(search.best_estimator_, file)",
    "TunedThresholdClassifierCV": (
        "dump(FixedThresholdClassifier(FrozenEstimator(m.estimator_), "
        "threshold=m.best_threshold_, response_method=m.response_method).fit(X, y), "
        "file)"
    ),
}
# Fitted arrays of scikit-learn's linear steps in which NaN can only be damage.
FINITE_ATTRIBUTES = ("coef_", "intercept_", "components_", "mean_", "scale_", "var_")


def dump(estimator: Any, file: str | os.PathLike | BinaryIO) -> None:
    """Save a fitted detector to one file.

    The file is a skops archive: arrays and strings, no code. It also holds the versions
    of the packages, the fingerprint of the encoder, a digest of every member, and a
    model card (README.md). Paths of this machine are left out: `cache_dir` and
    `weights_dir` become None, the device "auto", and a local checkpoint its file name.

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
        and splitters; the message says what to dump instead.

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
    import skops.io
    from sklearn.utils.validation import check_is_fitted

    _refuse_searches(estimator)
    check_is_fitted(estimator)
    portable = _portable_copy(estimator)
    data = skops.io.dumps(portable, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    foreign = sorted(set(skops.io.get_untrusted_types(data=data)) - TRUSTED_TYPES)
    if foreign:
        raise ValueError(
            f"Got an estimator that holds {', '.join(foreign)}, which `load` would "
            "refuse, but expected this package's and scikit-learn's linear, "
            "neighbour, calibrated, voting and stacking models only; leave that step "
            "out of the saved pipeline."
        )
    data = _with_stamp(data, portable)
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
    cache_dir: str | None = None,
    allow_other_weights: bool = False,
) -> Any:
    """Load a detector that `dump` saved.

    Nothing is downloaded and no model is built while loading. The first embedding
    checks that the encoder is the one the detector was fitted with.

    Parameters
    ----------
    file : str, PathLike or binary file object
        The file.

    pretrained : str, default=None
        Where this machine has the encoder's weights, for a detector that was fitted
        with a local checkpoint: a path, or a tag of the same weights. Not needed in the
        process that fitted it.

    cache_dir : str, default=None
        Sets the `cache_dir` of its CLIPEmbedder.

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
    import skops.io

    name = getattr(file, "name", repr(file)) if hasattr(file, "read") else repr(file)
    data = file.read() if hasattr(file, "read") else Path(file).read_bytes()
    try:
        types = set(skops.io.get_untrusted_types(data=data))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as e:
        raise ValueError(
            f"Got {name}, which is not a readable skops archive ({e!r}), but expected "
            "a file written by sklearn_clipsid.persistence.dump; never load another "
            "kind of file in its place."
        ) from e
    if types - TRUSTED_TYPES:
        raise ValueError(
            f"Got {name}, which holds types that are not trusted: "
            f"{', '.join(sorted(types - TRUSTED_TYPES))}. Nothing of it was built. "
            "A detector of this package never needs them; ask whoever made the file."
        )
    _check_stamp(data, name)
    estimator = skops.io.loads(data, trusted=sorted(types))
    for part in _parts(estimator):
        _check_finite(part, name)
        if isinstance(part, CLIPEmbedder):
            _place_embedder(part, pretrained, cache_dir, allow_other_weights)
    return estimator


def _refuse_searches(estimator: Any) -> None:
    for part in _parts(estimator):
        kind = type(part).__name__
        if kind in INSTEAD_OF_SEARCH:
            raise TypeError(
                f"Got {kind}, which holds scorers and splitters that a safe file does "
                f"not carry, but expected the model it chose; type "
                f"{INSTEAD_OF_SEARCH[kind]}."
            )


def _parts(root: Any) -> Iterator[Any]:
    """Yield every estimator and helper object inside an estimator, each once."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            stack.extend(part.values())
        elif isinstance(part, (list, tuple)):
            stack.extend(part)
        elif type(part).__module__.partition(".")[0] in ("sklearn", "sklearn_clipsid"):
            yield part
            stack.extend(getattr(part, "__dict__", {}).values())


def _portable_copy(estimator: Any) -> Any:
    """Copy an estimator without what belongs to this machine or this session."""
    portable = copy.deepcopy(estimator)
    for part in list(_parts(portable)):
        # Both hold references back to the estimator: skops 0.16 recurses on the first
        # without end and does not trust the second.
        state = getattr(part, "__dict__", {})
        state.pop("_metadata_request", None)
        state.pop("_skl_callbacks", None)
        if isinstance(part, CLIPEmbedder):
            if not hasattr(part, "fingerprint_"):
                part.fit(["not read"])
            part.set_params(
                cache_dir=None,
                weights_dir=None,
                device="auto",
                model_name=_without_folder(part.model_name),
                pretrained=_without_folder(part.pretrained),
            )
    return portable


def _without_folder(name: str) -> str:
    """Keep tags and hub names; of a local path keep only the last part."""
    if name.startswith("local-dir:"):
        return "local-dir:" + Path(name.partition(":")[2]).name
    is_path = os.path.isabs(name) or os.path.exists(name)
    return Path(name).name if is_path and not name.startswith("hf-hub:") else name


def _with_stamp(data: bytes, portable: Any) -> bytes:
    """Add the stamp and the model card to an archive."""
    stamp = {
        "format": FORMAT,
        "estimator": type(portable).__name__,
        "versions": package_versions(),
        "encoders": [
            part.fingerprint_
            for part in _parts(portable)
            if isinstance(part, CLIPEmbedder)
        ],
    }
    card = render_card(portable, stamp)
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD_NAME, card)
        stamp["digests"] = _digests(archive)
        archive.writestr(STAMP_NAME, json.dumps(stamp, indent=2, sort_keys=True))
    return buffer.getvalue()


def _digests(archive: zipfile.ZipFile) -> dict[str, str]:
    return {
        name: hashlib.blake2b(archive.read(name), digest_size=16).hexdigest()
        for name in sorted(archive.namelist())
        if name != STAMP_NAME
    }


def _check_stamp(data: bytes, name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if STAMP_NAME not in archive.namelist():
            warnings.warn(
                f"{name} was not written by sklearn_clipsid.persistence.dump: whether "
                "it was changed, and which versions and encoder it needs, cannot be "
                "checked.",
                stacklevel=3,
            )
            return
        stamp = json.loads(archive.read(STAMP_NAME))
        digests = _digests(archive)
    changed = sorted(
        member
        for member in stamp["digests"].keys() | digests.keys()
        if stamp["digests"].get(member) != digests.get(member)
    )
    if changed:
        raise ValueError(
            f"Got {name}, whose members {', '.join(changed)} were changed, added or "
            "removed after it was saved; get the original file again."
        )
    if stamp["format"] > FORMAT:
        raise ValueError(
            f"Got {name} in format {stamp['format']} but expected at most {FORMAT}; "
            f"install sklearn_clipsid {stamp['versions']['sklearn_clipsid']} or newer."
        )
    here = package_versions()
    for package in COMPARED_PACKAGES:
        saved = stamp["versions"][package]
        if saved.split(".")[:2] != here[package].split(".")[:2]:
            warnings.warn(
                f"{name} was saved with {package} {saved} and is loaded with "
                f"{here[package]}: compare its scores on known images before use.",
                stacklevel=3,
            )


def _check_finite(part: Any, name: str) -> None:
    for attribute in FINITE_ATTRIBUTES:
        value = getattr(part, "__dict__", {}).get(attribute)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            if not np.isfinite(value).all():
                raise ValueError(
                    f"Got {name}, whose {type(part).__name__}.{attribute} holds NaN or "
                    "infinity; the file is damaged or was changed by hand."
                )


def _place_embedder(
    embedder: CLIPEmbedder,
    pretrained: str | None,
    cache_dir: str | None,
    allow_other_weights: bool,
) -> None:
    """Point a loaded embedder to the weights of this machine."""
    known = _known_weights(embedder.fingerprint_["weights"])
    if pretrained is not None:
        embedder.set_params(pretrained=pretrained)
        if embedder.model_name.startswith("local-dir:"):
            embedder.set_params(model_name=pretrained)
    elif known is not None:
        embedder.set_params(model_name=known[0], pretrained=known[1])
    if cache_dir is not None:
        embedder.set_params(cache_dir=cache_dir)
    if allow_other_weights:
        del embedder.fingerprint_


def _known_weights(digest: str) -> tuple[str, str] | None:
    import sys

    # Where no model was built, none is known, and torch need not be imported to ask.
    weights: Any = sys.modules.get("sklearn_clipsid._clip._weights")
    find: Callable[[str], tuple[str, str] | None] | None = getattr(
        weights, "known_weights", None
    )
    return find(digest) if find is not None else None
