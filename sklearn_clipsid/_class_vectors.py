"""Start the class vectors of a cosine classifier from captions or training images."""

import numpy as np

from sklearn_clipsid._unit_rows import unit_rows

SAME = 1e-6  # what rounding may make of a cosine of 1


def uses_text_tower(encoder, class_vectors):
    """Say whether class vectors start from captions.

    Parameters
    ----------
    encoder : FrozenEncoder
        With the tower that is tuned.

    class_vectors : {"auto", "text", "means"}
        As in CLIPFineTuneClassifier. "text" without a text tower is an error.

    Returns
    -------
    uses_text : bool
    """
    from sklearn_clipsid._clip._checkpoint import text_tower_kind

    if class_vectors == "means":
        return False
    known = encoder.tower.encoder
    has_text = "text_cfg" in known.config and bool(text_tower_kind(known.path))
    if not has_text and class_vectors == "text":
        raise ValueError(
            f"Got class_vectors='text' for {known.name}, whose checkpoint holds no "
            "text tower, but expected one of both towers; pass such a checkpoint, or "
            "class_vectors='means'."
        )
    return has_text


def caption_vectors(embedder, captions):
    """Return what a text tower makes of the captions of classes.

    Parameters
    ----------
    embedder : CLIPEmbedder
        With a text tower.

    captions : list of str
        One for each class.

    Returns
    -------
    vectors : ndarray of shape (n_classes, d_projected), dtype float32
        Of unit norm.
    """
    vectors = unit_rows(embedder.embed_text(captions))[0]
    first, second = np.nonzero(np.triu(vectors @ vectors.T > 1 - SAME, 1))
    if len(first):
        raise ValueError(
            f"Got the captions {captions[first[0]]!r} and {captions[second[0]]!r}, "
            "which are the same to the text tower (it ignores case, and what is too "
            "long), but expected one caption for each class; rename labels, or pass "
            "class_vectors='means'."
        )
    return vectors  # (n_classes, d_projected)


def class_means(project, codes, train, classes, batch_size):
    """Return the mean direction of each class.

    Parameters
    ----------
    project : callable
        From indices of images to their projected features.

    codes : ndarray of int of shape (n_samples,)
        Classes as 0, 1, ….

    train : ndarray of int
        Indices of the images to look at.

    classes : ndarray of shape (n_classes,)
        The labels.

    batch_size : int
        Images of a batch.

    Returns
    -------
    vectors : ndarray of shape (n_classes, d_projected), dtype float32
        Of unit norm.
    """
    missing = np.setdiff1d(np.arange(len(classes)), codes[train])
    if len(missing):
        raise ValueError(
            f"Got no image of {classes[missing].tolist()} but expected some of each "
            "class at first, as class vectors start from their mean without a text "
            "tower; add such images."
        )
    sums = 0.0
    for first in range(0, len(train), batch_size):
        batch = train[first : first + batch_size]
        of_class = np.eye(len(classes))[codes[batch]]  # (n, n_classes)
        sums = sums + of_class.T @ unit_rows(project(batch))[0]
    return unit_rows(sums.astype(np.float32))[0]  # (n_classes, d_projected)
