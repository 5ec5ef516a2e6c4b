"""Write scored images as lines of text, as JSON lines and into a CSV file."""

import csv
import json
import sys
from contextlib import contextmanager

from sklearn_clipsid.cli._say import say_unreadable


@contextmanager
def open_writer(filename, *, as_json, columns):
    """Open what scores are written to.

    Parameters
    ----------
    filename : str or None
        The CSV file; replaced if it is there.

    as_json : bool
        Whether to write JSON on standard output.

    columns : list of str
        Fields of `ScoredImage` to write besides the path and the error.

    Yields
    ------
    write : callable
        Takes a list of ScoredImage, which anyone can read as soon as it returns.
    """
    line_of = _json_line if as_json else _text_line
    columns = ["path", *columns, "error"]

    def write(scored):
        for image in scored:
            if image.error is not None:
                say_unreadable(image.path, image.error)
        for image in scored:
            print(line_of(image, columns))
        sys.stdout.flush()

    if filename is None:
        yield write
        return
    # Names that are no text must not stop the rest from being written.
    with open(
        filename, "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        table = csv.writer(file)
        table.writerow(columns)

        def write_both(scored):
            table.writerows(_csv_row(image, columns) for image in scored)
            file.flush()
            write(scored)

        yield write_both


def _text_line(image, columns):
    number = image.score if image.probability is None else image.probability
    cells = ["-" if number is None else f"{number:.4f}"]
    if "verdict" in columns:
        cells.append(image.verdict or "-")
    cells.append(image.path)
    if image.error is not None:
        cells.append(f"could not be read: {image.error}")
    elif image.explanation is not None:
        cells.append(_in_words(image.explanation))
    return "\t".join(cells)


def _json_line(image, columns):
    cells = image._asdict()
    if image.explanation is not None:
        cells["explanation"] = [
            {"name": name, "summand": summand} for name, summand in image.explanation
        ]
    return json.dumps(
        {name: value for name, value in cells.items() if value is not None}
    )


def _csv_row(image, columns):
    cells = image._asdict()
    if image.explanation is not None:
        cells["explanation"] = _in_words(image.explanation)
    return [cells[name] for name in columns]


def _in_words(explanation):
    return ", ".join(f"{name} {summand:+.2f}" for name, summand in explanation)
