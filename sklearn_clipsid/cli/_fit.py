"""Fit a detector to labelled images: `clipsid fit`."""

from argparse import RawDescriptionHelpFormatter

from sklearn_clipsid.cli._options import (
    add_embedder_options,
    check_output,
    make_embedder,
)
from sklearn_clipsid.cli._say import say, say_unreadable

DESCRIPTION = """Fit a detector to labelled images and save it.

FOLDER is as sklearn_clipsid.datasets.load_image_folder takes it: generator/real/... and
generator/fake/..., or a .csv with the columns path,label,generator. --sample takes the
2,050 embeddings that come with the package in its place; they are of the encoder that
tools/fetch_demo_encoder.py writes, which --pretrained must name."""


def add_command(commands):
    """Add the command to those of `clipsid`.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser(
        "fit",
        help="fit a detector to labelled images and save it",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("folder", nargs="?", metavar="FOLDER")
    images.add_argument("--sample", action="store_true", help="see above")
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    parser.add_argument("--layout", default="auto", help="of FOLDER; default: auto")
    parser.add_argument(
        "--n-components",
        type=int,
        default=8,
        metavar="K",
        help="activations of the detector; default: 8",
    )
    parser.add_argument(
        "--max-fpr",
        type=float,
        metavar="SHARE",
        help="choose thresholds at which at most this share of photographs is called "
        "synthetic, on generators and photo sources that are held out in turn",
    )
    parser.add_argument("--random-state", type=int, default=0, metavar="SEED")
    add_embedder_options(parser)
    parser.set_defaults(run=run)


def run(options):
    """Fit and save a detector.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Returns
    -------
    status : int
        0, or 1 where some images could not be read.
    """
    from sklearn.pipeline import make_pipeline

    from sklearn_clipsid.persistence import dump

    check_output(options.output, ".skops")
    read = _read_sample if options.sample else _read_folder
    embedder, X, y, groups, n_unread = read(options)
    head = _unfitted(options, X, y, groups).fit(X, y)
    embedder.set_params(on_error="raise", verbose=False)
    dump(make_pipeline(embedder, head), options.output)
    say(
        f"wrote {options.output!r}: fitted to {(y == 0).sum()} photographs and "
        f"{(y == 1).sum()} synthetic images; {n_unread} could not be read."
    )
    return int(n_unread > 0)


def _read_folder(options):
    """Return the embedder, and the rows of the images that can be read."""
    import numpy as np

    from sklearn_clipsid.cli._readable_images import embed_readable
    from sklearn_clipsid.datasets import load_image_folder

    data = load_image_folder(options.folder, layout=options.layout)
    embedder = make_embedder(options, verbose=True).fit(data.data)
    X, reasons = embed_readable(embedder, data.data)
    for index, reason in reasons.items():
        say_unreadable(data.data[index], reason)
    read = np.setdiff1d(np.arange(len(X)), list(reasons))
    groups = np.column_stack([data.generator, data.pair_id])
    return embedder, X[read], data.target[read], groups[read], len(reasons)


def _read_sample(options):
    """Return the embedder of the packaged embeddings, and these."""
    import numpy as np

    from sklearn_clipsid.datasets import load_sample_embeddings

    if options.pretrained is None:
        raise ValueError(
            "Got --sample without --pretrained, but expected the file of the demo "
            "encoder, whose embeddings these are; fetch it with "
            "tools/fetch_demo_encoder.py, and pass it as --pretrained."
        )
    embedder = make_embedder(
        options, model_name="ViT-B-16-quickgelu", precision="bf16"
    ).fit(["not read"])
    sample = load_sample_embeddings(features=embedder.features)
    fingerprint = embedder.fingerprint_
    others = sorted(
        key
        for key, value in sample.encoder.items()
        if key != "architecture" and fingerprint[key] != value
    )
    if others:
        raise ValueError(
            f"Got another encoder than that of the packaged embeddings (other "
            f"{', '.join(others)}) but expected the same, as a detector means nothing "
            "behind another one; fetch it with tools/fetch_demo_encoder.py, and pass "
            "the file as --pretrained."
        )
    groups = np.column_stack([sample.generator, sample.pair_id])
    return embedder, sample.data, sample.target, groups, 0


def _unfitted(options, X, y, groups):
    from sklearn_clipsid._abstaining import AbstainingClassifier
    from sklearn_clipsid._orthogonal_linear import OrthogonalLinearDetector
    from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

    head = OrthogonalLinearDetector(
        options.n_components, random_state=options.random_state
    )
    if options.max_fpr is None:
        return head
    held_out = LeaveOneGeneratorOut(random_state=options.random_state)
    splits = list(held_out.split(X, y, groups))
    return AbstainingClassifier(head, max_fpr=options.max_fpr, cv=splits)
