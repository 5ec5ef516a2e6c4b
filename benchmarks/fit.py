"""Time fitting against the same recipe as a plain PyTorch loop, on one CPU thread."""

import argparse
import sys
import time

import numpy as np
import torch
from machine import describe_machine
from plain_torch import decision_function, fit_plain_torch
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from sklearn_clipsid import OrthogonalLinearDetector

N_TEST = 5_000


def make_features(n_samples, n_features, separation, random_state):
    """Draw two overlapping classes with the spectrum of the packaged sample.

    Its covariance has eigenvalues near 50 / (1 + j / 3) and its mean a norm of 17.9,
    at a mean row norm of 32.95. The classes differ along the 200 leading directions.
    """
    rng = np.random.default_rng(random_state)
    deviation = np.sqrt(50 / (1 + np.arange(n_features) / 3))
    n_leading = min(200, n_features)
    gap = np.zeros(n_features)
    gap[:n_leading] = rng.choice([-1, 1], n_leading) * separation / np.sqrt(n_leading)
    y = np.arange(n_samples) % 2
    Z = rng.standard_normal((n_samples, n_features))
    Z = (Z + (y[:, None] - 0.5) * gap) * deviation  # (n_samples, n_features)
    rotation, _ = np.linalg.qr(rng.standard_normal((n_features, n_features)))
    mean = rng.standard_normal(n_features)
    X = Z @ rotation.T + mean * (17.9 / np.linalg.norm(mean))
    X *= 32.95 / np.linalg.norm(X, axis=1).mean()
    return X.astype(np.float32), y


def fit_ours(X, y, n_components, seed):
    """Return the decision function and the epochs run."""
    detector = OrthogonalLinearDetector(n_components, random_state=seed).fit(X, y)
    return detector.decision_function, detector.n_iter_


def fit_torch(X, y, n_components, seed):
    """Return the decision function and the epochs run."""
    head, n_iter = fit_plain_torch(X, y, n_components=n_components, seed=seed)
    return lambda X: decision_function(head, X), n_iter


def measure(fit, train, test, n_components, seed):
    """Return seconds, epochs, seconds per epoch and held-out AP."""
    start = time.perf_counter()
    score, n_iter = fit(*train, n_components, seed)
    seconds = time.perf_counter() - start
    ap = average_precision_score(test[1], score(test[0]))
    return seconds, n_iter, seconds / n_iter, ap


def report(name, results):
    """Print the median times and the mean AP of one side."""
    seconds, epochs, per_epoch, _ = np.median(results, axis=0)
    ap = np.mean(results, axis=0)[3]
    print(f"{name:<12} {seconds:8.2f} {epochs:7.0f} {per_epoch:10.4f} {ap:9.4f}")


def main():
    """Fit both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=1_024)
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="for both sides")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    X, y = make_features(args.samples + N_TEST, args.features, 2.0, random_state=0)
    train = X[: args.samples], y[: args.samples]
    test = X[args.samples :], y[args.samples :]
    sides = {"ours": fit_ours, "plain torch": fit_torch}
    results = {name: [] for name in sides}
    with threadpool_limits(args.threads):
        for seed in range(args.seeds):
            for name, fit in sides.items():  # alternating, so that load hits both
                result = measure(fit, train, test, args.components, seed)
                results[name].append(result)
                print(f"seed {seed} {name}: {result[0]:.2f} s", file=sys.stderr)
    print(describe_machine())
    print(
        f"{args.samples} x {args.features} float32, k = {args.components}, "
        f"{args.threads} thread(s), {args.seeds} seeds: medians, and mean AP"
    )
    print(f"{'':<12} {'seconds':>8} {'epochs':>7} {'s / epoch':>10} {'AP':>9}")
    for name, rows in results.items():
        report(name, rows)
    ours, other = np.array(results["ours"]), np.array(results["plain torch"])
    ratio = other / ours  # (n_seeds, 4)
    for name, column in (("total", 0), ("per epoch", 2)):
        low, middle, high = np.quantile(ratio[:, column], [0, 0.5, 1])
        print(f"times as fast, {name}: {middle:.1f} ({low:.1f} to {high:.1f})")
    print(f"AP, ours minus torch: {(ours - other)[:, 3].mean():+.4f}")


if __name__ == "__main__":
    main()
