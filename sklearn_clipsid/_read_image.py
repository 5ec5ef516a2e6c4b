"""Read images, whole or cropped to the pixels that an encoder sees."""

import os

import numpy as np

from sklearn_clipsid._content_hash import read_file
from sklearn_clipsid._image_sequence import name_of


def read_image(image, place, *, apply_exif=False):
    """Read one image, or name it.

    Parameters
    ----------
    image : path, bytes, PIL.Image.Image or ndarray
        The image.

    place : str
        Where it stands among others, for the message, such as "at index 3".

    apply_exif : bool, default=False
        Whether to rotate it as its EXIF orientation says.

    Returns
    -------
    image : PIL.Image.Image
        In mode "RGB".
    """
    from sklearn_clipsid._clip import decode_image

    try:
        source = image
        if isinstance(image, (str, os.PathLike)):
            source = read_file(image).data
        elif isinstance(image, bytearray):
            source = bytes(image)
        return decode_image(source, apply_exif=apply_exif)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Could not read the image {place}, {name_of(image)}: {reason}. Repair or "
            "remove it."
        ) from error


def read_model_input(images, recipe, apply_exif):
    """Return what an encoder sees of each image, before it scales the numbers.

    Parameters
    ----------
    images : list
        Paths, encoded bytes, PIL images or arrays.

    recipe : Recipe
        Size, interpolation and geometry.

    apply_exif : bool
        Whether to rotate images as their EXIF orientation says.

    Returns
    -------
    pixels : ndarray of shape (n_images, size, size, 3), dtype uint8
        The cropped images.
    """
    from sklearn_clipsid._clip import crop_to_input

    pixels = np.empty((len(images), recipe.size, recipe.size, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        decoded = read_image(image, f"at index {index}", apply_exif=apply_exif)
        pixels[index] = crop_to_input(decoded, recipe)
    return pixels
