import numpy as np
import pytest
from scipy.stats import norm
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, roc_curve
from sklearn.model_selection import (
    GridSearchCV,
    LeaveOneGroupOut,
    StratifiedKFold,
    cross_validate,
)

from sklearn_clipsid.metrics import tpr_at_fpr_score, wilson_interval
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut


def by_brute_force(y, score, max_fpr, weight):
    """The best rate over all thresholds, counted in whole numbers."""
    best = 0.0
    for threshold in np.unique(score):
        called = score >= threshold
        false, real = weight[called & (y == 0)].sum(), weight[y == 0].sum()
        found, synthetic = weight[called & (y == 1)].sum(), weight[y == 1].sum()
        if false <= max_fpr * real:
            best = max(best, found / synthetic)
    return best


@pytest.mark.parametrize("max_fpr", [0, 0.01, 0.1, 0.25, 0.5, 1])
@pytest.mark.parametrize("n_levels", [3, 10, 1000])
def test_the_score_is_the_best_of_all_thresholds(rng, max_fpr, n_levels):
    y = rng.integers(2, size=200)
    score = np.round((rng.normal(size=200) + y) * n_levels / 6)
    weight = rng.integers(3, size=200)
    for w in (np.ones(200), weight):
        expected = by_brute_force(y, score, max_fpr, w)
        found = tpr_at_fpr_score(y, score, max_fpr=max_fpr, sample_weight=w)
        assert found == pytest.approx(expected, abs=1e-12)


def test_images_of_equal_score_are_called_together():
    # The threshold .5 would call one photograph of four, and finds all or nothing.
    y, score = [0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.5, 0.5, 0.5]
    assert tpr_at_fpr_score(y, score, max_fpr=0.24) == 0.0
    assert tpr_at_fpr_score(y, score, max_fpr=0.25) == 1.0


@pytest.mark.parametrize("n_real", range(3, 60))
def test_a_limit_that_is_met_exactly_is_kept(n_real):
    # All photographs above the synthetic images, but for one.
    score = np.arange(n_real, 0, -1.0)
    y, score = np.repeat([0, 1], [n_real, 1]), np.append(score, 1.5)
    max_fpr = (n_real - 1) / n_real
    assert tpr_at_fpr_score(y, score, max_fpr=max_fpr) == 1.0
    assert tpr_at_fpr_score(y, score, max_fpr=max_fpr - 1e-6) == 0.0
    tenths = np.full(n_real + 1, 0.1)  # whose sums are rounded
    assert tpr_at_fpr_score(y, score, max_fpr=max_fpr, sample_weight=tenths) == 1.0


def test_normal_scores_have_the_rate_of_theory(rng):
    y = np.repeat([0, 1], 200_000)
    score = rng.normal(size=400_000) + 2 * y
    expected = norm.sf(norm.isf(0.01) - 2)
    assert tpr_at_fpr_score(y, score) == pytest.approx(expected, abs=0.01)


def test_scores_that_say_nothing_find_as_much_as_the_limit(rng):
    y, score = rng.integers(2, size=100_000), rng.normal(size=100_000)
    assert tpr_at_fpr_score(y, score, max_fpr=0.05) == pytest.approx(0.05, abs=0.005)
    assert tpr_at_fpr_score(y, np.zeros(100_000), max_fpr=0.05) == 0.0


def test_other_labels_name_the_synthetic_one():
    y, score = np.array(["fake", "photo", "fake", "photo"]), [0.9, 0.5, 0.4, 0.1]
    assert tpr_at_fpr_score(y, score, pos_label="fake") == 0.5


