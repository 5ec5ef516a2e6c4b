"""Everything that touches torch, open_clip or Pillow, behind arrays and strings."""

from sklearn_clipsid._clip._images import (
    UnreadableImageError,
    compress_jpeg,
    crop_to_input,
    decode_image,
    resize_pixels,
)
from sklearn_clipsid._clip._registry import (
    get_image_tower,
    get_text_tower,
    local_signatures,
)
from sklearn_clipsid._clip._weights import feature_widths, known_weights

__all__ = [
    "UnreadableImageError",
    "compress_jpeg",
    "crop_to_input",
    "decode_image",
    "feature_widths",
    "get_image_tower",
    "get_text_tower",
    "known_weights",
    "local_signatures",
    "resize_pixels",
]
