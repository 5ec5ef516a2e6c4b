import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.reference import soft_or_fusion


def test_it_is_the_chance_that_not_all_detectors_err(rng):
    P = rng.uniform(size=(50, 3))
    expected = 1 - (1 - P[:, 0]) * (1 - P[:, 1]) * (1 - P[:, 2])
    np.testing.assert_allclose(soft_or_fusion(P), expected, rtol=1e-14)


def test_logits_fuse_to_the_logit_of_the_fused_probabilities(rng):
    X = rng.normal(scale=4, size=(50, 3))
    fused = soft_or_fusion(X, from_logits=True)
    np.testing.assert_allclose(expit(fused), soft_or_fusion(expit(X)), rtol=1e-12)


def test_one_detector_is_left_as_it_is(rng):
    X = np.concatenate([rng.normal(scale=9, size=200), [-750.0, -31.0, -29.0, 750.0]])
    np.testing.assert_allclose(soft_or_fusion(X[:, None], from_logits=True), X)
    P = np.array([0.0, 1e-300, 0.5, 1.0])
    np.testing.assert_array_equal(soft_or_fusion(P[:, None]), P)


def test_logits_keep_what_probabilities_would_round_away():
    twice = [[-700.0, -700.0], [-27.63, -27.63], [40.0, 40.0], [900.0, 0.0]]
    fused = soft_or_fusion(twice, from_logits=True)
    # Small chances add up; of odds that are large, the products do.
    expected = [-700 + np.log(2), -27.63 + np.log(2), 80.0, 900 + np.log(2)]
    np.testing.assert_allclose(fused, expected, rtol=1e-10)


def test_small_chances_agree_with_exact_arithmetic():
    from fractions import Fraction

    P = np.array([[2.0**-30, 2.0**-35], [2.0**-3, 2.0**-50]])
    exact = [float(1 - (1 - Fraction(a)) * (1 - Fraction(b))) for a, b in P]
    np.testing.assert_allclose(soft_or_fusion(P), exact, rtol=1e-14)
    fused = soft_or_fusion(logit(P), from_logits=True)
    np.testing.assert_allclose(fused, logit(exact), rtol=1e-14)


def test_it_is_never_below_any_detector(rng):
    X = rng.normal(scale=30, size=(500, 4))
    fused = soft_or_fusion(X, from_logits=True)
    assert (fused >= X.max(axis=1) * (1 - 1e-12 * np.sign(X.max(axis=1)))).all()


def test_scores_that_are_no_probabilities_are_named():
    P = [[0.1, 0.2], [np.nan, 1.5]]
    with pytest.raises(
        ValueError, match=r"nan in row 1, column 0, 1\.5 in row 1, column 1, but"
    ):
        soft_or_fusion(P)
    with pytest.raises(ValueError, match="inf in row 0, column 0, but expected finite"):
        soft_or_fusion([[np.inf, 0.0]], from_logits=True)
    with pytest.raises(ValueError, match="Expected 2D array"):
        soft_or_fusion([0.1, 0.2])


def test_votes_and_stacks_of_frozen_detectors_share_one_embedding(rng):
    X = rng.standard_normal((120, 6))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    first = OrthogonalLinearDetector(2, random_state=0).fit(X, y)
    second = LogisticRegression().fit(X[:, ::-1][:, ::-1] * [1, 0, 1, 1, 1, 1], y)
    named = [("first", FrozenEstimator(first)), ("second", FrozenEstimator(second))]
    vote = VotingClassifier(named, voting="soft").fit(X, y)
    P = np.column_stack([m.predict_proba(X)[:, 1] for m in (first, second)])
    np.testing.assert_allclose(vote.predict_proba(X)[:, 1], P.mean(axis=1))
    stack = StackingClassifier(named, LogisticRegression(), cv="prefit").fit(X, y)
    expected = LogisticRegression().fit(P, y).predict_proba(P)
    np.testing.assert_allclose(stack.predict_proba(X), expected)
    assert vote.estimators_[0].estimator is first  # not fitted again
