"""Scale embeddings of two poles, and take the directions between them."""

import numpy as np

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._unit_rows import unit_rows

# Length of the difference of unit vectors. What is embedded twice in single precision
# differs by about 1e-7 from batch to batch, and that difference is no direction.
NO_DIFFERENCE = 1e-5


def unit_embeddings(embeddings, what):
    """Return unit rows in double precision, or say which row has none.

    Parameters
    ----------
    embeddings : array-like of shape (n_rows, n_features)
        What an embedder returned.

    what : list of str of shape (n_rows,)
        What was embedded, for the messages.

    Returns
    -------
    unit : ndarray of shape (n_rows, n_features)
        Rows of unit norm.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or len(embeddings) != len(what):
        raise ValueError(
            f"Got embeddings of shape {embeddings.shape} but expected one row for each "
            f"of {len(what)}; use another embedder."
        )
    finite = np.isfinite(embeddings).all(axis=1, keepdims=True)  # (n_rows, 1)
    unit, zero = unit_rows(np.where(finite, embeddings, 0))
    if len(zero):
        raise ValueError(
            "Got embeddings that are zero, NaN or infinite for "
            f"{first_few([what[row] for row in zero])}, but expected directions; use "
            "another embedder or leave these out."
        )
    return unit


def directions_between(differences, names, remedy):
    """Return the directions of differences, or name those that have none.

    Parameters
    ----------
    differences : ndarray of shape (n_concepts, n_features)
        Positive minus negative poles, between unit vectors.

    names : sequence of str of shape (n_concepts,)
        Their names.

    remedy : str
        What to do about poles that are alike.

    Returns
    -------
    directions : ndarray of shape (n_concepts, n_features)
        Rows of unit norm.
    """
    same = np.flatnonzero(np.linalg.norm(differences, axis=1) <= NO_DIFFERENCE)
    if len(same):
        named = first_few([f"{row} ({names[row]!s})" for row in same])
        raise ValueError(
            f"Got concepts whose two poles have the same embedding, in rows {named}, "
            f"but expected different ones; {remedy}"
        )
    return unit_rows(differences)[0]
