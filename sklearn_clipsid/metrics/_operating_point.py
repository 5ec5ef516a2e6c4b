"""What a detector finds while it raises few false alarms, and how sure a rate is."""

from numbers import Integral, Real

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import roc_curve
from sklearn.utils.validation import _check_sample_weight

from sklearn_clipsid._groups import check_length, positive_rows
from sklearn_clipsid.metrics._ranking import check_scores

# Sums of weights differ from the share that was meant by their rounding.
ROUNDING = 1e-10


def tpr_at_fpr_score(y_true, y_score, *, max_fpr=0.01, pos_label=1, sample_weight=None):
    r"""Compute the share of synthetic images found at a limited share of false alarms.

    Average precision and ROC AUC mostly speak of thresholds that nobody can use:
    where one photograph in three is called synthetic. This is the best true positive
    rate over the thresholds at which few photographs are.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Binary labels.

    y_score : array-like of shape (n_samples,)
        Scores, larger for synthetic images: a decision function or the probability of
        the synthetic class.

    max_fpr : float, default=0.01
        Largest share of the photographs that may be called synthetic, from 0 to 1.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    sample_weight : array-like of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    score : float
        True positive rate, from 0 to 1.

    See Also
    --------
    wilson_interval : How sure such a rate is.
    sklearn.metrics.roc_curve : All true and false positive rates.
    sklearn.model_selection.FixedThresholdClassifier : Uses a threshold that was chosen
        before.

    Notes
    -----
    .. math:: \max_t \{\mathrm{TPR}(t) : \mathrm{FPR}(t) \le \mathrm{max\_fpr}\} ,

    where the images with a score of t or more are called synthetic. Images of equal
    score are on the same side of every threshold; nothing is interpolated.

    The threshold is the best one for the very images that it is measured on. A
    threshold that is chosen before, on other photographs, finds more or less, at more
    or fewer false alarms; `AbstainingClassifier` chooses one with a margin. With
    fewer than ``1 / max_fpr`` photographs not a single false alarm is allowed, and
    the score depends on the one photograph that looks most synthetic.

    A scorer needs no more than scikit-learn's ``make_scorer``, see below.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import tpr_at_fpr_score
    >>> y_true = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> y_score = [.1, .2, .3, .7, .4, .6, .8, .9]
    >>> tpr_at_fpr_score(y_true, y_score, max_fpr=0)
    0.5
    >>> tpr_at_fpr_score(y_true, y_score, max_fpr=.25)
    1.0

    As a scorer:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import make_scorer
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_clipsid.datasets import load_sample_embeddings
    >>> from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
    >>> scorer = make_scorer(
    ...     tpr_at_fpr_score,
    ...     max_fpr=.1,
    ...     response_method=("decision_function", "predict_proba"),
    ... )
    >>> sample = load_sample_embeddings()
    >>> scores = cross_validate(
    ...     LogisticRegression(max_iter=1000),
    ...     sample.data,
    ...     sample.target,
    ...     groups=sample.generator,
    ...     cv=LeaveOneGeneratorOut(),
    ...     scoring=scorer,
    ... )
    >>> len(scores["test_score"]) == len(set(sample.generator[sample.target == 1]))
    True
    """
    if not isinstance(max_fpr, Real) or not 0 <= max_fpr <= 1:
        raise ValueError(
            f"Got max_fpr={max_fpr!r} but expected a share from 0 to 1; pass 0.01 for "
            "one false alarm in a hundred photographs."
        )
    positive = positive_rows(y_true, pos_label, name="y_true")
    y_score = check_scores(y_score, len(positive))
    weight = np.ones(len(positive))
    if sample_weight is not None:
        check_length(sample_weight, len(positive), "sample_weight")
        weight = _check_sample_weight(sample_weight, y_score, ensure_non_negative=True)
    for name, rows in (("synthetic image", positive), ("photograph", ~positive)):
        if not weight[rows].any():
            raise ValueError(
                f"Got no {name} (of positive weight) but expected both classes, as "
                "one alone has no such rate; add rows of the other class, or, in "
                "cross-validation, use LeaveOneGeneratorOut, whose test folds hold "
                "both."
            )
    fpr, tpr, _ = roc_curve(
        positive, y_score, sample_weight=sample_weight, drop_intermediate=False
    )
    return float(tpr[fpr <= max_fpr * (1 + ROUNDING)].max())


def wilson_interval(n_events, n_trials, *, level=0.95):
    """Return the Wilson interval of a rate.

    Unlike the normal approximation it stays within 0 and 1, and of no event in a few
    trials it does not conclude that there never will be one.

    Parameters
    ----------
    n_events : int
        How often it happened, such as photographs that were called synthetic.

    n_trials : int
        How often it could have happened, such as photographs.

    level : float, default=0.95
        Level of the interval, between 0 and 1.

    Returns
    -------
    low : float
        Lower end of the interval.

    high : float
        Upper end of the interval.

    See Also
    --------
    tpr_at_fpr_score : A rate that it can be applied to.
    scipy.stats.binomtest : Makes the interval.

    Notes
    -----
    Trials must be independent: for images of one scene, or of one source of
    photographs, the interval is too narrow.

    References
    ----------
    .. [1] E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
       Inference", Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import wilson_interval
    >>> low, high = wilson_interval(0, 100)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.037)
    """
    if not all(isinstance(n, Integral) for n in (n_events, n_trials)) or not (
        0 <= n_events <= n_trials and n_trials > 0
    ):
        raise ValueError(
            f"Got n_events={n_events!r} of n_trials={n_trials!r} but expected whole "
            "numbers, at least one trial, and no more events than trials; pass counts, "
            "not rates."
        )
    if not isinstance(level, Real) or not 0 < level < 1:
        raise ValueError(
            f"Got level={level!r} but expected a number between 0 and 1; pass 0.95."
        )
    interval = binomtest(int(n_events), int(n_trials)).proportion_ci(
        confidence_level=level, method="wilson"
    )
    return float(interval.low), float(interval.high)
