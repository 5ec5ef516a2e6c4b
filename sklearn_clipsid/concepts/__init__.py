"""Directions that stand for concepts, from texts or from edited photographs."""

from sklearn_clipsid.concepts._image_directions import concept_directions_from_images
from sklearn_clipsid.concepts._photographic_edit import PhotographicEdit
from sklearn_clipsid.concepts._photographic_edits import photographic_edits
from sklearn_clipsid.concepts._text_directions import concept_directions_from_text

__all__ = [
    "PhotographicEdit",
    "concept_directions_from_images",
    "concept_directions_from_text",
    "photographic_edits",
]
