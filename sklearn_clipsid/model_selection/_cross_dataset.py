"""Train on each data set and test on each, with intervals per generator."""

from itertools import chain

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import Bunch, _safe_indexing, check_random_state
from sklearn.utils._response import _get_response_values

from sklearn_clipsid._cluster_bootstrap import bootstrap_generators, check_draws
from sklearn_clipsid._groups import list_rows
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid.model_selection._cross_generator import check_share
from sklearn_clipsid.model_selection._dataset_parts import (
    deal,
    in_dataset,
    read_datasets,
    without_equal_rows,
)

COMBINED = "combined"


def cross_dataset_validate(
    estimator,
    datasets,
    *,
    combined=True,
    test_size=0.25,
    n_boot=1000,
    level=0.95,
    random_state=None,
    n_jobs=None,
    pos_label=1,
):
    """Train on each data set and test on each, by generator and with intervals.

    A detector that is perfect on the generators that it was trained on may be worse
    than chance elsewhere. The diagonal of the matrix comes from held-out rows.

    Parameters
    ----------
    estimator : classifier
        Cloned and fitted once for each training set. It needs `decision_function` or
        `predict_proba`.

    datasets : dict of Bunch
        Data sets by name, as the loaders return them, with

        - `data`: rows of features, or paths or images if the estimator takes them;
        - `target`: labels, the same two in all data sets;
        - `generator`: the generator of each synthetic image and the source of each
          photograph;
        - `pair_id`, optional: shared by the images of one motif;
        - `split`, optional: "train" or "test" for each row. Rows of "validation" are
          neither trained nor tested on.

    combined : bool, default=True
        Whether to train on all training parts together as well, if there are two or
        more data sets. Equal rows are taken once.

    test_size : float, default=0.25
        Share of the test part of data sets without `split`.

    n_boot : int, default=1000
        Number of bootstrap draws.

    level : float, default=0.95
        Confidence level of the intervals.

    random_state : int, RandomState instance or None, default=None
        Deals rows into parts and draws clusters. Pass an int for the same result on
        each call.

    n_jobs : int, default=None
        Training sets, and then test sets, that are worked on at a time.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        table : structured ndarray
            One row per training set, test set and generator, with the fields `train`,
            `test`, `kind` ("in-domain", "cross-dataset" or "combined"), `generator`,
            `negatives`, `n_real`, `n_synthetic`, `prevalence`, `ap`, `ap_low`,
            `ap_high`, `auc`, `auc_low` and `auc_high`. ``pandas.DataFrame(table)``
            takes it.
        summary : structured ndarray
            One row per training and test set: the means over generators of the same
            fields, `n_generators`, `n_train`, `n_clusters`, and `n_redrawn`, the
            draws that lacked a class and were drawn again.
        matrix, low, high : ndarray of shape (n_train_sets, n_test_sets)
            Mean average precision over generators, and the limits of its interval.
        chance : ndarray of shape (n_test_sets,)
            Mean average precision of random scores: the mean prevalence.
        train_names, test_names : list of str
            What the rows and columns of the matrix stand for.
        train_indices, test_indices : dict of ndarray
            Rows of each data set that were trained and tested on.

    See Also
    --------
    mean_average_precision_matrix : The matrix of given tables.
    CrossGeneratorSplit : The same for the generators of one data set.
    sklearn_clipsid.inspection.CrossDatasetDisplay : Draws the matrix.

    Notes
    -----
    **Held-out rows.** Rows that share a pair id, and equal rows (equal features or
    paths), are in the same part, in one data set and over several: photographs that
    stand in two data sets are never trained on in one and tested on in the other.
    Rows of data sets without `split` go where their like in another set were put.
    `split` arrays that tear equal rows are an error, those that tear pairs a warning.

    **Negatives.** Where each group with synthetic images also holds photographs, as
    in CNNSpot, a generator is ranked against those of its group ("matched"), else
    against all photographs of the test part ("shared").

    **Intervals** come from a bootstrap of pairs, rows without a pair being their own.
    Pairs that hold images of one kind only are drawn kind by kind, as the number of
    images of a generator was chosen and is not random. On the logit scale the limits
    are t · s · r away from the score. s is the standard deviation of the draws, or
    their root mean square deviation upwards (for the lower limit) and downwards (for
    the upper), whichever is larger; single draws count for two standard deviations at
    most. Draws vary less than test sets do, and draws from draws less again: r² is the
    ratio of these variances. Student's t has the degrees of freedom of the pairs that
    the variance comes from (Satterthwaite), few where one generator of a mean has few
    images. Where draws are too high on average, the lower limit is lower by as much, as
    each image counts itself in average precision. On simulated scores
    (``benchmarks/interval_coverage.py``) 95 % intervals, also of means over generators,
    hold the truth in 93 to 98 % of test sets of 50 pairs, and in 94 to 97 % of those of
    200 and 1,000; those of average precision with 20 photographs in 92 to 98 %, and in
    78 % at worst where scores have heavy tails. A perfect score gets the limit that m
    independent pairs in order allow, for m pairs of the rarer class; one pair of a
    class gets the interval from 0 to 1. What other training rows would do is not in the
    intervals. All detectors are scored on the same draws.

    **Prevalence.** Random scores have an average precision near the share of
    synthetic images. Compare numbers within a column; beside those of another column,
    look at `auc`.

    References
    ----------
    .. [1] Willi, Mathys and Graber (2026), `arXiv:2602.12381
       <https://arxiv.org/abs/2602.12381>`_.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.utils import Bunch
    >>> from sklearn_clipsid.model_selection import cross_dataset_validate
    >>> rng = np.random.RandomState(0)
    >>> y = np.repeat([0, 1], 100)
    >>> datasets = {
    ...     name: Bunch(
    ...         data=rng.normal(size=(200, 2)) + 3 * y[:, None] * np.array(direction),
    ...         target=y,
    ...         generator=np.where(y == 1, name, "photos"),
    ...     )
    ...     for name, direction in {"GAN": (1, 0), "SD": (0, 1)}.items()
    ... }
    >>> result = cross_dataset_validate(LogisticRegression(), datasets, random_state=0)
    >>> result.train_names, result.test_names
    (['GAN', 'SD', 'combined'], ['GAN', 'SD'])
    >>> result.matrix.shape
    (3, 2)
    >>> bool(result.matrix[0, 0] > 0.9 > result.matrix[0, 1])
    True
    """
    _check_options(combined, test_size, n_boot, level)
    sets = read_datasets(datasets, pos_label)
    if combined and COMBINED in datasets:
        raise ValueError(
            f"Got a data set called {COMBINED!r} but expected another name, as all "
            "training parts together have this one; rename it or pass combined=False."
        )
    rng = check_random_state(random_state)
    deal(sets, test_size, rng)
    tests = [in_dataset(one.name, one.arrange_test) for one in sets]
    for one in sets:
        in_dataset(one.name, one.check_train)
    scores, sizes = _fit_and_score(estimator, sets, combined, n_jobs, pos_label)
    seeds = rng.randint(np.iinfo(np.int32).max, size=len(tests))
    results = slow_bar(
        Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(bootstrap_generators)(
                rows, scored, n_boot=n_boot, level=level, random_state=seed
            )
            for rows, scored, seed in zip(tests, scores, seeds)
        ),
        "drawing test sets again",
        len(tests),
    )
    return _tabulate(sets, tests, list(results), sizes)


