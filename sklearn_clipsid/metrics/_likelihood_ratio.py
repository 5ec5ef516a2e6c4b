"""Ask how good likelihood ratios are, as evidence is judged in forensic science."""

import numpy as np
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.validation import _check_sample_weight

from sklearn_clipsid._groups import check_length, list_rows, positive_rows
from sklearn_clipsid.metrics._ranking import check_scores


def log_likelihood_ratio_cost(
    y_true, log_likelihood_ratio, *, pos_label=1, sample_weight=None
):
    r"""Compute the log-likelihood-ratio cost, known as Cllr.

    A likelihood ratio says how much more probable an image is among synthetic images
    than among photographs, whatever share of them is synthetic. Confident ratios that
    point the wrong way cost most.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Binary labels.

    log_likelihood_ratio : array-like of shape (n_samples,)
        Natural logarithms of likelihood ratios, positive for synthetic. That of a
        probability p, given by a classifier trained on a share s of synthetic images,
        is ``logit(p) - logit(s)``. Infinite values are allowed.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    sample_weight : array-like of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    cost : float
        In bits, from 0 for certainty that is always right. A ratio of 1 for all images,
        which says nothing, costs 1. It has no upper bound, and is infinite where an
        infinite ratio is wrong.

    See Also
    --------
    minimum_log_likelihood_ratio_cost : What is left with the best calibration.
    sklearn.metrics.log_loss : Depends on the share of synthetic images.

    Notes
    -----
    .. math::

       C_{llr} = \frac{1}{2} \left(
       \operatorname{mean}_{\mathrm{synthetic}} \log_2 (1 + e^{-\ell}) +
       \operatorname{mean}_{\mathrm{real}} \log_2 (1 + e^{\ell}) \right)

    References
    ----------
    .. [1] N. Brümmer and J. du Preez, "Application-independent evaluation of speaker
       detection", Computer Speech and Language 20, 2006.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import log_likelihood_ratio_cost
    >>> log_likelihood_ratio_cost([0, 0, 1, 1], [0, 0, 0, 0])
    1.0
    >>> round(log_likelihood_ratio_cost([0, 0, 1, 1], [-3, -2, 2, 3]), 3)
    0.127
    """
    positive, ratio, weight = _check_ratios(
        y_true, log_likelihood_ratio, "log_likelihood_ratio", pos_label, sample_weight
    )
    # logaddexp takes infinite ratios: a right one costs 0, a wrong one infinitely much.
    costs = np.logaddexp(0, np.where(positive, -ratio, ratio)) / np.log(2)
    sides = [_mean(costs[rows], weight[rows]) for rows in (positive, ~positive)]
    return float(np.mean(sides))


def minimum_log_likelihood_ratio_cost(
    y_true, y_score, *, pos_label=1, sample_weight=None
):
    """Compute the log-likelihood-ratio cost after the best monotone calibration.

    It tells how well scores separate the classes. What the cost of a detector's own
    ratios exceeds it by was lost by calibration.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Binary labels.

    y_score : array-like of shape (n_samples,)
        Scores of any scale, larger for synthetic images.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    sample_weight : array-like of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    cost : float
        In bits, from 0 for classes that do not overlap to 1.

    See Also
    --------
    log_likelihood_ratio_cost : The cost of given ratios.

    Notes
    -----
    The calibration is isotonic regression (pool adjacent violators) on the very scores
    that are judged, so that few images make it too small.

    References
    ----------
    .. [1] N. Brümmer and J. du Preez, "Application-independent evaluation of speaker
       detection", Computer Speech and Language 20, 2006.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import minimum_log_likelihood_ratio_cost
    >>> minimum_log_likelihood_ratio_cost([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
    0.0
    """
    positive, score, weight = _check_ratios(
        y_true, y_score, "y_score", pos_label, sample_weight
    )
    of_class = [weight[~positive].sum(), weight[positive].sum()]
    balanced = weight / np.take(of_class, positive.astype(int))
    counts = balanced > 0
    # Isotonic regression wants finite places; only the order matters.
    place = np.unique(score, return_inverse=True)[1]
    share = (
        IsotonicRegression(y_min=0, y_max=1)
        .fit(place[counts], positive[counts], sample_weight=balanced[counts])
        .predict(place[counts])
    )
    return log_likelihood_ratio_cost(
        positive[counts], logit(share), sample_weight=balanced[counts]
    )


def _check_ratios(y_true, score, name, pos_label, sample_weight):
    """Return the mask of synthetic images, the scores and the weights."""
    positive = positive_rows(y_true, pos_label, name="y_true")
    score = np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise ValueError(
            f"Got {name} that is NaN for {list_rows(np.ravel(np.isnan(score)))} but "
            "expected numbers; leave these rows out."
        )
    # Infinite ratios are right or wrong, which is for the caller to see.
    check_scores(np.nan_to_num(score), len(positive), name)
    weight = np.ones(len(positive))
    if sample_weight is not None:
        check_length(sample_weight, len(positive), "sample_weight")
        weight = _check_sample_weight(
            sample_weight, positive, dtype=np.float64, ensure_non_negative=True
        )
    for name, rows in (("synthetic image", positive), ("photograph", ~positive)):
        if not weight[rows].any():
            raise ValueError(
                f"Got no {name} (of positive weight) but expected both classes, as "
                "each makes half of the cost; add rows of the other class."
            )
    return positive, score, weight


def _mean(costs, weight):
    counts = weight > 0  # an infinite cost without weight is none
    return np.average(costs[counts], weights=weight[counts])
