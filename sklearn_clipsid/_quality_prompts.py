"""Features of learned prompts, through a text tower or without one."""

import numpy as np

from sklearn_clipsid._unit_rows import unit_rows

CONTEXT_SCALE = 0.02  # of the start, as published


class FreePrompts:
    """Prompt features that are parameters themselves.

    Parameters
    ----------
    n_words : int
        Number of prompts.

    width : int
        Width of their features.

    Attributes
    ----------
    shape, features_shape : tuple of two ints
        Of the parameters, and of the features that they make.
    """

    def __init__(self, n_words, width):
        self.shape = self.features_shape = (n_words, width)

    def start(self, random_state):
        """Draw the parameters.

        Parameters
        ----------
        random_state : RandomState
            Draws them.

        Returns
        -------
        values : ndarray of shape (n_params,)
        """
        return random_state.standard_normal(self.shape).ravel()

    def encode(self, values):
        """Return the unit features of the prompts, and how to derive by parameters.

        Parameters
        ----------
        values : ndarray of shape (n_params,)
            The parameters.

        Returns
        -------
        prompts : ndarray of shape (n_words, width)
            Rows of unit norm.

        pull_back : callable
            Turns the derivative of a loss by `prompts` into the one by `values`.
        """
        return _unit_prompts(values.reshape(self.shape), np.ravel)


class TextPrompts:
    """Prompt features of a context, through a frozen text tower.

    Parameters
    ----------
    context : ContextPrompts
        The prompts.
    """

    def __init__(self, context):
        self.context = context
        self.shape, self.features_shape = context.shape, context.features_shape

    def start(self, random_state):
        """Draw the context vectors; see `FreePrompts`."""
        return CONTEXT_SCALE * random_state.standard_normal(self.shape).ravel()

    def encode(self, values):
        """Return the unit features of the prompts; see `FreePrompts`."""
        features, pull_back = self.context.encode(values.reshape(self.shape))
        return _unit_prompts(
            features.astype(values.dtype), lambda grad: pull_back(grad).ravel()
        )


def _unit_prompts(features, pull_back):
    prompts, _ = unit_rows(features)
    norms = np.linalg.norm(features, axis=1, keepdims=True)  # (n_words, 1)

    def pull_back_unit(d_prompts):
        along = (d_prompts * prompts).sum(axis=1, keepdims=True)
        return pull_back((d_prompts - along * prompts) / norms)

    return prompts, pull_back_unit
