"""Hold out a generator and a photo source at once: which pipelines still work.

python benchmarks/generalising.py EMBEDDINGS.npz --manifest MANIFEST.csv --blocks B.npy

Every pair of a larger generator and a larger photo source is left out of training and
tested in turn. The block and the parameters of each are chosen by the mean AUC over all
pairs of the remaining ones, which are held out of the training part in the same way.
"""

import argparse
import csv
import itertools
from functools import partial

import numpy as np
import sklearn
from joblib import Parallel, delayed
from machine import describe_machine
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sklearn_clipsid import CommonSupportClassifier, SourceEraser

MIN_IMAGES = {1: 60, 0: 20}  # of a generator, of a photo source


def pipelines(max_distance=2.0):
    """Return what stands behind the scaling, and its grid, by name."""
    logistic = LogisticRegression(C=0.001, max_iter=1000)
    ridge = RidgeClassifier(alpha=400)
    eraser, leace = SourceEraser(), SourceEraser(method="leace")
    support = partial(CommonSupportClassifier, max_distance=max_distance)
    C, alpha = [0.001, 0.01], [100, 400, 2000]
    erased = {"sourceeraser__n_directions": [2, 4, 8]}
    return {
        "logistic": (logistic, {"C": C}),
        "ridge": (ridge, {"alpha": alpha}),
        "eraser, logistic": (make_pipeline(eraser, logistic), erased),
        "eraser, ridge": (make_pipeline(eraser, ridge), erased),
        "leace, logistic": (make_pipeline(leace, logistic), erased),
        "support, logistic": (support(logistic), {"estimator__C": C}),
        "support, ridge": (support(ridge), {"estimator__alpha": alpha}),
        "support, eraser, ridge": (
            support(make_pipeline(eraser, ridge)),
            {f"estimator__{name}": values for name, values in erased.items()},
        ),
    }


