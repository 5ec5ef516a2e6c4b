"""Name a training run after all that it depends on."""

import json
from dataclasses import asdict
from hashlib import blake2b

import numpy as np

from sklearn_clipsid._training_views import content_of

FORMAT = 1  # of checkpoints; another one is not taken up


def training_key(recipe, start, known, rows):
    """Return a name that two runs share if they end with the same weights.

    Parameters
    ----------
    recipe : TrainingRecipe
        How to train.

    start : dict of ndarray
        All trained tensors before training.

    known : dict
        What else decides, to be written as JSON: the encoder and the versions.

    rows : TrainingSet
        Labels, weights and images.

    Returns
    -------
    key : str
        Of hexadecimal digits.
    """
    how = {name: _plain(value) for name, value in asdict(recipe).items()}
    images = rows.rows_of
    text = json.dumps([FORMAT, how, known, sorted(start)], sort_keys=True)
    digest = blake2b(text.encode(), digest_size=16)
    arrays = [start[name] for name in sorted(start)]
    for array in [*arrays, rows.codes, rows.weights, rows.train, rows.held_out]:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array))
    digest.update(repr((images.augment, images.seed)).encode())
    for index, image in enumerate(images.images):
        apply_exif = images.encoder.apply_exif
        digest.update(content_of(image, f"at index {index}", apply_exif))
    return digest.hexdigest()


def _plain(value):
    """Return a number as Python writes it, whoever made it."""
    return value.item() if isinstance(value, np.generic) else value
