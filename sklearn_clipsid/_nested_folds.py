"""Validation folds for a choice, and folds beside each of them to check it on."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import type_of_target

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import check_length, positive_rows, read_sources
from sklearn_clipsid._warn_user import warn_user
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut


@dataclass
class NestedFold:
    """A validation fold, and the folds of its training rows.

    Parameters
    ----------
    train, test : ndarray
        Rows to train on, and rows that are held out.

    inner : list of tuple
        Such pairs again, of the rows of `train`.
    """

    train: np.ndarray
    test: np.ndarray
    inner: list

    @property
    def split(self):
        """Rows to train on, and rows that are held out."""
        return self.train, self.test


def read_binary_labels(y, pos_label):
    """Tell which rows are synthetic, where both classes have to be there.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels of two classes.

    pos_label : int, float, bool, str or None
        The label of synthetic images. None is the second label in sorted order.

    Returns
    -------
    synthetic : ndarray of bool of shape (n_samples,)
    """
    y_type = type_of_target(y, input_name="y", raise_unknown=True)
    if y_type != "binary":
        raise ValueError(
            "Only binary classification is supported. Unknown label type: "
            f"{y_type}. Pass one of two labels for each row."
        )
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"Got y with the labels {classes.tolist()}, one class, but expected "
            "photographs and synthetic images, as the choice is judged by how well "
            "they are told apart; add the other."
        )
    return positive_rows(y, classes[1] if pos_label is None else pos_label)


def nested_folds(estimator, y, synthetic, groups):
    """Split rows for a choice that is checked on rows without a say in it.

    Parameters
    ----------
    estimator : estimator
        Who chooses. Its `cv` splits; None is `LeaveOneGeneratorOut` with `groups`, else
        stratified folds, with a warning.

    y : ndarray of shape (n_samples,)
        Labels.

    synthetic : ndarray of bool of shape (n_samples,)
        Which rows are synthetic.

    groups : array-like of shape (n_samples,) or (n_samples, 2), or None
        Generators and photo sources, and pair ids.

    Returns
    -------
    folds : list of NestedFold
    """
    cv, name = estimator.cv, type(estimator).__name__
    if groups is not None:
        check_length(groups, len(y), "groups")
    if cv is None:
        _check_enough(synthetic, groups)
    if cv is None and groups is None:
        warn_user(
            f"Got groups=None, so {name} chooses by random folds, which say nothing of "
            "unseen generators; pass the generator or photo source of each row as "
            f"groups, in a pipeline as {name.lower()}__groups."
        )
    folds = []
    rows = np.arange(len(y))
    for train, test in _splits(cv, rows, y, synthetic, groups):
        try:
            inner = _splits(cv, train, y, synthetic, groups)
        except ValueError as error:
            raise ValueError(
                f"Got {len(train)} training rows of fold {len(folds)} that {name} "
                f"cannot split again by its cv, to choose on: {error}"
            ) from error
        folds.append(NestedFold(train, test, inner))
    return folds


def best_place(path, tol):
    """Return the last place of a path that is a new best by more than tol.

    Parameters
    ----------
    path : array-like of shape (n_places,)
        Scores.

    tol : float
        What a new best has to be better by.

    Returns
    -------
    place : int
    """
    best = 0
    for place, score in enumerate(path):
        if score > path[best] + tol:
            best = place
    return best


def _splits(cv, rows, y, synthetic, groups):
    """Split some of the rows; each side of each split needs both classes."""
    y, synthetic = y[rows], synthetic[rows]
    groups = None if groups is None else _safe_indexing(groups, rows)
    if cv is None and groups is None:
        cv = StratifiedKFold(min(5, *np.bincount(synthetic)))
    elif cv is None:
        cv = LeaveOneGeneratorOut(pos_label=True)
        y = synthetic
    splits = list(cv.split(rows, y, groups))
    for number, sides in enumerate(splits):
        for what, side in zip(("training", "validation"), sides):
            if np.unique(synthetic[side]).size < 2:
                raise ValueError(
                    f"Got a cv whose {what} part of split {number} holds "
                    f"{np.count_nonzero(synthetic[side])} synthetic images of "
                    f"{len(side)} rows but expected both classes; use "
                    "LeaveOneGeneratorOut, or leave cv=None and pass groups."
                )
    return [(rows[train], rows[test]) for train, test in splits]


def _check_enough(synthetic, groups):
    """Refuse rows that cannot be trained, chosen and checked on."""
    if groups is None:
        rarest = int(np.bincount(synthetic).min())
        if rarest < 3:
            raise ValueError(
                f"Got {rarest} row(s) of the rarer class but expected 3 or more, to "
                "train on, to choose on and to check on; add rows."
            )
        return
    names, group, _ = read_sources(groups, len(synthetic))
    generators = [repr(names[j]) for j in np.unique(group[synthetic])]
    if len(generators) < 3:
        raise ValueError(
            f"Got synthetic images of {first_few(generators)} alone but expected three "
            "or more generators in groups: one to train on, one to choose on and one "
            "to check on; add generators, or pass groups=None for folds at random, "
            "which say nothing of unseen ones."
        )
