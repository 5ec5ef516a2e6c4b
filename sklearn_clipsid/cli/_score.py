"""Score images: `clipsid score`."""

import csv
import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from contextlib import contextmanager
from itertools import chain

from sklearn_clipsid.cli._image_paths import add_images, list_images
from sklearn_clipsid.cli._options import add_detector, add_place, check_output
from sklearn_clipsid.cli._say import ImageProgress, on_one_line, say, say_unreadable

DESCRIPTION = """Score images with a saved detector.

Each line is the probability of being synthetic, the verdict where the detector has a
threshold, and the path, with tabs between them. Lines come as images are scored."""

UNREAD = "unread"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def add_command(commands):
    """Add the command to those of `clipsid`.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser(
        "score",
        help="score images with a saved detector",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_detector(parser)
    add_images(parser)
    parser.add_argument("--csv", metavar="FILE", help="write a table, or replace it")
    parser.add_argument("--json", action="store_true", help="write JSON lines")
    parser.add_argument(
        "--explain", action="store_true", help="add the largest parts of each score"
    )
    add_place(parser)
    parser.set_defaults(run=run)


def run(options):
    """Score images.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Returns
    -------
    status : int
        0, or 1 where some images could not be read.
    """
    from sklearn_clipsid.cli._detector import Detector

    paths = list_images(options.images)
    if options.csv is not None:
        check_output(options.csv, ".csv")
    detector = Detector(options, explain=options.explain)
    verdicts = Counter()
    with ImageProgress(len(paths)) as progress:
        try:
            parts = detector.score_in_parts(paths)
            first = next(parts)  # a missing encoder must not cost the table of before
            with open_writer(options, _columns(detector)) as write:
                for scored in chain([first], parts):
                    with progress.aside():
                        write(scored)
                    progress.advance(len(scored))
                    verdicts.update(_outcome(image) for image in scored)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{progress.n_done} of {len(paths)} images are done.")
            raise
    n_unread = verdicts.pop(UNREAD, 0)
    say(
        f"{len(paths) - n_unread} images scored"
        + "".join(f", {verdicts[word]} {word}" for word in sorted(verdicts) if word)
        + f"; {n_unread} could not be read."
    )
    return int(n_unread > 0)


def _outcome(image):
    """Return what is counted of an image: the verdict, if there is one."""
    return image.verdict if image.error is None else UNREAD


def _columns(detector):
    asked = {
        "score": hasattr(detector.head, "decision_function"),
        "probability": hasattr(detector.head, "predict_proba"),
        "verdict": detector.decide is not None,
        "explanation": detector.explain is not None,
    }
    return [name for name, is_there in asked.items() if is_there]


@contextmanager
def open_writer(options, columns):
    """Open what scores are written to.

    Parameters
    ----------
    options : argparse.Namespace
        `json` and `csv`.

    columns : list of str
        Fields of `ScoredImage` to write besides the path and the error.

    Yields
    ------
    write : callable
        Takes a list of ScoredImage, which anyone can read as soon as it returns.
    """
    line_of = _json_line if options.json else _text_line
    columns = ["path", *columns, "error"]

    def write(scored):
        for image in scored:
            # On a terminal the lines below say it already.
            if image.error is not None and not sys.stdout.isatty():
                say_unreadable(image.path, image.error)
        for image in scored:
            print(line_of(image, columns))
        sys.stdout.flush()

    if options.csv is None:
        yield write
        return
    # One name that is no text must not make the table unreadable.
    with open(
        options.csv, "w", newline="", encoding="utf-8", errors="backslashreplace"
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
    return "\t".join(map(on_one_line, cells))


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
    # Spreadsheets run what looks like a formula. "./=1.png" is the same file.
    if image.path.startswith(FORMULA_STARTS):
        cells["path"] = f"./{image.path}"
    if image.explanation is not None:
        cells["explanation"] = _in_words(image.explanation)
        if cells["explanation"].startswith(FORMULA_STARTS):
            cells["explanation"] = "'" + cells["explanation"]
    return [cells[name] for name in columns]


def _in_words(explanation):
    return ", ".join(f"{name} {summand:+.2f}" for name, summand in explanation)
