"""Time the concept model against the same model in PyTorch."""

import argparse
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
from random_directions import random_directions
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from sklearn_clipsid import ConceptBottleneckClassifier


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
    X, y = make_features(n + N_TEST, args.width, 2.0, random_state=0)
    directions = random_directions(args.concepts, args.width, seed=1)
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
        f"{n} x {args.width} float32, {args.concepts} concepts, {args.threads} "
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


def main():
    """Time the fits and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--concepts", type=int, default=168)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-iter", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(describe_machine())
    with threadpool_limits(args.threads):
        time_fits(args)


if __name__ == "__main__":
    main()
