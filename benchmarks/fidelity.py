"""Compare detectors on generators they have not seen, on the packaged sample."""

import argparse
import sys
import time

import numpy as np
import torch
from machine import describe_machine
from plain_torch import decision_function, fit_plain_torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

ROW_NORM = 32.95
K = 8
KS = (1, 2, 4, 8, 16)
TORCH = f"plain torch, k = {K}"


def score_ours(k):
    """Return the scorer of our detector with k activations."""

    def score(X, y, X_test, seed):
        detector = OrthogonalLinearDetector(k, random_state=seed).fit(X, y)
        return detector.decision_function(X_test), detector.n_iter_

    return score


def score_torch(X, y, X_test, seed):
    """Score with the plain loop; it does not scale the rows, so we do."""
    scale = ROW_NORM / np.linalg.norm(X, axis=1).mean()
    head, n_iter = fit_plain_torch(X * scale, y, n_components=K, seed=seed)
    return decision_function(head, X_test * scale), n_iter


def score_logistic(X, y, X_test, seed):
    """Score with a linear probe on scaled rows; it draws nothing at random."""
    scale = ROW_NORM / np.linalg.norm(X, axis=1).mean()
    probe = LogisticRegression(C=0.01, max_iter=5_000).fit(X * scale, y)
    return probe.decision_function(X_test * scale), np.nan


def evaluate(score, X, y, splits, seeds, name):
    """Return AUC, AP and epochs per seed and fold."""
    results = np.empty((len(seeds), len(splits), 3))
    for i, seed in enumerate(seeds):
        for j, (train, test) in enumerate(splits):
            values, n_iter = score(X[train], y[train], X[test], seed)
            auc = roc_auc_score(y[test], values)
            results[i, j] = auc, average_precision_score(y[test], values), n_iter
        print(f"{name}, seed {seed}: {results[i, :, 0].mean():.4f}", file=sys.stderr)
    return results


def print_row(name, results):
    """Print the mean over folds and seeds, and the range over seeds."""
    by_seed = results.mean(axis=1)  # (n_seeds, 3)
    auc, ap, epochs = by_seed.mean(axis=0)
    spread = np.ptp(by_seed, axis=0)
    worst = results[:, :, 0].mean(axis=0).min()
    epochs = "" if np.isnan(epochs) else f"{epochs:.0f}"
    print(
        f"  {name:<34} {auc:.4f} {spread[0]:7.4f} {worst:7.4f}"
        f" {ap:7.4f} {spread[1]:7.4f} {epochs:>7}"
    )
    return auc, ap


def without_shared_motifs(splits, pair_id):
    """Leave out training rows whose motif (prompt, object) a test row shows too."""
    return [
        (train[~np.isin(pair_id[train], pair_id[test][pair_id[test] != ""])], test)
        for train, test in splits
    ]


def print_motif_table(seeds):
    """Print what sharing motifs between training and test is worth."""
    sample = load_sample_embeddings()
    X, y = sample.data, sample.target
    print("\nThe same test rows, without training rows that share a motif with them:")
    for title, by_source in (("random", False), ("source held out", True)):
        cv = LeaveOneGeneratorOut(hold_out_real_source=by_source)
        splits = list(cv.split(X, y, sample.generator))
        fewer = without_shared_motifs(splits, sample.pair_id)
        left_out = np.mean([len(a) - len(b) for (a, _), (b, _) in zip(splits, fewer)])
        print(f"  photographs {title}; {left_out:.0f} rows left out on average")
        for name, score, used in (
            ("logistic regression", score_logistic, seeds[:1]),
            (f"ours, k = {K}", score_ours(K), seeds),
        ):
            print_row(name, evaluate(score, X, y, fewer, used, name))


def print_table(title, hold_out_real_source, seeds):
    """Fit and print all rows on the same splits; return their AUC and AP."""
    sample = load_sample_embeddings()
    X, y = sample.data, sample.target
    projected = load_sample_embeddings(features="projected").data
    cv = LeaveOneGeneratorOut(
        n_real_folds=5, hold_out_real_source=hold_out_real_source, random_state=0
    )
    splits = list(cv.split(X, y, sample.generator))
    rows = [(f"ours, k = {k}", X, score_ours(k), seeds) for k in KS]
    rows += [
        (TORCH, X, score_torch, seeds),
        ("logistic regression", X, score_logistic, seeds[:1]),
        (f"ours, k = {K}, projected", projected, score_ours(K), seeds),
        ("logistic regression, projected", projected, score_logistic, seeds[:1]),
    ]
    prevalence = [y[test].mean() for _, test in splits]
    print(
        f"\n{title}: {len(splits)} folds, prevalence {np.mean(prevalence):.2f} "
        f"({min(prevalence):.2f} to {max(prevalence):.2f})"
    )
    print(
        f"  {'':<34} {'AUC':>6} {'range':>7} {'worst':>7} {'AP':>7} {'range':>7}"
        f" {'epochs':>7}"
    )
    return {
        name: print_row(name, evaluate(score, features, y, splits, used, name))
        for name, features, score, used in rows
    }


def main():
    """Print both tables and the differences that matter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)  # more only wait for each other at this size
    start = time.perf_counter()
    print(describe_machine())
    print(
        f"{len(seeds)} seeds; 'range' is over seeds, 'worst' the lowest AUC of a fold"
    )
    figures = print_table("Photographs split at random", False, seeds)
    print_table("Photo source held out as well", True, seeds)
    print_motif_table(seeds)
    auc, ap = np.subtract(figures[f"ours, k = {K}"], figures[TORCH])
    print(f"\nWith random photographs, k = {K}, ours minus torch:", end=" ")
    print(f"AUC {auc:+.4f}, AP {ap:+.4f}")
    auc, ap = np.ptp([figures[f"ours, k = {k}"] for k in KS], axis=0)
    print(f"Range over k = {KS[0]} to {KS[-1]}: AUC {auc:.4f}, AP {ap:.4f}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
