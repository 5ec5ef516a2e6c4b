"""Cross-validation over generators and over data sets."""

from sklearn_clipsid.model_selection._cross_dataset import (
    cross_dataset_validate,
    mean_average_precision_matrix,
)
from sklearn_clipsid.model_selection._cross_generator import CrossGeneratorSplit
from sklearn_clipsid.model_selection._few_shot import few_shot_curve
from sklearn_clipsid.model_selection._robustness import robustness_table
from sklearn_clipsid.model_selection._split import LeaveOneGeneratorOut

__all__ = [
    "CrossGeneratorSplit",
    "LeaveOneGeneratorOut",
    "cross_dataset_validate",
    "few_shot_curve",
    "mean_average_precision_matrix",
    "robustness_table",
]
