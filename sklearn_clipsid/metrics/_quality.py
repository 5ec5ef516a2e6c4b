"""Correlations of predicted with opinion scores, as image quality is judged by."""

import numpy as np
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import make_scorer
from sklearn.utils import column_or_1d

from sklearn_clipsid._groups import check_length, list_rows


def plcc_score(y_true, y_pred):
    """Compute Pearson's linear correlation coefficient (PLCC).

    It asks whether predicted scores lie on a line with the opinion scores.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Opinion scores.

    y_pred : array-like of shape (n_samples,)
        Predicted scores.

    Returns
    -------
    score : float
        From -1 to 1.

    See Also
    --------
    srcc_score : Asks for the order alone.
    quality_scorers : The same for cross-validation.

    Notes
    -----
    Some studies fit a logistic curve from predicted to opinion scores first, which
    mostly raises the value. Here none is fitted.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import plcc_score
    >>> round(plcc_score([1, 2, 3, 4], [1, 2, 3, 9]), 3)
    0.898
    """
    return float(pearsonr(*_checked(y_true, y_pred)).statistic)


def srcc_score(y_true, y_pred):
    """Compute Spearman's rank correlation coefficient (SRCC).

    It asks whether predicted scores have the order of the opinion scores.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Opinion scores.

    y_pred : array-like of shape (n_samples,)
        Predicted scores.

    Returns
    -------
    score : float
        From -1 to 1. Equal scores share their mean rank.

    See Also
    --------
    plcc_score : Asks for the distances as well.
    krcc_score : Counts pairs in the right order.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import srcc_score
    >>> round(srcc_score([1, 2, 3, 4], [1, 2, 3, 9]), 3)
    1.0
    """
    return float(spearmanr(*_checked(y_true, y_pred)).statistic)


def krcc_score(y_true, y_pred):
    """Compute Kendall's rank correlation coefficient (KRCC), tau-b.

    It asks how many pairs of images are in the right order.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Opinion scores.

    y_pred : array-like of shape (n_samples,)
        Predicted scores.

    Returns
    -------
    score : float
        From -1 to 1. Of scores without ties: the share of pairs in the right order
        minus that of the others.

    See Also
    --------
    srcc_score : Correlates the ranks.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import krcc_score
    >>> round(krcc_score([1, 2, 3, 4], [1, 2, 4, 3]), 3)
    0.667
    """
    return float(kendalltau(*_checked(y_true, y_pred)).statistic)


def quality_scorers():
    """Return the scorers by which image quality predictors are compared.

    None of them depends on the units of the predicted scores.

    Returns
    -------
    scorers : dict
        "plcc", "srcc" and "krcc", for `scoring` of
        :func:`~sklearn.model_selection.cross_validate`, and of
        :class:`~sklearn.model_selection.GridSearchCV` with ``refit="srcc"``.

    See Also
    --------
    sklearn_clipsid.CLIPQualityRegressor : Predicts opinion scores.
    plcc_score : Linear correlation.
    srcc_score : Correlation of ranks.
    krcc_score : Pairs in the right order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_clipsid.metrics import quality_scorers
    >>> X = np.arange(12.0)[:, None]
    >>> y = X[:, 0] ** 3
    >>> scores = cross_validate(Ridge(), X, y, cv=3, scoring=quality_scorers())
    >>> scores["test_srcc"]
    array([1., 1., 1.])
    """
    return {
        "plcc": make_scorer(plcc_score),
        "srcc": make_scorer(srcc_score),
        "krcc": make_scorer(krcc_score),
    }


def _checked(y_true, y_pred):
    y_true = _scores(y_true, "y_true")
    y_pred = _scores(y_pred, "y_pred")
    check_length(y_pred, len(y_true), "y_pred")
    if len(y_true) < 2:
        raise ValueError(
            f"Got {len(y_true)} score but expected at least two; a correlation needs "
            "more rows."
        )
    for name, scores in (("y_true", y_true), ("y_pred", y_pred)):
        if (scores == scores[0]).all():
            raise ValueError(
                f"Got {name} with the same score ({scores[0]:g}) in all "
                f"{len(scores)} rows but expected scores that differ, as no "
                "correlation with a constant is defined; measure it on other rows, or "
                "find out why the prediction is constant."
            )
    return y_true, y_pred


def _scores(values, name):
    scores = column_or_1d(values, dtype=float)
    not_finite = ~np.isfinite(scores)
    if not_finite.any():
        raise ValueError(
            f"Got {name} that is NaN or infinite for {list_rows(not_finite)} but "
            "expected finite scores; leave out these rows."
        )
    return scores
