"""Check that an input is a sequence of images, and name those that cannot be read."""

import os
from collections.abc import Mapping

import numpy as np

# Unreadable images named in one message; the rest are counted.
MAX_NAMED = 20


def as_images(X):
    """Return X as a sequence of images, or say what is wrong with it."""
    if isinstance(X, (str, bytes, bytearray, os.PathLike)):
        raise ValueError(
            f"Got one {type(X).__name__} ({X!r:.80}) but expected a sequence of images;"
            " pass a list, such as [path]."
        )
    if hasattr(X, "columns") and hasattr(X, "iloc"):  # a frame, such as ["path"] picks
        if X.shape[1] != 1:
            raise ValueError(
                f"Got a frame of {X.shape[1]} columns but expected one column of "
                "images; select it, such as X[['path']]."
            )
        X = X.iloc[:, 0]
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        X = _column_of_images(X)
    if isinstance(X, Mapping) or not (
        hasattr(X, "__len__") and hasattr(X, "__getitem__")
    ):
        raise ValueError(
            f"Got one {type(X).__name__} but expected a sequence of images with a "
            "length; pass a list."
        )
    if len(X) == 0:
        raise ValueError("Got 0 images but expected at least 1; X is empty.")
    for index, image in enumerate(X):
        _check_image_type(index, image)
    return X


def _column_of_images(X):
    if X.ndim == 4 or (X.ndim == 1 and X.dtype.kind != "S"):
        return X
    if X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUT":
        return X[:, 0]
    if X.dtype == np.uint8 and X.ndim in (2, 3):
        remedy = "one image goes in a list: [image]."
    elif X.dtype.kind == "S":
        remedy = "such arrays cut bytes at a zero; pass a list, or str for paths."
    else:
        remedy = "embeddings go to the detector, not to CLIPEmbedder."
    raise ValueError(
        f"Got an array of shape {X.shape} and dtype {X.dtype} but expected one image "
        f"per row, of shape (n_samples,) or (n_samples, 1); {remedy}"
    )


def _check_image_type(index, image):
    if isinstance(image, (str, os.PathLike, bytes, bytearray, np.ndarray)):
        return
    # Asked without importing Pillow.
    bases = type(image).__mro__
    if any(b.__module__ == "PIL.Image" and b.__name__ == "Image" for b in bases):
        return
    raise ValueError(
        f"Got {type(image).__name__} ({image!r:.60}) at index {index} but expected a "
        "path, encoded bytes, a PIL image or a uint8 array."
    )


def describe_unreadable(failures):
    """Return a message that names images whose rows are NaN and says why.

    Parameters
    ----------
    failures : list of (index, image, reason)
        At least one.

    Returns
    -------
    message : str
        One line for one failure, else a list.
    """
    lines = [
        f"index {index}, {name_of(image)}: {reason}"
        for index, image, reason in failures[:MAX_NAMED]
    ]
    if len(failures) == 1:
        return f"Could not read one image, whose row is NaN: {lines[0]}"
    more = len(failures) - len(lines)
    return (
        f"Could not read {len(failures)} images, whose rows are NaN:\n  "
        + "\n  ".join(lines)
        + (f"\n  … and {more} more." if more else "")
    )


def name_of(image):
    """Return the path of an image, or its type.

    Parameters
    ----------
    image : path, bytes, PIL.Image.Image or ndarray
        The image.

    Returns
    -------
    name : str
        For messages.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return repr(str(path) if isinstance(path, str) else path)  # not np.str_('…')
    return f"a {type(image).__name__}"
