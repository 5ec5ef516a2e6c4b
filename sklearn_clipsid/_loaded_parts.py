"""Refuse a loaded estimator in a state that no fit can have made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

# Fitted numbers of linear, calibrated, neighbour and abstaining models in which NaN can
# only be damage; other estimators of scikit-learn use NaN for missing values.
FINITE_ATTRIBUTES = (
    "coef_",
    "intercept_",
    "components_",
    "mean_",
    "scale_",
    "var_",
    "a_",
    "b_",
    "beta_",
    "threshold_",
    "thresholds_",
    "X_thresholds_",
    "y_thresholds_",
    "_fit_X",
)
FINGERPRINT_KEYS = {
    "architecture",
    "config",
    "weights",
    "features",
    "resize",
    "image_size",
    "precision",
    "apply_exif",
    "normalize",
}
DAMAGED = "the file is damaged or was changed by hand"


def parts_of(root: Any) -> Iterator[Any]:
    """Yield every estimator and helper object inside an estimator, each once.

    Parameters
    ----------
    root : estimator
        Where to begin.

    Yields
    ------
    part : object
        An object of scikit-learn or of this package.
    """
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


def check_part(part: Any, name: str) -> None:
    """Refuse a part whose attributes no fit can have made.

    Parameters
    ----------
    part : object
        An estimator, or an object inside one.

    name : str
        What to call the file in messages.
    """
    state = getattr(part, "__dict__", {})
    where = f"Got {name}, whose {type(part).__name__}"
    for key in state:
        # An attribute in place of a method would do what it likes when it is called.
        if callable(getattr(type(part), key, None)):
            raise ValueError(f"{where}.{key} hides a method; {DAMAGED}.")
    for key in FINITE_ATTRIBUTES:
        value = state.get(key)
        is_number = isinstance(value, (float, np.floating, np.ndarray))
        if is_number and np.asarray(value).dtype.kind == "f":
            if not np.isfinite(np.asarray(value)).all():
                raise ValueError(f"{where}.{key} holds NaN or infinity; {DAMAGED}.")
    classes = state.get("classes_")
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        # Labels in another order would turn every verdict round.
        if not np.array_equal(np.unique(classes), classes):
            raise ValueError(
                f"{where}.classes_ are not sorted and distinct; {DAMAGED}."
            )
    coef, n_features = state.get("coef_"), state.get("n_features_in_")
    if isinstance(coef, np.ndarray) and coef.ndim == 2 and n_features is not None:
        if coef.shape[1] != n_features:
            raise ValueError(
                f"{where}.coef_ has {coef.shape[1]} columns for {n_features} features; "
                f"{DAMAGED}."
            )


def check_fingerprint(embedder: Any, name: str) -> None:
    """Refuse an embedder that does not say which encoder it was fitted with.

    Parameters
    ----------
    embedder : CLIPEmbedder
        From a file.

    name : str
        What to call the file in messages.
    """
    fingerprint = vars(embedder).get("fingerprint_")
    if not isinstance(fingerprint, dict) or not (
        fingerprint.keys() == FINGERPRINT_KEYS
        and all(isinstance(value, str) for value in fingerprint.values())
    ):
        raise ValueError(
            f"Got {name}, whose CLIPEmbedder.fingerprint_ does not describe an encoder "
            f"({fingerprint!r:.100}); {DAMAGED}."
        )
