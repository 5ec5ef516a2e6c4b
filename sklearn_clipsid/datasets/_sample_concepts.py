"""Load directions of edits of photographs that come with the package."""

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._unit_rows import unit_rows
from sklearn_clipsid.datasets._sample import check_features, sample_fingerprint

_FOLDER = Path(__file__).parent


def load_sample_concepts(*, features: str = "pooled") -> Bunch:
    """Load 34 directions in which edits move the embeddings of photographs.

    They live in the feature space of :func:`load_sample_embeddings` and were found by
    :func:`~sklearn_clipsid.concepts.concept_directions_from_images` with all edits of
    :func:`~sklearn_clipsid.concepts.photographic_edits`, from 32 photographs of 6
    sources.

    ==============  ===============================
    Directions                                   34
    Photographs                                  32
    Dimensionality  768 (pooled) or 512 (projected)
    ==============  ===============================

    Parameters
    ----------
    features : {"pooled", "projected"}, default="pooled"
        Space of the directions.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        directions : ndarray of shape (34, n_features), dtype=float64
            Rows of unit norm, from the negative to the positive pole.
        names : ndarray of shape (34,), dtype=str
            Names of the edits.
        category : ndarray of shape (34,), dtype=str
            Their groups.
        positive : ndarray of shape (34,), dtype=str
            What the positive poles look like.
        negative : ndarray of shape (34,), dtype=str
            What the negative poles look like.
        positive_strength : ndarray of shape (34,), dtype=float
            Strengths of the edits at the positive poles.
        negative_strength : ndarray of shape (34,), dtype=float
            The same at the negative poles; 0 is the photograph as it is.
        n_photos : int
            Number of photographs.
        sha256 : ndarray of shape (32,), dtype=str
            Digests of the photographs as published. Leave those of
            :func:`load_sample_embeddings` that are among them out of tests.
        encoder : dict
            Fingerprint of the encoder.
        filename : str
            Path of the file with the arrays.

    See Also
    --------
    load_sample_embeddings : Load the embeddings of 2,050 images.
    load_photographic_antonyms : Load concepts in words.

    Notes
    -----
    ``python benchmarks/edits.py IMAGES --save FILE`` in a clone makes such a file, and
    tests the directions on other photographs.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import load_sample_concepts
    >>> concepts = load_sample_concepts()
    >>> concepts.directions.shape
    (34, 768)
    >>> print(concepts.names[0], "|", concepts.positive[0], "|", concepts.negative[0])
    saturation | vivid colours | washed-out colours
    """
    check_features(features)
    filename = _FOLDER / "data" / "clip_vitb16_concepts.npz"
    with np.load(filename) as arrays:
        concepts = {
            name: arrays[name]
            for name in arrays.files
            if name not in ("pooled", "projected", "n_photos")
        }
        directions = arrays[features].astype(np.float64)  # (n_edits, n_features)
        n_photos = int(arrays["n_photos"])
    return Bunch(
        # Stored in single precision, which is more than the encoder's.
        directions=unit_rows(directions)[0],
        **concepts,
        n_photos=n_photos,
        encoder=sample_fingerprint(features),
        filename=str(filename),
    )
