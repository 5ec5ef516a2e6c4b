"""Refuse feature rows that are not finite, by name."""

import numpy as np

from sklearn_clipsid._first_few import first_few

MAX_NAMED = 20


def check_finite_rows(X, estimator):
    """Raise when a row holds NaN or infinity.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.

    estimator : estimator
        Who asks, for the message.

    Raises
    ------
    ValueError
        With the indices of the rows.
    """
    # A sum of finite numbers overflows only where the numbers are no embedding.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if not len(bad):
        return
    kind = "NaN" if np.isnan(X[bad]).any() else "infinity"
    named = first_few([str(row) for row in bad], MAX_NAMED)
    raise ValueError(
        f"Input X of {type(estimator).__name__} contains {kind} in {len(bad)} of "
        f"{len(X)} rows: {named}. Rows of unreadable images "
        "(CLIPEmbedder(on_error='nan')) are NaN; leave them out, in fitting with "
        "their labels and groups."
    )
