"""Embed images into shards: `clipsid embed`."""

from argparse import RawDescriptionHelpFormatter

from sklearn_clipsid.cli._image_paths import add_images, list_images
from sklearn_clipsid.cli._options import add_embedder_options, make_embedder
from sklearn_clipsid.cli._say import say_unreadable

DESCRIPTION = """Embed images into files, which PrecomputedEmbedder reads.

Whatever stops the work, the same command goes on where it was. Rows are found again by
the paths as they are written here. This needs pyarrow, which
pip install 'sklearn-clipsid[distributed]' brings."""


def add_command(commands):
    """Add the command to those of `clipsid`.

    Parameters
    ----------
    commands : argparse subparsers
        Of the whole command line.
    """
    parser = commands.add_parser(
        "embed",
        help="embed images into files for later",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_images(parser)
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument(
        "--shard-size", type=int, default=10_000, metavar="N", help="images a file"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="delete what DIR holds, and start anew"
    )
    add_embedder_options(parser, cached=False)
    parser.set_defaults(run=run)


def run(options):
    """Embed images.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Returns
    -------
    status : int
        0, or 1 where some images could not be read.
    """
    import warnings

    from sklearn_clipsid._embedding_shards import embed_to_shards

    paths = list_images(options.images)
    # A wrong encoder must not claim the folder for these images.
    embedder = make_embedder(options, verbose=True).fit(paths)
    with warnings.catch_warnings():
        # They are listed one by one instead.
        warnings.filterwarnings("ignore", r"\d+ of \d+ images could not be read")
        store = embed_to_shards(
            embedder,
            paths,
            options.output,
            options.shard_size,
            overwrite=options.overwrite,
        )
    for index, reason in store.failures().items():
        say_unreadable(paths[index], reason)
    n_rows, n_features = store.shape
    print(
        f"{options.output}: {n_rows} rows of {n_features} numbers, "
        f"{store.n_failed} of them NaN"
    )
    return int(store.n_failed > 0)
