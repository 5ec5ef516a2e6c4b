"""Arrange rows by the generator they are ranked for and the pair they come from."""

from dataclasses import dataclass

import numpy as np

from sklearn_clipsid._first_few import first_few


@dataclass
class GeneratorRows:
    """Which rows each generator is ranked on, and which are drawn together.

    Parameters
    ----------
    names : list
        The generators.

    own : list of ndarray
        Indices of the images of each generator.

    photographs : list of ndarray
        Indices of the photographs that these are ranked against.

    cluster : ndarray of shape (n_samples,)
        Number of the cluster of each row, from 0.

    stratum : ndarray of shape (n_clusters,)
        Clusters of one stratum stand in for one another.
    """

    names: list
    own: list
    photographs: list
    cluster: np.ndarray
    stratum: np.ndarray

    @property
    def prevalence(self):
        """Share of synthetic images in each ranking, which random scores get as AP."""
        n_own = np.array([len(rows) for rows in self.own])
        return n_own / (n_own + [len(rows) for rows in self.photographs])


def choose_negatives(positive, group):
    """Return 'matched' if each group of synthetic images has photographs, or 'shared'.

    Takes the mask of synthetic images and the number of the group of each row.
    """
    both = np.isin(np.unique(group[positive]), group[~positive])
    return "matched" if both.all() else "shared"


def arrange_generators(positive, names, group, pair, negatives):
    """Return `GeneratorRows` of all groups that hold a synthetic image.

    Parameters
    ----------
    positive : ndarray of shape (n_samples,)
        Mask of the synthetic images.

    names : list
        Generators and photo sources.

    group : ndarray of shape (n_samples,)
        Index into `names`.

    pair : ndarray of shape (n_samples,)
        Number of the pair, -1 for rows without one.

    negatives : {'matched', 'shared'}
        Whether photographs count for their own group only.
    """
    matched = negatives == "matched"
    present = np.unique(group[positive])
    own = [np.flatnonzero(positive & (group == j)) for j in present]
    photographs = [np.flatnonzero(~positive)] * len(present)
    if matched:
        photographs = [rows[group[rows] == j] for rows, j in zip(photographs, present)]
    without = [repr(names[j]) for j, rows in zip(present, photographs) if not len(rows)]
    if without:
        raise ValueError(
            f"Got no photograph to rank the images of {first_few(without)} against but "
            f"expected one or more with negatives={negatives!r}; add photographs"
            + (" of these groups or pass negatives='shared'." if matched else ".")
        )
    cluster = cluster_rows(pair)
    # How many images there are of each generator was decided by who collected them.
    kind = np.where(positive, group, len(names) + (group if matched else 0))
    return GeneratorRows(
        names=[names[j] for j in present],
        own=own,
        photographs=photographs,
        cluster=cluster,
        stratum=strata_of_clusters(cluster, kind),
    )


def cluster_rows(pair):
    """Give each pair, and each row without one (-1), a number from 0, without gaps."""
    unit = np.where(pair >= 0, pair, ~np.arange(len(pair)))
    return np.unique(unit, return_inverse=True)[1]  # (n_samples,)


def strata_of_clusters(cluster, kind):
    """Put clusters whose rows are all of one kind into the stratum of that kind.

    Takes the cluster and the kind (0 or more) of each row, and returns the stratum of
    each cluster: -1 for those that mix kinds.
    """
    first = kind[np.unique(cluster, return_index=True)[1]]  # (n_clusters,)
    mixed = np.bincount(cluster, weights=kind != first[cluster]) > 0
    return np.where(mixed, -1, first)
