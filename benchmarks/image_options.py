"""The command line of the benchmarks that embed images."""

import argparse
from pathlib import Path

import numpy as np

ENCODER = "build/demo_encoder/ViT-B-16-quickgelu.safetensors"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def image_parser(description, n_images=None):
    """Return a parser that knows the images and the encoder.

    With `n_images`, their number unless another is given, it knows as well what the
    benchmarks of speed have in common.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("images", help="folder of images, or a CSV manifest of them")
    parser.add_argument("--model-name", default="ViT-B-16-quickgelu")
    parser.add_argument("--pretrained", default=ENCODER)
    if n_images is not None:
        parser.add_argument("--n-images", type=int, default=n_images, help="at most")
        parser.add_argument("--precision", default="auto")
        parser.add_argument("--device", default="auto")
        parser.add_argument("--batch-size", type=int, default=32)
    return parser


def list_images(folder, n_images):
    """Return the paths of at most `n_images` images, spread over the folder."""
    folder = Path(folder)
    if folder.is_file():
        folder = folder.parent
    paths = sorted(
        str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES
    )
    if not paths:
        raise SystemExit(f"Got {str(folder)!r} but expected images in it.")
    n_images = min(n_images, len(paths))
    return [paths[i] for i in np.linspace(0, len(paths) - 1, n_images).astype(int)]


def embedder_options(options):
    """Return the arguments of CLIPEmbedder that the command line gave."""
    return {
        "model_name": options.model_name,
        "pretrained": options.pretrained,
        "precision": options.precision,
        "device": options.device,
        "batch_size": options.batch_size,
    }
