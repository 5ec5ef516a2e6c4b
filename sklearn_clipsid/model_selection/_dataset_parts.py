"""Read data sets and deal their rows into training and test parts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from scipy.sparse import coo_array, issparse
from scipy.sparse.csgraph import connected_components
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._generator_rows import (
    arrange_generators,
    choose_negatives,
    cluster_rows,
    strata_of_clusters,
)
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
        is_dict = isinstance(datasets, Mapping)
        what = "={}" if is_dict else f" of type {type(datasets).__name__}"
        raise ValueError(
            f"Got datasets{what} but expected a dict with one or more data sets by "
            "name, such as {'mine': load_image_folder(...)}."
        )
    if len({str(name) for name in datasets}) < len(datasets):
        raise ValueError(
            f"Got the names {list(datasets)} but expected names that differ as text; "
            "rename one of the data sets."
        )
    sets = [
        in_dataset(name, _read_dataset, str(name), bunch, pos_label)
        for name, bunch in datasets.items()
    ]
    for one in sets[1:]:
        _check_alike(sets[0], one)
    return sets


def _read_dataset(name, bunch, pos_label):
    fields = bunch if isinstance(bunch, Mapping) else getattr(bunch, "__dict__", {})
    needed = ("data", "target", "generator")
    missing = [key for key in needed if fields.get(key) is None]
    if missing:
        raise ValueError(
            f"Got no {' and no '.join(missing)} but expected a Bunch with data, target "
            "and generator, as load_image_folder returns it."
        )
    data = _read_data(fields["data"])
    n_samples = _num_samples(data)
    check_length(fields["target"], n_samples, "target")
    positive = positive_rows(fields["target"], pos_label, name="target")
    if positive.all():
        raise ValueError(
            "Got synthetic images only but expected photographs beside them; add "
            "photographs, or check the labels."
        )
    check_length(fields["generator"], n_samples, "generator")
    names, group, second_column = read_sources(fields["generator"], n_samples)
    if second_column is not None:
        raise ValueError(
            "Got generator with two columns but expected one name per row; pass the "
            "pair ids as pair_id."
        )
    pair_id, split = fields.get("pair_id"), fields.get("split")
    read_pairs(pair_id, n_samples)  # refuses wrong shapes
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


def _read_data(data):
    """Return an array of features, or a sequence of paths or images."""
    # Lists, frames and arrays of all data sets may be trained on together.
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    is_sequence = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    is_one_path = isinstance(data, str | bytes | os.PathLike)
    if is_one_path or issparse(data) or not is_sequence:
        raise ValueError(
            f"Got data of type {type(data).__name__} ({data!r:.80}) but expected a "
            "dense array, or a sequence of paths or images; pass an array or a list."
        )
    if not len(data):
        raise ValueError("Got no rows but expected some; look at what was loaded.")
    if isinstance(data, list | tuple) and np.ndim(data[0]) == 1:
        data = np.asarray(data)
    if not isinstance(data, np.ndarray):
        return data
    if data.ndim == 2 and isinstance(data[0, 0], str | os.PathLike):
        data = data[:, 0] if data.shape[1] == 1 else data  # a frame of paths
    elif data.ndim == 2 and data.dtype == object:
        data = data.astype(np.float64)
    is_text = data.dtype.kind in "OU"
    if data.ndim > 2 or is_text != (data.ndim == 1):
        raise ValueError(
            f"Got data of shape {data.shape} and type {data.dtype} but expected "
            "features of shape (n_samples, n_features), or a sequence of paths or "
            "images."
        )
    return data


def _is_features(data):
    return isinstance(data, np.ndarray) and data.ndim == 2


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
    is_features, is_too = _is_features(first.data), _is_features(other.data)
    if is_features != is_too:
        kinds = [
            "features" if one else "paths or images" for one in (is_features, is_too)
        ]
        raise ValueError(
            f"Got {kinds[0]} in data set {first.name!r} and {kinds[1]} in "
            f"{other.name!r} but expected the same in all; pass the paths of all, or "
            "embed all with one encoder."
        )
    if is_features and first.data.shape[1] != other.data.shape[1]:
        raise ValueError(
            f"Got {first.data.shape[1]} features in data set {first.name!r} and "
            f"{other.data.shape[1]} in {other.name!r} but expected as many in all; "
            "embed all data sets with one encoder."
        )


def deal(sets, test_size, rng):
    """Fill in the parts of each data set, whole pairs at a time over all of them."""
    content = np.concatenate([_contents(one.data) for one in sets])
    pair_id = list(chain.from_iterable(one.pair_id for one in sets))
    pair = _joined(*(read_pairs(ids, len(content))[0] for ids in (pair_id, content)))
    n_kinds = np.cumsum([0] + [2 * len(one.names) for one in sets])
    kind = np.concatenate([one.kind + n for one, n in zip(sets, n_kinds)])
    of_set = np.repeat(np.arange(len(sets)), [len(one.y) for one in sets])
    part = np.full(len(of_set), "", dtype=f"U{max(map(len, LEFT_OUT))}")
    for j, one in enumerate(sets):
        if one.split is not None:
            part[of_set == j] = one.split
    cluster = cluster_rows(pair)
    # What one data set trains or tests on, the others do as well.
    for words in (TRAIN, TEST):
        known = np.unique(cluster[np.isin(part, words)])
        part[np.isin(cluster, known) & (part == "")] = words[0]
    free = part == ""
    if free.any():
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


def _joined(pair, equal):
    """Give one number to rows that pairs or equality link, and -1 to single rows."""
    rows = np.arange(len(pair))
    n_pairs, n_equal = pair.max(initial=-1) + 1, equal.max(initial=-1) + 1
    links = np.concatenate([pair, np.where(equal < 0, -1, n_pairs + equal)])
    ends = np.concatenate([rows, rows])[links >= 0], len(rows) + links[links >= 0]
    n_nodes = len(rows) + n_pairs + n_equal
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][: len(rows)]
    return np.where((pair >= 0) | (equal >= 0), component, -1)


def _contents(data):
    """Return what tells equal rows, None where that is not known."""
    content = np.full(_num_samples(data), None, dtype=object)
    if _is_features(data):
        for i, row in enumerate(data.astype(np.float64)):
            content[i] = blake2b(row.tobytes(), digest_size=16).hexdigest()
    else:
        for i, row in enumerate(data):
            if isinstance(row, str | os.PathLike):
                content[i] = os.path.abspath(row)
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
            "is trained and tested on; give equal images the same split in all data "
            "sets, remove split to have them dealt, or leave one of them out."
        )


def _warn_of_torn_pairs(sets):
    trained = np.unique(np.concatenate([one.pair[one.train] for one in sets]))
    for one in sets:
        torn = np.intersect1d(one.pair[one.test], trained[trained >= 0])
        if len(torn):
            warn_user(
                f"In data set {one.name!r}, {len(torn)} pairs stand in both parts of "
                "split, here or in another data set: the test images show motifs that "
                "were trained on. Remove split to have whole pairs dealt."
            )
