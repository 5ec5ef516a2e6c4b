"""One report of everything that an honest evaluation says."""

from sklearn_clipsid.report._detection_report import DetectionReport
from sklearn_clipsid.report._evaluate import evaluate

__all__ = ["DetectionReport", "evaluate"]
