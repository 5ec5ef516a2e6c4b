"""Refuse feature rows that are not finite, by name."""

import numpy as np

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
    named = ", ".join(map(str, bad[:MAX_NAMED]))
    more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    raise ValueError(
        f"Input X of {type(estimator).__name__} contains {kind} in {len(bad)} of "
        f"{len(X)} rows: {named}{more}. Rows of unreadable images "
        "(CLIPEmbedder(on_error='nan')) are NaN; leave them out, in fitting with "
        "their labels and groups."
    )
