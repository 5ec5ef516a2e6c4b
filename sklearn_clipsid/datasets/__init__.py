"""Data sets of photographs and synthetic images: your own, a sample, and stand-ins."""

from sklearn_clipsid.datasets._antonyms import load_photographic_antonyms, read_antonyms
from sklearn_clipsid.datasets._cnnspot import fetch_cnnspot
from sklearn_clipsid.datasets._equalize_images import equalize_images
from sklearn_clipsid.datasets._image_folder import load_image_folder
from sklearn_clipsid.datasets._leak_audit import leak_audit
from sklearn_clipsid.datasets._paired_images import make_paired_images
from sklearn_clipsid.datasets._quality_scores import load_quality_scores
from sklearn_clipsid.datasets._sample import load_sample_embeddings
from sklearn_clipsid.datasets._sample_concepts import load_sample_concepts
from sklearn_clipsid.datasets._synthbuster_plus import fetch_synthbuster_plus
from sklearn_clipsid.datasets._synthclic import fetch_synthclic

__all__ = [
    "fetch_cnnspot",
    "fetch_synthbuster_plus",
    "fetch_synthclic",
    "equalize_images",
    "leak_audit",
    "load_image_folder",
    "load_photographic_antonyms",
    "load_quality_scores",
    "load_sample_concepts",
    "load_sample_embeddings",
    "make_paired_images",
    "read_antonyms",
]
