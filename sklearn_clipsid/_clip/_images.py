"""Decode images to the pixels that Pillow gives, cropped as a recipe says."""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from sklearn_clipsid._clip._weights import Recipe

# A panorama of 4,000 x 1 pixels becomes 896,000 x 224 when its short side is scaled to
# the input size. Above this many pixels only the crop itself is resampled.
MAX_RESIZED_PIXELS = 64_000_000
# A PIL image loads its pixels at the first use, which two threads must not do at once.
# Few images meet at one of these locks by chance.
_loading = [threading.Lock() for _ in range(64)]


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
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(source, np.ndarray):
            return _image_from_array(source).convert("RGB")
        if isinstance(source, Image.Image):
            with _loading[id(source) // 16 % len(_loading)]:
                return to_rgb(source, apply_exif)
        return to_rgb(open_image(source), apply_exif)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            "it is not an image in a format that Pillow reads"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    # Pillow's decoders raise whatever they stumble over in a damaged file: RuntimeError
    # for AVIF, struct.error, AttributeError, MemoryError, and warnings made errors.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(source, Image.Image):
            reason += "; was it closed before its pixels were loaded (image.load())?"
        raise UnreadableImageError(reason) from error


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image without decoding it; refuse what would be run."""
    from PIL import Image

    if len(data) == 0:
        raise UnreadableImageError("the file is empty (0 bytes)")
    image = Image.open(io.BytesIO(data))
    if image.format == "EPS":
        raise UnreadableImageError("it is an EPS program, which would be run")
    return image


def to_rgb(image: Image.Image, apply_exif: bool) -> Image.Image:
    """Decode an image to mode "RGB", rotated as its EXIF says if asked to."""
    from PIL import ImageOps

    image.load()
    if apply_exif:
        image = ImageOps.exif_transpose(image)
    if isinstance(image.info.get("transparency"), bytes) and image.mode != "RGBA":
        # convert() warns that this transparency is lost, with the same pixels.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


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
            ResizeKeepRatio((size, size), longest=1, interpolation=mode),
            CenterCropOrPad((size, size), fill=recipe.fill),
        ]
    elif size * size * max(image.size) / min(image.size) > MAX_RESIZED_PIXELS:
        return _resize_centre(image, recipe)
    else:
        steps = [Resize(size, mode), CenterCrop(size)]
    return np.asarray(Compose(steps)(image))  # (size, size, 3)


def _resize_centre(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """Resample only what the crop keeps: the same pixels, without the panorama."""
    from PIL import Image

    short, long = sorted(image.size)
    # As torchvision rounds the long side of the scaled copy and the offset of its crop.
    scaled_long = int(recipe.size * long / short)
    offset = round((scaled_long - recipe.size) / 2)
    start, end = (x * long / scaled_long for x in (offset, offset + recipe.size))
    is_wide = image.width > image.height
    square = image.resize(
        (recipe.size, recipe.size),
        Image.Resampling[recipe.interpolation.upper()],
        box=(start, 0, end, short) if is_wide else (0, start, short, end),
    )
    return np.asarray(square)  # (size, size, 3)


def compress_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decode an image.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), dtype uint8
        The image.

    quality : int
        Of Pillow's encoder, from 1 to 95.

    Returns
    -------
    compressed : ndarray of shape (height, width, 3), dtype uint8
        What a reader of the file gets.
    """
    return _recoded(pixels, "JPEG", quality)


def compress_webp(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Compress with loss as WebP, and decode an image.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), dtype uint8
        The image.

    quality : int
        Of Pillow's encoder, from 0 to 100.

    Returns
    -------
    compressed : ndarray of shape (height, width, 3), dtype uint8
        What a reader of the file gets.
    """
    return _recoded(pixels, "WEBP", quality)


def _recoded(pixels: np.ndarray, file_format: str, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    _image_from_array(pixels).save(stream, file_format, quality=quality)
    return np.asarray(open_image(stream.getvalue()).convert("RGB"))


def resize_pixels(
    pixels: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Scale an image.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), dtype uint8
        The image.

    size : tuple of int
        New width and height.

    interpolation : {"nearest", "box", "bilinear", "bicubic", "lanczos"}
        As Pillow names them.

    Returns
    -------
    scaled : ndarray of shape (size[1], size[0], 3), dtype uint8
        The scaled image.
    """
    from PIL import Image

    mode = Image.Resampling[interpolation.upper()]
    return np.asarray(_image_from_array(pixels).resize(size, mode))


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
