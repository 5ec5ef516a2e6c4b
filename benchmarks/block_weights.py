"""Weigh transformer blocks, or take one: which works on pairs of unseen sources.

python benchmarks/block_weights.py BLOCKS.npy --manifest MANIFEST.csv

Every pair of a larger generator and a larger photo source is left out of training and
tested in turn, as in generalising.py. All settings were fixed before: nothing is chosen
by these figures.
"""

import argparse
import csv

import numpy as np
from generalising import Rows, interval
from machine import describe_machine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sklearn_clipsid import BlockMixer, CommonSupportClassifier

ALL = "all side by side"


class BlockRows(Rows):
    """Features by block, labels and sources, and the models to compare on them."""

    def __init__(self, options):
        tokens = np.load(options.blocks).astype(np.float32)
        self.n_blocks = tokens.shape[1]  # of (n_samples, n_blocks, width)
        self.features = {
            f"block {i}": tokens[:, i] for i in range(-1, -self.n_blocks - 1, -1)
        }
        self.features[ALL] = tokens.reshape(len(tokens), -1)
        with open(options.manifest, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.y = np.array([int(row["label"]) for row in rows])
        self.groups = np.array([row["generator"] for row in rows])


def models(rows, head):
    """Return features and a model of them, by name."""
    found = {name: (name, head) for name in rows.features if name != ALL}
    for weights in ("block", "feature"):
        # A mean of blocks varies less than a block, and C would mean something else.
        mixer = BlockMixer(weights, n_blocks=rows.n_blocks)
        model = make_pipeline(mixer, StandardScaler(), head)
        found[f"weights by {weights}"] = (ALL, model)
    return {**found, ALL: (ALL, head)}


def report(name, rows, features, model):
    """Print the AUC of a model on all pairs, and on sources that it knows."""
    generators, sources = rows.larger(1), rows.larger(0)
    choice = (features, {})  # and no parameters
    auc = np.empty((len(generators), len(sources)))
    for i, j in tqdm(list(np.ndindex(*auc.shape)), desc=name, leave=False):
        pair = generators[i], sources[j]
        auc[i, j] = rows.held_out(model, [choice], pair[:1], pair[1:])[pair][0]
    low, high = interval(auc)
    print(
        f"{name:<28}{auc.mean():>6.3f} ({low:.3f} to {high:.3f}){auc.min():>9.3f}"
        f"{(auc < 0.7).mean():>10.1%}{rows.in_domain(model, choice):>11.3f}",
        flush=True,
    )


def main():
    """Print the figures of each model, trained on all sources and on common support."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("blocks", help=".npy of class tokens, by row")
    parser.add_argument("--manifest", required=True, help=".csv, row by row")
    options = parser.parse_args()
    print(describe_machine())
    rows = BlockRows(options)
    for weights in ("block", "feature"):
        mixer = BlockMixer(weights, n_blocks=rows.n_blocks)
        mixer.fit(rows.features[ALL], rows.y)
        shown = ", ".join(f"{share:.2f}" for share in mixer.block_weights_)
        of_one = (mixer.weights_.max(axis=0) > 0.9).mean()
        print(
            f"weights by {weights}, of all rows, first block to last: {shown}; "
            f"{of_one:.1%} of the features have one block above .9"
        )
    print(f"{'':<28}{'mean':>6}{'':17}{'minimum':>9}{'below .7':>10}{'in domain':>11}")
    logistic = LogisticRegression(C=0.001, max_iter=1000)
    for suffix, head in (
        ("", logistic),
        (", support", CommonSupportClassifier(logistic)),
    ):
        for name, (features, model) in models(rows, head).items():
            report(name + suffix, rows, features, model)


if __name__ == "__main__":
    main()
