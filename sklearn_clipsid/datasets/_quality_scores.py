"""Read images with opinion scores in the layouts of AGIQA-3K and AIGCIQA2023."""

import csv
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.datasets._image_files import list_image_files

# The columns of mean and standard deviation of each score, by the name of the set.
LAYOUTS = {
    "AGIQA-3K": {
        "quality": ("mos_quality", "std_quality"),
        "alignment": ("mos_align", "std_align"),
    },
    "AIGCIQA2023": {
        "quality": ("quality_mos", "quality_std"),
        "authenticity": ("authenticity_mos", "authenticity_std"),
        "correspondence": ("correspondence_mos", "correspondence_std"),
    },
}
N_MODELS = 6
IMAGES_OF_A_MODEL = 400  # in AIGCIQA2023, which numbers its images model by model
LAST_NUMBER = N_MODELS * IMAGES_OF_A_MODEL - 1


class OpinionRecord(NamedTuple):
    """One image and what was thought of it.

    Parameters
    ----------
    path : str
        Where the image lies.

    mean, std : float
        Of the opinions.

    generator, prompt : str
        What made the image, and from which text.
    """

    path: str
    mean: float
    std: float
    generator: str
    prompt: str


def load_quality_scores(
    filename: str | os.PathLike[str],
    image_folder: str | os.PathLike[str] | None = None,
    *,
    score: str = "quality",
) -> Bunch:
    r"""Load the paths and opinion scores of AGIQA-3K or AIGCIQA2023.

    The images are neither opened nor decoded: the paths are what
    :class:`~sklearn_clipsid.CLIPQualityRegressor` takes.

    Parameters
    ----------
    filename : str or path-like
        The table: ``data.csv`` of AGIQA-3K [1]_, or ``AIGCIQA2023.csv`` of
        AIGCIQA2023 [2]_. Its columns say which of the two it is.

    image_folder : str or path-like, default=None
        The folder of the images that the table names, such as ``Image/allimg`` of
        AIGCIQA2023. None is the folder of the table.

    score : str, default="quality"
        Which score. AGIQA-3K has "quality" and "alignment" (with the prompt),
        AIGCIQA2023 "quality", "authenticity" and "correspondence" (with the prompt).

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes, in the order of the
        table.

        data : ndarray of shape (n_images,), dtype=object
            The paths, as str.
        target : ndarray of shape (n_images,)
            Mean opinion scores; larger is better.
        target_std : ndarray of shape (n_images,)
            Standard deviation of the opinions.
        generator : ndarray of shape (n_images,), dtype=str
            AGIQA-3K: the beginning of the file name, such as "midjourney".
            AIGCIQA2023: "0" to "5", as the table numbers 400 images of each model and
            does not name it.
        prompt : ndarray of shape (n_images,), dtype=object
            The text that the image was generated from. Pass it as `groups`: images of
            one prompt are alike.
        DESCR : str
            What was read, with the number of images of each generator.

    See Also
    --------
    load_image_folder : Loads photographs and synthetic images with labels.

    References
    ----------
    .. [1] C. Li et al., "AGIQA-3K: An Open Database for AI-Generated Image Quality
       Assessment", 2023, arXiv 2306.04717.
    .. [2] J. Wang et al., "AIGCIQA2023: A Large-scale Image Quality Assessment Database
       for AI Generated Images", 2023, arXiv 2307.00211.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import load_quality_scores
    >>> with TemporaryDirectory() as root:
    ...     table = Path(root, "data.csv")
    ...     _ = table.write_text(
    ...         "name,prompt,mos_quality,std_quality,mos_align,std_align\n"
    ...         "sd1.5_normal_000.jpg,a cat,2.5,0.4,3.1,0.6\n"
    ...     )
    ...     Path(root, "sd1.5_normal_000.jpg").touch()
    ...     images = load_quality_scores(table)
    >>> images.target
    array([2.5])
    >>> images.generator
    array(['sd1.5'], dtype='<U5')
    """
    table = Path(filename)
    if not table.is_file():
        raise FileNotFoundError(
            f"Got filename={str(table)!r}, which is no file, but expected the table of "
            "AGIQA-3K (data.csv) or AIGCIQA2023 (AIGCIQA2023.csv); correct the path "
            f"(working directory: {os.getcwd()!r})."
        )
    folder = table.parent if image_folder is None else Path(image_folder)
    layout, records = _read_table(table, folder, score)
    _check_images(records, folder)
    return _as_bunch(records, layout, score, table)


def _read_table(
    table: Path, folder: Path, score: str
) -> tuple[str, list[OpinionRecord]]:
    with open(table, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            layout = _find_layout(reader.fieldnames or [], table)
            if not isinstance(score, str) or score not in LAYOUTS[layout]:
                raise ValueError(
                    f"Got score={score!r} but expected one of {[*LAYOUTS[layout]]}, "
                    f"the scores of {layout}; choose one."
                )
            records = list(_parse_rows(reader, layout, score, table, folder))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"Got {str(table)!r}, which cannot be read after line "
                f"{reader.line_num} ({error}), but expected comma-separated text in "
                "UTF-8; get the original file again."
            ) from error
    if not records:
        raise ValueError(
            f"Got no rows in {str(table)!r} but expected one per image below the "
            "header; get the original file again."
        )
    return layout, records


