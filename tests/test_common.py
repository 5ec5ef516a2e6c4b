"""Scikit-learn's own checks, without expected failures.

CLIPEmbedder takes images, not tables; its own tests stand in for these.
"""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_clipsid import (
    AbstainingClassifier,
    BlockMixer,
    BlockSelector,
    CommonSupportClassifier,
    ComponentEliminator,
    ConceptBottleneckClassifier,
    HeadSelector,
    OrthogonalLinearDetector,
    SourceEraser,
    TextSpan,
)

ESTIMATORS = [
    OrthogonalLinearDetector(n_components=2),
    OrthogonalLinearDetector(n_components=2, axes="canonical"),
    BlockSelector(n_blocks=1),
    BlockMixer(n_blocks=1),
    BlockMixer("feature", n_blocks=1),
    HeadSelector(head_blocks=1, embed_dim=1),
    ComponentEliminator(),
    ComponentEliminator("principal"),
    SourceEraser(),
    SourceEraser(method="leace"),
    CommonSupportClassifier(LogisticRegression()),
    # The checks bring data of many widths. Without directions of one width, each
    # feature is a concept. Defaults are checked once; fewer epochs save a minute.
    ConceptBottleneckClassifier(),
    ConceptBottleneckClassifier(gates="similarity", max_iter=100),
    ConceptBottleneckClassifier(gates="none", max_iter=100),
    TextSpan(n_components=2),
    # Limits that the few images of the checks can promise.
    AbstainingClassifier(LogisticRegression(), max_fpr=0.5, confidence=0.6, cv=3),
]


# The checks know no sources.
@pytest.mark.filterwarnings("ignore:Got groups=None")
@parametrize_with_checks(ESTIMATORS)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
