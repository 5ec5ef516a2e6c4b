"""Set rows aside by class without taking a pair of images apart."""

import numpy as np

from sklearn_clipsid._groups import read_pairs, read_sources


def pair_units(groups, n_samples):
    """Code what has to stay together.

    Parameters
    ----------
    groups : array-like of shape (n_samples, 2) or None
        Sources and pair ids. None: every row is a pair of its own.

    n_samples : int
        Number of rows expected.

    Returns
    -------
    unit : ndarray of int of shape (n_samples,)
        Rows without a pair are units of their own.
    """
    pair_id = None
    if groups is not None:
        pair_id = read_sources(groups, n_samples)[2]
        if pair_id is None:
            raise ValueError(
                "Got groups of one column, which name no pairs, but expected sources "
                "and pair ids; pass np.column_stack([generator, pair_id]), or no "
                "groups (set_fit_request(groups=False) where they are routed)."
            )
    pair, n_pairs = read_pairs(pair_id, n_samples)
    return np.where(pair >= 0, pair, n_pairs + np.arange(n_samples))


def hold_out_pairs(codes, unit, fraction, random_state):
    """Hold out a share of each class, pairs as a whole.

    Parameters
    ----------
    codes : ndarray of int of shape (n_samples,)
        Classes as 0, 1, ….

    unit : ndarray of int of shape (n_samples,)
        What has to stay together.

    fraction : float
        Share of each class to hold out, one row at least. No class is held out as a
        whole, and where pairs do not allow it the share is smaller.

    random_state : RandomState
        Draws the pairs.

    Returns
    -------
    train, held_out : ndarray of int
        Indices.
    """
    n_samples = len(codes)
    n_classes = codes.max() + 1
    sizes = np.bincount(codes, minlength=n_classes)
    room = np.minimum(np.maximum(np.rint(fraction * sizes), 1), sizes - 1).astype(int)
    is_held_out = np.zeros(n_samples, dtype=bool)
    order = np.argsort(unit, kind="stable")
    units = np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)
    for chosen in random_state.permutation(len(units)):
        rows = units[chosen]
        of_class = np.bincount(codes[rows], minlength=n_classes)
        if (of_class <= room).all():
            room -= of_class
            is_held_out[rows] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