def test_it_is_a_scorer_of_cross_validation_and_search(rng):
    groups = np.repeat(["SD", "GAN", "COCO", "RAISE"], 30)
    y = np.repeat([1, 0], 60)
    X = rng.normal(size=(120, 3)) + y[:, None]
    scorer = make_scorer(
        tpr_at_fpr_score,
        max_fpr=0.1,
        response_method=("decision_function", "predict_proba"),
    )
    cv = LeaveOneGeneratorOut()
    result = cross_validate(
        LogisticRegression(),
        X,
        y,
        groups=groups,
        cv=cv,
        scoring=scorer,
        return_estimator=True,
    )
    for (_, test), model, score in zip(
        cv.split(X, y, groups), result["estimator"], result["test_score"], strict=True
    ):
        fpr, tpr, _ = roc_curve(y[test], model.decision_function(X[test]))
        assert score == tpr[fpr <= 0.1].max()
    search = GridSearchCV(
        DummyClassifier(), {"strategy": ["prior"]}, scoring=scorer, cv=3
    )
    assert search.fit(X, y).best_score_ == 0.0  # equal scores find nothing
    # Labels given as text, through the scorer.
    text = np.where(y == 1, "fake", "photo")
    named = make_scorer(
        tpr_at_fpr_score,
        max_fpr=0.1,
        pos_label="fake",
        response_method="decision_function",
    )
    folds = StratifiedKFold(3)
    assert (
        cross_validate(LogisticRegression(), X, text, cv=folds, scoring=named)[
            "test_score"
        ].tolist()
        == cross_validate(LogisticRegression(), X, y, cv=folds, scoring=scorer)[
            "test_score"
        ].tolist()
    )


def test_a_fold_of_one_class_is_an_error(rng):
    groups = np.repeat(["ADM", "GAN", "COCO", "RAISE"], 15)
    y = np.repeat([1, 1, 0, 0], 15)
    scorer = make_scorer(tpr_at_fpr_score, response_method="decision_function")
    with pytest.raises(ValueError, match=r"no photograph.*use LeaveOneGeneratorOut"):
        cross_validate(
            LogisticRegression(),
            rng.normal(size=(60, 2)),
            y,
            groups=groups,
            cv=LeaveOneGroupOut(),
            scoring=scorer,
            error_score="raise",
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 1], [0.1, 0.2]), "no photograph"),
        (([0, 0], [0.1, 0.2]), "expected rows with y_true == pos_label=1"),
        (([0, 1, 2], [0.1, 0.2, 0.3]), "3 labels"),
        (([0, 1], [0.1]), "y_score with 1 rows"),
        (([0, 1], [0.1, np.nan]), r"NaN or infinite for row\(s\) 1"),
        (([0, 1], [[0.1, 0.9], [0.2, 0.8]]), r"y_score of shape \(2, 2\)"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tpr_at_fpr_score(*arguments)


@pytest.mark.parametrize("max_fpr", [-0.1, 1.5, np.nan, "1%"])
def test_a_limit_is_a_share(max_fpr):
    with pytest.raises(ValueError, match=r"max_fpr=.*expected a share from 0 to 1"):
        tpr_at_fpr_score([0, 1], [0, 1], max_fpr=max_fpr)


def test_weights_of_zero_leave_a_class_out():
    with pytest.raises(ValueError, match="no synthetic image"):
        tpr_at_fpr_score([0, 1], [0.1, 0.2], sample_weight=[1, 0])


@pytest.mark.parametrize(("n_events", "n_trials"), [(0, 7), (3, 40), (40, 40)])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_interval_solves_wilsons_equation(n_events, n_trials, level):
    rate, z = n_events / n_trials, norm.ppf((1 + level) / 2)
    for end in wilson_interval(n_events, n_trials, level=level):
        assert (rate - end) ** 2 == pytest.approx(
            z**2 * end * (1 - end) / n_trials, abs=1e-12
        )


@pytest.mark.parametrize("counts", [(3, 2), (-1, 5), (0, 0), (0.5, 5), (0, 5.0)])
def test_an_interval_is_made_of_counts(counts):
    with pytest.raises(ValueError, match="pass counts, not rates"):
        wilson_interval(*counts)


@pytest.mark.parametrize("level", [0, 1, 95, "95"])
def test_a_level_lies_between_0_and_1(level):
    with pytest.raises(ValueError, match=f"level={level!r}"):
        wilson_interval(1, 5, level=level)
