"""Loss of a linear model on randomly gated concept similarities, and its gradient."""

from math import log

import numpy as np

# The guards of the published code: uniform numbers and gates are clamped, and to
# probabilities a number is added before taking the logarithm.
UNIFORM_EPS = 1e-8
GATE_EPS = 1e-6
PROBABILITY_EPS = 1e-7


class GatedConceptLoss:
    """Cross-entropy plus divergence of the gates, over batches of fixed rows.

    Parameters
    ----------
    H : ndarray of shape (n_samples, n_gate_inputs)
        What the gates see.

    S : ndarray of shape (n_samples, n_concepts)
        Similarities of the images to the concepts.

    y : ndarray of shape (n_samples,)
        Targets, 0 or 1.

    weights : ndarray of shape (n_samples,)
        Weights whose mean is 1.

    random_state : RandomState
        Seeds the noise of the gates.

    temperature, sparsity, gate_prior : float
        See `gated_loss_grad`.
    """

    def __init__(self, H, S, y, weights, random_state, **settings):
        self.H, self.S = H, S
        self.y, self.weights = y.astype(S.dtype), weights
        self.settings = settings
        # A Generator draws three times as fast as a RandomState.
        seed = random_state.randint(np.iinfo(np.int32).max)
        self._generator = np.random.Generator(np.random.SFC64(seed))
        self._work = []

    def __call__(self, params, batch):
        """Return the loss on the rows `batch` with fresh noise, and its gradient.

        Parameters
        ----------
        params : ndarray of shape (n_params,)
            See `unpack`.

        batch : ndarray of int
            Indices of rows.

        Returns
        -------
        loss : float
            Cross-entropy plus `sparsity` times divergence.

        grad : ndarray of shape (n_params,)
            Its derivative, until the next call.
        """
        n = len(batch)
        if not self._work or n > len(self._work[0]):
            # Memory that is given back and taken again costs a fifth of the time.
            like = self.H[:n], self.S[:n], self.S[:n], self.S[:n], params
            self._work = [np.empty_like(array) for array in like]
        *parts, grad = self._work
        H, S, noise, spare = (part[:n] for part in parts)
        # With another mode, `take` fills a buffer of its own first.
        np.take(self.H, batch, axis=0, out=H, mode="clip")
        np.take(self.S, batch, axis=0, out=S, mode="clip")
        if H.shape[1]:
            _draw_logistic(self._generator, noise, spare)
        rows = H, S, self.y[batch], self.weights[batch]
        return self._loss_grad(params, *rows, noise if H.shape[1] else None, grad)

    def without_noise(self, rows):
        """Return the loss on some rows, with mean gates, as function of the parameters.

        Parameters
        ----------
        rows : ndarray of int
            Indices.

        Returns
        -------
        loss : callable or None
            None without rows.
        """
        if not len(rows):
            return None
        weights = self.weights[rows] / self.weights[rows].mean()
        rows = self.H[rows], self.S[rows], self.y[rows], weights
        return lambda params: self._loss_grad(params, *rows)[0]

    def _loss_grad(self, params, H, S, y, weights, noise=None, grad=None):
        cross_entropy, divergence = gated_loss_grad(
            params, H, S, y, weights, noise, grad, **self.settings
        )
        return cross_entropy + self.settings["sparsity"] * divergence, grad


def gated_loss_grad(
    params,
    H,
    S,
    y,
    weights,
    noise=None,
    grad=None,
    *,
    temperature,
    sparsity,
    gate_prior,
):
    """Return the two terms of the loss, and write down its gradient.

    Parameters
    ----------
    params : ndarray of shape (n_params,)
        See `unpack`.

    H : ndarray of shape (n_samples, n_gate_inputs)
        What the gates see.

    S : ndarray of shape (n_samples, n_concepts)
        Similarities of the images to the concepts.

    y : ndarray of shape (n_samples,)
        Targets, 0 or 1.

    weights : ndarray of shape (n_samples,)
        Weights whose mean over the data set is 1.

    noise : ndarray of shape (n_samples, n_concepts), default=None
        Logistic noise of the gates while training, overwritten; None for their mean.

    grad : ndarray of shape (n_params,), default=None
        Takes the derivative of ``cross_entropy + sparsity * divergence``, which takes
        half of the time; None does without.

    temperature : float
        τ of the noisy gates.

    sparsity : float
        β, the weight of the divergence.

    gate_prior : float
        π, the prior probability that a gate is open.

    Returns
    -------
    cross_entropy : float
        Mean over the images.

    divergence : float
        Σ_j KL(Bern(q_ij) ‖ Bern(π)), mean over the images i; zero without gates.
    """
    n_concepts = S.shape[1]
    A, c, w, b = unpack(params, n_concepts)
    divergence, SM = 0.0, S
    if len(c):
        G = H @ A.T  # (n, n_concepts)
        G += c
        divergence, dG = _divergence(G, gate_prior, weights / len(S))
        M, inside = _noisy_gates(G, noise, temperature)
        SM = S * M
    cross_entropy, dz = _logistic_loss(SM @ w + b, y, weights)
    if grad is None:
        return cross_entropy, divergence
    dA, dc, dw, db = unpack(grad, n_concepts)
    np.matmul(dz, SM, out=dw)
    db[:] = dz.sum()
    if len(c):
        # dM/dG is M (1 - M) / τ, and zero where M is clamped.
        dM = 1 - M
        dM *= SM
        if noise is not None:
            dM *= inside
            dz = dz / temperature
        dM *= w
        dM *= dz[:, None]
        dG *= sparsity
        dG += dM  # (n, n_concepts)
        np.matmul(dG.T, H, out=dA)
        dc[:] = dG.sum(axis=0)
    return cross_entropy, divergence