def mean_average_precision_matrix(table):
    """Average the average precision over generators, for each pair of data sets.

    Each generator counts alike, however many images it has.

    Parameters
    ----------
    table : structured ndarray, DataFrame or dict of array-like
        One row per training set, test set and generator, with the columns `train`,
        `test`, `generator` and `ap`.

    Returns
    -------
    matrix : ndarray of shape (n_train_sets, n_test_sets)
        Mean average precision.

    train_names : list
        What the rows stand for, in order of first appearance.

    test_names : list
        What the columns stand for, in order of first appearance.

    See Also
    --------
    cross_dataset_validate : Makes such a table.

    Notes
    -----
    A pair of data sets without rows is an error, as is a generator that stands twice.

    References
    ----------
    .. [1] Willi, Mathys and Graber (2026), `arXiv:2602.12381
       <https://arxiv.org/abs/2602.12381>`_.

    Examples
    --------
    >>> from sklearn_clipsid.model_selection import mean_average_precision_matrix
    >>> table = {
    ...     "train": ["GANs", "GANs", "GANs"],
    ...     "test": ["GANs", "diffusion", "diffusion"],
    ...     "generator": ["ProGAN", "SD", "FLUX"],
    ...     "ap": [0.99, 0.6, 0.4],
    ... }
    >>> matrix, train_names, test_names = mean_average_precision_matrix(table)
    >>> matrix
    array([[0.99, 0.5 ]])
    >>> test_names
    ['GANs', 'diffusion']
    """
    train, test, generator = (
        np.asarray(table[name]).tolist() for name in ("train", "test", "generator")
    )
    ap = np.asarray(table["ap"], dtype=np.float64)
    if not len(train) == len(test) == len(generator) == len(ap):
        raise ValueError(
            "Got columns of different lengths but expected train, test, generator and "
            "ap for each row."
        )
    cells = {}
    for row, (key, name) in enumerate(zip(zip(train, test), generator)):
        if not 0 <= ap[row] <= 1:  # catches NaN as well
            raise ValueError(
                f"Got ap={float(ap[row])!r} for train={key[0]!r}, test={key[1]!r}, "
                f"generator={name!r} but expected a number between 0 and 1."
            )
        cell = cells.setdefault(key, {})
        if name in cell:
            raise ValueError(
                f"Got generator {name!r} twice for train={key[0]!r}, test={key[1]!r} "
                "but expected it once."
            )
        cell[name] = ap[row]
    train_names, test_names = list(dict.fromkeys(train)), list(dict.fromkeys(test))
    matrix = np.empty((len(train_names), len(test_names)))
    for i, trained in enumerate(train_names):
        for j, tested in enumerate(test_names):
            if (trained, tested) not in cells:
                raise ValueError(
                    f"Got no generator for train={trained!r}, test={tested!r} but "
                    "expected one or more for each pair of data sets."
                )
            matrix[i, j] = np.mean(list(cells[trained, tested].values()))
    return matrix, train_names, test_names


