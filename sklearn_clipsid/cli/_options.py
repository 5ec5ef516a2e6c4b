"""Options that several commands share."""

import os
from pathlib import Path

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


def add_detector(parser):
    """Let a parser take a saved detector.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.
    """
    parser.add_argument("detector", metavar="DETECTOR", help="a .skops file")


def add_place(parser):
    """Let a parser say what a file does not, as it belongs to this machine.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.
    """
    parser.add_argument(
        "--pretrained",
        metavar="PATH",
        help="the weights of the encoder, where the detector was fitted with a file",
    )
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="keep embeddings in this folder"
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
    group.add_argument(
        "--model-name", metavar="NAME", help="default: ViT-L-14-336-quickgelu"
    )
    group.add_argument(
        "--pretrained", metavar="TAG", help="tag or file; default: openai"
    )
    group.add_argument(
        "--features", type=_features, help="pooled (default), projected, blocks"
    )
    group.add_argument("--resize", help="model (default), bilinear, crop or squash")
    group.add_argument("--normalize", action="store_true", default=None)
    group.add_argument("--precision", help="fp32 (default), bf16, fp16 or auto")
    group.add_argument("--device", help="cpu, cuda, ...; default: auto")
    group.add_argument("--batch-size", type=int, metavar="N", help="default: 32")
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


def check_output(filename, suffix):
    """Raise where a file cannot be written in the end, or should not be.

    Parameters
    ----------
    filename : str
        To be made, or replaced.

    suffix : str
        What a file ends in that may be replaced.
    """
    path = Path(filename)
    if not path.parent.is_dir():
        raise ValueError(
            f"Got {filename!r} but expected a file in a folder that is there; make the "
            "folder first."
        )
    if path.is_dir():
        raise ValueError(
            f"Got {filename!r}, which is a folder, but expected a file; add its name."
        )
    # As in `--csv *.jpg`, where the shell puts an image in this place.
    if path.is_file() and path.suffix.lower() != suffix:
        raise ValueError(
            f"Got {filename!r}, which is there, but expected a new file, or one that "
            f"ends in {suffix}, to be replaced; choose another name."
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(
            f"Got {filename!r}, which this user may not write, but expected a file "
            "that can be written; choose another folder."
        )
