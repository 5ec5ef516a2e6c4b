"""Lay out what a detector is trained and tested on, in domain and out of it."""

from dataclasses import dataclass

import numpy as np

from sklearn_clipsid._cluster_bootstrap import (
    GeneratorRows,
    cluster_rows,
    strata_of_clusters,
)
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import check_length, positive_rows, read_groups
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

N_FOLDS = 5
MAX_SOURCE_FOLDS = 10

MEANING = {
    "in-domain": "Generators and photo sources of the training images; "
    "the test images are others.",
    "unseen generator": "The generator was held out. The photographs are a random "
    "fifth, of sources that stand in training too.",
    "unseen source": "The photo source was held out, the generators were not.",
    "both unseen": "Each generator with each photo source, both held out.",
}
# Settings whose tests have photographs of one source each.
OF_ONE_SOURCE = ("unseen source", "both unseen")


@dataclass
class ImageRows:
    """What is known of each image besides its features.

    Parameters
    ----------
    positive : ndarray of shape (n_samples,)
        Mask of the synthetic images.

    names : list of str
        Generators and photo sources.

    group : ndarray of shape (n_samples,)
        Index into `names`.

    pair : ndarray of shape (n_samples,)
        Number of the pair, -1 for rows without one.
    """

    positive: np.ndarray
    names: list
    group: np.ndarray
    pair: np.ndarray

    @property
    def kind(self):
        """Number of the generator, or of the photo source, of each image."""
        return np.where(self.positive, self.group, len(self.names) + self.group)

    @property
    def cluster(self):
        """Number of the pair of each image, which may be its own."""
        return cluster_rows(self.pair)

    def count(self, positive):
        """Return how many synthetic images, or photographs, each group has."""
        code, n = np.unique(self.group[self.positive == positive], return_counts=True)
        return {self.names[j]: int(k) for j, k in zip(code, n)}


@dataclass
class Cell:
    """Images of one generator ranked against photographs, all by one detector.

    Parameters
    ----------
    generator : str
        Whose images.

    source : str or None
        Whose photographs, None for those of all sources.

    own, photographs : ndarray of int
        Places among the tested rows of the setting.
    """

    generator: str
    source: str | None
    own: np.ndarray
    photographs: np.ndarray


class Setting:
    """Trainings and tests of one kind.

    Parameters
    ----------
    name : str
        One of `MEANING`.

    splits : list of (train, test)
        Rows that each detector is trained and tested on.

    images : ImageRows
        All images.

    by_source : bool
        Whether all photographs of a test are of one source, or of several that were
        put together.
    """

    def __init__(self, name, splits, images, by_source):
        self.name = name
        self.splits = splits
        self.row = np.concatenate([test for _, test in splits])  # (n_tested,)
        self.trial = np.repeat(np.arange(len(splits)), [len(t) for _, t in splits])
        self.positive = images.positive[self.row]
        self.prior = np.array([images.positive[train].mean() for train, _ in splits])
        self.cells = []
        for number in range(len(splits)):
            self._add_cells(self.trial == number, images, by_source)
        self._images = images

    def _add_cells(self, tested, images, by_source):
        group = images.group[self.row]
        photographs = np.flatnonzero(tested & ~self.positive)
        sources = [images.names[j] for j in np.unique(group[photographs])]
        source = " + ".join(sources) if by_source else None
        for j in np.unique(group[tested & self.positive]):
            own = np.flatnonzero(tested & self.positive & (group == j))
            self.cells.append(Cell(images.names[j], source, own, photographs))

    def as_generator_rows(self):
        """Return the cells as the bootstrap takes them.

        Returns
        -------
        rows : GeneratorRows
            An image that several detectors were tested on is one cluster.
        """
        kind, cluster = self._images.kind[self.row], self._images.cluster[self.row]
        cluster = np.unique(cluster, return_inverse=True)[1]
        return GeneratorRows(
            names=[cell.generator for cell in self.cells],
            own=[cell.own for cell in self.cells],
            photographs=[cell.photographs for cell in self.cells],
            cluster=cluster,
            stratum=strata_of_clusters(cluster, kind),
        )

    def balanced_weight(self):
        """Weigh rows so that each cell counts alike, and each class within it.

        Returns
        -------
        weight : ndarray of shape (n_tested,)
            Sums up to one for the synthetic rows, and for the photographs.
        """
        weight = np.zeros(len(self.row))
        for cell in self.cells:
            for rows in (cell.own, cell.photographs):
                weight[rows] += 1 / (len(rows) * len(self.cells))
        return weight


def read_image_rows(y, groups, pair_id, n_samples, pos_label):
    """Check labels, groups and pairs.

    Parameters
    ----------
    y, groups, pair_id, pos_label
        As of `evaluate`.

    n_samples : int
        Number of images.

    Returns
    -------
    images : ImageRows
        What is known of each.
    """
    positive = positive_rows(y, pos_label)
    check_length(positive, n_samples, "y")
    names, group, pair, _ = read_groups(groups, pair_id, n_samples)
    images = ImageRows(positive, [str(name) for name in names], group, pair)
    _check_enough(images)
    return images