def _find_layout(columns: Sequence[str], table: Path) -> str:
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise ValueError(
            f"Got the columns {repeated} more than once in {str(table)!r} but expected "
            "each once; remove the others."
        )
    missing = {}
    for layout, scores in LAYOUTS.items():
        needed = [
            "name",
            "prompt",
            *(name for pair in scores.values() for name in pair),
        ]
        missing[layout] = [name for name in needed if name not in columns]
        if not missing[layout]:
            return layout
    nearest = min(missing, key=lambda layout: len(missing[layout]))
    raise ValueError(
        f"Got the columns {[*columns]} in {str(table)!r} but expected those of "
        f"{' or '.join(LAYOUTS)}; for {nearest} {missing[nearest]} are missing."
    )


def _parse_rows(
    reader: csv.DictReader, layout: str, score: str, table: Path, folder: Path
) -> Iterator[OpinionRecord]:
    mean_column, std_column = LAYOUTS[layout][score]
    for row in reader:
        where = f"line {reader.line_num} of {str(table)!r}"
        # DictReader files surplus cells under None and fills missing ones with None.
        if None in row or None in row.values():
            raise ValueError(
                f"Got another number of cells than the {len(reader.fieldnames or [])} "
                f"columns expected in {where}; quote cells that contain commas."
            )
        name = row["name"].strip()
        if not name:
            raise ValueError(
                f"Got an empty name in {where} but expected that of an image; fill it "
                "in or remove the row."
            )
        yield OpinionRecord(
            os.path.normpath(os.path.join(folder, name)),
            _number(row[mean_column], mean_column, where),
            _number(row[std_column], std_column, where, least=0),
            _generator_of(name, layout, where),
            row["prompt"].strip(),
        )


def _number(text: str, column: str, where: str, least: float = -math.inf) -> float:
    try:
        number = math.nan if "_" in text else float(text)  # Python reads 2_5 as 25
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < least:
        expected = "a number" if least < 0 else f"a number of at least {least:g}"
        raise ValueError(
            f"Got {column}={text!r} in {where} but expected {expected}; correct it or "
            "remove the row."
        )
    return number


def _generator_of(name: str, layout: str, where: str) -> str:
    stem = Path(name).stem
    if layout == "AGIQA-3K":
        return stem.partition("_")[0]
    if not stem.isdecimal() or int(stem) > LAST_NUMBER:
        raise ValueError(
            f"Got the name {name!r} in {where} but expected a number from 0 to "
            f"{LAST_NUMBER}, as AIGCIQA2023 names its images; correct it or remove the "
            "row."
        )
    return str(int(stem) // IMAGES_OF_A_MODEL)


def _check_images(records: list[OpinionRecord], folder: Path) -> None:
    paths = [record.path for record in records]
    repeats = [repr(path) for path, count in Counter(paths).items() if count > 1]
    if repeats:
        raise ValueError(
            f"Got {len(repeats)} images more than once but expected one row for each; "
            f"remove the others: {first_few(repeats)}."
        )
    missing = [path for path in paths if not os.path.isfile(path)]
    if not missing:
        return
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Got image_folder={str(folder)!r}, which is no folder, but expected the "
            "one that holds the images; correct the path."
        )
    hint = "pass the folder that holds them as image_folder"
    wanted = Path(missing[0]).name
    found = [name for name in list_image_files(folder)[0] if wanted in Path(name).parts]
    if found:
        hint = f"pass image_folder={str((folder / found[0]).parent)!r}"
    raise FileNotFoundError(
        f"Got {len(missing)} of {len(paths)} images that are not in {str(folder)!r} "
        f"but expected every image to be there; {hint}, or remove their rows: "
        f"{first_few([repr(path) for path in missing])}."
    )


def _as_bunch(
    records: list[OpinionRecord], layout: str, score: str, table: Path
) -> Bunch:
    generator = np.array([record.generator for record in records])
    names, counts = np.unique(generator, return_counts=True)
    lines = [f"{name}: {count} images" for name, count in zip(names, counts)]
    return Bunch(
        # Objects, because one long text would widen every row of a str array.
        data=np.array([record.path for record in records], dtype=object),
        target=np.array([record.mean for record in records]),
        target_std=np.array([record.std for record in records]),
        generator=generator,
        prompt=np.array([record.prompt for record in records], dtype=object),
        DESCR=(
            f"{len(records)} images of {layout} with opinion scores of {score}, read "
            f"from {str(table)!r}.\n\n" + "\n".join(lines) + "\n"
        ),
    )
