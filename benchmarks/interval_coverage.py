"""Count how often 95 % intervals of AP and AUC hold the truth, on simulated scores.

python benchmarks/interval_coverage.py --repetitions 2000

Scores are binormal with a part that all rows of a cluster share, so that the truth is
known: AUC by its formula, AP by integration. Two designs: each cluster holds one
photograph and some synthetic images made from it, or each cluster holds one class.
"""

import argparse
from itertools import product

import numpy as np
from joblib import Parallel, delayed
from machine import describe_machine
from scipy.integrate import quad
from scipy.stats import norm

from sklearn_clipsid._cluster_bootstrap import (
    arrange_generators,
    draw_counts,
    logit_interval,
    weighted_ap_and_auc,
)

METHODS = ("percentile", "basic", "logit draws", "ours", "BCa")
LARGE = 500  # clusters, above which there is no BCa: it scores once for each cluster
SHARED = 0.5  # of the variance, by the rows of a cluster
LEVEL = 0.95
TINY = 1e-9


def main():
    """Print the coverage of each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--auc", type=float, nargs="+", default=[0.75, 0.92, 0.99])
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(describe_machine())
    print(f"{options.repetitions} repetitions, {options.draws} draws each")
    cases = product(options.designs, options.clusters, options.auc)
    failures = []
    for design, n_clusters, auc in cases:
        failures += report(design, n_clusters, auc, options)
    print()
    print(f"Outside 93-97 %: {len(failures)} cells" + ":" * bool(failures))
    print("\n".join(failures))


def report(design, n_clusters, auc, options):
    """Print the coverage of one case, and return the cells of ours that are off."""
    results = Parallel(n_jobs=options.jobs)(
        delayed(repetition)(design, n_clusters, auc, options.draws, seed)
        for seed in range(options.repetitions)
    )
    low, high = np.transpose(results, (1, 2, 3, 0))  # (metric, method, repetition)
    failures = []
    print(f"\n{design}, {n_clusters} clusters, AUC {auc}")
    for m, name in enumerate(("AP", "AUC")):
        truth = true_scores(auc, prevalence(design))[m]
        line = f"  {name:3} ({truth:.3f})"
        for j, method in enumerate(METHODS[: low.shape[1]]):
            misses = (truth < low[m, j]).mean(), (truth > high[m, j]).mean()
            covered = 1 - sum(misses)
            width = (high[m, j] - low[m, j]).mean()
            line += f" | {method} {100 * covered:.1f} ({width:.3f})"
            if method == "ours" and not 0.93 <= covered <= 0.97:
                failures.append(
                    f"{'under' if covered < 0.93 else 'over'}: {design}, {n_clusters} "
                    f"clusters, AUC {auc}, {name}: {100 * covered:.1f} % (truth below "
                    f"{100 * misses[0]:.1f} %, above {100 * misses[1]:.1f} %)"
                )
        print(line, flush=True)
    return failures


def repetition(design, n_clusters, auc, n_draws, seed):
    """Return the limits of the intervals, (2 limits, 2 metrics, n_methods)."""
    rng = np.random.RandomState(seed)
    positive, cluster, score = simulate(design, n_clusters, auc, rng)
    rows = arrange_generators(
        positive, ["fake", "real"], 1 - positive.astype(int), cluster, "shared"
    )
    counts = draw_counts(rows.stratum, n_draws, rng)
    weights = np.vstack([np.ones_like(counts[:1]), counts])
    scores = weighted_ap_and_auc(positive, score, weights.T[rows.cluster])
    value, draws = scores[:, 0], scores[:, 1:]
    rarer = min(len(np.unique(cluster[positive])), len(np.unique(cluster[~positive])))
    limits = [
        percentile(draws),
        basic(value, draws),
        logit(value, draws),
        logit_interval(value, draws, rarer, LEVEL),
    ]
    if n_clusters <= LARGE:
        left_out = 1.0 - (np.arange(n_clusters) == rows.cluster[:, None])
        limits.append(bca(value, draws, weighted_ap_and_auc(positive, score, left_out)))
    return np.array(limits).transpose(1, 2, 0)


def paired(n_clusters, n_synthetic):
    """Each cluster: a photograph and the images made from it."""
    positive = np.tile([False] + [True] * n_synthetic, n_clusters)
    return positive, np.repeat(np.arange(n_clusters), n_synthetic + 1)


def unpaired(n_clusters, n_rows):
    """Each cluster: rows of one class."""
    cluster = np.repeat(np.arange(n_clusters), n_rows)
    return cluster % 2 == 0, cluster


DESIGNS = {
    "paired, 1 of each": lambda n: paired(n, 1),
    "paired, 4 synthetic": lambda n: paired(n, 4),
    "unpaired": lambda n: unpaired(n, 1),
    "unpaired, 3 rows a cluster": lambda n: unpaired(n, 3),
}


def simulate(design, n_clusters, auc, rng):
    """Draw a test set."""
    positive, cluster = DESIGNS[design](n_clusters)
    score = np.sqrt(SHARED) * rng.standard_normal(n_clusters)[cluster]
    score += np.sqrt(1 - SHARED) * rng.standard_normal(len(cluster))
    return positive, cluster, score + distance(auc) * positive


def prevalence(design):
    """Return the share of synthetic images."""
    return DESIGNS[design](2)[0].mean()


def distance(auc):
    """Return how far the classes are apart, in standard deviations."""
    return np.sqrt(2) * norm.ppf(auc)


def true_scores(auc, prevalence):
    """Return AP and AUC of endlessly many images."""

    def hit(score):
        hits = prevalence * norm.sf(score - distance(auc))
        return (
            norm.pdf(score - distance(auc))
            * hits
            / (hits + (1 - prevalence) * norm.sf(score))
        )

    return quad(hit, -8, distance(auc) + 8, limit=200)[0], auc


def percentile(draws):
    """Take the quantiles of the draws."""
    return np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)


def basic(value, draws):
    """Mirror the quantiles at the score."""
    low, high = percentile(draws)
    return 2 * value - high, 2 * value - low


def logit(value, draws):
    """Be normal on the logit scale, with the spread of the draws' own logits."""
    value, draws = (np.clip(x, TINY, 1 - TINY) for x in (value, draws))
    centre = np.log(value / (1 - value))
    spread = np.log(draws / (1 - draws)).std(axis=1)
    z = norm.ppf((1 + LEVEL) / 2)
    return 1 / (1 + np.exp(-centre + z * spread * np.array([[1], [-1]])))


def bca(value, draws, jackknife):
    """Bias-corrected and accelerated percentiles (Efron 1987)."""
    below = (draws < value[:, None]).mean(axis=1)
    bias = norm.ppf(np.clip(below, TINY, 1 - TINY))
    deviation = jackknife.mean(axis=1, keepdims=True) - jackknife
    cubes, squares = (deviation**3).sum(axis=1), (deviation**2).sum(axis=1)
    acceleration = cubes / np.maximum(6 * squares**1.5, 1e-300)
    z = bias + norm.ppf([[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]])  # (limit, metric)
    share = norm.cdf(bias + z / (1 - acceleration * z))
    return np.array([[np.quantile(d, q) for d, q in zip(draws, qs)] for qs in share])


if __name__ == "__main__":
    main()
