"""Metrics per generator."""

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
    "make_mean_average_precision_scorer",
    "mean_average_precision_score",
    "tpr_at_fpr_score",
    "wilson_interval",
]
