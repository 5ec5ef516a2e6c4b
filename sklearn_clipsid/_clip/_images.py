"""Decode images to the pixels that Pillow gives, cropped as a recipe says."""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from sklearn_clipsid._clip._weights import Recipe

# A panorama of 4,000 x 1 pixels becomes 896,000 x 224 when its short side is scaled to
# the input size. Above this many pixels only the crop itself is resampled.
MAX_RESIZED_PIXELS = 64_000_000


class UnreadableImageError(ValueError):
    """An image could not be decoded; the message is the reason alone."""


def decode_image(source: Any, *, apply_exif: bool = False) -> Image.Image:
    """Decode one image to RGB exactly as Pillow's ``convert("RGB")`` does.

    Parameters
    ----------
    source : bytes, PIL.Image.Image or ndarray of uint8
        Encoded bytes, an open image, or pixels of shape (height, width),
        (height, width, 3) or (height, width, 4).

    apply_exif : bool, default=False
        Whether to rotate the image as its EXIF orientation says.

    Returns
    -------
    image : PIL.Image.Image
        The first frame in mode "RGB", at full resolution.

    Raises
    ------
    UnreadableImageError
        With the reason, when the image cannot be decoded.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(source, np.ndarray):
        image = _image_from_array(source)
    elif isinstance(source, Image.Image):
        image = source
    elif len(source) == 0:
        raise UnreadableImageError("the file is empty (0 bytes)")
    else:
        image = None
    try:
        if image is None:
            image = Image.open(io.BytesIO(source))
        if apply_exif:
            image = ImageOps.exif_transpose(image)
        return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            "it is not an image in a format that Pillow reads"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    # What Pillow's decoders raise for damaged files, as seen in its issue tracker.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as e:
        raise UnreadableImageError(f"{type(e).__name__}: {e}") from e


def _image_from_array(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_image or pixels.size == 0:
        raise UnreadableImageError(
            f"got an array of dtype {pixels.dtype} and shape {pixels.shape} but "
            "expected uint8 of shape (height, width, 3)"
        )
    return Image.fromarray(pixels)


def crop_to_input(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """Resize and crop an RGB image to the square that the model takes.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image of any size.

    recipe : Recipe
        Size, interpolation and geometry.

    Returns
    -------
    pixels : ndarray of shape (size, size, 3), dtype uint8
        The model's input before scaling and standardisation.
    """
    from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    size = recipe.size
    mode = InterpolationMode(recipe.interpolation)
    if recipe.geometry == "crop":
        steps = [CenterCrop(size)]
    elif recipe.geometry == "squash":
        steps = [Resize((size, size), mode)]
    elif recipe.geometry == "longest":
        steps = [
            ResizeKeepRatio((size, size), mode, longest=1),
            CenterCropOrPad((size, size), fill=recipe.fill),
        ]
    elif size * size * max(image.size) / min(image.size) > MAX_RESIZED_PIXELS:
        return _resize_centre(image, recipe)
    else:
        steps = [Resize(size, mode), CenterCrop(size)]
    return np.asarray(Compose(steps)(image))  # (size, size, 3)


def _resize_centre(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """Resample the central square alone: the same crop up to rounding, no panorama."""
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    square = image.resize(
        (recipe.size, recipe.size),
        Image.Resampling[recipe.interpolation.upper()],
        box=(left, top, left + side, top + side),
    )
    return np.asarray(square)  # (size, size, 3)


def save_image(
    pixels: np.ndarray, path: str | os.PathLike, **save_options: Any
) -> None:
    """Write pixels to an image file, without metadata.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), dtype uint8
        The image.

    path : str or PathLike
        Where to write; the suffix names the format.

    **save_options : dict
        Passed to Pillow's ``save``, such as ``quality=90``.
    """
    _image_from_array(pixels).save(path, **save_options)
