"""Fuse detectors: synthetic where any of them says so (arXiv 2312.00195)."""

import numpy as np
from scipy.special import logsumexp
from sklearn.utils import check_array

from sklearn_clipsid._first_few import first_few

# Below this a number equals its exponential minus one to twelve digits.
TINY = 1e-12


def soft_or_fusion(probabilities, *, from_logits=False):
    r"""Fuse the scores of several detectors into one by a soft "or".

    The fusion of Cozzolino et al. [1]_: the probability that at least one of the
    detectors is right to call an image synthetic, as if they erred independently.

    Parameters
    ----------
    probabilities : array-like of shape (n_samples, n_detectors)
        ``predict_proba(images)[:, 1]`` of each detector, side by side; or logits.

    from_logits : bool, default=False
        Whether these are logits (`decision_function` of detectors with a sigmoid).
        Then the fused scores are logits, too, exact where probabilities would round
        to 0 or 1.

    Returns
    -------
    fused : ndarray of shape (n_samples,)
        Probabilities of synthetic, or their logits.

    Raises
    ------
    ValueError
        When a score is missing or no probability, with the row and the column.

    See Also
    --------
    sklearn.ensemble.VotingClassifier : The mean instead, as one estimator.
    sklearn.ensemble.StackingClassifier : Learns how far to trust each detector.

    Notes
    -----
    With probabilities :math:`p_i` and logits :math:`x_i`,

    .. math:: p = 1 - \prod_i (1 - p_i), \qquad
        x = \log\Bigl(\exp \sum_i \log(1 + e^{x_i}) - 1\Bigr).

    A fused probability is never below that of any detector, so each detector that is
    added raises more false alarms at the same threshold: choose the threshold anew.
    The fusion takes probabilities at their word. Of detectors that are not calibrated,
    the most excitable decides.

    References
    ----------
    .. [1] D. Cozzolino, G. Poggi, R. Corvi, M. Nießner, L. Verdoliva, "Raising the Bar
       of AI-generated Image Detection with CLIP", CVPR Workshops 2024, arXiv
       2312.00195.

    Examples
    --------
    >>> from sklearn_clipsid.reference import soft_or_fusion
    >>> soft_or_fusion([[0.5, 0.5], [0.0, 0.9]])
    array([0.75, 0.9 ])
    >>> soft_or_fusion([[-800.0, -900.0]], from_logits=True)
    array([-800.])
    """
    scores = check_array(
        probabilities,
        dtype=np.float64,
        ensure_all_finite=False,
        input_name="probabilities",
    )
    _check_scores(scores, from_logits)
    if not from_logits:
        with np.errstate(divide="ignore"):  # of a probability of one
            return 0.0 - np.expm1(np.log1p(-scores).sum(axis=1))  # (n_samples,)
    # -log(1 - p) of each detector, and its logarithm, which does not underflow.
    softplus = np.logaddexp(0, scores)  # (n_samples, n_detectors)
    with np.errstate(divide="ignore"):
        log_softplus = np.where(scores < -30, scores, np.log(softplus))
    total, log_total = softplus.sum(axis=1), logsumexp(log_softplus, axis=1)
    large = np.maximum(total, TINY)
    return np.where(total < TINY, log_total, large + np.log(-np.expm1(-large)))


def _check_scores(scores, from_logits):
    if from_logits:
        wrong, expected = ~np.isfinite(scores), "finite logits"
    else:
        wrong, expected = ~((scores >= 0) & (scores <= 1)), "probabilities from 0 to 1"
    if wrong.any():
        named = [
            f"{scores[row, column]} in row {row}, column {column}"
            for row, column in np.argwhere(wrong)
        ]
        raise ValueError(
            f"Got probabilities of shape {scores.shape} with {first_few(named)}, but "
            f"expected {expected}; "
            + (
                "leave images without a score out."
                if from_logits
                else "pass predict_proba(images)[:, 1] of each detector, leave images "
                "without a score out, or set from_logits=True."
            )
        )
