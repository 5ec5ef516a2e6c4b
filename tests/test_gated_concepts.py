import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.nn import functional

from sklearn_clipsid._gated_concepts import (
    GatedConceptLoss,
    gated_loss_grad,
    sigmoid,
    unpack,
)

SETTINGS = {"temperature": 0.7, "sparsity": 0.3, "gate_prior": 0.01}
EMBEDDING, NONE = 6, 0  # widths of what the gates see

CASES = pytest.mark.parametrize(
    ("n_inputs", "noisy"), [(EMBEDDING, True), (EMBEDDING, False), (NONE, False)]
)


def problem(n_inputs, noisy, temperature=0.7, n_samples=30, n_concepts=4):
    """Return parameters, the arrays of one batch, and noise."""
    rng = np.random.default_rng(0)
    n_params = n_concepts * (n_inputs + 2 if n_inputs else 1) + 1
    params = rng.normal(size=n_params)
    H = rng.normal(size=(n_samples, n_inputs))
    S = rng.normal(size=(n_samples, n_concepts))
    y = rng.integers(0, 2, n_samples).astype(float)
    weights = rng.uniform(0.1, 3, n_samples)
    noise = rng.logistic(size=S.shape) if noisy else None
    return params, (H, S, y, weights / weights.mean(), noise)


def total(params, arrays, **settings):
    """Return the loss."""
    settings = SETTINGS | settings
    *arrays, noise = arrays
    noise = None if noise is None else noise.copy()  # as it is overwritten
    cross_entropy, divergence = gated_loss_grad(params, *arrays, noise, **settings)
    return cross_entropy + settings["sparsity"] * divergence


def gradient(params, arrays, **settings):
    """Return the gradient of the loss."""
    *arrays, noise = arrays
    noise = None if noise is None else noise.copy()
    grad = np.full_like(params, np.nan)
    gated_loss_grad(params, *arrays, noise, grad, **(SETTINGS | settings))
    return grad


@CASES
def test_the_gradient_equals_finite_differences(n_inputs, noisy):
    params, arrays = problem(n_inputs, noisy)
    numeric = np.empty_like(params)
    for i in range(len(params)):
        step = np.zeros_like(params)
        step[i] = 1e-5
        above, below = (total(params + s, arrays) for s in (step, -step))
        numeric[i] = (above - below) / 2e-5
    np.testing.assert_allclose(gradient(params, arrays), numeric, atol=1e-6)


def torch_loss(params, H, S, y, weights, noise, temperature, sparsity, gate_prior):
    """Write the loss down as it was published, for autograd."""
    A, c, w, b = unpack(params, S.shape[1])
    M, divergence = 1, 0
    if len(c):
        Q = M = torch.sigmoid(H @ A.T + c)
        if noise is not None:
            M = torch.sigmoid((noise + H @ A.T + c) / temperature)
            M = M.clamp(1e-6, 1 - 1e-6)
        prior, eps = torch.tensor(gate_prior, dtype=Q.dtype), 1e-7
        open_terms = Q * ((Q + eps).log() - (prior + eps).log())
        closed_terms = (1 - Q) * ((1 - Q + eps).log() - (1 - prior + eps).log())
        divergence = (weights * (open_terms + closed_terms).sum(1)).mean()
    z = (S * M) @ w + b
    losses = functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return (weights * losses).mean() + sparsity * divergence


# At a low temperature many gates are clamped, which stops their gradient.
@CASES
@pytest.mark.parametrize("temperature", [0.7, 0.02])
def test_loss_and_gradient_equal_those_of_torch(n_inputs, noisy, temperature):
    params, arrays = problem(n_inputs, noisy)
    settings = SETTINGS | {"temperature": temperature}
    theirs = torch.tensor(params, requires_grad=True)
    tensors = [None if a is None else torch.tensor(a) for a in arrays]
    loss = torch_loss(theirs, *tensors, **settings)
    loss.backward()
    assert total(params, arrays, **settings) == pytest.approx(loss.item(), abs=1e-12)
    ours = gradient(params, arrays, **settings)
    np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-10)


