"""Check directions that stand for concepts, and their names."""

from collections.abc import Mapping, Set

import numpy as np

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._unit_rows import unit_rows


def check_concepts(
    embeddings, names, n_features, *, called=("concept_embeddings", "concept_names")
):
    """Return unit directions and their names, or name the row that is wrong.

    Parameters
    ----------
    embeddings : array-like of shape (n_concepts, n_features)
        One direction per concept.

    names : array-like of shape (n_concepts,) or None
        Their names; None numbers them.

    n_features : int
        Width of the images' embeddings.

    called : tuple of two str, default=("concept_embeddings", "concept_names")
        What the caller calls embeddings and names, for messages.

    Returns
    -------
    directions : ndarray of shape (n_concepts, n_features)
        Rows of unit norm, in double precision.

    names : ndarray of shape (n_concepts,)
        Strings.
    """
    directions = _as_rows(embeddings, n_features, called[0])
    names = _check_names(names, len(directions), called)
    bad = np.flatnonzero(~np.isfinite(directions).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Got NaN or infinity in {called[0]}, in {_rows(bad, names)}, but "
            "expected numbers; make these directions again or leave them out."
        )
    directions, zero = unit_rows(directions)
    if len(zero):
        raise ValueError(
            f"Got {called[0]} that are zero in {_rows(zero, names)}, but "
            "expected directions; leave these concepts out, or look for antonyms whose "
            "poles have the same embedding."
        )
    return directions, names


def _as_rows(embeddings, n_features, called):
    if hasattr(embeddings, "__array__"):  # a frame would iterate over its columns
        embeddings = np.asarray(embeddings)
    if isinstance(embeddings, Mapping) or (
        len(embeddings) and np.ndim(embeddings[0]) == 0
    ):
        raise ValueError(
            f"Got {called} of type {type(embeddings).__name__} but expected a matrix "
            "of one row per concept; pass concepts.directions, or "
            "concepts.directions[[0]] for a single one."
        )
    widths = [np.size(row) for row in embeddings]
    wrong = [f"row {i} has {w}" for i, w in enumerate(widths) if w != n_features]
    if wrong:
        raise ValueError(
            f"Got {called} of other widths than X ({first_few(wrong)}), but "
            f"expected n_features = {n_features}; embed images and concepts with the "
            "same encoder, the images with CLIPEmbedder(features='projected')."
        )
    directions = np.asarray(embeddings, dtype=np.float64)
    if directions.ndim != 2 or not len(directions):
        raise ValueError(
            f"Got {called} of shape {directions.shape} but expected "
            "(n_concepts, n_features) with at least one concept."
        )
    return directions


def _check_names(names, n_concepts, called):
    if names is None:
        return np.array([f"concept{i}" for i in range(n_concepts)])
    if isinstance(names, (str, Mapping, Set)):
        raise ValueError(
            f"Got {called[1]} of type {type(names).__name__} but expected a list, in "
            f"the order of {called[0]}."
        )
    # Strings of NumPy would call themselves np.str_ in the messages.
    names = [str(n) if isinstance(n, str) else n for n in names]
    if len(names) != n_concepts:
        raise ValueError(
            f"Got {len(names)} {called[1]} for {n_concepts} rows of "
            f"{called[0]} but expected one name per row."
        )
    first = {}
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"Got {called[1]}[{row}] = {name!r} but expected a string that is "
                "not empty; name the concept or leave it out."
            )
        if name in first:
            raise ValueError(
                f"Got the name {name!r} twice, in rows {first[name]} and {row} of "
                f"{called[1]}, but expected distinct names; rename one of them."
            )
        first[name] = row
    return np.array(names)


def _rows(rows, names):
    word = "row" if len(rows) == 1 else "rows"
    return f"{word} {first_few([f'{row} ({names[row]})' for row in rows])}"
