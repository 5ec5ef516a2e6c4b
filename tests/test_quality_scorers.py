import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from sklearn_clipsid.metrics import (
    krcc_score,
    plcc_score,
    quality_scorers,
    srcc_score,
)

METRICS = [plcc_score, srcc_score, krcc_score]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_line_has_correlation_one(metric, sign):
    y = np.array([3.0, 1.0, 4.0, 1.5, 5.0])
    assert metric(y, 2 + sign * 7 * y) == pytest.approx(sign)


def test_ranks_ignore_what_pearson_sees(rng):
    y, noise = rng.standard_normal((2, 50))
    predicted = y + noise
    assert srcc_score(y, np.exp(predicted)) == pytest.approx(srcc_score(y, predicted))
    assert krcc_score(y, np.exp(predicted)) == pytest.approx(krcc_score(y, predicted))
    assert plcc_score(y, np.exp(9 * predicted)) < plcc_score(y, predicted)


def test_spearman_is_pearson_of_ranks_with_ties(rng):
    y, predicted = rng.integers(0, 5, size=(2, 40))
    ranks = stats.rankdata(y), stats.rankdata(predicted)
    assert srcc_score(y, predicted) == pytest.approx(plcc_score(*ranks))


def test_kendall_counts_pairs(rng):
    y, predicted = rng.standard_normal((2, 20))
    i, j = np.triu_indices(20, 1)
    agree = np.sign(y[i] - y[j]) * np.sign(predicted[i] - predicted[j])
    assert krcc_score(y, predicted) == pytest.approx(agree.mean())


def test_a_search_can_refit_by_any_of_the_three(rng):
    X = rng.standard_normal((30, 2))
    search = GridSearchCV(
        Ridge(), {"alpha": [0.1, 10]}, scoring=quality_scorers(), refit="srcc", cv=3
    )
    search.fit(X, X[:, 0])
    assert set(quality_scorers()) == {"plcc", "srcc", "krcc"}
    assert search.best_score_ == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("y_true", "y_pred", "problem"),
    [
        ([1, 2, 3], [2, 2, 2], r"Got y_pred with the same score \(2\) in all 3 rows"),
        ([5, 5], [1, 2], "Got y_true with the same score"),
        ([1, 2], [1, np.nan], r"Got y_pred that is NaN or infinite for row\(s\) 1"),
        ([1, 2], [1, 2, 3], "Got y_pred with 3 rows but expected 2"),
        ([1], [1], "expected at least two"),
    ],
)
def test_scores_without_a_correlation_are_refused(metric, y_true, y_pred, problem):
    with pytest.raises(ValueError, match=problem):
        metric(y_true, y_pred)