class Rows:
    """Features by block, labels and sources, and the models to compare on them."""

    def __init__(self, options):
        with np.load(options.npz) as arrays:
            self.features = {"pooled": arrays["pooled"].astype(np.float32)}
        tokens = np.load(options.blocks, mmap_mode="r")  # (n_samples, n_blocks, width)
        for i in range(tokens.shape[1]):
            self.features[f"token {i + 1}"] = tokens[:, i].astype(np.float32)
        with open(options.manifest, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.y = np.array([int(row["label"]) for row in rows])
        self.groups = np.array([row["generator"] for row in rows])

    def larger(self, label):
        """Return the sources of a class that have enough images."""
        names, counts = np.unique(self.groups[self.y == label], return_counts=True)
        return names[counts >= MIN_IMAGES[label]].tolist()

    def scores(self, model, choices, train, test):
        """Return the scores of test rows by each choice of a block and parameters."""
        params = {"groups": self.groups[train]} if needs_groups(model) else {}
        scaled, found = {}, []
        for name, parameters in choices:
            if name not in scaled:
                scaler = StandardScaler().fit(self.features[name][train])
                scaled[name] = scaler.transform(self.features[name])
            X, fitted = scaled[name], clone(model).set_params(**parameters)
            with sklearn.config_context(enable_metadata_routing=True):
                fitted.fit(X[train], self.y[train], **params)
                found.append(fitted.decision_function(X[test]))
        return np.array(found)  # (n_choices, n_test)

    def held_out(self, model, choices, generators, sources):
        """Return the AUCs of all pairs of sources that are left out together."""
        test = np.isin(self.groups, [*generators, *sources])
        score = self.scores(model, choices, ~test, test)
        groups, y = self.groups[test], self.y[test]
        return {
            (generator, source): [
                roc_auc_score(y[own], row[own])
                for own in [(groups == generator) | (groups == source)]
                for row in score
            ]
            for generator, source in itertools.product(generators, sources)
        }

    def in_domain(self, model, choice):
        """Return the mean AUC over five folds at random."""
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        return np.mean(
            [
                roc_auc_score(
                    self.y[test], self.scores(model, [choice], train, test)[0]
                )
                for train, test in folds.split(self.y, self.y)
            ]
        )


def needs_groups(model):
    """Tell whether a step asks for groups."""
    steps = [step for _, step in getattr(model, "steps", [("", model)])]
    return any(isinstance(s, SourceEraser | CommonSupportClassifier) for s in steps)


def nested(rows, model, choices, n_jobs, name):
    """Return the AUC of each pair by the choice of its training part, and that."""
    generators, sources = rows.larger(1), rows.larger(0)
    # Trained without two pairs at once, a model serves the inner loops of all four
    # pairs that they make.
    held = [
        pair
        for n in (1, 2)
        for pair in itertools.product(
            itertools.combinations(generators, n), itertools.combinations(sources, n)
        )
    ]
    found = Parallel(n_jobs=n_jobs)(
        delayed(rows.held_out)(model, choices, *pair)
        for pair in tqdm(held, desc=name, leave=False)
    )
    auc = np.empty((len(generators), len(sources)))
    chosen = np.empty(auc.shape, dtype=int)
    for i, j in np.ndindex(*auc.shape):
        own = generators[i], sources[j]
        inner = [
            values
            for (with_generators, with_sources), result in zip(held, found)
            if own in result and len(with_generators) == 2
            for other, values in result.items()
            if other[0] != own[0] and other[1] != own[1]
        ]
        chosen[i, j] = np.mean(inner, axis=0).argmax()
        outer = found[held.index(((own[0],), (own[1],)))]
        auc[i, j] = outer[own][chosen[i, j]]
    return auc, chosen


def print_each(rows, model, choices, n_jobs, name):
    """Print the figures of every choice, the best of which is too good to be true."""
    pairs = list(itertools.product(rows.larger(1), rows.larger(0)))
    found = Parallel(n_jobs=n_jobs)(
        delayed(rows.held_out)(model, choices, *([source] for source in pair))
        for pair in tqdm(pairs, desc=name, leave=False)
    )
    auc = np.array([result[pair] for pair, result in zip(pairs, found)])
    print(f"\n{name}, each choice for all {len(pairs)} pairs")
    for choice, values in zip(choices, auc.T):
        print(
            f"  mean {values.mean():.3f}, minimum {values.min():.3f}, "
            f"{(values < 0.7).mean():.1%} below .7: {choice}",
            flush=True,
        )


def interval(auc, n_draws=2000):
    """Return the 95 % interval of the mean, over generators and sources drawn anew."""
    rng = np.random.default_rng(0)
    n, m = auc.shape
    means = [
        auc[np.ix_(rng.integers(n, size=n), rng.integers(m, size=m))].mean()
        for _ in range(n_draws)
    ]
    return np.quantile(means, [0.025, 0.975])


def main():
    """Print the figures of each pipeline, and those of its pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("npz", help="embeddings, with the array pooled")
    parser.add_argument("--manifest", required=True, help=".csv, row by row")
    parser.add_argument("--blocks", required=True, help=".npy of class tokens, by row")
    parser.add_argument("--pipelines", nargs="+", default=["baseline", *pipelines()])
    parser.add_argument("--max-distance", type=float, default=2.0, help="of support")
    parser.add_argument("--each", action="store_true", help="choose nothing")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(describe_machine())
    rows = Rows(options)
    for name in options.pipelines:
        if name == "baseline":  # no choice
            model, choices = pipelines()["logistic"][0], [("pooled", {})]
        else:
            model, grid = pipelines(options.max_distance)[name]
            choices = list(itertools.product(rows.features, ParameterGrid(grid)))
        if options.each:
            print_each(rows, model, choices, options.jobs, name)
            continue
        auc, chosen = nested(rows, model, choices, options.jobs, name)
        often = np.bincount(chosen.ravel(), minlength=len(choices))
        low, high = interval(auc)
        print(
            f"\n{name}: mean {auc.mean():.3f} ({low:.3f} to {high:.3f}), minimum "
            f"{auc.min():.3f}, {(auc < 0.7).mean():.1%} of {auc.size} pairs below .7; "
            f"in-domain {rows.in_domain(model, choices[often.argmax()]):.3f}"
        )
        for i in np.argsort(-often)[:4]:
            print(f"  chosen {often[i]} times: {choices[i]}")
        print(" " * 34 + "".join(f"{source[:9]:>10}" for source in rows.larger(0)))
        for generator, row in zip(rows.larger(1), auc):
            print(f"  {generator:<32}" + "".join(f"{value:10.2f}" for value in row))
        print(end="", flush=True)


if __name__ == "__main__":
    main()