def _check_enough(images):
    if images.positive.all():
        raise ValueError(
            "Got synthetic images only but expected photographs as well, as nothing "
            "can be ranked without; add some, or check y and pos_label."
        )
    generators = images.count(True)
    if len(generators) < 2:
        raise ValueError(
            f"Got images of {next(iter(generators))!r} only but expected two "
            "or more generators, as a detector is to be tested on one that it was not "
            "trained on; add another generator, or use cross_validate for what is "
            "left to know."
        )
    few = [
        f"{name!r} ({n})"
        for counts in (generators, images.count(False))
        for name, n in counts.items()
        if n < N_FOLDS
    ]
    if few:
        raise ValueError(
            f"Got fewer than {N_FOLDS} images of {first_few(few)} but expected as many "
            "of each generator and photo source, as they are split into so many "
            "parts; add images, leave these out, or merge sources in groups."
        )


def lay_out_settings(images, random_state):
    """Make the settings that the images allow.

    Parameters
    ----------
    images : ImageRows
        All images.

    random_state : RandomState
        Deals rows into folds.

    Returns
    -------
    settings : dict of Setting
        All four by name, or the two that need no second photo source.
    """
    images = _with_few_sources(images)
    y, groups = images.positive, images.group
    pair = np.where(images.pair < 0, None, images.pair.astype(object))
    seed = random_state.randint(np.iinfo(np.int32).max)
    n_sources = len(np.unique(groups[~y]))
    fold = deal_folds(images.kind, images.cluster, N_FOLDS, random_state)
    makers = {"in-domain": lambda: _hold_out_folds(fold, N_FOLDS, images)}
    held_out = {"unseen generator": {"hold_out_real_source": False}}
    if n_sources > 1:
        makers["unseen source"] = lambda: _hold_out_sources(images, random_state)
        held_out["both unseen"] = {
            "hold_out_real_source": True,
            "every_real_fold": True,
        }
    # A group may hold both classes (CNNSpot): its photographs are their own source.
    for name, options in held_out.items():
        cv = LeaveOneGeneratorOut(N_FOLDS, **options, random_state=seed, pos_label=True)
        makers[name] = lambda cv=cv: list(cv.split(None, y, groups, pair_id=pair))
    return {
        name: Setting(name, makers[name](), images, by_source=name in OF_ONE_SOURCE)
        for name in MEANING
        if name in makers
    }


def deal_folds(kind, cluster, n_folds, random_state):
    """Deal clusters into folds, those of each kind evenly.

    Parameters
    ----------
    kind : ndarray of shape (n_samples,)
        Generator or photo source.

    cluster : ndarray of shape (n_samples,)
        What stays together.

    n_folds : int
        Number of folds.

    random_state : RandomState
        Shuffles the clusters.

    Returns
    -------
    fold : ndarray of shape (n_samples,)
        From 0.
    """
    cluster = np.unique(cluster, return_inverse=True)[1]  # without gaps
    stratum = strata_of_clusters(cluster, kind)
    fold = np.empty(len(stratum), dtype=np.intp)
    dealt = 0
    for one in np.unique(stratum):
        members = random_state.permutation(np.flatnonzero(stratum == one))
        fold[members] = (dealt + np.arange(len(members))) % n_folds
        dealt += len(members)  # where one kind ended the next goes on
    return fold[cluster]


def _hold_out_folds(fold, n_folds, images):
    """Return splits that test one fold each, without its pairs in training."""
    splits = []
    for number in range(n_folds):
        test = fold == number
        paired = np.isin(images.pair, images.pair[test]) & (images.pair >= 0)
        train = ~(test | paired)
        for rows, part in ((test, "test"), (train, "train")):
            _check_both_classes(images.positive[rows], part)
        splits.append((np.flatnonzero(train), np.flatnonzero(test)))
    return splits


def _check_both_classes(positive, part):
    if positive.all() or not positive.any():
        raise ValueError(
            f"Got a fold without {'photographs' if positive.any() else 'fakes'} to "
            f"{part} on but expected both classes in each; add images, pass another "
            "random_state, or check the pair ids, as pairs are dealt whole."
        )


def _hold_out_sources(images, random_state):
    """Return splits that test one photo source each, with a part of each generator."""
    positive = images.positive
    sources, fold_of_photo = np.unique(images.group[~positive], return_inverse=True)
    fold = deal_folds(images.kind, images.cluster, len(sources), random_state)
    fold[~positive] = fold_of_photo
    # Synthetic images go where the photograph of their pair goes.
    of_pair = np.full(images.pair.max() + 2, -1)  # the last is of rows without a pair
    of_pair[images.pair[~positive]] = fold_of_photo
    of_pair[-1] = -1
    fold = np.where(positive & (of_pair[images.pair] >= 0), of_pair[images.pair], fold)
    return _hold_out_folds(fold, len(sources), images)


def _with_few_sources(images):
    """Put photo sources together where there are too many to hold each out."""
    photographs = images.count(False)
    if len(photographs) <= MAX_SOURCE_FOLDS:
        return images
    size = np.zeros(MAX_SOURCE_FOLDS, dtype=int)
    members = [[] for _ in size]
    for name, n in sorted(photographs.items(), key=lambda item: -item[1]):
        smallest = int(size.argmin())
        members[smallest].append(name)
        size[smallest] += n
    merged = {name: " + ".join(sorted(m)) for m in members for name in m}
    label = np.array(images.names, dtype=object)[images.group]
    label[~images.positive] = [merged[name] for name in label[~images.positive]]
    names, group = np.unique(label.astype(str), return_inverse=True)
    return ImageRows(images.positive, names.tolist(), group, images.pair)
