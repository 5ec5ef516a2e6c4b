"""Average precision per generator, the metric of arXiv:2602.12381 and CNNSpot."""

import numpy as np
from sklearn import get_config
from sklearn.metrics import average_precision_score, make_scorer
from sklearn.utils.validation import _check_sample_weight

from sklearn_clipsid._groups import (
    check_length,
    list_rows,
    positive_rows,
    read_sources,
)


def average_precision_by_generator(
    y_true, y_score, groups, *, negatives="shared", pos_label=1, sample_weight=None
):
    """Compute the average precision of each generator against photographs.

    Each generator is ranked by itself, so that an easy one does not hide a hard one.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Binary labels.

    y_score : array-like of shape (n_samples,)
        Scores, larger for synthetic images: a decision function or the probability of
        the synthetic class.

    groups : array-like of shape (n_samples,) or (n_samples, 2)
        The generator of each synthetic image and the source of each photograph. Of two
        columns the first is used.

    negatives : {'shared', 'matched'}, default='shared'
        The photographs that the images of a generator are ranked against: all of them,
        or those of the same group as in CNNSpot [2]_.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    sample_weight : array-like of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    average_precision : dict
        Average precision by generator, in sorted order. The generators are the groups
        with a synthetic image.

    See Also
    --------
    mean_average_precision_score : The mean of these values.
    sklearn.metrics.average_precision_score : Average precision of one ranking.

    Notes
    -----
    Average precision of one class alone says nothing (1.0 for synthetic images only,
    whatever their scores), hence an error where a generator lacks photographs. It
    also depends on the share of photographs: compare values on identical data only.

    References
    ----------
    .. [1] Willi, Mathys and Graber (2026), `arXiv:2602.12381
       <https://arxiv.org/abs/2602.12381>`_.

    .. [2] Wang, Wang, Zhang, Owens and Efros (2020), CNN-generated images are
       surprisingly easy to spot... for now, `arXiv:1912.11035
       <https://arxiv.org/abs/1912.11035>`_.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import average_precision_by_generator
    >>> y_true = [1, 1, 1, 0, 0]
    >>> y_score = [.9, .8, .3, .5, .1]
    >>> groups = ["GAN", "GAN", "SD", "COCO", "COCO"]
    >>> average_precision_by_generator(y_true, y_score, groups)
    {'GAN': 1.0, 'SD': 0.5}
    """
    if negatives not in ("shared", "matched"):
        raise ValueError(
            f"Got negatives={negatives!r} but expected 'shared' or 'matched'; pass "
            "'matched' where each group has photographs of its own."
        )
    positive = positive_rows(y_true, pos_label, name="y_true")
    y_score = check_scores(y_score, len(positive))
    names, group, _ = read_sources(groups, len(positive))
    weight = None
    if sample_weight is not None:
        check_length(sample_weight, len(positive), "sample_weight")
        weight = _check_sample_weight(sample_weight, y_score, ensure_non_negative=True)
    # A row of weight zero counts as absent: it makes no class present.
    present = np.ones(len(positive), dtype=bool) if weight is None else weight > 0
    rows_of = {}
    for j in np.unique(group[positive]):
        own = (group == j) & positive
        photographs = ~positive if negatives == "shared" else (group == j) & ~positive
        rows_of[names[j]] = (own & present, photographs & present)
    _check_both_classes(rows_of, negatives)
    average_precision = {}
    for name, (own, photographs) in rows_of.items():
        rows = own | photographs
        average_precision[name] = float(
            average_precision_score(
                positive[rows],
                y_score[rows],
                sample_weight=None if weight is None else weight[rows],
            )
        )
    return average_precision


