"""Make random views of images, as a detector may meet them."""

import io
import os
from contextlib import nullcontext
from hashlib import blake2b
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

from sklearn_clipsid._content_hash import content_hash, read_file
from sklearn_clipsid._progress import slow_bar
from sklearn_clipsid._read_image import read_image

# The recipe of Willi et al.
SIZE = 512
AREA = (0.5, 1.0)  # share of the image that a crop shows
RATIO = (3 / 4, 4 / 3)  # width to height of a crop
QUALITY = (65, 100)
N_TRIES = 10  # as torchvision, whose RandomResizedCrop the recipe names


class _Recipe(NamedTuple):
    """What is the same for all images."""

    n_views: int
    seed: int
    folder: str | None
    drafts: str | None
    apply_exif: bool


def make_views(images, n_views, seed, *, folder, apply_exif, n_jobs):
    """Make views of each image.

    Parameters
    ----------
    images : sequence of images
        As `as_images` returns them.

    n_views : int
        Views of each.

    seed : int
        With the content of an image it decides the views, wherever the image stands.

    folder : str or None
        Where views are kept as files. None keeps them in memory, encoded.

    apply_exif : bool
        Whether to rotate images as their EXIF orientation says.

    n_jobs : int or None
        Threads.

    Returns
    -------
    views : list of list
        For each image its views: paths, or encoded bytes.
    """
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
    with nullcontext() if folder is None else TemporaryDirectory(dir=folder) as drafts:
        recipe = _Recipe(n_views, seed, folder, drafts, bool(apply_exif))
        made = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
            delayed(_views_of)(images[index], index, recipe)
            for index in range(len(images))
        )
        return list(slow_bar(made, "making views", len(images), unit="image"))


def _views_of(image, index, recipe):
    """Return the views of one image, which is decoded if one of them is missing."""
    place = f"at index {index}"
    content = content_of(image, place, recipe.apply_exif)
    pixels, views = None, []
    for view in range(recipe.n_views):
        # The name of a file is the seed of what it shows.
        key = content + f"{recipe.seed} {view} {recipe.apply_exif}".encode()
        name = blake2b(key, digest_size=16).hexdigest()
        path = recipe.folder and os.path.join(recipe.folder, f"{name}.jpg")
        if path is not None and os.path.exists(path):
            views.append(path)
            continue
        if pixels is None:
            image = read_image(image, place, apply_exif=recipe.apply_exif)
            pixels = np.asarray(image)  # (height, width, 3)
        encoded = draw_view(pixels, np.random.default_rng(int(name, 16)))
        if path is not None:
            # Of its own for each index, as images of equal bytes have the same views.
            draft = os.path.join(recipe.drafts, f"{index}.jpg")
            with open(draft, "wb") as file:
                file.write(encoded)
            os.replace(draft, path)
        views.append(encoded if path is None else path)
    return views


def content_of(image, place, apply_exif):
    if isinstance(image, (str, os.PathLike)):
        try:
            return read_file(image).content
        except (OSError, ValueError):
            read_image(image, place)  # meets the same error, and names the image
            raise
    if isinstance(image, (bytes, bytearray)):
        return content_hash(bytes(image))
    return content_hash(np.asarray(read_image(image, place, apply_exif=apply_exif)))


def draw_view(pixels, rng):
    """Crop, scale, mirror and compress an image at random.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), dtype uint8
        The image.

    rng : numpy.random.Generator
        Draws what is done to it.

    Returns
    -------
    view : bytes
        A JPEG file.
    """
    from sklearn_clipsid._clip import resize_pixels
    from sklearn_clipsid._clip._images import save_image

    top, left, height, width = draw_crop(*pixels.shape[:2], rng)
    cropped = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    view = resize_pixels(cropped, (SIZE, SIZE), "bilinear")  # (SIZE, SIZE, 3)
    if rng.random() < 0.5:
        view = np.ascontiguousarray(view[:, ::-1])
    stream = io.BytesIO()
    quality = int(rng.integers(*QUALITY, endpoint=True))
    save_image(view, stream, format="JPEG", quality=quality)
    return stream.getvalue()


def draw_crop(height, width, rng):
    """Draw a rectangle inside an image, as torchvision's RandomResizedCrop does.

    Parameters
    ----------
    height, width : int
        Of the image.

    rng : numpy.random.Generator
        Draws it.

    Returns
    -------
    top, left, height, width : int
        The rectangle.
    """
    for _ in range(N_TRIES):
        area = height * width * rng.uniform(*AREA)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    # A panorama, which no crop of the ratios fills by half: the largest in its centre.
    w = max(min(width, round(height * RATIO[1])), 1)
    h = max(min(height, round(width / RATIO[0])), 1)
    return (height - h) // 2, (width - w) // 2, h, w
