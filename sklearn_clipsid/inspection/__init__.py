"""Look into detectors: what concepts add, what axes show, on which images."""

from sklearn_clipsid.inspection._axis_display import AxisDisplay
from sklearn_clipsid.inspection._collage import plot_collage
from sklearn_clipsid.inspection._contribution_display import ConceptContributionDisplay
from sklearn_clipsid.inspection._cross_dataset_display import CrossDatasetDisplay
from sklearn_clipsid.inspection._cue_profile import cue_profile
from sklearn_clipsid.inspection._few_shot_display import FewShotDisplay
from sklearn_clipsid.inspection._generator_ap_display import GeneratorAPDisplay
from sklearn_clipsid.inspection._naming import name_components
from sklearn_clipsid.inspection._robustness_display import RobustnessDisplay

__all__ = [
    "AxisDisplay",
    "ConceptContributionDisplay",
    "CrossDatasetDisplay",
    "FewShotDisplay",
    "GeneratorAPDisplay",
    "RobustnessDisplay",
    "cue_profile",
    "name_components",
    "plot_collage",
]