def sigmoid(logits, limit=88.0):
    """Return 1 / (1 + exp(-logits)), several times as fast as scipy's expit.

    Parameters
    ----------
    logits : ndarray
        Of any shape.

    limit : float, default=88
        Where to cut them off; beyond 88 the exponential overflows single precision.

    Returns
    -------
    probabilities : ndarray
        Of the same shape and dtype.
    """
    out = np.clip(logits, -limit, limit)
    np.negative(out, out=out)
    np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


def unpack(params, n_concepts):
    """View a flat vector as A, c, w and b.

    Parameters
    ----------
    params : ndarray of shape (n_params,)
        Gate weights, gate intercepts, concept weights and intercept, in this order;
        the last two alone for a model without gates.

    n_concepts : int
        Number of concepts M.

    Returns
    -------
    A : ndarray of shape (n_concepts, n_gate_inputs)
        Weights of the gates; without columns for a model without gates.

    c : ndarray of shape (n_concepts,)
        Intercepts of the gates.

    w : ndarray of shape (n_concepts,)
        Weights of the concepts.

    b : ndarray of shape (1,)
        Intercept.
    """
    n_gates = len(params) - n_concepts - 1
    n_weights = max(n_gates - n_concepts, 0)
    A = params[:n_weights].reshape(n_concepts, n_weights // n_concepts)
    c, linear = params[n_weights:n_gates], params[n_gates:]
    return A, c, linear[:-1], linear[-1:]


def _draw_logistic(generator, out, spare):
    """Draw log u - log(1 - u) of uniform numbers u, with memory to work in."""
    if out.dtype == np.float32:
        generator.random(out=out, dtype=np.float32)
    else:  # the same numbers, whatever the precision of the rows
        out[:] = generator.random(out.shape, dtype=np.float32)
    # The upper bound is 1 in single precision, where u is at most 1 - 2⁻²⁴.
    np.clip(out, UNIFORM_EPS, 1 - UNIFORM_EPS, out=out)
    np.subtract(1, out, out=spare)
    out /= spare
    np.log(out, out=out)


def _logistic_loss(z, y, weights):
    """Return the weighted mean cross-entropy and its derivative in the logits."""
    losses = np.logaddexp(0, z) - y * z
    dz = (sigmoid(z) - y) * (weights / len(z))  # (n,)
    return float(weights @ losses) / len(z), dz


def _noisy_gates(G, noise, temperature):
    """Return the gates, and where they are not clamped; their mean without noise."""
    if noise is None:
        return sigmoid(G), None
    noise += G
    noise *= 1 / temperature
    limit = log((1 - GATE_EPS) / GATE_EPS)
    M = sigmoid(noise, limit)  # clamped to [GATE_EPS, 1 - GATE_EPS]
    return M, np.abs(noise, out=noise) < limit


def _divergence(G, gate_prior, weights):
    """Return Σ w KL(Bern(σ(G)) ‖ Bern(π)) and its derivative in G."""
    Q = sigmoid(G)
    P = 1 - Q
    smooth_Q, smooth_P = Q + PROBABILITY_EPS, P + PROBABILITY_EPS
    # d/dq of q log(q + ε) is log(q + ε) + q / (q + ε).
    slopes = Q / smooth_Q
    slopes -= P / smooth_P
    np.log(smooth_Q, out=smooth_Q)
    np.log(smooth_P, out=smooth_P)
    smooth_Q -= log(gate_prior + PROBABILITY_EPS)
    smooth_P -= log(1 - gate_prior + PROBABILITY_EPS)
    slopes += smooth_Q
    slopes -= smooth_P
    smooth_Q *= Q
    smooth_P *= P
    total = float(weights @ smooth_Q.sum(axis=1) + weights @ smooth_P.sum(axis=1))
    Q *= P
    slopes *= Q
    slopes *= weights[:, None]
    return total, slopes
