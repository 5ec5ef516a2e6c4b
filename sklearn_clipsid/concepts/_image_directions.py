"""Find directions that stand for concepts from photographs edited both ways."""

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch, check_random_state

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.concepts._photographic_edit import PhotographicEdit
from sklearn_clipsid.concepts._photographic_edits import photographic_edits
from sklearn_clipsid.concepts._pole_difference import (
    directions_between,
    unit_embeddings,
)


def concept_directions_from_images(embedder, photos, edits=None, *, random_state=None):
    r"""Return the direction in which each edit moves the embeddings of photographs.

    What texts do for a vocabulary of antonyms, edits do without any text tower: each
    photograph is edited towards one pole and towards the other, and the direction of
    the concept is the mean difference of their embeddings. It works in any feature
    space and measures what the encoder sees, not what a word is near to.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Its `features` name the space of the directions.

    photos : sequence of images of shape (n_photos,)
        What :class:`~sklearn_clipsid.CLIPEmbedder` takes: some dozens of photographs
        of many subjects. Directions from portraits alone are directions of portraits.

    edits : list of PhotographicEdit, default=None
        The edits; None takes those of `photographic_edits`.

    random_state : int, RandomState instance or None, default=None
        Noise of the edits that draw some. An edit draws the same numbers whatever
        other edits are in the list.

    Returns
    -------
    concepts : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        directions : ndarray of shape (n_edits, n_features)
            Rows of unit norm. An image whose embedding lies further along the row
            looks more like the positive pole.
        names : ndarray of shape (n_edits,)
            Names of the edits.
        category : ndarray of shape (n_edits,)
            Their groups.
        positive, negative : ndarrays of shape (n_edits,)
            What the poles look like, in words.
        positive_strength, negative_strength : ndarrays of shape (n_edits,)
            Strengths of the edits at the poles; 0 is the photograph as it is.
        n_photos : int
            Number of photographs.
        encoder : dict
            Fingerprint of the encoder, outside of which the directions mean nothing.

    See Also
    --------
    concept_directions_from_text : The same from pairs of prompts.
    ConceptBottleneckClassifier : Detects by such directions.

    Notes
    -----
    With the embeddings e of a photograph i edited by edit j, and N scaling to unit
    norm,

    .. math:: t_j = N\Big( \sum_i N(e_{ij}^+) - N(e_{ij}^-) \Big) .

    Photographs are resized and cropped to what the encoder sees *before* they are
    edited (`CLIPEmbedder.preprocess`), so that a strength means the same for a
    thumbnail and for a photograph of 50 megapixels.

    A direction is only as pure as its edit: sharpening also raises the contrast.
    Measure on other photographs whether a direction does what it should
    (``benchmarks/edits.py`` does).

    Examples
    --------
    >>> from sklearn_clipsid import CLIPEmbedder
    >>> from sklearn_clipsid.concepts import concept_directions_from_images
    >>> embedder = CLIPEmbedder(features="projected")
    >>> photos = ["harbour.jpg", "market.jpg"]
    >>> concepts = concept_directions_from_images(  # doctest: +SKIP
    ...     embedder, photos, random_state=0
    ... )
    >>> concepts.names[:3]  # doctest: +SKIP
    array(['saturation', 'warmth', 'tint'])
    """
    if not hasattr(embedder, "preprocess"):
        raise TypeError(
            f"Got embedder={embedder!r}, which has no preprocess, but expected an "
            "encoder of images; pass a CLIPEmbedder."
        )
    edits = _check_edits(photographic_edits() if edits is None else edits)
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    pixels = embedder.preprocess(photos)  # (n_photos, size, size, 3)
    gaps = np.array([_mean_difference(embedder, pixels, edit, seed) for edit in edits])
    directions = directions_between(
        gaps,  # (n_edits, n_features)
        [edit.name for edit in edits],
        "raise the strengths of the edit or leave it out.",
    )
    columns = ("category", "positive", "negative")
    strengths = ("positive_strength", "negative_strength")
    return Bunch(
        directions=directions,
        names=np.array([edit.name for edit in edits]),
        **{name: np.array([getattr(e, name) for e in edits]) for name in columns},
        **{
            name: np.array([float(getattr(e, name)) for e in edits])
            for name in strengths
        },
        n_photos=len(pixels),
        encoder=clone(embedder, safe=False).fit(list(pixels[:1])).fingerprint_,
    )


def _mean_difference(embedder, pixels, edit, seed):
    random_state = np.random.RandomState(seed)
    positive, negative = zip(*(edit(photo, random_state) for photo in pixels))
    # Poles that are the photograph itself are embedded once for all edits.
    rows = embedder.transform([*positive, *negative])  # (2 * n_photos, n_features)
    places = [f"photo {i} edited by {edit.name!r}" for i in range(len(pixels))]
    positive, negative = np.split(unit_embeddings(rows, places * 2), 2)
    return (positive - negative).mean(axis=0)  # (n_features,)


def _check_edits(edits):
    edits = [edits] if isinstance(edits, PhotographicEdit) else list(edits)
    for index, edit in enumerate(edits):
        if not isinstance(edit, PhotographicEdit):
            raise TypeError(
                f"Got {edit!r:.60} at index {index} of edits but expected a "
                "PhotographicEdit."
            )
    names = [edit.name for edit in edits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"edits of the same name ({first_few(twice)})" if twice else "no edits"
        raise ValueError(
            f"Got {what} but expected at least one, each with its own name."
        )
    return edits
