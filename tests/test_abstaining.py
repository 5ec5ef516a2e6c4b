import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from sklearn_clipsid import AbstainingClassifier, OrthogonalLinearDetector
from sklearn_clipsid.metrics import tpr_at_fpr_score, wilson_interval
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut


class Score(ClassifierMixin, BaseEstimator):
    """The only feature is the decision function, whatever it was fitted to."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return np.asarray(X, dtype=float)[:, 0]

    def predict(self, X):
        return self.classes_[(self.decision_function(X) > 0).astype(int)]


def fitted(real, synthetic, **parameters):
    """A classifier whose held-out scores are these."""
    X = np.concatenate([real, synthetic]).astype(float)[:, None]
    y = np.repeat([0, 1], [len(real), len(synthetic)])
    model = AbstainingClassifier(Score().fit(X, y), cv="prefit", **parameters)
    return model.fit(X, y)


@pytest.fixture
def overlapping(rng):
    return rng.normal(size=1000), rng.normal(size=600) + 1


def decide(model, scores):
    return model.decide(np.asarray(scores, dtype=float)[:, None]).tolist()


def test_the_margin_is_the_largest_that_keeps_the_promise(overlapping):
    real, synthetic = overlapping
    model = fitted(real, synthetic, max_fpr=0.05, max_fnr=0.1)
    n_real_above = np.sum(real > model.thresholds_[1])
    n_synthetic_below = np.sum(synthetic < model.thresholds_[0])
    for k, n, limit in ((n_real_above, 1000, 0.05), (n_synthetic_below, 600, 0.1)):
        assert binom.cdf(k, n, limit) <= 0.05 < binom.cdf(k + 1, n, limit)


def test_it_finds_what_the_metric_says_at_the_same_rate(overlapping):
    real, synthetic = overlapping
    model = fitted(real, synthetic, max_fpr=0.05)
    y, score = np.repeat([0, 1], [1000, 600]), np.concatenate([real, synthetic])
    found = np.mean([word == "synthetic" for word in decide(model, synthetic)])
    assert found == tpr_at_fpr_score(y, score, max_fpr=model.fpr_)


def test_rates_and_intervals_are_those_of_the_held_out_verdicts(overlapping):
    real, synthetic = overlapping
    model = fitted(real, synthetic, max_fpr=0.05, max_fnr=0.1, confidence=0.9)
    on_real, on_synthetic = (np.array(decide(model, s)) for s in overlapping)
    assert model.fpr_ == np.mean(on_real == "synthetic") > 0
    assert model.fnr_ == np.mean(on_synthetic == "real") > 0
    assert model.undecided_rate_.tolist() == [
        np.mean(on_real == "undecided"),
        np.mean(on_synthetic == "undecided"),
    ]
    assert (model.n_real_, model.n_synthetic_) == (1000, 600)
    for rate, n, interval in (
        (model.fpr_, 1000, model.fpr_interval_),
        (model.fnr_, 600, model.fnr_interval_),
    ):
        assert tuple(interval) == wilson_interval(round(rate * n), n, level=0.9)


def test_the_promise_is_kept_as_often_as_it_says():
    # Scores of photographs are uniform: the share above a threshold is known.
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(400):
        real, synthetic = rng.uniform(size=300), rng.uniform(0.5, 1.5, size=150)
        model = fitted(real, synthetic, max_fpr=0.05, max_fnr=0.1, confidence=0.8)
        low, high = model.thresholds_
        kept.append((1 - high <= 0.05, low - 0.5 <= 0.1))
    # 80 %, or more by the steps of a count; four standard errors below is .72.
    share = np.mean(kept, axis=0)
    expected = [
        1 - binom.cdf(binom.ppf(0.2, n, p) - 1, n, p)
        for n, p in ((300, 0.05), (150, 0.1))
    ]
    np.testing.assert_allclose(share, expected, atol=0.08)
    assert min(expected) >= 0.8


@pytest.mark.parametrize(
    ("max_fpr", "confidence", "needed"),
    [(0.01, 0.95, 299), (0.1, 0.95, 29), (0.5, 0.6, 2)],
)
def test_too_few_photographs_are_told_how_many_it_takes(
    max_fpr, confidence, needed, recwarn
):
    limits = {"max_fpr": max_fpr, "max_fnr": 0.9, "confidence": confidence}
    synthetic = np.arange(50.0)
    fitted(np.arange(needed), synthetic, **limits)
    assert not recwarn.list
    with pytest.warns(UserWarning) as caught:
        model = fitted(np.arange(needed - 1), synthetic, **limits)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith(f"Got {needed - 1} held-out photographs but expected at")
    assert f"at least {needed} to promise" in message
    assert "raise max_fpr" in message
    assert caught[0].filename == __file__
    # With fewer, no photograph at all may be above.
    assert model.fpr_ == 0 and model.thresholds_[1] >= needed - 2


def test_the_bound_of_few_photographs_is_about_three_in_n():
    with pytest.warns(UserWarning, match=r"none of these 100 the share may be 0\.03\."):
        fitted(np.arange(100), np.arange(1000) + 50, max_fpr=0.01, max_fnr=0.05)


def test_too_few_synthetic_images_are_named():
    with pytest.warns(UserWarning, match="Got 10 held-out synthetic.*are called real"):
        fitted(np.arange(1000), np.arange(10) + 995)


def test_a_limit_on_misses_is_that_on_false_alarms_unless_given(overlapping):
    real, synthetic = overlapping
    same = fitted(real, synthetic, max_fpr=0.05).thresholds_
    assert (
        same.tolist()
        == fitted(real, synthetic, max_fpr=0.05, max_fnr=0.05).thresholds_.tolist()
    )
    assert same[0] > fitted(real, synthetic, max_fpr=0.05, max_fnr=0.02).thresholds_[0]


@pytest.mark.parametrize("shift", [-60, 0, 60])
def test_classes_that_lie_apart_leave_nothing_undecided(shift):
    real, synthetic = np.arange(-110, -10) + shift, np.arange(10, 110) + shift
    model = fitted(real, synthetic, max_fpr=0.05)
    assert model.fpr_ == model.fnr_ == 0
    assert model.undecided_rate_.tolist() == [0, 0]
    low, high = model.thresholds_
    assert low == high == model.threshold_
    if shift == 0:  # the detector's own threshold keeps both limits
        assert low == 0


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 3])
def test_predictions_never_contradict_verdicts(overlapping, shift):
    real, synthetic = (scores + shift for scores in overlapping)
    model = fitted(real, synthetic, max_fpr=0.05)
    scores = np.linspace(-6, 6, 1201)[:, None]
    verdicts, labels = model.decide(scores), model.predict(scores)
    assert set(labels[verdicts == "synthetic"]) == {1}
    assert set(labels[verdicts == "real"]) == {0}
    # Elsewhere, the detector speaks for itself.
    own = Score().fit(scores[:2], [0, 1]).predict(scores)
    undecided = verdicts == "undecided"
    low, high = model.thresholds_
    if low <= 0 <= high:
        np.testing.assert_array_equal(labels, own)
    assert undecided.any()


def test_equal_scores_are_undecided():
    model = fitted(np.zeros(500), np.zeros(500), max_fpr=0.05)
    assert decide(model, [0.0]) == ["undecided"]
    assert model.undecided_rate_.tolist() == [1, 1]


def test_probabilities_serve_where_there_is_no_decision_function(rng):
    y = np.repeat([0, 1], 400)
    X = rng.normal(size=(800, 2)) + y[:, None]
    model = AbstainingClassifier(GaussianNB(), max_fpr=0.05).fit(X, y)
    assert not hasattr(model, "decision_function")
    low, high = model.thresholds_
    assert 0 < low < 0.5 < high < 1
    score = model.predict_proba(X)[:, 1]
    np.testing.assert_array_equal(model.decide(X) == "synthetic", score > high)
    np.testing.assert_array_equal(model.predict(X), (score > 0.5).astype(int))


def test_thresholds_come_from_detectors_that_did_not_see_the_image(rng):
    y = np.repeat([0, 1], 200)
    X = rng.normal(size=(400, 20)) + 0.3 * y[:, None]
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    model = AbstainingClassifier(LogisticRegression(), max_fpr=0.1, cv=cv).fit(X, y)
    score = cross_val_predict(
        LogisticRegression(), X, y, cv=cv, method="decision_function"
    )
    expected = fitted(score[y == 0], score[y == 1], max_fpr=0.1)
    np.testing.assert_array_equal(model.thresholds_, expected.thresholds_)
    np.testing.assert_array_equal(
        model.decision_function(X), LogisticRegression().fit(X, y).decision_function(X)
    )


def test_an_image_of_several_folds_counts_once_with_its_worst_score():
    class OfFold(Score):
        """Adds the number of training rows to the score."""

        def fit(self, X, y):
            self.offset_ = len(y)
            return super().fit(X, y)

        def decision_function(self, X):
            return super().decision_function(X) + self.offset_

    y = np.repeat([0, 1], 20)
    X = np.concatenate([np.arange(20.0), np.arange(20.0) + 100])[:, None]
    rows = np.arange(40)
    test = rows[10:30]
    folds = [(np.r_[:7, 33:40], test), (np.r_[:9, 31:40], test)]
    limits = {"max_fpr": 0.3, "confidence": 0.8}
    model = AbstainingClassifier(OfFold(), cv=folds, **limits).fit(X, y)
    worst_real, worst_synthetic = X[10:20, 0] + 18, X[20:30, 0] + 14
    expected = fitted(worst_real, worst_synthetic, **limits)
    assert (model.n_real_, model.n_synthetic_) == (10, 10)
    np.testing.assert_array_equal(model.thresholds_, expected.thresholds_)


@pytest.mark.parametrize("labels", [("photo", "fake"), (7, 3), (True, False)])
def test_pos_label_names_the_synthetic_class(overlapping, labels):
    real, synthetic = overlapping
    score = np.concatenate([real, synthetic])
    y = np.repeat(np.array(labels), [1000, 600])
    real_label, synthetic_label = labels

    # Its decision function grows with the second label in sorted order, the real one.
    X = -score[:, None]
    turned = AbstainingClassifier(
        Score().fit(X, y), cv="prefit", max_fpr=0.05, pos_label=synthetic_label
    ).fit(X, y)
    expected = fitted(real, synthetic, max_fpr=0.05)
    np.testing.assert_array_equal(turned.thresholds_, expected.thresholds_)
    assert turned.fpr_ == expected.fpr_
    rename = np.vectorize({0: real_label, 1: synthetic_label}.get)
    np.testing.assert_array_equal(
        turned.predict(X), rename(expected.predict(score[:, None]))
    )
    words = ("real", "synthetic") if labels == (True, False) else map(str, labels)
    words = dict(zip(("real", "synthetic"), words), undecided="undecided")
    assert turned.decide(X).tolist() == [
        words[word] for word in expected.decide(score[:, None])
    ]


@pytest.fixture
def generators(rng):
    groups = np.repeat(["SD", "GAN", "COCO", "RAISE"], 60)
    y = np.repeat([1, 0], 120)
    return rng.normal(size=(240, 4)) + y[:, None], y, groups


def test_generators_are_held_out_by_routed_groups(generators):
    X, y, groups = generators
    model = AbstainingClassifier(
        LogisticRegression(), max_fpr=0.1, cv=LeaveOneGeneratorOut()
    )
    with config_context(enable_metadata_routing=True):
        model.fit(X, y, groups=groups)
    splits = LeaveOneGeneratorOut().split(X, y, groups)
    score = np.full(240, np.nan)
    for train, test in splits:
        own = LogisticRegression().fit(X[train], y[train])
        score[test] = own.decision_function(X[test])
    expected = fitted(score[y == 0], score[y == 1], max_fpr=0.1)
    np.testing.assert_array_equal(model.thresholds_, expected.thresholds_)


def test_groups_without_routing_ask_for_it(generators):
    X, y, groups = generators
    model = AbstainingClassifier(LogisticRegression(), cv=LeaveOneGeneratorOut())
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        model.fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="groups"):
        model.fit(X, y)


def test_weights_reach_the_detector_of_every_fold(generators):
    X, y, _ = generators
    seen = []

    class Noting(Score):
        def fit(self, X, y, sample_weight=None):
            seen.append(sample_weight)
            return super().fit(X, y)

    weight = np.arange(240.0)
    with config_context(enable_metadata_routing=True):
        detector = Noting().set_fit_request(sample_weight=True)
        AbstainingClassifier(detector, max_fpr=0.2, cv=3).fit(
            X, y, sample_weight=weight
        )
    assert sorted(map(len, seen)) == [160, 160, 160, 240]
    assert np.isin(np.concatenate(seen), weight).all()


def test_folds_may_be_fitted_side_by_side(generators):
    X, y, _ = generators
    model = AbstainingClassifier(LogisticRegression(), max_fpr=0.1)
    alone = clone(model).fit(X, y).thresholds_
    together = clone(model).set_params(n_jobs=2).fit(X, y).thresholds_
    np.testing.assert_array_equal(alone, together)


def test_images_are_handed_on_as_they_are(generators):
    X, y, _ = generators

    class OfPaths(Score):
        def decision_function(self, X):
            return super().decision_function([[float(path[4:])] for path in X])

    paths = [f"img/{x:.6f}" for x in X[:, 0]]
    for images in (paths, pd.Series(paths), np.array(paths)):
        model = AbstainingClassifier(OfPaths(), max_fpr=0.1).fit(images, y)
        assert not hasattr(model, "n_features_in_")
        assert len(model.decide(images)) == 240


def test_a_prefit_detector_is_not_fitted_again(generators):
    X, y, _ = generators
    detector = LogisticRegression().fit(X, y)
    model = AbstainingClassifier(detector, cv="prefit", max_fpr=0.1).fit(X, y)
    assert model.estimator_ is detector
    frozen = AbstainingClassifier(FrozenEstimator(detector), cv="prefit", max_fpr=0.1)
    again = clone(frozen).fit(X, y)
    np.testing.assert_array_equal(again.thresholds_, model.thresholds_)


def test_calibrated_detectors_and_our_own_work(generators):
    X, y, _ = generators
    for detector in (
        CalibratedClassifierCV(LogisticRegression(), cv=3),
        OrthogonalLinearDetector(2, random_state=0),
    ):
        model = AbstainingClassifier(detector, max_fpr=0.1, cv=3).fit(X, y)
        assert set(model.decide(X)) <= {"real", "synthetic", "undecided"}
        assert model.score(X, y) > 0.7


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_fpr": 0}, "The 'max_fpr' parameter"),
        ({"max_fpr": 1.0}, "The 'max_fpr' parameter"),
        ({"max_fnr": 2}, "The 'max_fnr' parameter"),
        ({"confidence": 1}, "The 'confidence' parameter"),
        ({"cv": "fit"}, "The 'cv' parameter"),
        ({"pos_label": 5}, "y == pos_label=5"),
        ({"cv": "prefit"}, "not fitted yet"),
        ({"cv": [(np.arange(240), np.arange(120))]}, "holds out no photograph"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(generators, parameters, message):
    X, y, _ = generators
    with pytest.raises(ValueError, match=message):
        AbstainingClassifier(LogisticRegression(), **parameters).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.tile([[0, 1]], (240, 1)), "multilabel-indicator. Pass one of two labels"),
        (np.arange(240) % 3, "multiclass. Pass one of two labels"),
        (np.linspace(0, 1, 240), "continuous. Pass one of two labels"),
        (np.r_[np.nan, np.ones(239)], "Input y contains NaN"),
        (np.arange(100) % 2, r"inconsistent numbers of samples: \[240, 100\]"),
    ],
)
def test_labels_that_are_not_two_a_row_are_told(generators, y, message):
    X, _, _ = generators
    with pytest.raises(ValueError, match=message):
        AbstainingClassifier(LogisticRegression()).fit(X, y)


def test_one_class_is_not_enough():
    detector = Score().fit(None, [0, 1])
    for y in (np.zeros(5), np.ones(5)):
        with pytest.raises(ValueError, match=r"one class or none.*add the other"):
            AbstainingClassifier(detector, cv="prefit").fit(np.ones((5, 1)), y)


def test_labels_of_a_prefit_detector_are_those_of_y():
    detector = Score().fit(None, ["fake", "photo"])
    with pytest.raises(ValueError, match=r"labels \[0, 1\] for an estimator fitted to"):
        AbstainingClassifier(detector, cv="prefit").fit(np.ones((4, 1)), [0, 0, 1, 1])


def test_scores_that_are_nan_are_named():
    X, y = np.array([[0.0], [1.0], [np.nan], [3.0]]), [0, 0, 1, 1]
    model = AbstainingClassifier(Score().fit(X, y), cv="prefit")
    with pytest.raises(ValueError, match=r"score of NaN from Score for row\(s\) 2"):
        model.fit(X, y)
