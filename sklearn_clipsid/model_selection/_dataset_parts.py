"""Read data sets and deal their rows into training and test parts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._cluster_bootstrap import (
    arrange_generators,
    choose_negatives,
    cluster_rows,
    strata_of_clusters,
)
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import (
    check_length,
    positive_rows,
    read_pairs,
    read_sources,
)
from sklearn_clipsid._warn_user import warn_user
from sklearn_clipsid.model_selection._cross_generator import hold_out

TRAIN, TEST = ("train", "training"), ("test", "testing")
LEFT_OUT = ("val", "valid", "validation", "dev")


@dataclass
class Dataset:
    """One data set; the last four are filled in when its rows are dealt."""

    name: str
    data: object
    y: np.ndarray
    positive: np.ndarray
    names: list
    group: np.ndarray
    pair_id: list
    split: list | None
    negatives: str
    content: list | None = None
    pair: np.ndarray | None = None
    train: np.ndarray | None = None
    test: np.ndarray | None = None

    @property
    def kind(self):
        """What each row is, as its number was chosen by who collected the data."""
        matched = self.negatives == "matched"
        return np.where(
            self.positive, self.group, len(self.names) + matched * self.group
        )

    def arrange_test(self):
        """Return the rows of the test part by generator."""
        in_test = np.bincount(
            self.group[self.test], self.positive[self.test], minlength=len(self.names)
        )
        generators = np.unique(self.group[self.positive])
        without = [repr(self.names[j]) for j in generators if not in_test[j]]
        if without:
            raise ValueError(
                f"Got no image of the generator(s) {first_few(without)} in the test "
                "part but expected one or more; add images, change test_size (pairs "
                "are dealt whole), or leave these generators out."
            )
        return arrange_generators(
            self.positive[self.test],
            self.names,
            self.group[self.test],
            self.pair[self.test],
            self.negatives,
        )

    def check_train(self):
        """Refuse a training part of one class."""
        if len(np.unique(self.positive[self.train])) < 2:
            raise ValueError(
                "Got a training part without both synthetic images and photographs "
                "but expected both; add images, or lower test_size."
            )


def in_dataset(name, check, *args):
    """Call, and name the data set in errors about it."""
    try:
        return check(*args)
    except ValueError as error:
        raise ValueError(f"In data set {name!r}: {error}") from error


def read_datasets(datasets, pos_label):
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(
            f"Got datasets of type {type(datasets).__name__} but expected a dict with "
            "one or more data sets by name, such as {'mine': load_image_folder(...)}."
        )
    sets = [
        in_dataset(name, _read_dataset, str(name), bunch, pos_label)
        for name, bunch in datasets.items()
    ]
    for one in sets[1:]:
        _check_alike(sets[0], one)
    return sets


def _read_dataset(name, bunch, pos_label):
    fields = bunch if isinstance(bunch, Mapping) else vars(bunch)
    missing = [key for key in ("data", "target", "generator") if key not in fields]
    if missing:
        raise ValueError(
            f"Got no {' and no '.join(missing)} but expected a Bunch with data, target "
            "and generator, as load_image_folder returns it."
        )
    data = fields["data"]
    # Lists, frames and arrays of all data sets may be trained on together.
    if hasattr(data, "iloc"):
        data = data.to_numpy()
    is_one_path = isinstance(data, str | bytes | os.PathLike)
    is_array = isinstance(data, np.ndarray)
    if is_one_path or (is_array and data.ndim not in (1, 2)):
        what = repr(data) if is_one_path else f"of shape {data.shape}"
        raise ValueError(
            f"Got data {what} but expected (n_samples, n_features), or a sequence of "
            "paths or images."
        )
    n_samples = _num_samples(data)
    positive = positive_rows(fields["target"], pos_label, name="target")
    check_length(positive, n_samples, "target")
    if positive.all():
        raise ValueError(
            "Got synthetic images only but expected photographs beside them; add "
            "photographs, or check the labels."
        )
    names, group, _ = read_sources(fields["generator"], n_samples)
    pair_id = fields.get("pair_id")
    read_pairs(pair_id, n_samples)  # refuses wrong shapes
    split = fields.get("split")
    return Dataset(
        name=name,
        data=data,
        y=column_or_1d(np.asarray(fields["target"])),
        positive=positive,
        names=names,
        group=group,
        pair_id=[None] * n_samples if pair_id is None else np.ravel(pair_id).tolist(),
        split=None if split is None else _read_split(split, n_samples),
        negatives=choose_negatives(positive, group),
    )


def _read_split(split, n_samples):
    check_length(split, n_samples, "split")
    split = [str(value).lower() for value in np.ravel(split)]
    unknown = sorted(set(split).difference(TRAIN, TEST, LEFT_OUT))
    if unknown or not set(split) & set(TRAIN) or not set(split) & set(TEST):
        raise ValueError(
            f"Got split with the values {sorted(set(split))} but expected 'train' and "
            "'test', and 'validation' for rows to leave out; rename the values, or "
            "remove split to have the rows dealt."
        )
    return split


def _check_alike(first, other):
    """Refuse data sets that cannot be trained on and tested against one another."""
    labels, others = np.unique(first.y).tolist(), np.unique(other.y).tolist()
    if labels != others:
        raise ValueError(
            f"Got the labels {labels} in data set {first.name!r} and {others} in "
            f"{other.name!r} but expected the same two in all; rename the labels."
        )
    shapes = [np.shape(one.data)[1:] for one in (first, other)]
    if all(isinstance(one.data, np.ndarray) for one in (first, other)):
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Got rows of shape {shapes[0]} in data set {first.name!r} and "
                f"{shapes[1]} in {other.name!r} but expected the same features in all; "
                "embed all data sets with one encoder."
            )


def deal(sets, test_size, rng):
    """Fill in the parts of each data set, whole pairs at a time over all of them."""
    content = np.concatenate([_contents(one.data) for one in sets])
    pair_id = list(chain.from_iterable(one.pair_id for one in sets))
    pair, n_pairs = read_pairs(pair_id, len(content))
    equal, _ = read_pairs(np.where(pair < 0, content, None), len(content))
    pair = np.where((pair < 0) & (equal >= 0), n_pairs + equal, pair)
    n_kinds = np.cumsum([0] + [2 * len(one.names) for one in sets])
    kind = np.concatenate([one.kind + n for one, n in zip(sets, n_kinds)])
    of_set = np.repeat(np.arange(len(sets)), [len(one.y) for one in sets])
    given = np.array([one.split is not None for one in sets])[of_set]
    part = np.empty(len(of_set), dtype=object)
    for j, one in enumerate(sets):
        if one.split is not None:
            part[of_set == j] = one.split
    if not given.all():
        free = ~given
        cluster = cluster_rows(pair[free])
        stratum = strata_of_clusters(cluster, kind[free])
        # Pairs that mix kinds are dealt within their data set, where they are of one.
        mixed = -2 - strata_of_clusters(cluster, of_set[free])
        stratum = np.where(stratum < 0, mixed, stratum)
        in_test = hold_out(stratum, test_size, rng)[cluster]
        part[free] = np.where(in_test, "test", "train")
    in_train, in_test = np.isin(part, TRAIN), np.isin(part, TEST)
    for j, one in enumerate(sets):
        one.content = content[of_set == j]
        one.pair = pair[of_set == j]
        one.train = np.flatnonzero(in_train[of_set == j])
        one.test = np.flatnonzero(in_test[of_set == j])
    _refuse_equal_rows(sets, content, of_set, in_train, in_test)
    _warn_of_torn_pairs(sets)


def _contents(data):
    """Return what tells equal rows, None where that is not known."""
    content = np.full(_num_samples(data), None, dtype=object)
    if isinstance(data, np.ndarray) and data.ndim == 2 and data.dtype != object:
        for i, row in enumerate(data.astype(np.float64)):
            content[i] = blake2b(row.tobytes(), digest_size=16).hexdigest()
    else:
        for i, row in enumerate(data):
            if isinstance(row, str | os.PathLike):
                content[i] = os.fspath(row)
    return content


def without_equal_rows(parts):
    """Return the training rows of each data set that no data set before it has."""
    seen, rows_of = set(), []
    for one in parts:
        rows = [i for i in one.train if one.content[i] not in seen]
        seen.update(one.content[one.train])
        seen.discard(None)
        rows_of.append(np.array(rows, dtype=np.intp))
    return rows_of


def _refuse_equal_rows(sets, content, of_set, in_train, in_test):
    trained = {content[row]: row for row in np.flatnonzero(in_train)}
    trained.pop(None, None)
    leaks = [row for row in np.flatnonzero(in_test) if content[row] in trained]
    if leaks:
        names = [
            sets[of_set[row]].name for row in (trained[content[leaks[0]]], leaks[0])
        ]
        raise ValueError(
            f"Got {len(leaks)} test rows that equal training rows, for instance of "
            f"{names[0]!r} (train) and {names[1]!r} (test), but expected that no image "
            "is trained and tested on; give equal images the same split and the same "
            "pair_id in all data sets, or leave one of them out."
        )


def _warn_of_torn_pairs(sets):
    for one in sets:
        torn = np.intersect1d(one.pair[one.train], one.pair[one.test])
        torn = torn[torn >= 0]
        if one.split is not None and len(torn):
            warn_user(
                f"In data set {one.name!r}, {len(torn)} pairs stand in both parts of "
                "split: the test images show motifs that were trained on. Remove split "
                "to have whole pairs dealt."
            )
