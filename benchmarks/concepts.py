"""Time the concept model against PyTorch, or ask what its concepts are worth."""

import argparse
import csv
import sys
import time
from functools import partial

import numpy as np
import torch
from fit import N_TEST, make_features
from machine import describe_machine
from plain_torch_concepts import (
    by_index,
    by_loader,
    decision_function,
    fit_plain_torch,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sklearn_clipsid import ConceptBottleneckClassifier
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

MIN_IMAGES = 60  # of a generator
UNKNOWN = "unknown-diffusion-4gens"  # is no generator
# The same C that suits features of mean norm 32.95, for unit rows.
C_UNIT_NORM = 0.01 * 32.95**2


def unit(rows):
    """Return rows at unit norm."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_directions(n_concepts, n_features, seed):
    """Draw directions that mean nothing."""
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((n_concepts, n_features)))


def fit_ours(X, y, directions, seed, max_iter):
    """Return the decision function and the epochs run."""
    detector = ConceptBottleneckClassifier(
        directions, init="random", max_iter=max_iter, random_state=seed
    ).fit(X, y)
    return detector.decision_function, detector.n_iter_


def fit_torch(X, y, directions, seed, max_iter, batches):
    """Return the decision function and the epochs run."""
    model, n_iter = fit_plain_torch(
        X, y, directions, seed=seed, batches=batches, max_iter=max_iter
    )
    return lambda X: decision_function(model, X), n_iter


def time_fits(args):
    """Fit each side in turn and print seconds per epoch and AP on other rows."""
    n = args.samples
    X, y = make_features(n + N_TEST, args.features, 2.0, random_state=0)
    directions = random_directions(args.concepts, args.features, seed=1)
    sides = {
        "ours": fit_ours,
        "plain torch": partial(fit_torch, batches=by_index),
        "torch, DataLoader": partial(fit_torch, batches=by_loader),
    }
    results = {name: [] for name in sides}
    for seed in range(args.seeds):
        for name, fit in sides.items():  # alternating, so that load hits all
            wall, cpu = time.perf_counter(), time.process_time()
            score, n_iter = fit(X[:n], y[:n], directions, seed, args.max_iter)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            ap = average_precision_score(y[n:], score(X[n:]))
            results[name].append((wall, n_iter, wall / n_iter, cpu / n_iter, ap))
            print(f"seed {seed} {name}: {wall:.1f} s, AP {ap:.4f}", file=sys.stderr)
    print(
        f"{n} x {args.features} float32, {args.concepts} concepts, {args.threads} "
        f"thread(s), {args.seeds} seeds: medians, and mean AP on {N_TEST} other rows"
    )
    print(
        f"{'':<18}{'seconds':>9}{'epochs':>8}{'s / epoch':>11}{'CPU s':>8}{'AP':>8}"
        f"{'times as fast':>26}"
    )
    ours = np.array(results["ours"])
    for name, rows in results.items():
        rows = np.array(rows)
        seconds, epochs, per_epoch, cpu, _ = np.median(rows, axis=0)
        ratio = rows[:, 2] / ours[:, 2]
        low, middle, high = np.quantile(ratio, [0, 0.5, 1])
        print(
            f"{name:<18}{seconds:>9.2f}{epochs:>8.0f}{per_epoch:>11.4f}{cpu:>8.4f}"
            f"{rows[:, 4].mean():>8.4f}{middle:>10.1f} ({low:.1f} to {high:.1f})"
        )


def load_rows(args):
    """Return projected embeddings, labels and groups."""
    if args.embeddings is None:
        sample = load_sample_embeddings(features="projected")
        return sample.data, sample.target, sample.generator
    with np.load(args.embeddings) as arrays:
        X = arrays["projected"].astype(np.float32)
    with open(args.manifest, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    y = np.array([int(row["label"]) for row in rows])
    groups = np.array([row["generator"] for row in rows])
    names, counts = np.unique(groups[y == 1], return_counts=True)
    known = names[(counts >= MIN_IMAGES) & (names != UNKNOWN)]
    keep = (y == 0) | np.isin(groups, known)
    return X[keep], y[keep], groups[keep]


def mean_scores(model, X, y, splits, name):
    """Return mean AUC over generators, mean AP, and the share of open gates."""
    scores = []
    for train, test in tqdm(splits, desc=name, leave=False):
        model.fit(X[train], y[train])
        z = model.decision_function(X[test])
        usage = getattr(model, "concept_usage_", np.ones(1)).mean()
        scores.append(
            (roc_auc_score(y[test], z), average_precision_score(y[test], z), usage)
        )
    return np.mean(scores, axis=0)


def compare_gates(args):
    """Print gates against named and random directions, on generators not seen."""
    X, y, groups = load_rows(args)
    tables = {"random": []}
    n_concepts = args.concepts
    if args.directions is not None:
        with np.load(args.directions) as arrays:
            directions = arrays["directions"]
        n_concepts = len(directions)
        tables = {"named": [directions], "random": []}
    for seed in range(args.draws):
        tables["random"].append(random_directions(n_concepts, X.shape[1], seed))
    print(
        f"{len(X)} images, {n_concepts} concepts, mean over generators; random is the "
        f"mean of {args.draws} draws, (standard deviation of the AUC)"
    )
    head = f"{'AUC':>7}{'':>8}{'AP':>7}{'recovered':>11}{'open':>7}"
    for title, by_source in (("at random", False), ("by source", True)):
        cv = LeaveOneGeneratorOut(hold_out_real_source=by_source)
        splits = list(cv.split(X, y, groups))
        probe = make_pipeline(
            Normalizer(),
            StandardScaler(with_std=False),
            LogisticRegression(C=C_UNIT_NORM, max_iter=1000),
        )
        reference = mean_scores(probe, X, y, splits, "linear probe")
        print(f"\nphotographs {title:<24}{head}")
        print(f"{'linear probe':<36}{reference[0]:>7.3f}{'':>8}{reference[1]:>7.3f}")
        for name, model in models(args.sparsity):
            for kind, draws in tables.items():
                fits = [
                    mean_scores(make(model, T), X, y, splits, f"{name}, {kind}")
                    for T in draws
                ]
                auc, ap, usage = np.mean(fits, axis=0)
                spread = f"({np.std(fits, axis=0)[0]:.3f})" if len(fits) > 1 else ""
                recovered = (auc - 0.5) / (reference[0] - 0.5)
                print(
                    f"{f'{name}, {kind}':<36}{auc:>7.3f}{spread:>8}{ap:>7.3f}"
                    f"{recovered:>11.3f}{usage:>7.1%}",
                    flush=True,
                )


def models(sparsities):
    """Yield names and parameters of the concept models to compare."""
    for gates in ("none", "similarity"):
        yield f"gates={gates!r}", {"gates": gates}
    for sparsity in sparsities:
        yield f"gates='embedding', {sparsity:g}", {"sparsity": sparsity}


def make(parameters, directions):
    """Return a detector on some directions."""
    return ConceptBottleneckClassifier(directions, random_state=0, **parameters)


def main():
    """Run one of the two benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "gates"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--concepts", type=int, default=None, help="168, or 20 (gates)")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--samples", type=int, default=8_000)
    speed.add_argument("--features", type=int, default=768)
    speed.add_argument("--seeds", type=int, default=5)
    speed.add_argument("--max-iter", type=int, default=400)
    gates = parser.add_argument_group("gates")
    gates.add_argument(
        "--embeddings", help=".npz with 'projected'; default: the sample"
    )
    gates.add_argument("--manifest", help=".csv with label and generator, row by row")
    gates.add_argument("--directions", help=".npz with 'directions' in the same space")
    gates.add_argument("--draws", type=int, default=10)
    gates.add_argument("--sparsity", type=float, nargs="+", default=[1e-4, 3e-3])
    args = parser.parse_args()
    if args.concepts is None:
        args.concepts = 168 if args.what == "speed" else 20
    torch.set_num_threads(args.threads)
    print(describe_machine())
    with threadpool_limits(args.threads):
        time_fits(args) if args.what == "speed" else compare_gates(args)


if __name__ == "__main__":
    main()
