"""Write a linear decision as a sum of uncorrelated axes that do not depend on luck."""

import numpy as np
from sklearn.utils import gen_batches

ROWS_AT_ONCE = 1024  # centred in double precision
# Relative to the norm of the features. Rounding (1e-16) would correlate activations
# that vary less by more than 1e-8.
NO_DEVIATION = 1e-7
NO_LENGTH = 1e-12  # relative length of a residual that is only rounding


def canonical_axes(X, weights, gaps, coef, n_components):
    r"""Return axes whose activations are uncorrelated and add up to the decision.

    With the covariance Σ of the training rows and the difference δ of their class
    means, axis j is the unit vector whose activation has the largest covariance with
    the score :math:`δ^\top x`, among those uncorrelated with axes 1 to j - 1:
    :math:`u_j ∝ Π_j Σ δ`, where :math:`Π_j` projects on the orthogonal complement of
    :math:`Σ u_1, …, Σ u_{j-1}`. There are k - 1 of these; none depends on `coef`. The
    last axis is the remainder, :math:`w - \sum_j c_j u_j` with
    :math:`c_j = u_j^\top Σ w / u_j^\top Σ u_j`, and so uncorrelated with all others.

    With m outputs instead of one, δ is replaced by the deviations of all class means,
    each times the root of the share of its class; k - m axes (none if k ≤ m) are found
    as above, by the leading singular vector of what is left of their covariances, and
    the others are the principal axes of the data within the span of the remainders.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Training rows.

    weights : ndarray of shape (n_samples,)
        Positive weights of the rows.

    gaps : ndarray of shape (n_gaps, n_features)
        `class_gaps` of the rows.

    coef : ndarray of shape (n_outputs, n_features)
        The decision: logits are ``X @ coef.T`` plus constants.

    n_components : int
        Number of axes k, at least the rank of `coef`.

    Returns
    -------
    components : ndarray of shape (n_components, n_features)
        Axes in descending order of `axis_shares`. Their activations have mean 0 and
        variance 1 over the rows and point to the class furthest from the mean: of two
        classes, to the second. Where rows and labels define fewer axes, the last are
        rows of zeros.

    intercept : ndarray of shape (n_components,)
        What centres the activations.

    activation_weights : ndarray of shape (n_outputs, n_components)
        ``activation_weights @ components`` is `coef` to rounding.

    is_remainder : ndarray of bool of shape (n_components,)
        Which axes are the remainder, or lie within it.
    """
    weights = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    mean, norm = _moments(X, weights)

    def covariance_times(V):
        return _covariance_times(X, weights, mean, V)

    n_outputs, n_features = coef.shape
    V = np.zeros((n_components, n_features))
    W = np.zeros((n_outputs, n_components))
    is_remainder = np.zeros(n_components, dtype=bool)

    U, U_cov = _supervised_axes(
        covariance_times, gaps, max(n_components - n_outputs, 0), NO_DEVIATION * norm
    )
    rest, C = coef, 0
    for _ in range(2):  # twice, as rounding leaves a little of them after the first
        c = rest @ U_cov.T  # (n_outputs, n_axes)
        rest, C = rest - c @ U, C + c
    R = _row_basis(rest, NO_LENGTH * np.linalg.norm(coef))[: n_components - len(U)]
    R_weights = rest @ R.T
    if len(R):
        R, R_weights = _principal_within(
            covariance_times, R, R_weights, NO_DEVIATION * norm
        )
    n_axes = len(U) + len(R)
    V[:n_axes] = np.vstack([U, R])
    W[:, :n_axes] = np.hstack([C, R_weights])
    is_remainder[len(U) : n_axes] = True

    signs = _signs(V, gaps)
    V, W = V * signs[:, None], W * signs
    # Rows of zeros have share zero as well, and stay behind axes of negative share.
    rank = np.where(
        np.arange(n_components) < n_axes, -axis_shares(W, gaps @ V.T), np.inf
    )
    order = np.argsort(rank, kind="stable")
    V = V[order]
    return V, -(V @ mean), W[:, order], is_remainder[order]


