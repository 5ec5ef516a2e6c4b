"""Cross-validation that holds out one generator and a share of the photographs."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._groups import (
    check_length,
    factorize,
    positive_rows,
    read_groups,
)


class LeaveOneGeneratorOut(GroupsConsumerMixin, BaseCrossValidator):
    """Leave-one-generator-out cross-validator.

    Each test fold holds the synthetic images of one generator beside one fold of the
    photographs, and the training set holds neither, so that a score says how well
    images of an unseen generator are told from unseen photographs. Unless
    `every_real_fold` is set there are as many splits as generators, in sorted order of
    their names; split i takes the real fold ``i % n_folds``, or, where the images of
    the generator are paired with photographs of other folds only, the next of those.

    Parameters
    ----------
    n_real_folds : int, default=5
        Number of folds of the photographs when they are split at random. Ignored when
        whole photo sources are held out.

    hold_out_real_source : 'auto' or bool, default='auto'
        How photographs are split:

        - `True`: each real fold is one whole photo source, in sorted order;
        - `False`: as ``KFold(n_real_folds, shuffle=True, random_state=random_state)``
          splits them, pairs being kept together;
        - `'auto'`: `True` when the photographs name two or more sources.

    every_real_fold : bool, default=False
        Whether to test each generator with every real fold, one split for each, sorted
        by generator first. With whole sources as folds these are all pairs of an unseen
        generator and an unseen photo source. Folds that a generator has no image for,
        as its pairs lie in others, are left out.

    random_state : int, RandomState instance or None, default=0
        Shuffles photographs and pairs. Pass an int for the same splits on each call.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    See Also
    --------
    sklearn.model_selection.LeaveOneGroupOut : Leaves out groups that hold both classes.
    sklearn_clipsid.metrics.mean_average_precision_score : The metric for many
        generators in one test set.

    Notes
    -----
    Do not use :class:`~sklearn.model_selection.LeaveOneGroupOut` with generators as
    groups. Its test folds hold images of one generator and no photograph, every
    ranking of them is perfect, and ``scoring="average_precision"`` is silently 1.0.
    Here each test fold holds both classes, and the mean over folds of
    ``scoring="average_precision"`` is the mean average precision over generators.

    **Random photographs flatter.** Photographs of one source resemble each other. On
    the packaged sample a logistic regression has a mean ROC AUC of .921 with
    photographs split at random and of .791 with their source held out
    (``benchmarks/fidelity.py``; .891 and .749 without training rows that share a
    motif with a test row).

    **Compare average precision on identical splits only.** It moves with the share
    of photographs in the test fold: on the packaged sample from .79 to .94 for the
    same detector with 3 and with 20 real folds, at the same ROC AUC (the user guide
    runs it). Report ROC AUC and prevalence beside it.

    **Pairs.** In paired data photographs share a pair id with the synthetic images
    made from them or from their captions. A pair belongs to the real folds of its
    photographs, and photographs of one pair share a fold in a random split. Pairs
    without a photograph are dealt over the folds. A test fold holds those images of
    the generator whose pair belongs to its real fold, or which have no pair; nothing
    of these pairs is in training. Ids that are missing (`None`, NaN, ``''``, or
    ``'nan'`` as NumPy writes NaN among texts) or occur once make no pair.

    Test folds share photographs or leave rows out, and so are no partition:
    :func:`~sklearn.model_selection.cross_val_predict` and stacking refuse them. (Only
    without pairs, and with as many generators as real folds, they are a partition.)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
    >>> y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    >>> groups = np.array(["GAN", "GAN", "SD", "SD", "COCO", "COCO", "RAISE", "RAISE"])
    >>> X = np.zeros((8, 2))
    >>> cv = LeaveOneGeneratorOut()
    >>> cv.get_n_splits(X, y, groups)
    2
    >>> for train, test in cv.split(X, y, groups):
    ...     print(f"test {groups[test]}, train {groups[train]}")
    test ['GAN' 'GAN' 'COCO' 'COCO'], train ['SD' 'SD' 'RAISE' 'RAISE']
    test ['SD' 'SD' 'RAISE' 'RAISE'], train ['GAN' 'GAN' 'COCO' 'COCO']
    """

    # Routed by default, as `groups` is by the mixin: a splitter that silently did
    # without pairs it was given would leak them.
    __metadata_request__split = {"pair_id": True}

    def __init__(
        self,
        n_real_folds=5,
        *,
        hold_out_real_source="auto",
        every_real_fold=False,
        random_state=0,
        pos_label=1,
    ):
        self.n_real_folds = n_real_folds
        self.hold_out_real_source = hold_out_real_source
        self.every_real_fold = every_real_fold
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
        layout = self._lay_out(X, y, groups, pair_id)
        splits = layout.splits(self.every_real_fold)
        # An impossible split should raise before the first is fitted, not hours later.
        for i, r in splits:
            layout.check(i, r)
        for i, r in splits:
            train, test = layout.masks(i, r)
            yield np.flatnonzero(train), np.flatnonzero(test)

    def get_n_splits(self, X=None, y=None, groups=None, pair_id=None):
        """Return the number of splits, one or several for each generator.

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
            The number of generators, or of their real folds altogether with
            `every_real_fold`.
        """
        layout = self._lay_out(X, y, groups, pair_id)
        return len(layout.splits(self.every_real_fold))

    def _lay_out(self, X, y, groups, pair_id):
        synthetic, names, source, pair, n_pairs = self._read_rows(X, y, groups, pair_id)
        generators = np.unique(source[synthetic])
        if synthetic.all():
            raise ValueError(
                "Got synthetic images only but expected photographs among the rows; "
                "add rows whose label is not pos_label, or check the labels."
            )
        if len(generators) < 2:
            raise ValueError(
                f"Got images of {names[generators[0]]!r} only but expected two or more "
                "generators in groups; add another generator to train on."
            )
        real_fold = np.full(len(source), -1)
        real_fold[~synthetic], n_folds = self._split_photographs(
            source[~synthetic], pair[~synthetic]
        )
        # Slot -1 stands for "no pair", so that pair codes index without a mask.
        without_photograph = np.ones(n_pairs + 1, dtype=bool)
        without_photograph[pair[~synthetic]] = False
        without_photograph[-1] = False
        pair_fold = np.full(n_pairs + 1, -1)
        pair_fold[without_photograph] = _deal(
            without_photograph.sum(), n_folds, self.random_state
        )
        return _Layout(
            generators=[names[j] for j in generators],
            generator=np.where(synthetic, np.searchsorted(generators, source), -1),
            real_fold=real_fold,
            pair=pair,
            pair_fold=pair_fold,
            n_folds=n_folds,
        )

    def _read_rows(self, X, y, groups, pair_id):
        self._check_parameters()
        synthetic = positive_rows(y, self.pos_label)
        n_samples = len(synthetic) if X is None else _num_samples(X)
        check_length(synthetic, n_samples, "y")
        if groups is None:
            raise ValueError(
                "Got groups=None but expected the generator or photo source of each "
                "row; pass cross_validate(..., groups=groups) and fit(X, y, "
                "groups=groups) of a search, or, with metadata routing enabled, "
                "cross_validate(..., params={'groups': groups}). Any parameter cv "
                "takes list(splitter.split(X, y, groups)) as well."
            )
        return synthetic, *read_groups(groups, pair_id, n_samples)

    def _check_parameters(self):
        n_folds = self.n_real_folds
        if (
            not isinstance(n_folds, Integral)
            or isinstance(n_folds, bool)
            or n_folds < 2
        ):
            raise ValueError(
                f"Got n_real_folds={n_folds!r} but expected an integer of 2 or more; "
                "the default is 5."
            )
        held_out = self.hold_out_real_source
        if not isinstance(held_out, bool | np.bool_) and held_out != "auto":
            raise ValueError(
                f"Got hold_out_real_source={held_out!r} but expected 'auto', True or "
                "False; pass False for photographs split at random."
            )
        if not isinstance(self.every_real_fold, bool | np.bool_):
            raise ValueError(
                f"Got every_real_fold={self.every_real_fold!r} but expected True or "
                "False."
            )

    def _split_photographs(self, source, pair):
        """Return the real fold of each photograph and the number of folds."""
        sources = np.unique(source)
        by_source = self.hold_out_real_source
        if isinstance(by_source, str):
            by_source = len(sources) >= 2
        if by_source:
            if len(sources) < 2:
                raise ValueError(
                    "Got photographs of one source but expected two or more with "
                    "hold_out_real_source=True; name their sources in groups or pass "
                    "hold_out_real_source=False."
                )
            return np.searchsorted(sources, source), len(sources)
        # Photographs of one pair are one unit, any other photograph is its own.
        units, unit = factorize(np.where(pair >= 0, pair, ~np.arange(len(pair))))
        if len(units) < self.n_real_folds:
            raise ValueError(
                f"Got {len(units)} photographs (those of one pair counted once) but "
                f"expected at least n_real_folds={self.n_real_folds}; lower "
                "n_real_folds or add photographs."
            )
        fold = _deal(len(units), self.n_real_folds, self.random_state)
        return fold[unit], self.n_real_folds


@dataclass
class _Layout:
    """Where each row and each pair belongs; -1 stands for nowhere."""

    generators: list
    generator: np.ndarray  # (n_samples,)
    real_fold: np.ndarray  # (n_samples,)
    pair: np.ndarray  # (n_samples,)
    pair_fold: np.ndarray  # (n_pairs + 1,), set for pairs without a photograph
    n_folds: int

    def splits(self, every_real_fold):
        """Return the generator and the real fold of each split.

        The first choice for the i-th generator is fold ``i % n_folds``. A generator may
        be paired with photographs of few folds only, and is tested in those.
        """
        splits = []
        for i in range(len(self.generators)):
            order = [(i + step) % self.n_folds for step in range(self.n_folds)]
            tested = [r for r in order if self._tests_any(i, r)]
            splits += [
                (i, r) for r in (sorted(tested) if every_real_fold else tested[:1])
            ]
        return splits

    def masks(self, i, r):
        """Return masks of the training and the test set."""
        own = self.generator == i
        photographs = self.real_fold == r
        in_pair = self._pairs_in(r)[self.pair]  # (n_samples,)
        test = photographs | (own & (in_pair | (self.pair < 0)))
        # Not merely what is left over: paired images of the generator outside fold r
        # are unseen too, and so are other generators' images of the pairs in fold r.
        train = ~(own | photographs | in_pair)
        return train, test

    def check(self, i, r):
        """Raise unless a split has both classes in training."""
        train, _ = self.masks(i, r)
        synthetic = self.generator >= 0
        if not (train & synthetic).any() or not (train & ~synthetic).any():
            raise ValueError(
                f"Got no {'photograph' if (train & synthetic).any() else 'fake'} to "
                f"train on beside {self.generators[i]!r} and its real fold but "
                "expected both classes; add images that share no pair with this fold, "
                "or raise n_real_folds."
            )

    def _tests_any(self, i, r):
        pair = self.pair[self.generator == i]
        return bool((self._pairs_in(r)[pair] | (pair < 0)).any())

    def _pairs_in(self, r):
        """Return which pairs lie in a real fold; slot -1 is of rows without a pair."""
        in_fold = self.pair_fold == r  # (n_pairs + 1,)
        in_fold[self.pair[self.real_fold == r]] = True
        in_fold[-1] = False
        return in_fold


def _deal(n_units, n_folds, random_state):
    """Return the fold of each unit, as a shuffled KFold deals them.

    Unlike KFold it may leave folds empty, which pairs without a photograph need.
    """
    order = np.arange(n_units)
    check_random_state(random_state).shuffle(order)
    fold = np.empty(n_units, dtype=np.intp)
    for r, units in enumerate(np.array_split(order, n_folds)):
        fold[units] = r
    return fold
