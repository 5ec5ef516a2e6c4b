"""Ask what the concepts of a detector are worth: named against random directions."""

import argparse
from functools import partial
from itertools import combinations

import numpy as np
from embedding_rows import add_row_options, read_rows
from machine import describe_machine
from random_directions import random_directions
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sklearn_clipsid import ConceptBottleneckClassifier
from sklearn_clipsid.datasets import load_sample_concepts
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

# The same C that suits features of mean norm 32.95, for unit rows.
C_UNIT_NORM = 0.01 * 32.95**2


def distinct(directions, max_cosine):
    """Leave out directions that are close to one before them."""
    close = np.abs(np.tril(directions @ directions.T, -1)) > max_cosine
    return directions[~close.any(axis=1)]


def draws_of(kind, named, n_draws):
    """Return functions that make directions from the rows of a training fold."""

    def photo_differences(seed, X, y):
        photos = X[y == 0] / np.linalg.norm(X[y == 0], axis=1, keepdims=True)
        rng = np.random.default_rng(seed)
        first, second = np.split(rng.choice(photos, 2 * len(named), replace=False), 2)
        return first - second

    def isotropic(seed, X, y):
        return random_directions(*named.shape, seed)

    if kind == "edits":
        return [lambda X, y: named]
    make_directions = {"random": isotropic, "photos": photo_differences}[kind]
    return [partial(make_directions, seed) for seed in range(n_draws)]


def mean_scores(make_model, X, y, splits, name):
    """Return mean AUC over generators, mean AP, and the share of open gates."""
    scores = []
    for train, test in tqdm(splits, desc=name, leave=False, disable=None):
        model = make_model(X[train], y[train]).fit(X[train], y[train])
        z = model.decision_function(X[test])
        usage = getattr(model, "concept_usage_", np.ones(1)).mean()
        scores.append(
            (roc_auc_score(y[test], z), average_precision_score(y[test], z), usage)
        )
    return np.mean(scores, axis=0)


def compare_gates(args):
    """Print gates against named and other directions, on generators not seen."""
    concepts = load_sample_concepts(features=args.features)
    # A photograph that a direction was found with would flatter it.
    X, y, groups = read_rows(args, without=concepts.sha256)
    named = distinct(concepts.directions, args.max_cosine)
    print(
        f"{len(X)} images, {len(named)} concepts, mean over generators. random: random "
        f"directions; photos: differences of two random training photographs; means of "
        f"{args.draws} draws (standard deviation of the AUC)"
    )
    head = f"{'AUC':>7}{'':>8}{'AP':>7}{'recovered':>11}{'open':>7}"
    for title, by_source in (("at random", False), ("by source", True)):
        cv = LeaveOneGeneratorOut(hold_out_real_source=by_source)
        splits = list(cv.split(X, y, groups))
        reference = mean_scores(linear_probe, X, y, splits, "linear probe")
        print(f"\nphotographs {title:<24}{head}")
        print(f"{'linear probe':<36}{reference[0]:>7.3f}{'':>8}{reference[1]:>7.3f}")
        for name, parameters in models(args):
            for kind in args.kinds:
                label = f"{name}, {kind}"
                fits = [
                    mean_scores(concept_model(draw, parameters), X, y, splits, label)
                    for draw in draws_of(kind, named, args.draws)
                ]
                print(f"{label:<36}{as_row(fits, reference[0])}", flush=True)
    compare_seeds(args, X, y, named)


def compare_seeds(args, X, y, named):
    """Print in how many images two seeds agree on the largest contribution."""
    print("\nimages with the same largest contribution, two of three seeds")
    for name, parameters in models(args):
        largest = []
        for seed in range(3):
            model = ConceptBottleneckClassifier(named, random_state=seed, **parameters)
            largest.append(np.abs(model.fit(X, y).transform(X)).argmax(axis=1))
        agree = [(a == b).mean() for a, b in combinations(largest, 2)]
        print(f"{name:<36}{np.mean(agree):>7.2f}", flush=True)


def linear_probe(X, y):
    """Return logistic regression on all features."""
    return make_pipeline(
        Normalizer(),
        StandardScaler(with_std=False),
        LogisticRegression(C=C_UNIT_NORM, max_iter=1000),
    )


def concept_model(draw, parameters):
    """Return what makes a detector on directions that may depend on training rows."""
    return lambda X, y: ConceptBottleneckClassifier(
        draw(X, y), random_state=0, **parameters
    )


def as_row(fits, reference):
    """Write mean scores of some draws."""
    auc, ap, usage = np.mean(fits, axis=0)
    spread = f"({np.std(fits, axis=0)[0]:.3f})" if len(fits) > 1 else ""
    recovered = (auc - 0.5) / (reference - 0.5)
    return f"{auc:>7.3f}{spread:>8}{ap:>7.3f}{recovered:>11.3f}{usage:>7.1%}"


def models(args):
    """Yield names and parameters of the concept models to compare."""
    for gates in args.gates:
        for sparsity in args.sparsity if gates != "none" else [0]:
            name = f"gates={gates!r}" + (f", {sparsity:g}" if sparsity else "")
            yield name, {"gates": gates, "sparsity": sparsity}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_row_options(parser)
    parser.set_defaults(features="projected")
    parser.add_argument(
        "--max-cosine",
        type=float,
        default=0.7,
        help="leave out directions closer to one before them; 1: none",
    )
    parser.add_argument(
        "--gates", nargs="+", default=["none", "similarity", "embedding"]
    )
    parser.add_argument("--kinds", nargs="+", default=["edits", "random", "photos"])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[1e-4, 3e-3])
    args = parser.parse_args()
    print(describe_machine())
    with threadpool_limits(1):
        compare_gates(args)


if __name__ == "__main__":
    main()
