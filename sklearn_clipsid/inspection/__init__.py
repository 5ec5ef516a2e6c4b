"""Look into detectors: what concepts add, what axes show, on which images."""

from sklearn_clipsid.inspection._axis_display import AxisDisplay
from sklearn_clipsid.inspection._collage import plot_collage
from sklearn_clipsid.inspection._contribution_display import ConceptContributionDisplay
from sklearn_clipsid.inspection._cue_profile import cue_profile
from sklearn_clipsid.inspection._naming import name_components

__all__ = [
    "AxisDisplay",
    "ConceptContributionDisplay",
    "cue_profile",
    "name_components",
    "plot_collage",
]
