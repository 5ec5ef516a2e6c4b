"""Score images: `clipsid score`."""

from argparse import RawDescriptionHelpFormatter

from sklearn_clipsid.cli._detector_options import add_detector, add_place
from sklearn_clipsid.cli._image_paths import add_images, list_images
from sklearn_clipsid.cli._say import say

DESCRIPTION = """Score images with a saved detector.

Each line is the probability of being synthetic, the verdict where the detector has a
threshold, and the path, with tabs between them. Lines come as images are scored."""


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
    parser.add_argument("--csv", metavar="FILE", help="write a table as well")
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
    from sklearn_clipsid.cli._image_progress import ImageProgress
    from sklearn_clipsid.cli._score_writer import open_writer

    paths = list_images(options.images)
    detector = Detector(options, explain=options.explain)
    columns = _columns(detector)
    n_unread = 0
    with (
        open_writer(options.csv, as_json=options.json, columns=columns) as write,
        ImageProgress(len(paths)) as progress,
    ):
        try:
            for scored in detector.score_in_parts(paths):
                with progress.aside():
                    write(scored)
                progress.advance(len(scored))
                n_unread += sum(image.error is not None for image in scored)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{progress.n_done} of {len(paths)} images are done.")
            raise
    say(f"{len(paths) - n_unread} images scored, {n_unread} could not be read.")
    return int(n_unread > 0)


def _columns(detector):
    asked = {
        "score": hasattr(detector.head, "decision_function"),
        "probability": hasattr(detector.head, "predict_proba"),
        "verdict": detector.decide is not None,
        "explanation": detector.explain is not None,
    }
    return [name for name, is_there in asked.items() if is_there]