def mean_average_precision_score(
    y_true, y_score, groups, *, negatives="shared", pos_label=1, sample_weight=None
):
    """Compute the mean over generators of their average precision.

    Each generator counts alike, however many images it has.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Binary labels.

    y_score : array-like of shape (n_samples,)
        Scores, larger for synthetic images.

    groups : array-like of shape (n_samples,) or (n_samples, 2)
        The generator of each synthetic image and the source of each photograph. Of two
        columns the first is used.

    negatives : {'shared', 'matched'}, default='shared'
        The photographs that the images of a generator are ranked against: all of them,
        or those of the same group.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    sample_weight : array-like of shape (n_samples,), default=None
        Sample weights.

    Returns
    -------
    score : float
        Mean average precision.

    See Also
    --------
    average_precision_by_generator : The values that are averaged, and what they mean.
    make_mean_average_precision_scorer : The same for cross-validation.

    References
    ----------
    .. [1] Willi, Mathys and Graber (2026), `arXiv:2602.12381
       <https://arxiv.org/abs/2602.12381>`_.

    Examples
    --------
    >>> from sklearn_clipsid.metrics import mean_average_precision_score
    >>> y_true = [1, 1, 1, 0, 0]
    >>> y_score = [.9, .8, .3, .5, .1]
    >>> groups = ["GAN", "GAN", "SD", "COCO", "COCO"]
    >>> mean_average_precision_score(y_true, y_score, groups)
    0.75
    """
    by_generator = average_precision_by_generator(
        y_true,
        y_score,
        groups,
        negatives=negatives,
        pos_label=pos_label,
        sample_weight=sample_weight,
    )
    return float(np.mean(list(by_generator.values())))


def make_mean_average_precision_scorer(*, negatives="shared", pos_label=1):
    """Make a scorer of the mean average precision over generators.

    The scorer needs the generator of each test row, which scikit-learn hands on only
    when metadata routing is enabled.

    Parameters
    ----------
    negatives : {'shared', 'matched'}, default='shared'
        The photographs that the images of a generator are ranked against: all of them,
        or those of the same group.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    scorer : callable
        A scorer that requests `groups`.

    See Also
    --------
    mean_average_precision_score : The metric.
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : Splits under which plain
        ``scoring="average_precision"``, averaged over folds, is the same metric.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn import config_context
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_clipsid.metrics import make_mean_average_precision_scorer
    >>> X = np.array([[3.0], [2.0], [3.0], [2.0], [0.0], [1.0], [0.0], [1.0]])
    >>> y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    >>> groups = np.array(["GAN", "GAN", "SD", "SD", "COCO", "COCO", "COCO", "COCO"])
    >>> with config_context(enable_metadata_routing=True):
    ...     scores = cross_validate(
    ...         LogisticRegression(),
    ...         X,
    ...         y,
    ...         cv=2,
    ...         scoring=make_mean_average_precision_scorer(),
    ...         params={"groups": groups},
    ...     )
    >>> scores["test_score"]
    array([1., 1.])
    """
    if not get_config()["enable_metadata_routing"]:
        raise RuntimeError(
            "Got enable_metadata_routing=False but expected True, as the scorer needs "
            "groups; type `sklearn.set_config(enable_metadata_routing=True)` and pass "
            "`cross_validate(..., params={'groups': groups})`. Under "
            "LeaveOneGeneratorOut no such scorer is needed: "
            "scoring='average_precision', averaged over folds, already is the mean "
            "average precision."
        )
    return make_scorer(
        mean_average_precision_score,
        response_method=("decision_function", "predict_proba"),
        negatives=negatives,
        pos_label=pos_label,
    ).set_score_request(groups=True)


def check_scores(y_score, n_samples, name="y_score"):
    y_score = np.asarray(y_score, dtype=float)
    if y_score.ndim != 1:
        raise ValueError(
            f"Got {name} of shape {y_score.shape} but expected (n_samples,); pass the "
            "column of the synthetic class, e.g. predict_proba(X)[:, "
            "list(classes_).index(pos_label)]."
        )
    check_length(y_score, n_samples, name)
    not_finite = ~np.isfinite(y_score)
    if not_finite.any():
        raise ValueError(
            f"Got {name} that is NaN or infinite for {list_rows(not_finite)} but "
            "expected finite scores; score or leave out these rows."
        )
    return y_score


def _check_both_classes(rows_of, negatives):
    """Raise where a generator would be ranked against nothing."""
    without = [name for name, (own, _) in rows_of.items() if not own.any()]
    if without:
        raise ValueError(
            f"Got sample_weight of zero for all synthetic images of {without} but "
            "expected a positive one; leave these generators out of the rows."
        )
    without = [name for name, (_, photos) in rows_of.items() if not photos.any()]
    if without:
        remedy = "add photographs"
        if negatives == "matched":
            remedy += " of these groups or pass negatives='shared'"
        raise ValueError(
            f"Got no photograph (of positive weight) to rank the images of {without} "
            f"against but expected one or more with negatives={negatives!r}; {remedy}."
        )
