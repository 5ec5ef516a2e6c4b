"""A network that scores images beside prompts, with its gradient (2408.15098)."""

from math import prod

import numpy as np


class QualityNetwork:
    """Prompts and two layers as one flat vector of parameters.

    The parameters are those of the prompts, then W₁, b₁, w₂ and b₂.

    Parameters
    ----------
    prompts : FreePrompts or TextPrompts
        Make the prompt features.

    n_features : int
        Width of the image features.

    n_hidden : int
        Hidden units.
    """

    def __init__(self, prompts, n_features, n_hidden):
        self.prompts = prompts
        n_inputs = n_features + prod(prompts.features_shape)
        self.shapes = [(n_inputs, n_hidden), (n_hidden,), (n_hidden,), (1,)]

    def start(self, random_state):
        """Draw the parameters; those of the layers as torch's Linear does.

        Parameters
        ----------
        random_state : RandomState
            Draws them.

        Returns
        -------
        params : ndarray of shape (n_params,)
        """
        n_inputs, n_hidden = self.shapes[0]
        fan_in = [n_inputs, n_inputs, n_hidden, n_hidden]
        layers = [
            random_state.uniform(-1, 1, prod(shape)) / np.sqrt(n)
            for shape, n in zip(self.shapes, fan_in)
        ]
        return np.concatenate([self.prompts.start(random_state), *layers])

    def unpack(self, params):
        """View parameters as those of the prompts, and W₁, b₁, w₂ and b₂.

        Parameters
        ----------
        params : ndarray of shape (n_params,)
            The parameters.

        Returns
        -------
        values : ndarray of shape (n_prompt_params,)
            Those of the prompts.

        layers : list of ndarray
            The others.
        """
        sizes = [prod(self.prompts.shape), *map(prod, self.shapes)]
        values, *layers = np.split(params, np.cumsum(sizes)[:-1])
        return values, [a.reshape(shape) for a, shape in zip(layers, self.shapes)]

    def draw_masks(self, n_samples, dropout, random_state, dtype):
        """Draw which inputs and hidden units each row of a step sees.

        Parameters
        ----------
        n_samples : int
            Rows of the batch.

        dropout : float
            Share that is left out.

        random_state : RandomState
            Draws them.

        dtype : dtype
            Of the masks.

        Returns
        -------
        masks : list of two ndarrays
            0 where left out, else 1 / (1 - dropout).
        """
        return [
            (random_state.random_sample((n_samples, n)) >= dropout).astype(dtype)
            / dtype.type(1 - dropout)
            for n in self.shapes[0]
        ]

    def loss_grad(self, params, X, y, masks):
        """Return the squared error of a batch and its gradient.

        Parameters
        ----------
        params : ndarray of shape (n_params,)
            The parameters.

        X : ndarray of shape (n_samples, n_features)
            Image features.

        y : ndarray of shape (n_samples,)
            Scores.

        masks : list of two ndarrays
            Of `draw_masks`.

        Returns
        -------
        loss : float
            Mean squared error.

        grad : ndarray of shape (n_params,)
            Its derivative.
        """
        values, (W1, b1, w2, b2) = self.unpack(params)
        prompts, pull_back = self.prompts.encode(values)
        n, d = X.shape
        beside = np.broadcast_to(prompts.ravel(), (n, prompts.size))
        V = np.concatenate([X, beside], axis=1) * masks[0]  # (n_samples, n_inputs)
        A = V @ W1 + b1  # (n_samples, n_hidden)
        H = np.maximum(A, 0) * masks[1]
        error = H @ w2 + b2 - y  # (n_samples,)
        dz = error * (2 / n)
        dA = np.outer(dz, w2) * masks[1] * (A > 0)  # (n_samples, n_hidden)
        d_beside = dA @ W1[d:].T * masks[0][:, d:]  # (n_samples, n_words * width)
        d_prompts = d_beside.sum(axis=0).reshape(prompts.shape)
        layers = [(V.T @ dA).ravel(), dA.sum(axis=0), H.T @ dz, dz.sum(keepdims=True)]
        grad = np.concatenate([pull_back(d_prompts), *layers])
        return float(error @ error) / n, grad

    def predict(self, params, X):
        """Return the scores of rows, without dropout.

        Parameters
        ----------
        params : ndarray of shape (n_params,)
            The parameters.

        X : ndarray of shape (n_samples, n_features)
            Image features.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
        """
        values, layers = self.unpack(params)
        return score_rows(X, self.prompts.encode(values)[0], layers)


def score_rows(X, prompts, layers):
    """Return the scores of rows, without dropout.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Image features.

    prompts : ndarray of shape (n_words, width)
        Prompt features.

    layers : list of ndarray
        W₁, b₁, w₂ and b₂.

    Returns
    -------
    scores : ndarray of shape (n_samples,)
    """
    W1, b1, w2, b2 = layers
    d = X.shape[1]
    # The same beside every image, so that they are a part of the bias.
    bias = prompts.ravel() @ W1[d:] + b1  # (n_hidden,)
    return np.maximum(X @ W1[:d] + bias, 0) @ w2 + b2
