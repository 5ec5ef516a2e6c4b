"""Scale rows to unit norm, whatever their magnitude."""

import numpy as np


def unit_rows(X):
    """Divide each row by its norm.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        Finite numbers.

    Returns
    -------
    unit : ndarray of shape (n_rows, n_features)
        Of the dtype of X; rows of zeros stay.

    zero : ndarray of int
        Indices of the rows of zeros, which have no direction.
    """
    largest = np.maximum(X.max(axis=1), -X.min(axis=1))  # (n_rows,)
    zero = np.flatnonzero(largest == 0)
    largest[zero] = 1
    # Divided twice, as squares of very large or very small numbers are out of range.
    unit = X / largest[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    norms[zero] = 1
    unit /= norms[:, None]
    return unit, zero
