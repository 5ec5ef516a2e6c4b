"""Cross-entropy with soft targets and sample weights, and its gradient."""

import numpy as np
from scipy.special import expit, logsumexp


def soft_cross_entropy(logits, targets, weights):
    """Return the weighted mean cross-entropy and its gradient in the logits.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_outputs)
        One output for two classes, else one per class.

    targets : ndarray of shape (n_samples, n_outputs)
        Probabilities.

    weights : ndarray of shape (n_samples,)
        Weights whose mean over the data set is 1.

    Returns
    -------
    loss : float
        Σ w l / n_samples.

    grad : ndarray of shape (n_samples, n_outputs)
        Its derivative.
    """
    n = len(logits)
    if logits.shape[1] == 1:
        losses = (np.logaddexp(0, logits) - targets * logits)[:, 0]
        grad = expit(logits) - targets  # (n_samples, 1)
    else:
        normaliser = logsumexp(logits, axis=1, keepdims=True)
        losses = (targets * (normaliser - logits)).sum(axis=1)
        grad = np.exp(logits - normaliser) - targets  # (n_samples, n_classes)
    return float(weights @ losses) / n, grad * (weights / n)[:, None]