def _check_options(combined, test_size, n_boot, level):
    check_share("test_size", test_size)
    if not isinstance(combined, bool | np.bool_):
        raise ValueError(f"Got combined={combined!r} but expected True or False.")
    check_draws(n_boot, level)


def _fit_and_score(estimator, sets, combined, n_jobs, pos_label):
    """Return scores by test set, (n_models, n_test) each, and training set sizes."""
    trainings = {one.name: [(one, one.train)] for one in sets}
    if combined and len(sets) > 1:
        trainings[COMBINED] = list(zip(sets, without_equal_rows(sets)))
    by_model = slow_bar(
        Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_fit_and_score_one)(estimator, name, parts, sets, pos_label)
            for name, parts in trainings.items()
        ),
        "training sets",
        len(trainings),
    )
    sizes = {
        name: sum(len(rows) for _, rows in parts) for name, parts in trainings.items()
    }
    return [np.stack(scores) for scores in zip(*by_model)], sizes


def _fit_and_score_one(estimator, name, parts, sets, pos_label):
    """Return the scores of each test part by a detector trained on the given rows."""
    X = [_safe_indexing(one.data, rows) for one, rows in parts]
    is_array = all(isinstance(part, np.ndarray) for part in X)
    X = np.concatenate(X) if is_array else list(chain.from_iterable(X))
    y = np.concatenate([one.y[rows] for one, rows in parts])
    model = in_dataset(name, clone(estimator).fit, X, y)
    scores = []
    for one in sets:
        score, _ = in_dataset(
            one.name,
            _get_response_values,
            model,
            _safe_indexing(one.data, one.test),
            ["decision_function", "predict_proba"],
            pos_label,
        )
        if not np.isfinite(score).all():
            raise ValueError(
                f"Got scores of data set {one.name!r} that are NaN or infinite for "
                f"{list_rows(~np.isfinite(score))} of its test part from training on "
                f"{name!r} but expected finite ones; look at these rows."
            )
        scores.append(score)
    return scores


def _tabulate(sets, tests, results, sizes):
    train_names, test_names = list(sizes), [one.name for one in sets]
    lines, means = [], []
    for i, trained in enumerate(train_names):
        for one, rows, result in zip(sets, tests, results):
            kind = "in-domain" if trained == one.name else "cross-dataset"
            kind = COMBINED if trained not in test_names else kind
            # (n_generators + 1, 6): AP, its limits, AUC, its limits; the mean last
            limits = np.stack([result.value, result.low, result.high], axis=1)
            numbers = limits[:, :, i].reshape(6, -1).T
            for g, generator in enumerate(rows.names):
                counts = len(rows.photographs[g]), len(rows.own[g]), rows.prevalence[g]
                head = (trained, one.name, kind, str(generator), one.negatives)
                lines.append((*head, *counts, *numbers[g]))
            head = (trained, one.name, kind, one.negatives, len(rows.names))
            sized = (sizes[trained], len(rows.stratum), result.n_redrawn)
            means.append((*head, *sized, rows.prevalence.mean(), *numbers[-1]))
    scores = "prevalence ap ap_low ap_high auc auc_low auc_high"
    table = _structured(
        lines, "train test kind generator negatives", "n_real n_synthetic", scores
    )
    summary = _structured(
        means,
        "train test kind negatives",
        "n_generators n_train n_clusters n_redrawn",
        scores,
    )
    shape = len(train_names), len(test_names)
    return Bunch(
        table=table,
        summary=summary,
        matrix=mean_average_precision_matrix(table)[0],
        low=summary["ap_low"].reshape(shape),
        high=summary["ap_high"].reshape(shape),
        chance=summary["prevalence"][: shape[1]].copy(),
        train_names=train_names,
        test_names=test_names,
        train_indices={one.name: one.train for one in sets},
        test_indices={one.name: one.test for one in sets},
    )


def _structured(rows, texts, counts, numbers):
    dtype = [
        (name, f"U{max(map(len, column))}")
        for name, column in zip(texts.split(), zip(*rows))
    ]
    dtype += [(name, np.int64) for name in counts.split()]
    dtype += [(name, np.float64) for name in numbers.split()]
    return np.array(rows, dtype=dtype)
