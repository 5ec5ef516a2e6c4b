"""Cross-validation over generators."""

from sklearn_clipsid.model_selection._split import LeaveOneGeneratorOut

__all__ = ["LeaveOneGeneratorOut"]
