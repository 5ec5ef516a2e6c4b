"""Test a saved detector on labelled images: `clipsid evaluate`."""

import json
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from sklearn_clipsid.cli._options import add_detector, add_place, check_output
from sklearn_clipsid.cli._say import ImageProgress, on_one_line, say, say_unreadable

DESCRIPTION = """Test a saved detector on labelled images.

The table is about the saved detector, which is not fitted again: each generator is
ranked against all photographs, each photo source against all synthetic images. The
figures are worth nothing where it was fitted to images of FOLDER.

--html, which needs matplotlib, asks another question: what does a detector that is made
like this one do on generators and photo sources that it has not seen? Detectors with
the same settings are fitted to parts of FOLDER, and tested on the others. The saved one
stands beside them as a baseline. FOLDER is as for `clipsid fit`."""

SAVED = "the saved one, which may know these images"
COLUMNS = ("images", "AUC", "AP", "called synthetic", "undecided")


def add_command(commands):
    """Add the command to those of `clipsid`.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser(
        "evaluate",
        help="test a saved detector on labelled images",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_detector(parser)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--layout", default="auto", help="of FOLDER; default: auto")
    parser.add_argument("--html", metavar="FILE", help="write a report, see above")
    parser.add_argument("--json", action="store_true", help="write JSON lines")
    add_place(parser)
    parser.set_defaults(run=run)


def run(options):
    """Test a detector.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Returns
    -------
    status : int
        0, or 1 where some images could not be read.
    """
    from sklearn_clipsid._optional import import_optional
    from sklearn_clipsid.cli._detector import Detector, recipe_of
    from sklearn_clipsid.datasets import load_image_folder

    data = load_image_folder(options.folder, layout=options.layout)
    detector = Detector(options)
    if options.html is not None:
        check_output(options.html, ".html")
        import_optional("matplotlib", extra="plot", caller="--html")
        recipe = recipe_of(detector.estimator)
    scored = _score_all(detector, list(data.data))
    for image in scored:
        if image.error is not None:
            say_unreadable(image.path, image.error)
    read = [i for i, image in enumerate(scored) if image.error is None]
    if not read:
        raise ValueError("Got no image that can be read but expected some.")
    n_unread = len(scored) - len(read)
    rows = _table([scored[i] for i in read], data.target[read], data.generator[read])
    _print_head(options, len(read), n_unread)
    _print_table(rows, options.json)
    sys.stdout.flush()
    if options.html is not None:
        _write_report(recipe, data, read, options)
    return int(n_unread > 0)


def _score_all(detector, paths):
    scored = []
    with ImageProgress(len(paths)) as progress:
        for part in detector.score_in_parts(paths):
            scored += part
            progress.advance(len(part))
    return scored


def _table(scored, y, groups):
    """Return one row per generator, per photo source, and for all."""
    import numpy as np

    score = np.array(
        [image.probability if image.score is None else image.score for image in scored]
    )
    verdict = np.array([image.verdict for image in scored])
    if verdict[0] is None:  # no threshold was chosen, so it is the classifier's own
        middle = 0.5 if scored[0].score is None else 0.0
        verdict = np.where(score > middle, "synthetic", "real")
    rows = []
    for label, kind in ((1, "generator"), (0, "photo source")):
        names = np.unique(groups[y == label])
        ranked = [
            _row(kind, name, (groups == name) & (y == label), y, score, verdict)
            for name in names
        ]
        rows += ranked
        if len(names) > 1:
            rows.append(_mean(kind, ranked))
    return rows


def _row(kind, name, own, y, score, verdict):
    from sklearn.metrics import average_precision_score, roc_auc_score

    label = y[own][0]
    rows = own | (y != label)
    row = {"kind": kind, "name": str(name), "images": int(own.sum())}
    if own.sum() < rows.sum():
        row["AUC"] = float(roc_auc_score(y[rows], score[rows]))
        row["AP"] = float(average_precision_score(y[rows], score[rows]))
    row["called synthetic"] = float((verdict[own] == "synthetic").mean())
    if "undecided" in verdict:
        row["undecided"] = float((verdict[own] == "undecided").mean())
    return row


def _mean(kind, rows):
    mean = {"kind": f"mean over {kind}s", "name": ""}
    for column in rows[0]:
        if column in ("AUC", "AP", "called synthetic", "undecided"):
            mean[column] = sum(row[column] for row in rows) / len(rows)
    return mean


def _print_head(options, n_read, n_unread):
    """Say what was measured."""
    if options.json:
        head = {"kind": "evaluation", "detector": options.detector, "fitted": "before"}
        head |= {"folder": options.folder, "images": n_read, "unreadable": n_unread}
        print(json.dumps(head))
        return
    print(
        f"{options.detector!r} as it was saved, not fitted again, on {n_read} images "
        f"of {options.folder!r}; {n_unread} could not be read"
    )


def _print_table(rows, as_json):
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    # Photographs lie in the folder of a generator, whose name means nothing for them.
    words = {"photo source": "photographs beside"}
    names = [
        on_one_line(f"{words.get(row['kind'], row['kind'])} {row['name']}".rstrip())
        for row in rows
    ]
    width = max(map(len, names))
    print(
        f"{'':<{width}}" + "".join(f"  {name:>{max(7, len(name))}}" for name in columns)
    )
    for name, row in zip(names, rows):
        cells = "".join(
            f"  {_number(row.get(column)):>{max(7, len(column))}}" for column in columns
        )
        print(f"{name:<{width}}{cells}")


def _number(value):
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _write_report(recipe, data, read, options):
    """Write what detectors of this recipe do on what they have not seen."""
    from sklearn_clipsid.report import evaluate
    from sklearn_clipsid.report._held_out_scores import (
        default_baselines,
        split_pipeline,
    )

    embedder, head = split_pipeline(recipe.estimator)
    baselines = {} if embedder is None else default_baselines(head)
    report = evaluate(
        recipe.estimator,
        data.data[read],
        data.target[read],
        data.generator[read],
        pair_id=data.pair_id[read],
        baselines=baselines | {SAVED: recipe.saved},
        max_fpr=recipe.max_fpr,
        random_state=0,
    )
    # Of what the page calls "the detector" there are many; a reader should know.
    report.models["detector"] = (
        f"Detectors with the settings of {Path(options.detector).name}, each fitted to "
        f"a part of the images; that file itself is “{SAVED}”: "
        + report.models["detector"]
    )
    report.to_html(options.html)
    say(
        f"wrote {options.html!r}, about detectors of these settings that were fitted "
        f"to parts of the images; the saved one is the baseline {SAVED!r}."
    )
