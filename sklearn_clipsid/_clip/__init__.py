"""Everything that touches torch, open_clip or Pillow, behind arrays and strings."""

from sklearn_clipsid._clip._file_facts import (
    LOOK_BITS,
    FileFacts,
    read_file_facts,
    read_image_size,
)
from sklearn_clipsid._clip._images import (
    UnreadableImageError,
    compress_jpeg,
    compress_webp,
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
    "LOOK_BITS",
    "FileFacts",
    "UnreadableImageError",
    "compress_jpeg",
    "compress_webp",
    "crop_to_input",
    "decode_image",
    "feature_widths",
    "get_image_tower",
    "get_text_tower",
    "known_weights",
    "local_signatures",
    "read_file_facts",
    "read_image_size",
    "resize_pixels",
]
