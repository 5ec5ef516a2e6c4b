"""Minimise a loss over minibatches with Adam (Kingma & Ba 2015, arXiv 1412.6980)."""

import numpy as np


class Adam:
    """Adam or AdamW, as ``torch.optim`` computes them.

    Parameters
    ----------
    params : ndarray of shape (n_params,)
        Updated in place by `step`.

    learning_rate : float
        Step size.

    weight_decay : float, default=0
        Times the parameters is added to the gradient, before the moments.

    decoupled : bool, default=False
        Whether the decay instead shrinks the parameters at each step, by
        `weight_decay` times `learning_rate` (AdamW).

    betas : tuple of two floats, default=(0.9, 0.999)
        Decay of the moments.

    eps : float, default=1e-8
        Added to the denominator.
    """

    def __init__(
        self,
        params,
        *,
        learning_rate,
        weight_decay=0.0,
        decoupled=False,
        betas=(0.9, 0.999),
        eps=1e-8,
    ):
        self.params = params
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decoupled = decoupled
        self.betas = betas
        self.eps = eps
        self._n_steps = 0
        self._mean = np.zeros_like(params)
        self._square = np.zeros_like(params)
        self._work = np.empty_like(params)

    def step(self, grad):
        """Move the parameters one step.

        Parameters
        ----------
        grad : ndarray of shape (n_params,)
            The gradient; overwritten.
        """
        self._n_steps += 1
        beta1, beta2 = self.betas
        work = self._work
        if self.weight_decay and self.decoupled:
            self.params *= 1 - self.learning_rate * self.weight_decay
        elif self.weight_decay:
            np.multiply(self.params, self.weight_decay, out=work)
            grad += work
        # m = β1 m + (1-β1) g and v = β2 v + (1-β2) g², without temporaries: at a few
        # thousand parameters the allocations would cost more than the arithmetic.
        self._square *= beta2
        np.multiply(grad, grad, out=work)
        work *= 1 - beta2
        self._square += work
        self._mean *= beta1
        grad *= 1 - beta1
        self._mean += grad
        np.sqrt(self._square, out=work)
        work *= 1 / np.sqrt(1 - beta2**self._n_steps)
        work += self.eps
        np.divide(self._mean, work, out=work)
        work *= self.learning_rate / (1 - beta1**self._n_steps)
        self.params -= work


class AdamGroups:
    """Adam with other settings for each part of the parameters.

    Parameters
    ----------
    params : ndarray of shape (n_params,)
        Updated in place by `step`.

    groups : list of (slice, dict)
        Parts that cover `params`, and the settings of `Adam` for each.
    """

    def __init__(self, params, groups):
        self.params = params
        self._groups = [
            (part, Adam(params[part], **settings)) for part, settings in groups
        ]

    def step(self, grad):
        """Move the parameters one step.

        Parameters
        ----------
        grad : ndarray of shape (n_params,)
            The gradient; overwritten.
        """
        for part, optimiser in self._groups:
            optimiser.step(grad[part])


def run_epoch(optimiser, loss_grad, rows, batch_size, random_state):
    """Visit the rows once in random order, one step per batch.

    Parameters
    ----------
    optimiser : Adam or AdamGroups
        Holds the parameters.

    loss_grad : callable
        ``loss_grad(params, batch)`` returns the loss and its gradient on the rows
        `batch`, an index array.

    rows : ndarray of int of shape (n_rows,)
        Indices of the rows to train on.

    batch_size : int
        Rows per step; the last batch takes what is left.

    random_state : RandomState
        Shuffles the rows.

    Returns
    -------
    loss : float
        Mean over the batches, weighted by their sizes.
    """
    order = random_state.permutation(rows)
    total = 0.0
    for start in range(0, len(rows), batch_size):
        batch = order[start : start + batch_size]
        loss, grad = loss_grad(optimiser.params, batch)
        total += loss * len(batch)
        optimiser.step(grad)
    return total / len(rows)


def minimize_minibatch(
    optimiser,
    loss_grad,
    rows,
    *,
    batch_size,
    max_iter,
    random_state,
    min_steps=1,
    validation_loss=None,
    n_iter_no_change=5,
):
    """Run epochs until the validation loss stops falling.

    Parameters
    ----------
    optimiser, loss_grad, rows, batch_size, random_state
        As in `run_epoch`.

    max_iter : int
        Epochs at most.

    min_steps : int, default=1
        Steps of an epoch at least; few rows are visited several times.

    validation_loss : callable, default=None
        ``validation_loss(params)`` after each epoch; None runs all epochs.

    n_iter_no_change : int, default=5
        Epochs in a row without a new minimum (strictly lower) before stopping.

    Returns
    -------
    params : ndarray of shape (n_params,)
        Those of the lowest validation loss, or the last.

    loss_curve, validation_curve : ndarray of shape (n_iter,)
        Losses per epoch; `validation_curve` is None without validation.
    """
    losses, validation = [], []
    best, best_params, n_stale = np.inf, optimiser.params, 0
    n_batches = -(-len(rows) // batch_size)
    n_passes = -(-min_steps // n_batches)
    for _ in range(max_iter):
        for _ in range(n_passes):
            loss = run_epoch(optimiser, loss_grad, rows, batch_size, random_state)
        losses.append(loss)
        if validation_loss is None:
            continue
        validation.append(validation_loss(optimiser.params))
        if validation[-1] < best:
            best, best_params, n_stale = validation[-1], optimiser.params.copy(), 0
        else:
            n_stale += 1
        if n_stale >= n_iter_no_change:
            break
    if validation_loss is None:
        return optimiser.params, np.array(losses), None
    return best_params, np.array(losses), np.array(validation)