def test_gates_at_their_prior_have_no_divergence():
    params, arrays = problem(EMBEDDING, False)
    A, c, _, _ = unpack(params, 4)
    A[:], c[:] = 0, np.log(0.01 / 0.99)
    assert gated_loss_grad(params, *arrays, **SETTINGS)[1] == pytest.approx(0, abs=1e-9)
    c[0] = 0  # open by half
    expected = 0.5 * np.log(0.5 / 0.01) + 0.5 * np.log(0.5 / 0.99)
    divergence = gated_loss_grad(params, *arrays, **SETTINGS)[1]
    assert divergence == pytest.approx(expected, rel=1e-4)


def test_half_of_the_random_gates_open_where_the_logit_is_zero():
    params, (H, S, y, _, _) = problem(EMBEDDING, False, n_samples=4000)
    _, c, w, b = unpack(params, 4)
    params[:] = 0
    b[:] = -50  # each image costs max(0, 50 m s)...
    S[:], y[:] = 1, 0
    w[0] = 100  # ...which is 50 where the only gate that counts is open
    loss = GatedConceptLoss(
        H,
        S,
        y,
        np.ones(4000),
        np.random.RandomState(0),
        temperature=0.01,
        sparsity=0,
        gate_prior=0.5,
    )
    rows = np.arange(4000)
    assert loss(params, rows)[0] / 50 == pytest.approx(0.5, abs=0.03)
    c[0] = np.log(0.9 / 0.1)
    assert loss(params, rows)[0] / 50 == pytest.approx(0.9, abs=0.03)


def test_noise_is_fresh_in_each_step_and_repeats_with_the_seed():
    params, (H, S, y, weights, _) = problem(EMBEDDING, False)

    def losses(seed):
        random_state = np.random.RandomState(seed)
        loss = GatedConceptLoss(H, S, y, weights, random_state, **SETTINGS)
        return [loss(params, np.arange(30))[0] for _ in range(2)]

    assert losses(0) == losses(0)
    assert len({*losses(0), *losses(1)}) == 4


def test_the_loss_without_noise_is_that_of_mean_gates():
    params, (H, S, y, weights, _) = problem(EMBEDDING, False)
    loss = GatedConceptLoss(H, S, y, weights, np.random.RandomState(0), **SETTINGS)
    rows = np.arange(10, 20)
    own = weights[rows] / weights[rows].mean()
    expected = total(params, (H[rows], S[rows], y[rows], own))
    assert loss.without_noise(rows)(params) == pytest.approx(expected)
    assert loss.without_noise(rows[:0]) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_that_of_scipy_and_does_not_overflow(dtype):
    logits = np.array([-1e4, -30, -9, 0, 1, 30, 1e4], dtype=dtype)
    probabilities = sigmoid(logits)
    assert probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities, expit(logits), rtol=1e-6, atol=1e-30)


def test_single_precision_stays_single():
    params, arrays = problem(EMBEDDING, True)
    single = [array.astype(np.float32) for array in arrays]
    grad = gradient(params.astype(np.float32), single)
    assert grad.dtype == np.float32
    np.testing.assert_allclose(grad, gradient(params, arrays), atol=1e-5)


def test_a_smaller_batch_after_a_larger_one_uses_its_own_rows():
    params, (H, S, y, weights, _) = problem(NONE, False)
    loss = GatedConceptLoss(H, S, y, weights, np.random.RandomState(0), **SETTINGS)
    loss(params, np.arange(20))
    rows = np.array([29, 3])
    value, grad = loss(params, rows)
    alone = H[rows], S[rows], y[rows], weights[rows], None
    assert value == pytest.approx(total(params, alone))
    np.testing.assert_allclose(grad, gradient(params, alone))
