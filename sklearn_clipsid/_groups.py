"""Read the labels, generators and pair ids of rows into integer codes."""

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _num_samples

from sklearn_clipsid._first_few import first_few

MAX_LABELS = 5  # written out in a message


def positive_rows(y, pos_label, *, name="y"):
    """Tell which rows are synthetic.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Binary labels.

    pos_label : int, float, bool or str
        The label of synthetic images.

    name : str, default='y'
        What the caller calls the labels, for messages.

    Returns
    -------
    positive : ndarray of shape (n_samples,)
        Boolean mask.
    """
    if y is None:
        raise ValueError(
            f"Got {name}=None but expected a label per row; pass the labels, as the "
            "synthetic images and the photographs are told apart by them."
        )
    labels, code = factorize(column_or_1d(_to_array(y)))
    _refuse_missing(labels, code, name, "give every row its label")
    if not labels:
        raise ValueError(
            f"Got {name} without rows but expected photographs and synthetic images."
        )
    labels_text = first_few(sorted(repr(label) for label in labels), MAX_LABELS)
    if len(labels) > 2:
        raise ValueError(
            f"Got {name} with {len(labels)} labels ({labels_text}) but expected two, "
            "synthetic and photograph; merge the labels and name generators in groups."
        )
    of_pos_label = [j for j, label in enumerate(labels) if label == pos_label]
    if not of_pos_label:
        choices = " or ".join(sorted(f"pos_label={label!r}" for label in labels))
        raise ValueError(
            f"Got {name} with the labels {labels_text} but expected rows with "
            f"{name} == pos_label={pos_label!r}, the synthetic images; add such rows "
            f"or pass {choices}, whichever means synthetic."
        )
    return code == of_pos_label[0]


def read_sources(groups, n_samples):
    """Code the generator or photo source of each row.

    Parameters
    ----------
    groups : array-like of shape (n_samples,) or (n_samples, 2)
        Sources, or sources and pair ids.

    n_samples : int
        Number of rows expected.

    Returns
    -------
    names : list
        The sources in sorted order.

    code : ndarray of shape (n_samples,)
        Index into `names`.

    pair_id : ndarray of shape (n_samples,) or None
        The second column of `groups`, if it has one.
    """
    if groups is None:
        raise ValueError(
            "Got groups=None but expected the generator or photo source of each row; "
            "pass groups."
        )
    groups = _to_array(groups)
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.ndim != 1 and not (groups.ndim == 2 and groups.shape[1] == 2):
        raise ValueError(
            f"Got groups of shape {groups.shape} but expected (n_samples,) or "
            "(n_samples, 2); pass the source of each row, or its source and pair id."
        )
    check_length(groups, n_samples, "groups")
    pair_id = None
    if groups.ndim == 2:
        groups, pair_id = groups[:, 0], groups[:, 1]
    found, code = factorize(groups)
    _refuse_missing(
        found, code, "groups", "name the source of every row, 'real' where unknown"
    )
    try:
        names = sorted(found)
    except TypeError as error:
        raise ValueError(
            "Got groups of types that cannot be sorted together but expected names of "
            f"one type ({error}); convert them, e.g. to str."
        ) from error
    for name in names:
        if isinstance(name, str) and not _is_text(name):
            raise ValueError(
                f"Got the group {name!r}, whose name is not valid Unicode, but "
                "expected text, as it is written into figures and tables; rename it, "
                "or the folder that it comes from."
            )
    rank = {name: position for position, name in enumerate(names)}
    return names, np.array([rank[name] for name in found], dtype=np.intp)[code], pair_id


