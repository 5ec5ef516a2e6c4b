"""Read images and crop them to the pixels that an encoder sees."""

import os

import numpy as np

from sklearn_clipsid._content_hash import read_file
from sklearn_clipsid._image_sequence import name_of


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
    from sklearn_clipsid._clip import crop_to_input, decode_image

    pixels = np.empty((len(images), recipe.size, recipe.size, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        try:
            source = image
            if isinstance(image, (str, os.PathLike)):
                source = read_file(image).data
            decoded = decode_image(source, apply_exif=apply_exif)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"Could not read the image at index {index}, {name_of(image)}: "
                f"{reason}. Repair or remove it."
            ) from error
        pixels[index] = crop_to_input(decoded, recipe)
    return pixels
