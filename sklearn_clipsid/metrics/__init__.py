"""Metrics per generator."""

from sklearn_clipsid.metrics._likelihood_ratio import (
    log_likelihood_ratio_cost,
    minimum_log_likelihood_ratio_cost,
)
from sklearn_clipsid.metrics._operating_point import (
    tpr_at_fpr_score,
    wilson_interval,
)
from sklearn_clipsid.metrics._ranking import (
    average_precision_by_generator,
    make_mean_average_precision_scorer,
    mean_average_precision_score,
)

__all__ = [
    "average_precision_by_generator",
    "log_likelihood_ratio_cost",
    "make_mean_average_precision_scorer",
    "mean_average_precision_score",
    "minimum_log_likelihood_ratio_cost",
    "tpr_at_fpr_score",
    "wilson_interval",
]
