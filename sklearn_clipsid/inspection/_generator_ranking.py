"""Arrange scored rows, of one test set or of all folds, by generator."""

from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing
from sklearn.utils._response import _get_response_values
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._generator_rows import (
    GeneratorRows,
    arrange_generators,
    choose_negatives,
    cluster_rows,
    strata_of_clusters,
)
from sklearn_clipsid._groups import (
    check_length,
    list_rows,
    positive_rows,
    read_groups,
)


def rank_predictions(y_true, y_score, groups, pair_id, negatives, pos_label):
    """Arrange the rows of one test set.

    Parameters
    ----------
    y_true, y_score, groups, pair_id, negatives, pos_label
        As of `GeneratorAPDisplay.from_predictions`.

    Returns
    -------
    rows : GeneratorRows
        The rows that each generator is ranked on.

    scores : ndarray of shape (n_samples,)
        Their scores.
    """
    if negatives not in ("auto", "shared", "matched"):
        raise ValueError(
            f"Got negatives={negatives!r} but expected 'auto', 'shared' or 'matched'."
        )
    positive = positive_rows(y_true, pos_label, name="y_true")
    y_score = _checked_scores(y_score, len(positive))
    names, group, pair, _ = read_groups(groups, pair_id, len(positive))
    if negatives == "auto":
        negatives = choose_negatives(positive, group)
    return arrange_generators(positive, names, group, pair, negatives), y_score


def rank_folds(cv_results, X, y, groups, pair_id, pos_label):
    """Score the test rows of each fold by its detector and lay them end to end.

    A photograph that several folds test stands for several rows of one cluster: it is
    drawn into all of them or into none.

    Parameters
    ----------
    cv_results, X, y, groups, pair_id, pos_label
        As of `GeneratorAPDisplay.from_cv_results`.

    Returns
    -------
    rows : GeneratorRows
        Each generator with the photographs of its own fold.

    scores : ndarray of shape (n_test_rows,)
        The scores of all folds; those of two folds are never compared.
    """
    estimators, tests = _read_results(cv_results)
    positive = positive_rows(y, pos_label)
    check_length(X, len(positive), "X")
    names, group, pair, _ = read_groups(groups, pair_id, len(positive))
    _check_folds(tests, positive, [names[j] for j in group])
    scores = np.concatenate(
        [
            _score_fold(fold, estimator, X, test, pos_label)
            for fold, (estimator, test) in enumerate(zip(estimators, tests))
        ]
    )
    row = np.concatenate(tests)  # (n_test_rows,)
    fold = np.repeat(np.arange(len(tests)), [len(test) for test in tests])
    cluster = np.unique(cluster_rows(pair)[row], return_inverse=True)[1]
    # The number of photographs of a fold, as that of a generator, is not random.
    is_tested = np.zeros((len(positive), len(tests)), dtype=bool)
    is_tested[row, fold] = True
    folds_of_row = np.unique(is_tested, axis=0, return_inverse=True)[1].ravel()
    kind = np.where(positive, group, len(names) + folds_of_row)
    rows = GeneratorRows(
        names=[names[group[test[positive[test]][0]]] for test in tests],
        own=[np.flatnonzero((fold == j) & positive[row]) for j in range(len(tests))],
        photographs=[
            np.flatnonzero((fold == j) & ~positive[row]) for j in range(len(tests))
        ],
        cluster=cluster,
        stratum=strata_of_clusters(cluster, kind[row]),
    )
    return rows, scores


def _read_results(cv_results):
    keys = cv_results if isinstance(cv_results, Mapping) else ()
    missing = [key for key in ("estimator", "indices") if key not in keys]
    if missing:
        raise ValueError(
            f"Got cv_results without {' and '.join(missing)} but expected the detector "
            "and the test rows of each fold; call cross_validate(..., "
            "return_estimator=True, return_indices=True)."
        )
    tests = [np.asarray(test) for test in cv_results["indices"]["test"]]
    return cv_results["estimator"], tests


def _check_folds(tests, positive, source):
    """Refuse folds that do not rank one generator, each another, with photographs."""
    source, fold_of = np.array(source, dtype=object), {}
    for fold, test in enumerate(tests):
        if test.max(initial=-1) >= len(positive):
            raise ValueError(
                f"Got row {test.max()} in test fold {fold} but {len(positive)} rows of "
                "X; pass the X, y and groups that cross_validate was given."
            )
        generators = sorted(set(source[test[positive[test]]]))
        if not generators or positive[test].all():
            kind = "synthetic images" if generators else "photographs"
            raise ValueError(
                f"Got test fold {fold} of {kind} only but expected both classes, as "
                "any ranking of one class is perfect; cross-validate with "
                "cv=LeaveOneGeneratorOut()."
            )
        if len(generators) > 1:
            found = first_few([repr(name) for name in generators])
            raise ValueError(
                f"Got test fold {fold} with the generators {found} but expected one in "
                "each fold; cross-validate with cv=LeaveOneGeneratorOut(), or draw one "
                "test set of many generators with from_estimator."
            )
        other = fold_of.setdefault(generators[0], fold)
        if other != fold:
            raise ValueError(
                f"Got the generator {generators[0]!r} in test folds {other} and {fold} "
                "but expected it in one; cross-validate with "
                "cv=LeaveOneGeneratorOut(), or draw the matrix of a "
                "CrossGeneratorSplit with CrossDatasetDisplay."
            )


def score_rows(estimator, X, pos_label):
    """Return the scores of a fitted detector, larger for synthetic images."""
    check_is_fitted(estimator)
    responses = ["decision_function", "predict_proba"]
    return _get_response_values(estimator, X, responses, pos_label)[0]


def _score_fold(fold, estimator, X, test, pos_label):
    try:
        score = score_rows(estimator, _safe_indexing(X, test), pos_label)
    except NotFittedError as error:
        raise ValueError(
            f"Got no fitted detector of test fold {fold} but expected one, as its fit "
            "failed; call cross_validate(..., error_score='raise') to see why."
        ) from error
    if not np.isfinite(score).all():
        is_bad = np.zeros(_num_samples(X), dtype=bool)
        is_bad[test[~np.isfinite(score)]] = True
        raise ValueError(
            f"Got scores of test fold {fold} that are NaN or infinite for "
            f"{list_rows(is_bad)} but expected finite ones; look at these rows."
        )
    return score


def _checked_scores(y_score, n_samples):
    y_score = np.asarray(y_score, dtype=np.float64)
    if y_score.ndim != 1:
        raise ValueError(
            f"Got y_score of shape {y_score.shape} but expected (n_samples,); pass the "
            "column of the synthetic class."
        )
    check_length(y_score, n_samples, "y_score")
    not_finite = ~np.isfinite(y_score)
    if not_finite.any():
        raise ValueError(
            f"Got y_score that is NaN or infinite for {list_rows(not_finite)} but "
            "expected finite scores; score or leave out these rows."
        )
    return y_score
