"""Directions from the text embeddings of antonyms (arXiv 2602.12381)."""

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._antonym_check import antonym_columns, check_antonyms
from sklearn_clipsid.concepts._pole_difference import (
    directions_between,
    unit_embeddings,
)


def concept_directions_from_text(embedder, antonyms):
    r"""Return a unit direction per antonym, from its negative to its positive pole.

    The cosine of an image's projected embedding with such a direction says how far
    the image leans to the positive pole: a concept score as in [1]_.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Embeds the prompts with `embed_text`, once and all together. Whether it
        normalises makes no difference.

    antonyms : mapping or frame
        What :func:`~sklearn_clipsid.datasets.load_photographic_antonyms` or
        :func:`~sklearn_clipsid.datasets.read_antonyms` return, or columns of one
        length: `names` (or `name`, `attribute_name`), `positive` and `negative`;
        `positive_prompt` with `negative_prompt`, and `category`, if there are any.
        Without prompts the poles are put into "A photograph with {}".

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        directions : ndarray of shape (n_concepts, n_features), dtype=float64
            Rows of unit norm in the joint space of images and texts.
        names : ndarray of shape (n_concepts,), dtype=str
            The names of the antonyms.
        positive : ndarray of shape (n_concepts,), dtype=str
            What a positive score means.
        negative : ndarray of shape (n_concepts,), dtype=str
            What a negative score means.
        positive_prompt : ndarray of shape (n_concepts,), dtype=str
            What was embedded for the positive poles.
        negative_prompt : ndarray of shape (n_concepts,), dtype=str
            What was embedded for the negative poles.
        category : ndarray of shape (n_concepts,), dtype=str
            The categories of the antonyms, "" where unknown.

    See Also
    --------
    sklearn_clipsid.datasets.load_photographic_antonyms : Load pairs of antonyms.
    sklearn_clipsid.datasets.read_antonyms : Read antonyms of your own.
    sklearn_clipsid.ConceptBottleneckClassifier : Detector on such directions.

    Notes
    -----
    With the text embeddings T and the scaling to unit norm N, the direction of the
    prompts :math:`p_j` and :math:`q_j` is

    .. math::

        t_j = N(N(T(p_j)) - N(T(q_j))).

    Images belong to the same space when they are embedded by the same encoder with
    ``features="projected"``. The scores of images are not centred on zero: the texts of
    one pole can be closer to images in general. Compare the scores of images with one
    another rather than with zero.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    The embedder here counts letters, to run without weights:

    >>> import numpy as np
    >>> from sklearn_clipsid.concepts import concept_directions_from_text
    >>> class CountLetters:
    ...     def embed_text(self, texts):
    ...         return np.array([[t.count(c) for c in "aeiou"] for t in texts])
    >>> antonyms = {
    ...     "name": ["blur", "haze"],
    ...     "positive": ["strong motion blur", "thick atmospheric haze"],
    ...     "negative": ["frozen movement", "clear air"],
    ... }
    >>> concepts = concept_directions_from_text(CountLetters(), antonyms)
    >>> concepts.directions.shape
    (2, 5)
    >>> print(concepts.positive_prompt[0])
    A photograph with strong motion blur

    With the packaged antonyms and a CLIP:

    >>> from sklearn_clipsid import CLIPEmbedder
    >>> from sklearn_clipsid.datasets import load_photographic_antonyms
    >>> embedder = CLIPEmbedder(features="projected")
    >>> antonyms = load_photographic_antonyms()
    >>> concepts = concept_directions_from_text(embedder, antonyms)  # doctest: +SKIP
    >>> X = embedder.transform(paths)  # doctest: +SKIP
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)  # doctest: +SKIP
    >>> scores = X @ concepts.directions.T  # doctest: +SKIP
    """
    if not hasattr(embedder, "embed_text"):
        raise TypeError(
            f"Got embedder={embedder!r}, which has no embed_text, but expected an "
            "encoder of images and texts; pass a CLIPEmbedder."
        )
    pairs = _as_antonyms(antonyms)
    prompts = [*pairs["positive_prompt"].tolist(), *pairs["negative_prompt"].tolist()]
    texts = embedder.embed_text(prompts)  # (2 * n_concepts, n_features)
    unit = unit_embeddings(texts, [f"the text {prompt!r}" for prompt in prompts])
    positive, negative = np.split(unit, 2)
    directions = directions_between(
        positive - negative,  # (n_concepts, n_features)
        pairs["names"],
        "reword a pole so that it differs within the number of words that the encoder "
        "reads, or leave the antonym out.",
    )
    del pairs["explanation"]
    return Bunch(directions=directions, **pairs)


def _as_antonyms(antonyms):
    """Return the checked columns of a mapping or frame."""
    if not (hasattr(antonyms, "keys") or hasattr(antonyms, "columns")):
        raise TypeError(
            f"Got antonyms of type {type(antonyms).__name__} but expected a mapping "
            "or frame with columns; read a file with read_antonyms, or load those of "
            "the package with load_photographic_antonyms."
        )
    available = getattr(antonyms, "columns", antonyms)
    chosen = antonym_columns([str(name) for name in available], "antonyms")
    columns = {}
    for key, name in chosen.items():
        column = antonyms[name]
        if isinstance(column, str):
            raise ValueError(
                f"Got antonyms[{name!r}] = {column!r} but expected a sequence with one "
                "text per antonym; put it into a list."
            )
        columns[key] = list(column)
    lengths = {chosen[key]: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Got antonyms whose columns have the lengths {lengths}, but expected one "
            "length; give every antonym its name and both poles."
        )
    places = [f"row {row}" for row in range(len(columns["names"]))]
    return check_antonyms(columns, places, "antonyms")
