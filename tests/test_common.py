"""Scikit-learn's own checks, without expected failures.

CLIPEmbedder takes images, not tables; its own tests stand in for these.
"""

from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_clipsid import (
    AbstainingClassifier,
    BlockSelector,
    ConceptBottleneckClassifier,
    OrthogonalLinearDetector,
    TextSpan,
)

ESTIMATORS = [
    OrthogonalLinearDetector(n_components=2),
    OrthogonalLinearDetector(n_components=2, axes="canonical"),
    BlockSelector(n_blocks=1),
    # The checks bring data of many widths. Without directions of one width, each
    # feature is a concept.
    ConceptBottleneckClassifier(gates="embedding"),
    ConceptBottleneckClassifier(gates="similarity"),
    ConceptBottleneckClassifier(gates="none"),
    TextSpan(n_components=2),
    # Limits that the few images of the checks can promise.
    AbstainingClassifier(LogisticRegression(), max_fpr=0.5, confidence=0.6, cv=3),
]


@parametrize_with_checks(ESTIMATORS)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
