"""Turn the facts of image files into cues: columns of numbers that may tell a label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.stats import rankdata

from sklearn_clipsid.datasets._each_file import for_each_file

if TYPE_CHECKING:
    from sklearn_clipsid._clip._file_facts import FileFacts

# Values of one property, such as the words of file names, that are told apart.
MAX_VALUES = 256
# A hash or another long hexadecimal number, a word, a number.
_TOKEN = re.compile(r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}|[^\W\d_]+|\d+")


# What one kind of fact tells of each image: named columns of shape (n_images,).
Cue: TypeAlias = dict[str, np.ndarray]


def largest_difference(cue: Cue, positive: np.ndarray) -> str:
    """Describe the column in which the classes differ most.

    Parameters
    ----------
    cue : dict of ndarray of shape (n_images,)
        Columns that differ among images.

    positive : ndarray of shape (n_images,), dtype=bool
        Which images are synthetic.

    Returns
    -------
    text : str
        The share of images that have a value, or the quartiles of a number.
    """
    if not cue:
        return "the same in all files"
    name = max(cue, key=lambda key: _separation(cue[key], positive))
    column = cue[name]
    describe = _share if np.isin(column, (0, 1)).all() else _quartiles
    real, synthetic = (describe(column[rows]) for rows in (~positive, positive))
    return f"{name}: {real} of photographs, {synthetic} of synthetic images"


def _separation(column: np.ndarray, positive: np.ndarray) -> float:
    """Return how far the mean ranks of the classes lie apart."""
    rank = rankdata(np.nan_to_num(column, nan=-1.0))
    return abs(rank[positive].mean() - rank[~positive].mean())


def _share(values: np.ndarray) -> str:
    return f"{values.mean():.0%}"


def _quartiles(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return "no value"
    low, high = np.quantile(known, [0.25, 0.75])
    return f"{low:.4g} to {high:.4g}"


def read_all_facts(paths: list[str], n_jobs: int | None) -> list[FileFacts]:
    """Read the facts of all files, or name those that are no images.

    Parameters
    ----------
    paths : list of str
        The files.

    n_jobs : int or None
        Number of threads.

    Returns
    -------
    facts : list of FileFacts
        In the order of the files.
    """
    return for_each_file(_read_facts, paths, description="reading files", n_jobs=n_jobs)


def _read_facts(index: int, path: str) -> FileFacts:
    from sklearn_clipsid._clip import read_file_facts

    return read_file_facts(path)


def file_cues(paths: list[str], facts: list[FileFacts]) -> dict[str, Cue]:
    """Sort facts into cues.

    Parameters
    ----------
    paths : list of str
        The files, whose names are a cue.

    facts : list of FileFacts
        What is known of them.

    Returns
    -------
    cues : dict of dict of ndarray of shape (n_images,)
        By name. Columns that are the same in all files are left out.
    """
    width, height, n_bytes, quality, progressive, has_exif = np.array(
        [
            (f.width, f.height, f.n_bytes, f.quality, f.progressive, f.has_exif)
            for f in facts
        ],
        dtype=float,
    ).T
    n_pixels = width * height
    has_profile = np.array([float(f.profile != "") for f in facts])
    stems = [PurePath(path).stem for path in paths]
    cues = {
        "format": _indicators("format", [{f.format} for f in facts]),
        "size": {"width": width, "height": height, "pixels": n_pixels},
        "aspect": {"width / height": width / height},
        "bits per pixel": {"bits per pixel": 8 * n_bytes / n_pixels},
        "JPEG quality": {"quality": quality}
        | _indicators("tables", [{f.tables} for f in facts]),
        "chroma subsampling": _indicators(
            "subsampling", [{f.subsampling or "none"} for f in facts]
        ),
        "progressive JPEG": {"progressive": progressive},
        "EXIF and software": {"EXIF": has_exif}
        | _indicators("software", [{f.software or "none"} for f in facts])
        | _indicators("field", [f.fields for f in facts]),
        "colour profile": {"a profile": has_profile}
        | _indicators("profile", [{f.profile or "none"} for f in facts]),
        "colour mode": _indicators("mode", [{f.mode} for f in facts]),
        "file name": {"length of name": np.array([float(len(stem)) for stem in stems])}
        | _indicators("word", [_tokens(stem) for stem in stems]),
    }
    return {name: _varying(cue) for name, cue in cues.items()}


def _varying(cue: Cue) -> Cue:
    # A NaN beside numbers is another value; NaN alone are all the same.
    return {name: column for name, column in cue.items() if len(np.unique(column)) > 1}


def _tokens(stem: str) -> set[str]:
    """Return the words of a name; all numbers are one word, and so are hashes."""
    words = _TOKEN.findall(stem.lower())
    return {
        word if word.isalpha() else "number" if word.isdigit() else "hash"
        for word in words
    }


def _indicators(called: str, values: Sequence[Iterable[str]]) -> dict[str, np.ndarray]:
    """Return a column of 0 and 1 for each of the most frequent values."""
    counts = Counter(value for own in values for value in own)
    common = [value for value, n in counts.most_common(MAX_VALUES) if n > 1]
    columns = {value: np.zeros(len(values)) for value in common}
    for row, own in enumerate(values):
        for value in own:
            if value in columns:
                columns[value][row] = 1
    return {f"{called} {value!r}": column for value, column in columns.items()}
