"""Set rows aside by class without taking a pair of images apart."""

import numpy as np

from sklearn_clipsid._groups import read_pairs, read_sources


def hold_out_pairs(codes, groups, fraction, random_state):
    """Hold out a share of each class, pairs as a whole.

    Parameters
    ----------
    codes : ndarray of int of shape (n_samples,)
        Classes as 0, 1, ….

    groups : array-like of shape (n_samples,) or (n_samples, 2), or None
        Sources, or sources and pair ids. None: every row is a pair of its own.

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
    pair_id = None if groups is None else read_sources(groups, n_samples)[2]
    pair, n_pairs = read_pairs(pair_id, n_samples)
    unit = np.where(pair >= 0, pair, n_pairs + np.arange(n_samples))
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
