"""Measure how far the axes of a linear detector come back on other training data."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from sklearn_clipsid._unit_rows import unit_rows

# Samples in a row without one of the classes, before that is an error.
MAX_DRAWS = 100


def matched_cosines(components, others):
    """Return the absolute cosine of each axis with the axis it is matched with.

    Parameters
    ----------
    components, others : ndarrays of shape (n_components, n_features)
        Rows are axes, in the units of X. They are matched one to one so that the sum
        of absolute cosines is largest (Hungarian method).

    Returns
    -------
    cosines : ndarray of shape (n_components,)
        In the order of `components`; 0 where one of the pair is a row of zeros.
    """
    (A, _), (B, _) = unit_rows(components), unit_rows(others)
    cosines = np.abs(A @ B.T)
    return cosines[linear_sum_assignment(cosines, maximize=True)]


def bootstrap_axes(estimator, X, y, sample_weight, groups, n_boot, random_state):
    """Yield the axes of an estimator fitted to samples drawn with replacement.

    Parameters
    ----------
    estimator : estimator
        Cloned for each fit, with another seed.

    X : array-like of shape (n_samples, n_features)
        Features.

    y : array-like of shape (n_samples,)
        Labels.

    sample_weight : array-like of shape (n_samples,) or None
        Multiplied by how often a row was drawn, so that no row is both trained and
        stopped on.

    groups : array-like of shape (n_samples,) or None
        Whole groups are drawn. None draws rows, and each class keeps its number.

    n_boot : int
        Number of samples.

    random_state : int, RandomState instance or None
        Draws samples and seeds.

    Yields
    ------
    components : ndarray of shape (n_components, n_features)
        Of one fit.
    """
    random_state = check_random_state(random_state)
    y = column_or_1d(y)
    check_consistent_length(X, y, groups)
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
    codes = np.unique(y, return_inverse=True)[1]
    codes[weights == 0] = -1
    draw = _row_drawer(codes) if groups is None else _group_drawer(codes, groups)
    for _ in range(n_boot):
        counts = draw(random_state)
        refit = clone(estimator).set_params(
            random_state=random_state.randint(np.iinfo(np.int32).max)
        )
        yield refit.fit(X, y, sample_weight=weights * counts).components_


def _row_drawer(codes):
    """Return what draws how often each row is in a sample, class by class."""
    members = [np.flatnonzero(codes == c) for c in np.unique(codes[codes >= 0])]

    def draw(random_state):
        drawn = [random_state.choice(rows, len(rows)) for rows in members]
        return np.bincount(np.concatenate(drawn), minlength=len(codes))

    return draw


def _group_drawer(codes, groups):
    """Return what draws how often each group is in a sample, with all classes."""
    names, group = np.unique(column_or_1d(groups), return_inverse=True)
    n_classes = len(np.unique(codes[codes >= 0]))

    def draw(random_state):
        for _ in range(MAX_DRAWS):
            drawn = random_state.randint(len(names), size=len(names))
            counts = np.bincount(drawn, minlength=len(names))[group]
            present = np.unique(codes[(counts > 0) & (codes >= 0)])
            if len(present) == n_classes:
                return counts
        raise ValueError(
            f"Got {len(names)} groups of which {MAX_DRAWS} samples in a row lacked a "
            "class, but expected several groups of each class; pass finer groups."
        )

    return draw
