"""Read which image is real, and where each comes from, out of a CSV manifest."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.datasets._label_words import cell_label, known_labels

# Columns that identify a manifest: ours, grip-unina's and OpenFake's.
_SCHEMAS = (
    ("path", "label", "generator"),
    ("filename", "typ"),
    ("file_name", "label", "model"),
)


class ImageRecord(NamedTuple):
    """One image and what is known about it.

    Parameters
    ----------
    path : str
        Where the image lies.

    label : {0, 1}
        1 for a synthetic image, 0 for a photograph.

    generator : str
        Generator of a synthetic image, photo source of a photograph.

    pair_id : str
        Name shared by the images of one motif, "" where unknown.
    """

    path: str
    label: int
    generator: str
    pair_id: str


def read_manifest(filename: Path) -> tuple[list[ImageRecord], str]:
    """Read the rows of a manifest, in their order.

    Parameters
    ----------
    filename : pathlib.Path
        The CSV file. Relative paths in it are relative to its folder.

    Returns
    -------
    records : list of ImageRecord
        One per row.

    layout : str
        The columns that were read, for the description of the data set.
    """
    with open(filename, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            schema = _find_schema(columns, filename)
            reader.fieldnames = columns
            rows = list(_parse_rows(reader, schema, filename))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"Got {str(filename)!r}, which cannot be read after line "
                f"{reader.line_num} ({error}), but expected comma-separated text in "
                "UTF-8; save it as such."
            ) from error
    if not rows:
        raise ValueError(
            f"Got no rows in {str(filename)!r} but expected one row per image below "
            "the header; add them."
        )
    _check_duplicates(rows, filename)
    _check_files_exist(rows, filename)
    return [record for _, record in rows], f"csv ({', '.join(schema)})"


def _find_schema(columns: list[str], filename: Path) -> tuple[str, ...]:
    if not columns:
        raise ValueError(
            f"Got an empty file {str(filename)!r} but expected a CSV manifest; write "
            f"a header with {_schemas_in_words()}, and one row per image."
        )
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Got the columns {repeated} more than once in {str(filename)!r} but "
            "expected distinct column names; rename or remove the others."
        )
    found = [schema for schema in _SCHEMAS if set(schema) <= set(columns)]
    if len(found) > 1:
        raise ValueError(
            f"Got the columns {columns} in {str(filename)!r}, which fit more than one "
            f"kind of manifest, but expected only one of {_schemas_in_words()}; remove "
            "or rename the columns that are not meant."
        )
    if not found:
        nearest = max(_SCHEMAS, key=lambda schema: len(set(schema) & set(columns)))
        missing = [name for name in nearest if name not in columns]
        raise ValueError(
            f"Got the columns {columns} in {str(filename)!r} but expected "
            f"{_schemas_in_words()}; add {missing}, or rename the columns that hold it "
            "(columns are separated by commas)."
        )
    return found[0]


def _schemas_in_words() -> str:
    return " or ".join(",".join(schema) for schema in _SCHEMAS)


def _parse_rows(
    reader: csv.DictReader, schema: tuple[str, ...], filename: Path
) -> Iterator[tuple[int, ImageRecord]]:
    for row in reader:
        where = f"line {reader.line_num} of {str(filename)!r}"
        # DictReader files surplus cells under None and fills missing ones with None.
        if None in row or None in row.values():
            raise ValueError(
                f"Got another number of cells than the {len(reader.fieldnames or [])} "
                f"columns expected in {where}; quote cells that contain commas."
            )
        cells = {name: text.strip() for name, text in row.items()}
        path = cells[schema[0]]
        if not path:
            raise ValueError(
                f"Got an empty {schema[0]!r} in {where} but expected the path of an "
                "image; fill it in or remove the row."
            )
        label, generator = _parse_source(cells, schema, where)
        path = os.path.join(filename.parent, path)
        pair_id = cells.get("pair_id", "")
        yield reader.line_num, ImageRecord(path, label, generator, pair_id)


def _parse_source(
    cells: dict[str, str], schema: tuple[str, ...], where: str
) -> tuple[int, str]:
    if schema == ("filename", "typ"):
        # One column says both: a word for real, or else the generator's name.
        generator = cells["typ"]
        label = cell_label(generator)
        if label is not None:
            return label, ("real", "fake")[label]
        label = 1
    else:
        word, generator = cells["label"], cells[schema[2]]
        label = cell_label(word)
        if label is None:
            raise ValueError(
                f"Got label {word!r} in {where} but expected one of "
                f"{known_labels(cells=True)}; correct the label."
            )
    if generator:
        return label, generator
    if label == 0:
        return label, "real"
    raise ValueError(
        f"Got an empty {schema[-1]!r} for a synthetic image in {where} but expected "
        "the name of its generator; fill it in, with 'unknown' if need be."
    )


def _check_duplicates(rows: list[tuple[int, ImageRecord]], filename: Path) -> None:
    first_line: dict[str, int] = {}
    repeats = []
    for line, record in rows:
        key = os.path.normcase(os.path.normpath(record.path))
        if key in first_line:
            repeats.append(f"{record.path!r} (lines {first_line[key]} and {line})")
        else:
            first_line[key] = line
    if repeats:
        raise ValueError(
            f"Got {len(repeats)} repeated paths in {str(filename)!r} but expected each "
            f"image once; remove the repeats: {first_few(repeats)}."
        )


def _check_files_exist(rows: list[tuple[int, ImageRecord]], filename: Path) -> None:
    missing = [
        f"{record.path!r} (line {line})"
        for line, record in rows
        if not os.path.isfile(record.path)
    ]
    if missing:
        raise FileNotFoundError(
            f"Got {len(missing)} of {len(rows)} paths in {str(filename)!r} without a "
            "file but expected every image to be there (relative paths are relative "
            "to the manifest's folder); fetch the images, or remove their rows: "
            f"{first_few(missing)}."
        )
