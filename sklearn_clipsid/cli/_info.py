"""Say what a saved detector is: `clipsid info`."""

import json
import os
import zipfile

from sklearn_clipsid.cli._options import add_detector


def add_command(commands):
    """Add the command to those of `clipsid`.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser(
        "info",
        help="say what a saved detector is",
        description="Say what a saved detector is, and which encoder it needs. The "
        "encoder is not loaded.",
    )
    add_detector(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run=run)


def run(options):
    """Print what a saved detector is.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Returns
    -------
    status : int
        0.
    """
    from sklearn_clipsid.cli._detector import load_detector

    facts = _facts(load_detector(options.detector), options.detector)
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name}:", *(f"  {key}: {value[key]}" for key in value), sep="\n")
        else:
            print(f"{name}: {value}")
    return 0


def _facts(estimator, filename):
    import numpy as np

    from sklearn_clipsid.cli._detector import embedder_of

    # The directions of concepts would fill pages.
    with np.printoptions(threshold=1, edgeitems=1):
        facts = {"detector": " ".join(repr(estimator).split())}
    facts["bytes"] = os.path.getsize(filename)
    if hasattr(estimator, "classes_"):
        facts["labels"] = np.asarray(estimator.classes_).tolist()
    embedder = embedder_of(estimator)
    if embedder is None:
        facts["encoder"] = "none: it takes embeddings"
    else:
        facts["weights"] = f"{embedder.model_name}, {embedder.pretrained}"
        facts["encoder"] = dict(embedder.fingerprint_)
    facts["verdicts"] = _thresholds(estimator)
    facts["saved with"] = _versions(filename)
    return facts


def _thresholds(estimator):
    from sklearn_clipsid._abstaining import AbstainingClassifier
    from sklearn_clipsid._loaded_parts import parts_of

    for part in parts_of(estimator):
        if isinstance(part, AbstainingClassifier):
            low, high = part.thresholds_.tolist()
            max_fnr = part.max_fpr if part.max_fnr is None else part.max_fnr
            return {
                "real below a score of": low,
                "synthetic above a score of": high,
                "photographs called synthetic, at most": part.max_fpr,
                "synthetic images called real, at most": max_fnr,
                "photographs it was chosen on": part.n_real_,
                "synthetic images it was chosen on": part.n_synthetic_,
            }
    return "none: no AbstainingClassifier has chosen thresholds"


def _versions(filename):
    from sklearn_clipsid._detector_archive import STAMP_NAME

    with zipfile.ZipFile(filename) as archive:
        if STAMP_NAME not in archive.namelist():
            return "unknown"
        return json.loads(archive.read(STAMP_NAME))["versions"]
