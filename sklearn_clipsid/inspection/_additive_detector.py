"""Take the logits of a detector apart into contributions that add up to them."""

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_clipsid._first_few import first_few

# Sums of single precision differ by less, relative to the sum of absolute values.
SAME_LOGIT = 1e-5
ADDS_UP = ("transform", "decision_function", "get_feature_names_out", "intercept_")


def without_steps_before(estimator, X):
    """Return the last step of a pipeline and what it gets, or both as they are."""
    if isinstance(estimator, Pipeline):
        if len(estimator) > 1 and X is not None:
            X = estimator[:-1].transform(X)
        estimator = estimator[-1]
    return estimator, X


def contributions_and_intercept(estimator, X):
    """Return contributions and intercept that make the logits, or refuse."""
    kind = type(estimator).__name__
    missing = [name for name in ADDS_UP if not hasattr(estimator, name)]
    if missing:
        raise TypeError(
            f"Got {kind}, which has no {' and no '.join(missing)}, but expected a "
            "fitted classifier whose transform returns contributions, such as "
            "ConceptBottleneckClassifier, or a Pipeline that ends in one."
        )
    logits = np.asarray(estimator.decision_function(X), dtype=np.float64)
    if logits.ndim != 1:
        raise ValueError(
            f"Got {kind} with {logits.shape[1]} logits per image but expected a "
            "detector of two classes; fit it to labels 0 (real) and 1 (synthetic)."
        )
    contributions = np.asarray(estimator.transform(X), dtype=np.float64)
    intercept = np.ravel(estimator.intercept_)[0]
    sums = contributions.sum(axis=1) + intercept
    size = np.abs(contributions).sum(axis=1) + abs(intercept) + np.abs(logits)
    wrong = np.flatnonzero(~(np.abs(sums - logits) <= SAME_LOGIT * size))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"Got {kind}, whose transform and intercept_ add up to {sums[row]:.4g} in "
            f"row {row} where decision_function is {logits[row]:.4g}, but expected "
            "contributions, which add up to it; pass ConceptBottleneckClassifier. The "
            "contributions of an OrthogonalLinearDetector are transform(X) * "
            "activation_weights_, with intercept_ - activation_weights_ @ "
            "activation_intercept_ as intercept; pass both to "
            "ConceptContributionDisplay itself."
        )
    return contributions, intercept


def label_codes(y, classes):
    """Return 0 for the first and 1 for the second class, or name unknown labels."""
    y = np.asarray(y)
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"Got the labels {first_few([repr(v) for v in unknown.tolist()])} in y but "
            f"expected some of the estimator's classes {classes.tolist()}."
        )
    return (y == classes[1]).astype(int)
