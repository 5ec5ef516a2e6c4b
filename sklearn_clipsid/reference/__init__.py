"""Published detectors, with the features and the preprocessing of their training."""

from sklearn_clipsid.reference._detectors import list_reference_detectors
from sklearn_clipsid.reference._heads import load_reference_head
from sklearn_clipsid.reference._pipelines import reference_pipeline
from sklearn_clipsid.reference._soft_or import soft_or_fusion

__all__ = [
    "list_reference_detectors",
    "load_reference_head",
    "reference_pipeline",
    "soft_or_fusion",
]