def read_groups(groups, pair_id, n_samples):
    """Code sources and pairs, which stand beside them or in their second column.

    Parameters
    ----------
    groups : array-like of shape (n_samples,) or (n_samples, 2)
        Sources, or sources and pair ids.

    pair_id : array-like of shape (n_samples,) or None
        Pair ids.

    n_samples : int
        Number of rows expected.

    Returns
    -------
    names, code, pair, n_pairs
        As of `read_sources` and `read_pairs`.
    """
    names, code, second_column = read_sources(groups, n_samples)
    if second_column is not None and pair_id is not None:
        raise ValueError(
            "Got pair ids twice but expected them once; pass either pair_id or a "
            "second column of groups."
        )
    pair_id = pair_id if second_column is None else second_column
    return names, code, *read_pairs(pair_id, n_samples)


def read_pairs(pair_id, n_samples):
    """Code the pair of each row.

    Parameters
    ----------
    pair_id : array-like of shape (n_samples,) or None
        Pair ids.

    n_samples : int
        Number of rows expected.

    Returns
    -------
    pair : ndarray of shape (n_samples,)
        Numbers from 0 in order of first appearance, and -1 for rows without a pair:
        those whose id is missing or occurs on no other row.

    n_pairs : int
        Number of pairs.
    """
    if pair_id is None:
        return np.full(n_samples, -1, dtype=np.intp), 0
    pair_id = _to_array(pair_id)
    if pair_id.ndim != 1 and pair_id.shape[1:] != (1,):
        raise ValueError(
            f"Got pair_id of shape {pair_id.shape} but expected (n_samples,); pass one "
            "id per row."
        )
    pair_id = column_or_1d(pair_id)
    check_length(pair_id, n_samples, "pair_id")
    ids, code = factorize(pair_id)
    is_pair = np.bincount(code, minlength=len(ids)) >= 2
    is_pair &= [not _is_missing(value) for value in ids]
    pair_of_id = np.where(is_pair, np.cumsum(is_pair) - 1, -1)  # (n_ids,)
    return pair_of_id[code], int(is_pair.sum())


def factorize(values):
    """Code the values of an array by number in order of first appearance.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
        Hashable values.

    Returns
    -------
    found : list
        The distinct values.

    code : ndarray of shape (n_samples,)
        Index into `found`.
    """
    # Not numpy.unique: it sorts, which None beside text does not allow.
    number = {}
    code = np.fromiter(
        (number.setdefault(value, len(number)) for value in values.tolist()),
        dtype=np.intp,
        count=len(values),
    )
    return list(number), code


def check_length(array, n_samples, name):
    """Raise unless an array has one entry per row.

    Parameters
    ----------
    array : array-like
        Something with rows.

    n_samples : int
        Number of rows expected.

    name : str
        What the caller calls the array, for the message.
    """
    if _num_samples(array) != n_samples:
        raise ValueError(
            f"Got {name} with {_num_samples(array)} rows but expected {n_samples}; "
            "pass one entry per row of the data."
        )


def list_rows(mask, limit=10):
    """Name the rows of a mask in a message.

    Parameters
    ----------
    mask : ndarray of shape (n_samples,)
        Boolean mask.

    limit : int, default=10
        At most so many rows are written out.

    Returns
    -------
    text : str
        For instance ``'row(s) 3, 5'``.
    """
    rows = np.flatnonzero(mask)
    text = "row(s) " + ", ".join(str(row) for row in rows[:limit])
    return text if len(rows) <= limit else f"{text}, … ({len(rows)} in all)"


def _to_array(values):
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    if isinstance(values, np.ndarray):
        return values
    # With dtype=None NumPy would write a NaN among texts as the text "nan".
    return np.array(list(values), dtype=object)


def _is_text(name):
    """Tell whether a name can be written; bytes of folders may be anything."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_missing(value):
    # "nan" is what NumPy makes of NaN in an array of texts (np.column_stack does).
    try:
        return value is None or bool(value != value) or value in ("", "nan")
    except TypeError:  # pandas.NA refuses to be a bool
        return True


def _refuse_missing(found, code, name, remedy):
    missing = np.array([_is_missing(value) for value in found], dtype=bool)
    if missing.any():
        raise ValueError(
            f"Got no value of {name} for {list_rows(missing[code])} but expected one "
            f"per row; {remedy}."
        )
