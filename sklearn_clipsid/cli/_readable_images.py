"""Embed images, and tell why some of them cannot be read."""

import warnings

import numpy as np

from sklearn_clipsid._read_image import read_image

AT_SECOND_TRY = "it could be read when it was tried again; run the command again"


def embed_readable(embedder, paths):
    """Embed those images that can be read.

    Parameters
    ----------
    embedder : CLIPEmbedder
        With ``on_error="nan"``.

    paths : list of str
        The images.

    Returns
    -------
    rows : ndarray of shape (n_images, n_features)
        NaN for the others.

    reasons : dict of str
        Why, by index.
    """
    with warnings.catch_warnings():
        # They are listed one by one instead.
        warnings.filterwarnings("ignore", "Could not read")
        rows = embedder.transform(paths)
    unread = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    return rows, {int(i): _why(paths[i], embedder.apply_exif) for i in unread}


def _why(path, apply_exif):
    try:
        read_image(path, "", apply_exif=apply_exif)
    except ValueError as error:
        cause = error.__cause__
        return getattr(cause, "strerror", None) or str(cause)
    return AT_SECOND_TRY
