"""Start class vectors from the embeddings of training images."""

import numpy as np

from sklearn_clipsid._unit_rows import unit_rows


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
