"""Data sets of photographs and synthetic images: your own, a sample, and stand-ins."""

from sklearn_clipsid.datasets._image_folder import load_image_folder
from sklearn_clipsid.datasets._paired_images import make_paired_images
from sklearn_clipsid.datasets._sample import load_sample_embeddings

__all__ = ["load_image_folder", "load_sample_embeddings", "make_paired_images"]
