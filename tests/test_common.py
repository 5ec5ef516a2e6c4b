"""Scikit-learn's own checks, without expected failures.

CLIPEmbedder takes images, not tables; its own tests stand in for these.
"""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_clipsid import BlockSelector, OrthogonalLinearDetector

ESTIMATORS = [OrthogonalLinearDetector(n_components=2), BlockSelector(n_blocks=1)]


@parametrize_with_checks(ESTIMATORS)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
