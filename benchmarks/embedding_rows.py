"""Rows of embeddings with labels and generators: the sample, or those of a file."""

import csv

import numpy as np

from sklearn_clipsid.datasets import load_sample_embeddings

MIN_IMAGES = 60  # of a generator


def add_row_options(parser):
    """Let a parser take the files and the features."""
    parser.add_argument("npz", nargs="?", help="embeddings; default: the sample")
    parser.add_argument(
        "--manifest", help=".csv with label, generator and sha256, row by row"
    )
    parser.add_argument("--features", default="pooled")


def read_rows(options, without=()):
    """Return features, labels and generators of the larger generators.

    Images whose digests are in `without` are left out.
    """
    if options.npz is None:
        sample = load_sample_embeddings(features=options.features)
        X, y, generator, digests = (
            sample[name] for name in ("data", "target", "generator", "sha256")
        )
    else:
        with np.load(options.npz) as arrays:
            X = arrays[options.features].astype(np.float32)
        with open(options.manifest, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        y = np.array([int(row["label"]) for row in rows])
        generator = np.array([row["generator"] for row in rows])
        digests = np.array([row["sha256"] for row in rows])
    names, counts = np.unique(generator[y == 1], return_counts=True)
    kept = (y == 0) | np.isin(generator, names[counts >= MIN_IMAGES])
    kept &= ~np.isin(digests, without)
    return X[kept], y[kept], generator[kept]
