"""Load pairs of antonyms for what can be seen in a photograph."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._antonym_check import (
    TEMPLATE,
    antonym_columns,
    check_antonyms,
    check_template,
)

_FOLDER = Path(__file__).parent


def load_photographic_antonyms(
    *, template: str = TEMPLATE, categories: str | Sequence[str] | None = None
) -> Bunch:
    """Load 229 pairs of antonyms for how a photograph looks and was made.

    They name properties of colour, camera, lens, technique, light and composition,
    and artefacts of processing and of generators, whatever the picture shows.

    =====================  ===
    Pairs                  229
    colour                  31
    camera                  33
    lens                    38
    technique               34
    light and composition   43
    image artefacts         50
    =====================  ===

    Parameters
    ----------
    template : str, default="A photograph with {}"
        Makes a prompt of each pole, which takes the place of `{}`.

    categories : str or sequence of str, default=None
        Only pairs of these categories, in the order of the file; None takes all.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        names : ndarray of shape (n_antonyms,), dtype=str
            What each pair is about. The positive pole is more of it.
        positive : ndarray of shape (n_antonyms,), dtype=str
            The positive poles, noun phrases.
        negative : ndarray of shape (n_antonyms,), dtype=str
            Their opposites.
        positive_prompt : ndarray of shape (n_antonyms,), dtype=str
            The positive poles in the template.
        negative_prompt : ndarray of shape (n_antonyms,), dtype=str
            The negative poles in the template.
        category : ndarray of shape (n_antonyms,), dtype=str
            One of the six categories above.
        explanation : ndarray of shape (n_antonyms,), dtype=str
            What to look for.
        template : str
            The template.
        DESCR : str
            How the pairs were chosen, and their limits.
        filename : str
            Path of the file with the pairs.

    See Also
    --------
    read_antonyms : Read antonyms of your own.
    sklearn_clipsid.concepts.concept_directions_from_text : Turn antonyms into
        directions.

    Notes
    -----
    The pairs were written for this package. They are not the 168 pairs of Willi,
    Mathys and Graber [1]_, whose file `read_antonyms` reads.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    >>> from sklearn_clipsid.datasets import load_photographic_antonyms
    >>> antonyms = load_photographic_antonyms(categories="lens")
    >>> len(antonyms.names)
    38
    >>> print(antonyms.names[0])
    depth_of_field
    >>> print(antonyms.positive_prompt[0])
    A photograph with deep focus from near to far
    >>> print(antonyms.negative_prompt[0])
    A photograph with a shallow plane of focus
    """
    filename = _FOLDER / "data" / "photographic_antonyms.csv"
    antonyms = read_antonyms(filename, template=template)
    if categories is not None:
        chosen = _of_categories(antonyms.category, categories)
        antonyms.update(
            (key, column[chosen])
            for key, column in antonyms.items()
            if isinstance(column, np.ndarray)
        )
    descr = _FOLDER / "descr" / "photographic_antonyms.rst"
    antonyms.DESCR = descr.read_text(encoding="utf-8")
    return antonyms


def read_antonyms(
    filename: str | os.PathLike[str], *, template: str = TEMPLATE
) -> Bunch:
    r"""Read pairs of antonyms from a CSV file.

    The first line names the columns. Required are `attribute_name` (or `name`),
    `positive` and `negative`; `positive_prompt` with `negative_prompt`, `category` and
    `explanation` are read where there are such columns, and others are ignored.

    Parameters
    ----------
    filename : str or path-like
        Comma-separated text in UTF-8, such as the file published with [1]_.

    template : str, default="A photograph with {}"
        Makes a prompt of each pole, which takes the place of `{}`. A file that has
        prompts of its own keeps them.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        names : ndarray of shape (n_antonyms,), dtype=str
            The names, all different.
        positive : ndarray of shape (n_antonyms,), dtype=str
            The positive poles.
        negative : ndarray of shape (n_antonyms,), dtype=str
            The negative poles.
        positive_prompt : ndarray of shape (n_antonyms,), dtype=str
            What is embedded for the positive poles.
        negative_prompt : ndarray of shape (n_antonyms,), dtype=str
            What is embedded for the negative poles.
        category : ndarray of shape (n_antonyms,), dtype=str
            The categories, "" where there are none.
        explanation : ndarray of shape (n_antonyms,), dtype=str
            The explanations, "" where there are none.
        template : str or None
            The template, None where the file has prompts of its own.
        DESCR : str
            What was read.
        filename : str
            Path of the file.

    See Also
    --------
    load_photographic_antonyms : Load the pairs that come with the package.
    sklearn_clipsid.concepts.concept_directions_from_text : Turn antonyms into
        directions.

    References
    ----------
    .. [1] M. Willi, M. Mathys, M. Graber, "Synthetic Image Detection with CLIP:
       Understanding and Assessing Predictive Cues", 2026, arXiv 2602.12381.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import read_antonyms
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "own.csv")
    ...     _ = path.write_text("name,positive,negative\nhaze,thick haze,clear air\n")
    ...     antonyms = read_antonyms(path, template="a photo showing {}")
    >>> print(antonyms.negative_prompt[0])
    a photo showing clear air
    """
    check_template(template)
    source = repr(str(filename))
    columns, lines = _read_columns(Path(filename), source)
    antonyms = check_antonyms(
        columns, [f"line {line}" for line in lines], source, template
    )
    return Bunch(
        **antonyms,
        template=None if "positive_prompt" in columns else template,
        DESCR=f"{len(lines)} pairs of antonyms, read from {source}.",
        filename=str(filename),
    )


def _read_columns(
    filename: Path, source: str
) -> tuple[dict[str, list[str]], list[int]]:
    """Return the columns that are known, and the line of each row."""
    with open(filename, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
        try:
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            chosen = antonym_columns(reader.fieldnames, source)
            rows = [(reader.line_num, row) for row in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"Got {source}, which cannot be read after line {reader.line_num} "
                f"({error}), but expected comma-separated text in UTF-8; save it as "
                "such."
            ) from error
    for line, row in rows:
        # DictReader files surplus cells under None and fills missing ones with None.
        if None in row or None in row.values():
            raise ValueError(
                f"Got another number of cells than the {len(reader.fieldnames)} "
                f"columns expected in line {line} of {source}; quote cells that "
                "contain commas."
            )
    columns = {key: [row[name] for _, row in rows] for key, name in chosen.items()}
    return columns, [line for line, _ in rows]


def _of_categories(category: np.ndarray, categories: str | Sequence[str]) -> np.ndarray:
    """Return which antonyms are of the categories that were asked for."""
    asked = [categories] if isinstance(categories, str) else list(categories)
    known = list(dict.fromkeys(category.tolist()))
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise ValueError(
            f"Got categories={categories!r} but expected None or some of {known}"
            + (f"; correct or leave out {unknown}." if unknown else ".")
        )
    return np.isin(category, asked)
