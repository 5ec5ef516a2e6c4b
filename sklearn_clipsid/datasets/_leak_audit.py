"""Ask what tells synthetic images from photographs without a look at the picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._groups import check_length, positive_rows, read_pairs
from sklearn_clipsid._path_rows import as_paths
from sklearn_clipsid.datasets._cue_auc import TOGETHER, bootstrap_aucs, cross_validate
from sklearn_clipsid.datasets._file_cues import (
    Cue,
    file_cues,
    largest_difference,
    read_all_facts,
)
from sklearn_clipsid.datasets._near_duplicates import nearest_photographs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sklearn_clipsid._clip._file_facts import FileFacts

# A cue leaks when the lower bound of its AUC's interval is above this.
LEAK_AUC = 0.6
# With fewer of a class, a tree has nothing to learn from.
MIN_IMAGES = 10
CLASSES = ("photographs", "synthetic images")

_SAME_COPIES = "write all images anew with equalize_images"
_REMEDIES = {
    "format": _SAME_COPIES,
    "size": f"{_SAME_COPIES}, which gives them one size",
    "aspect": f"{_SAME_COPIES}, which crops them to squares",
    "bits per pixel": f"{_SAME_COPIES}; what is left then tells of the picture, "
    "such as smooth skies, and is in every JPEG of it",
    "JPEG quality": f"{_SAME_COPIES}, and test on other qualities too, as traces of "
    "the first compression stay",
    "chroma subsampling": _SAME_COPIES,
    "progressive JPEG": _SAME_COPIES,
    "EXIF and software": f"{_SAME_COPIES}, without metadata",
    "colour profile": f"{_SAME_COPIES}, without profiles",
    "colour mode": f"{_SAME_COPIES}, in RGB",
    "file name": "split and load by a manifest, never by names; equalize_images names "
    "its copies by hashes",
    TOGETHER: "begin with the cues above that leak most",
}


class LeakReport(Bunch):
    """What `leak_audit` found; it prints as a table and what to do."""

    def __repr__(self) -> str:
        n_images = f"{self.n_photographs} photographs, {self.n_synthetic} synthetic"
        lines = [
            f"Leak audit of {n_images} images: AUC of the label from each cue alone",
            f"{'cue':<20}{'AUC':>5}{'low':>6}{'high':>6}  verdict  what differs most",
        ]
        for row in self.table:
            numbers = f"{row['auc']:5.2f}{row['low']:6.2f}{row['high']:6.2f}"
            verdict = row["verdict"].replace("leaks", "LEAKS")
            lines.append(f"{row['cue']:<20}{numbers}  {verdict:<7}  {row['saw']}")
        lines += self._describe_near_duplicates()
        leaking = self.table[self.table["leaks"]]
        if len(leaking):
            lines.append("What to do:")
            lines += [f"  {row['cue']}: {row['remedy']}." for row in leaking]
        return "\n".join(line.rstrip() for line in lines)

    def _describe_near_duplicates(self) -> list[str]:
        pairs = self.near_duplicates
        apart = pairs[~pairs["same_group"]]
        lines = [f"synthetic images that look like a photograph: {len(pairs)}"]
        if self.n_flat:
            lines[0] += f" (not compared, for want of contrast: {self.n_flat})"
        if len(apart):
            names = _within_folder([*apart["synthetic"], *apart["photograph"]])
            named = [
                f"{synthetic!r} like {photograph!r}"
                for synthetic, photograph in zip(names, names[len(apart) :])
            ]
            lines.append(
                f"  {len(apart)} share no group with it ({first_few(named, 3)}): check "
                "their labels, and pass groups that keep them together."
            )
        return lines


def _within_folder(paths: list[str]) -> list[str]:
    """Shorten paths by the folder that all of them are in."""
    absolute = [os.path.abspath(path) for path in paths]
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    except ValueError:  # on several drives
        return paths
    return [os.path.relpath(path, folder) for path in absolute]


@validate_params(
    {
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_boot": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def leak_audit(
    paths: Sequence[str],
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    cv: int = 5,
    n_boot: int = 1000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    pos_label: Any = 1,
) -> LeakReport:
    """Find what predicts the label of images without looking at the picture.

    Where photographs are JPEG files of many sizes and synthetic images square PNG
    files, a detector may learn that and nothing else [1]_. For each such cue this is
    the AUC of a classifier that sees the cue alone, on images that it was not fitted
    to.

    Parameters
    ----------
    paths : sequence of str or PathLike of shape (n_images,)
        The image files.

    y : array-like of shape (n_images,)
        Binary labels.

    groups : array-like of shape (n_images,), default=None
        Images that are no independent evidence, such as those of one motif, have the
        same value here: their pair id. They are kept in one fold, and the bootstrap
        draws such groups, not images. Images whose value is missing or occurs once,
        and with None all of them, are each a group of their own. With generators and
        photo sources the question is another one, see Notes.

    cv : int, default=5
        Number of folds, stratified by the label and shuffled.

    n_boot : int, default=1000
        Number of bootstrap draws.

    random_state : int, RandomState instance or None, default=None
        Folds and bootstrap draws.

    n_jobs : int, default=None
        Threads that read files, and then processes that fit classifiers. None means 1
        unless in a :func:`joblib.parallel_config` context, -1 all cores.

    pos_label : int, float, bool or str, default=1
        The label of synthetic images.

    Returns
    -------
    report : :class:`~sklearn.utils.Bunch`
        Dictionary-like; it prints as a readable table. It has the attributes:

        table : structured ndarray of shape (n_cues,)
            One row per cue and a last one for all of them together:
            ``pandas.DataFrame(table)`` makes a table of it. Its fields are "cue";
            "auc"; "low" and "high", its 95 % interval; "verdict", which is "leaks"
            where low is above 0.6, "unclear" where only high is, else "-"; "leaks",
            whether it is the first; "saw", the property in which the classes differ
            most; and "remedy". No field holds a path.
        near_duplicates : structured ndarray of shape (n_pairs,)
            The synthetic images that look like a photograph, closest first. Its
            fields are "synthetic" and "photograph", the paths, the second that of the
            nearest photograph; "difference", the share of their hashes that differs;
            and "same_group", whether `groups` keeps the two together.
        n_photographs, n_synthetic, n_flat : int
            How many images there were, and how many of them have too little contrast
            for a hash.

    See Also
    --------
    equalize_images : Write copies without these leaks.
    sklearn_clipsid.model_selection.LeaveOneGeneratorOut : Splits that hold out
        generators.

    Notes
    -----
    The cues are the format; width, height and number of pixels; width by height; bits
    per pixel; the quality of a JPEG as its luminance table has it, and its tables;
    its chroma subsampling; whether it is progressive; EXIF, the software that wrote
    the file and the names of other metadata, such as the "parameters" of a PNG; the
    colour profile; the colour mode; and the words of the file's own name, without
    those of its folders and without its extension. Numbers in it are all the same
    word, and so are hashes; its length counts too.

    The absence of a property is a value: a leak of the format shows in the cues of
    JPEG too. Values of one image alone, and all but the 256 most frequent values, are
    not told apart. A cue that is the same in all files has an AUC of 0.5.

    The classifier is gradient boosting of trees. Its AUC is the share of pairs of a
    photograph and a synthetic image in one test fold that it ranks correctly. The
    interval is made of percentiles over draws of images or groups, together with
    their predictions: it does not contain the luck of fitting. Its lower bound is at
    most ``0.025 ** (1 / m)`` for m groups of the rarer class, as few groups may be
    ranked without an error by chance. Cues of noise leaked in at most 2 % of audits
    (``benchmarks/leaks.py``).

    With pair ids as groups, or none, the question is whether a cue tells the classes
    of this data set apart. With generators and photo sources as groups it is whether
    the cue betrays those that were not seen. They are few and the intervals wide: with
    seven photo sources or fewer nothing leaks, and a cue that is "unclear" may well do
    so. Ask the first question first.

    No leak found is no proof that there is none. Traces of earlier compression,
    of resampling and of the choice of motifs are in the picture, which is not looked
    at but for near-duplicates. These have hashes, the signs of the 255 lowest
    frequencies of a thumbnail [2]_, that differ in at most 15 % of the bits: copies of
    another size, format or JPEG quality are found, crops and mirrored copies are not.

    References
    ----------
    .. [1] P. Grommelt, L. Weiss, F.-J. Pfreundt, J. Keuper, "Fake or JPEG? Revealing
       Common Biases in Generated Image Detection Datasets", 2024, arXiv 2403.17608.

    .. [2] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash
       Functions", 2010.

    Examples
    --------
    PNG files of which only the photographs are made JPEG:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import (
    ...     equalize_images,
    ...     leak_audit,
    ...     make_paired_images,
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     png, jpeg = Path(folder, "png"), Path(folder, "jpeg")
    ...     images = make_paired_images(png, n_pairs=12, image_size=32)
    ...     paths, y = images.data, images.target
    ...     paths[y == 0] = equalize_images(paths[y == 0], jpeg, size=32)
    ...     report = leak_audit(paths, y, images.pair_id, cv=3, random_state=0)
    >>> report.table["cue"][report.table["leaks"]].tolist()
    ['format', 'bits per pixel', 'JPEG quality', 'chroma subsampling',
     'file name', 'all together']
    >>> print(report.table["saw"][0])
    format 'PNG': 0% of photographs, 100% of synthetic images
    """
    paths = as_paths(paths)
    positive = positive_rows(y, pos_label)
    check_length(positive, len(paths), "y")
    cluster = _check_groups(groups, len(paths))
    rng = check_random_state(random_state)
    fold = _assign_folds(positive, cluster, groups is not None, cv, rng)
    facts = read_all_facts(paths, n_jobs)
    cues = file_cues(paths, facts)
    scores = cross_validate(cues, positive, fold, rng, n_jobs)
    aucs = bootstrap_aucs(scores, positive, fold, cluster, n_boot, rng)
    return LeakReport(
        table=_as_table(cues, positive, aucs),
        near_duplicates=_near_duplicates(paths, facts, positive, cluster),
        n_photographs=int((~positive).sum()),
        n_synthetic=int(positive.sum()),
        n_flat=sum(not fact.look for fact in facts),
    )


def _check_groups(groups: ArrayLike | None, n_images: int) -> np.ndarray:
    """Return the number of the group of each image, from 0."""
    if groups is not None:
        check_length(groups, n_images, "groups")
        if np.ndim(groups) > 1 and np.shape(groups)[1] > 1:
            raise ValueError(
                f"Got groups of shape {np.shape(groups)} but expected one value per "
                "image; pass one column, such as the pair id."
            )
    cluster, n_groups = read_pairs(groups, n_images)
    alone = np.flatnonzero(cluster < 0)
    cluster[alone] = n_groups + np.arange(len(alone))
    return cluster


def _assign_folds(
    positive: np.ndarray,
    cluster: np.ndarray,
    grouped: bool,
    cv: int,
    random_state: np.random.RandomState,
) -> np.ndarray:
    """Return the test fold of each image."""
    for n_images, name in zip(np.bincount(positive, minlength=2), CLASSES):
        if n_images < max(MIN_IMAGES, cv):
            raise ValueError(
                f"Got {n_images} {name} but expected at least {max(MIN_IMAGES, cv)}; "
                "bring more of them."
            )
    n_groups = cluster.max() + 1
    if n_groups < cv:
        raise ValueError(
            f"Got groups with {n_groups} values for cv={cv} folds but expected at "
            "least one per fold; pass a smaller cv or finer groups."
        )
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(
        cv, shuffle=True, random_state=random_state
    )
    splits = splitter.split(positive, positive, cluster if grouped else None)
    fold = np.empty(len(positive), dtype=np.intp)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    for rows, name in zip((~positive, positive), CLASSES):
        if (np.bincount(fold[rows], minlength=cv) == 0).any():
            raise ValueError(
                f"Got groups that leave one of cv={cv} folds without {name} but "
                "expected both classes in each, as nothing can be ranked there; pass "
                "a smaller cv, or groups such as the pair id or motif."
            )
    return fold


def _as_table(
    cues: dict[str, Cue],
    positive: np.ndarray,
    aucs: dict[str, tuple[float, float, float]],
) -> np.ndarray:
    rows = []
    for name, remedy in _REMEDIES.items():
        auc, low, high = aucs.get(name, (0.5, 0.5, 0.5))
        leaks = low > LEAK_AUC
        verdict = "leaks" if leaks else "unclear" if high > LEAK_AUC else "-"
        saw = "" if name == TOGETHER else largest_difference(cues[name], positive)
        rows.append((name, auc, low, high, verdict, leaks, saw, remedy))
    kinds = ["U", "f8", "f8", "f8", "U", "?", "U", "U"]
    names = ["cue", "auc", "low", "high", "verdict", "leaks", "saw", "remedy"]
    columns = [np.array(column, kind) for column, kind in zip(zip(*rows), kinds)]
    table = np.empty(len(rows), [(n, c.dtype) for n, c in zip(names, columns)])
    for column_name, column in zip(names, columns):
        table[column_name] = column
    return table


def _near_duplicates(
    paths: list[str], facts: list[FileFacts], positive: np.ndarray, cluster: np.ndarray
) -> np.ndarray:
    from sklearn_clipsid._clip import LOOK_BITS

    synthetic, photo, difference = nearest_photographs(
        [fact.look for fact in facts], positive, LOOK_BITS
    )
    pairs = np.empty(
        len(synthetic),
        [("synthetic", "O"), ("photograph", "O"), ("difference", "f8")]
        + [("same_group", "?")],
    )
    every_path = np.array(paths, dtype=object)
    pairs["synthetic"], pairs["photograph"] = every_path[synthetic], every_path[photo]
    pairs["difference"] = difference
    pairs["same_group"] = cluster[synthetic] == cluster[photo]
    return pairs[np.argsort(difference, kind="stable")]
