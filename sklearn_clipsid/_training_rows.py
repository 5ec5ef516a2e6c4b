"""Decide which rows a detector trains on, with which weights."""

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

# Below this a tenth of the rows is too few to stop on.
MIN_SAMPLES_TO_STOP_EARLY = 200


def weighted_rows(X, y, sample_weight, class_weight):
    """Return the rows of positive weight, and weights of mean 1.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.

    y : ndarray of shape (n_samples,)
        Labels.

    sample_weight : array-like of shape (n_samples,) or None
        Weights of the rows.

    class_weight : dict, "balanced" or None
        Weights of the classes.

    Returns
    -------
    X, y, weights : ndarrays
        Without the rows of weight zero, so that a zero weight equals removal.
    """
    weights = _check_sample_weight(sample_weight, X, dtype=X.dtype)
    if (weights < 0).any():
        raise ValueError(
            f"Got a negative sample_weight ({weights.min()}) but expected weights of "
            "at least 0."
        )
    X, y, weights = _of_positive_weight(X, y, weights)
    classes, codes = np.unique(y, return_inverse=True)
    # "balanced" counts the weights, so that a weight equals repetition here too.
    of_class = compute_class_weight(
        class_weight, classes=classes, y=y, sample_weight=weights
    ).astype(X.dtype)
    if (of_class < 0).any():
        raise ValueError(
            f"Got class_weight={class_weight!r} but expected weights of at least 0."
        )
    X, y, weights = _of_positive_weight(X, y, weights * of_class[codes])
    return X, y, weights / weights.mean()


def split_for_early_stopping(codes, early_stopping, validation_fraction, random_state):
    """Set rows aside to stop on, stratified by class.

    Parameters
    ----------
    codes : ndarray of int of shape (n_samples,)
        Classes as 0, 1, ….

    early_stopping : bool or "auto"
        "auto": from 200 rows on, if each class has at least two and the share holds
        one row per class.

    validation_fraction : float
        Share of the rows to set aside.

    random_state : RandomState
        Draws them.

    Returns
    -------
    train, held_out : ndarrays of int
        Indices; `held_out` is empty without early stopping.
    """
    n_samples = len(codes)
    if early_stopping == "auto":
        counts = np.bincount(codes)
        early_stopping = (
            n_samples >= MIN_SAMPLES_TO_STOP_EARLY
            and counts.min() >= 2
            and validation_fraction * n_samples >= len(counts)
        )
    if not early_stopping:
        return np.arange(n_samples), np.arange(0)
    splitter = StratifiedShuffleSplit(
        1, test_size=validation_fraction, random_state=random_state
    )
    return next(splitter.split(codes, codes))


def _of_positive_weight(X, y, weights):
    counts = weights > 0
    if not counts.any():
        raise ValueError(
            "Got sample_weight and class_weight that leave no row with a positive "
            "weight, but expected at least one per class."
        )
    # Indexing with all rows would copy them.
    return (X, y, weights) if counts.all() else (X[counts], y[counts], weights[counts])
