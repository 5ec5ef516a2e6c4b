"""Metrics per generator, and of predicted opinion scores."""

from sklearn_clipsid.metrics._likelihood_ratio import (
    log_likelihood_ratio_cost,
    minimum_log_likelihood_ratio_cost,
)
from sklearn_clipsid.metrics._operating_point import (
    tpr_at_fpr_score,
    wilson_interval,
)
from sklearn_clipsid.metrics._quality import (
    krcc_score,
    plcc_score,
    quality_scorers,
    srcc_score,
)
from sklearn_clipsid.metrics._ranking import (
    average_precision_by_generator,
    make_mean_average_precision_scorer,
    mean_average_precision_score,
)

__all__ = [
    "average_precision_by_generator",
    "krcc_score",
    "log_likelihood_ratio_cost",
    "make_mean_average_precision_scorer",
    "mean_average_precision_score",
    "minimum_log_likelihood_ratio_cost",
    "plcc_score",
    "quality_scorers",
    "srcc_score",
    "tpr_at_fpr_score",
    "wilson_interval",
]
