"""Lay out what a detector is trained and tested on, in domain and out of it."""

from dataclasses import dataclass

import numpy as np

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._generator_rows import (
    GeneratorRows,
    cluster_rows,
    strata_of_clusters,
)
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
    "both unseen": "Each generator with each photo source, as far as pairs allow, both "
    "held out.",
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

    @property
    def group_name(self):
        """Generator or photo source of each image."""
        return np.array(self.names, dtype=object)[self.group]

    @property
    def pair_id(self):
        """Pair of each image, None where there is none."""
        return np.where(self.pair < 0, None, self.pair.astype(object))

    def count(self, positive):
        """Return how many synthetic images, or photographs, each group has."""
        code, n = np.unique(self.group[self.positive == positive], return_counts=True)
        return {self.names[j]: int(k) for j, k in zip(code, n)}


@dataclass
class Ranked:
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
    """

    def __init__(self, name, splits, images):
        self.name = name
        self.splits = splits
        self.row = np.concatenate([test for _, test in splits])  # (n_tested,)
        self.trial = np.repeat(np.arange(len(splits)), [len(t) for _, t in splits])
        self.positive = images.positive[self.row]
        # Photographs and synthetic images that each detector is trained on.
        self.n_trained = np.array(
            [np.bincount(images.positive[train], minlength=2) for train, _ in splits]
        )
        self.images = images
        self.cells = []
        for number in range(len(splits)):
            self._add_cells(self.trial == number)

    def _add_cells(self, tested):
        group, names = self.images.group[self.row], self.images.names
        photographs = np.flatnonzero(tested & ~self.positive)
        source = None
        if self.name in OF_ONE_SOURCE:
            source = names[group[photographs[0]]]
        for j in np.unique(group[tested & self.positive]):
            own = np.flatnonzero(tested & self.positive & (group == j))
            self.cells.append(Ranked(names[j], source, own, photographs))

    @property
    def prior(self):
        """Share of synthetic images in the training of each tested row's detector."""
        return (self.n_trained[:, 1] / self.n_trained.sum(axis=1))[self.trial]

    def as_generator_rows(self):
        """Return the cells as the bootstrap takes them.

        Returns
        -------
        rows : GeneratorRows
            An image that several detectors were tested on is one cluster.
        """
        cluster = np.unique(self.images.cluster[self.row], return_inverse=True)[1]
        # How many images of a kind each test has was chosen, as how many there are.
        is_tested = np.zeros((len(self.images.group), len(self.splits)), dtype=bool)
        is_tested[self.row, self.trial] = True
        kind = np.column_stack([self.images.kind, is_tested])[self.row]
        return GeneratorRows(
            names=[cell.generator for cell in self.cells],
            own=[cell.own for cell in self.cells],
            photographs=[cell.photographs for cell in self.cells],
            cluster=cluster,
            stratum=strata_of_clusters(
                cluster, np.unique(kind, axis=0, return_inverse=True)[1].ravel()
            ),
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
            f"Got images of {next(iter(generators))!r} only but expected two or more "
            "generators, as a detector is to be tested on one that it was not trained "
            "on; add another generator, or use cross_validate for what is left to know."
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
        By name.

    skipped : dict of str
        Why the others cannot be made, by name.
    """
    images = _with_few_sources(images)
    seed = random_state.randint(np.iinfo(np.int32).max)
    fold = deal_folds(images.kind, images.cluster, N_FOLDS, random_state)
    settings = {
        "in-domain": _hold_out_folds(fold, images),
        "unseen generator": _hold_out_generators(images, seed, False),
    }
    skipped = {}
    if len(images.count(False)) < 2:
        reason = "All photographs are of one source."
        skipped = dict.fromkeys(OF_ONE_SOURCE, reason)
    else:
        settings["unseen source"] = _hold_out_sources(images, random_state)
        try:
            settings["both unseen"] = _hold_out_generators(images, seed, True)
        except ValueError:  # of one class in training
            skipped["both unseen"] = (
                "Pairs tie too much together: without one of the generators and one of "
                "the photo sources nothing is left to train on."
            )
    if not settings.get("unseen source", True):
        skipped["unseen source"] = (
            "Of no photo source are there photographs to test and, apart from their "
            "pairs, synthetic images to train on."
        )
    made = {
        name: Setting(name, splits, images)
        for name, splits in settings.items()
        if splits
    }
    return made, skipped


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


def _hold_out_generators(images, seed, every_source):
    """Return splits that test one generator each, and one photo source if wanted."""
    cv = LeaveOneGeneratorOut(
        N_FOLDS,
        hold_out_real_source=every_source,
        every_real_fold=every_source,
        random_state=seed,
        pos_label=True,
    )
    groups = np.array(images.names)[images.group]
    return list(cv.split(None, images.positive, groups, pair_id=images.pair_id))


def _hold_out_folds(fold, images):
    """Return splits that test one fold each, without its pairs in training.

    Synthetic images of generators that are all held out with it are not tested, nor is
    a fold of one class.
    """
    splits = []
    for number in range(fold.max() + 1):
        test = fold == number
        paired = np.isin(images.pair, images.pair[test]) & (images.pair >= 0)
        train = ~(test | paired)
        known = np.unique(images.group[train & images.positive])
        test &= ~images.positive | np.isin(images.group, known)
        classes = [np.unique(images.positive[rows]) for rows in (train, test)]
        if all(len(found) == 2 for found in classes):
            splits.append((np.flatnonzero(train), np.flatnonzero(test)))
    return splits


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
    return _hold_out_folds(fold, images)


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
    label = images.group_name
    label[~images.positive] = [merged[name] for name in label[~images.positive]]
    names, group = np.unique(label.astype(str), return_inverse=True)
    return ImageRows(images.positive, names.tolist(), group, images.pair)
