"""Options that choose the encoder."""

# Those that are not given are left to CLIPEmbedder.
NAMES = (
    "model_name",
    "pretrained",
    "features",
    "resize",
    "normalize",
    "precision",
    "device",
    "batch_size",
    "cache_dir",
)


def add_embedder_options(parser, *, cached=True):
    """Let a parser take the parameters of `CLIPEmbedder`.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.

    cached : bool, default=True
        Whether the command keeps embeddings in a cache.
    """
    group = parser.add_argument_group("encoder, as of sklearn_clipsid.CLIPEmbedder")
    group.add_argument("--model-name", metavar="NAME", help="ViT-L-14-336-quickgelu")
    group.add_argument("--pretrained", metavar="TAG", help="a tag, or a file; openai")
    group.add_argument("--features", type=_features, help="pooled, projected, blocks")
    group.add_argument("--resize", help="model, bilinear, crop or squash")
    group.add_argument("--normalize", action="store_true", default=None)
    group.add_argument("--precision", help="fp32, bf16, fp16 or auto")
    group.add_argument("--device", help="auto")
    group.add_argument("--batch-size", type=int, metavar="N", help="32")
    if cached:
        group.add_argument(
            "--cache-dir", metavar="DIR", help="keep embeddings for later"
        )


def make_embedder(options, **others):
    """Return the embedder that the command line asks for.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    **others
        Parameters for what it leaves open.

    Returns
    -------
    embedder : CLIPEmbedder
        Not fitted. An image that cannot be read becomes a row of NaN.
    """
    from sklearn_clipsid._clip_embedder import CLIPEmbedder

    asked = {name: getattr(options, name, None) for name in NAMES}
    given = {name: value for name, value in asked.items() if value is not None}
    return CLIPEmbedder(**{**others, **given}, on_error="nan")


def _features(text):
    try:
        return int(text)
    except ValueError:
        return text
