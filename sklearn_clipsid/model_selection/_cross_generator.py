"""Cross-validation that trains on one generator and tests on another, for all pairs."""

from numbers import Real

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._generator_rows import (
    choose_negatives,
    cluster_rows,
    strata_of_clusters,
)
from sklearn_clipsid._groups import (
    check_length,
    positive_rows,
    read_groups,
)


class CrossGeneratorSplit(GroupsConsumerMixin, BaseCrossValidator):
    """Cross-validator of all ordered pairs of a training and a test generator.

    The rows are dealt once into a training and a test part. Each split trains on the
    training part of one generator with the photographs of that part, and tests on the
    test part of another, or of the same, with the photographs of that part. With n
    generators, in sorted order of their names, split i trains on generator ``i // n``
    and tests on generator ``i % n``, so that the scores of the splits, in the shape
    ``(n, n)``, are a matrix with training generators as rows.

    Parameters
    ----------
    test_size : float, default=0.25
        Share of the test part: of each generator, of the photographs and of the pairs.

    random_state : int, RandomState instance or None, default=0
        Deals the rows. Pass an int for the same splits on each call.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    See Also
    --------
    LeaveOneGeneratorOut : Trains on all generators but one.
    cross_dataset_validate : The same for data sets.

    Notes
    -----
    All splits of a row of the matrix share their training set and all splits of a
    column their test set, so that numbers in a column can be compared; those of
    different columns only where prevalence is the same, as average precision depends
    on it.

    **Photographs.** Where every generator shares its group with photographs (CNNSpot),
    each is trained and tested with those of its own group, else with all photographs
    of the part. Both parts hold photographs of the same sources, which flatters; see
    :class:`LeaveOneGeneratorOut` for photo sources that are held out.

    **Pairs** stay in one part. Ids that are missing (`None`, NaN, ``''``, or ``'nan'``
    as NumPy writes NaN among texts) or occur once make no pair.

    Test folds repeat themselves and so are no partition:
    :func:`~sklearn.model_selection.cross_val_predict` and stacking refuse them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid.model_selection import CrossGeneratorSplit
    >>> groups = np.repeat(["GAN", "SD", "real"], 2)
    >>> y = np.array([1, 1, 1, 1, 0, 0])
    >>> X = np.zeros((6, 2))
    >>> cv = CrossGeneratorSplit(test_size=0.5)
    >>> cv.get_n_splits(X, y, groups)
    4
    >>> for train, test in cv.split(X, y, groups):
    ...     print(f"train {groups[train]}, test {groups[test]}")
    train ['GAN' 'real'], test ['GAN' 'real']
    train ['GAN' 'real'], test ['SD' 'real']
    train ['SD' 'real'], test ['GAN' 'real']
    train ['SD' 'real'], test ['SD' 'real']
    """

    # Routed by default, as `groups` is by the mixin: a splitter that silently did
    # without pairs it was given would leak them.
    __metadata_request__split = {"pair_id": True}

    def __init__(self, test_size=0.25, *, random_state=0, pos_label=1):
        self.test_size = test_size
        self.random_state = random_state
        self.pos_label = pos_label

    def split(self, X, y=None, groups=None, pair_id=None):
        """Generate indices to split data into training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or None
            Data, of which only the number of rows is used.

        y : array-like of shape (n_samples,)
            Binary labels.

        groups : array-like of shape (n_samples,) or (n_samples, 2)
            The generator of each synthetic image and the source of each photograph;
            in a second column, if there is one, the pair ids.

        pair_id : array-like of shape (n_samples,), default=None
            The pair ids, where `groups` has one column. Functions of scikit-learn pass
            it on when metadata routing is enabled.

        Yields
        ------
        train : ndarray
            The training set indices for that split.

        test : ndarray
            The testing set indices for that split.
        """
        positive, names, group, pair = self._read_rows(X, y, groups, pair_id)
        generators = _two_or_more(positive, names, group)
        matched = choose_negatives(positive, group) == "matched"
        kind = np.where(positive, group, len(names) + (group if matched else 0))
        cluster = cluster_rows(pair)
        stratum = strata_of_clusters(cluster, kind)
        in_test = hold_out(stratum, self.test_size, self.random_state)[cluster]
        parts = {}
        # An impossible split should raise before the first is fitted, not hours later.
        for part, rows in (("train", ~in_test), ("test", in_test)):
            for j in generators:
                own = rows & positive & (group == j)
                photographs = rows & ~positive & ((group == j) | (not matched))
                _check_part(part, names[j], own, photographs)
                parts[part, j] = np.flatnonzero(own | photographs)
        for trained in generators:
            for tested in generators:
                yield parts["train", trained].copy(), parts["test", tested].copy()

    def get_n_splits(self, X=None, y=None, groups=None, pair_id=None):
        """Return the number of splits, the square of the number of generators.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), default=None
            Data, of which only the number of rows is used.

        y : array-like of shape (n_samples,)
            Binary labels.

        groups : array-like of shape (n_samples,) or (n_samples, 2)
            The generator or photo source of each row, and pair ids.

        pair_id : array-like of shape (n_samples,), default=None
            The pair ids, where `groups` has one column.

        Returns
        -------
        n_splits : int
            The square of the number of generators.
        """
        positive, names, group, _ = self._read_rows(X, y, groups, pair_id)
        return len(_two_or_more(positive, names, group)) ** 2

    def _read_rows(self, X, y, groups, pair_id):
        check_share("test_size", self.test_size)
        positive = positive_rows(y, self.pos_label)
        n_samples = len(positive) if X is None else _num_samples(X)
        check_length(positive, n_samples, "y")
        if positive.all():
            raise ValueError(
                "Got synthetic images only but expected photographs among the rows; "
                "add rows whose label is not pos_label, or check the labels."
            )
        names, group, pair, _ = read_groups(groups, pair_id, n_samples)
        return positive, names, group, pair


def hold_out(stratum, test_size, random_state):
    """Choose the clusters of the test part, the same share of each stratum.

    Parameters
    ----------
    stratum : ndarray of shape (n_clusters,)
        What each cluster is.

    test_size : float
        Share of the test part.

    random_state : int, RandomState instance or None
        Deals the clusters.

    Returns
    -------
    held_out : ndarray of shape (n_clusters,)
        Mask of the test part. A single cluster of its stratum is trained on.
    """
    rng = check_random_state(random_state)
    held_out = np.zeros(len(stratum), dtype=bool)
    for one in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == one))
        n_test = max(1, round(test_size * len(members)))
        held_out[members[: min(n_test, len(members) - 1)]] = True
    return held_out


def check_share(name, value):
    """Refuse what is not a number between 0 and 1, both excluded."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < 1:
        raise ValueError(
            f"Got {name}={value!r} but expected a number between 0 and 1, both "
            "excluded."
        )


def _two_or_more(positive, names, group):
    generators = np.unique(group[positive])
    if len(generators) < 2:
        raise ValueError(
            f"Got images of {names[generators[0]]!r} only but expected two or more "
            "generators in groups; add another, to test on what was not trained on."
        )
    return generators


def _check_part(part, name, own, photographs):
    if own.any() and photographs.any():
        return
    missing = "photograph for" if own.any() else "fake of"
    raise ValueError(
        f"Got no {missing} {name!r} to {part} on but expected both classes in both "
        "parts; add images, change test_size, or try another random_state, as pairs "
        "are dealt whole."
    )
