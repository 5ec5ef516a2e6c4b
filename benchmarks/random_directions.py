"""Directions that mean nothing."""

import numpy as np


def random_directions(n_concepts, n_features, seed):
    """Draw rows of unit norm."""
    rows = np.random.default_rng(seed).standard_normal((n_concepts, n_features))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