def class_gaps(A, codes, weights):
    """Return the difference of two class means, or the deviations of several.

    Parameters
    ----------
    A : ndarray of shape (n_samples, n_columns)
        Features or activations.

    codes : ndarray of int of shape (n_samples,)
        Classes as 0, 1, ….

    weights : ndarray of shape (n_samples,)
        Weights of the rows.

    Returns
    -------
    gaps : ndarray of shape (n_gaps, n_columns)
        One row, second class minus first, for two classes; else one per class, its
        mean minus the mean of all rows, times the root of the share of the class.
    """
    n_classes = codes.max() + 1
    sums = np.zeros((n_classes, A.shape[1]))
    for rows in gen_batches(len(A), ROWS_AT_ONCE):
        members = codes[rows] == np.arange(n_classes)[:, None]  # (n_classes, n_rows)
        sums += (members * weights[rows].astype(np.float64)) @ A[rows]
    mass = np.bincount(codes, weights)
    means = sums / mass[:, None]
    if n_classes == 2:
        return means[1:] - means[:1]
    share = mass / mass.sum()
    return np.sqrt(share)[:, None] * (means - share @ means)


def axis_shares(activation_weights, activation_gaps):
    """Return the share of each activation in the gap between the classes' mean logits.

    Parameters
    ----------
    activation_weights : ndarray of shape (n_outputs, n_components)
        The logits are the activations times these.

    activation_gaps : ndarray of shape (n_gaps, n_components)
        `class_gaps` of the activations.

    Returns
    -------
    shares : ndarray of shape (n_components,)
        They sum to 1, and may be negative; all 0 without a gap.
    """
    # Σ_j weights[o, j] gaps[c, j], the sum that is shared out: two classes, one number.
    gap = activation_weights @ activation_gaps.T  # (n_outputs, n_gaps)
    parts = ((gap.T @ activation_weights) * activation_gaps).sum(axis=0)
    total = parts.sum()
    return parts / total if total > 0 else np.zeros_like(parts)


def _moments(X, weights):
    """Return the mean row and the root of the mean squared norm."""
    mean, square = np.zeros(X.shape[1]), 0.0
    for rows in gen_batches(len(X), ROWS_AT_ONCE):
        part = X[rows].astype(np.float64)
        mean += weights[rows] @ part
        square += weights[rows] @ np.einsum("ij,ij->i", part, part)
    return mean, np.sqrt(square)


def _covariance_times(X, weights, mean, V):
    """Return V Σ without Σ, which has n_features² entries."""
    product = np.zeros_like(V)
    for rows in gen_batches(len(X), ROWS_AT_ONCE):
        centred = X[rows] - mean  # in double precision
        product += ((centred @ V.T).T * weights[rows]) @ centred
    return product  # (n_vectors, n_features)


def _supervised_axes(covariance_times, gaps, n_axes, no_deviation):
    """Return the axes that the rows and labels define, of unit variance, and U Σ."""
    n_features = gaps.shape[1]
    U, U_cov = np.zeros((0, n_features)), np.zeros((0, n_features))
    largest = np.abs(gaps).max()
    if largest == 0:
        return U, U_cov
    left = covariance_times(gaps / largest)  # (n_gaps, n_features)
    shortest = NO_LENGTH * np.linalg.norm(left)
    for _ in range(n_axes):
        length, direction = np.linalg.svd(left, full_matrices=False)[1:]
        if length[0] <= shortest:
            break
        u = direction[0]
        u_cov = covariance_times(u[None])[0]
        deviation = np.sqrt(max(u @ u_cov, 0))
        if deviation <= no_deviation:
            break
        U = np.vstack([U, u / deviation])
        U_cov = np.vstack([U_cov, u_cov / deviation])
        Q = np.linalg.qr(U_cov.T)[0]  # (n_features, n_axes)
        for _ in range(2):
            left = left - (left @ Q) @ Q.T
    return U, U_cov


def _row_basis(A, shortest):
    """Return orthonormal rows that span those of A."""
    if not np.any(A):
        return A[:0]
    lengths, directions = np.linalg.svd(A, full_matrices=False)[1:]
    return directions[lengths > shortest]


def _principal_within(covariance_times, R, R_weights, no_deviation):
    """Turn a basis so that its activations are uncorrelated, at unit variance."""
    variances, turn = np.linalg.eigh(covariance_times(R) @ R.T)
    R, R_weights = turn.T @ R, R_weights @ turn
    # Where the training rows do not vary new rows may: the axis is kept as it is.
    deviations = np.sqrt(np.maximum(variances, 0))
    deviations[deviations <= no_deviation] = 1
    return R / deviations[:, None], R_weights * deviations


def _signs(V, gaps):
    """Return the signs that point the axes to the class furthest from the mean."""
    means = gaps @ V.T  # (n_gaps, n_components)
    furthest = means[np.abs(means).argmax(axis=0), np.arange(len(V))]
    largest = V[np.arange(len(V)), np.abs(V).argmax(axis=1)]
    return np.where(np.where(furthest == 0, largest, furthest) < 0, -1.0, 1.0)
