"""Count how often 95 % intervals of AP and AUC hold the truth, on simulated scores.

python benchmarks/interval_coverage.py

Scores are normal with a part that all rows of a cluster share, or bent to heavier tails
(--law laplace), so that the truth is known by integration. A cluster is a photograph
with synthetic images made from it ("paired"), or rows of one class. Where there are
four generators, they share the photographs, and the interval is that of their mean.
"""

import argparse
from itertools import product

import numpy as np
from joblib import Parallel, delayed
from machine import describe_machine
from scipy.integrate import quad
from scipy.stats import laplace, norm

from sklearn_clipsid._cluster_bootstrap import (
    Rankings,
    bootstrap_generators,
    draw_counts,
)
from sklearn_clipsid._generator_rows import (
    arrange_generators,
)

METHODS = ("ours", "percentile", "BCa")
SHARED = 0.5  # of the variance, by the rows of a cluster
APART = 0.7, 0.9, 1.1, 1.3  # distances of four generators, relative to that of one
LEVEL = 0.95
LAWS = {"normal": norm, "laplace": laplace(scale=np.sqrt(0.5))}  # of variance 1
TINY = 1e-9


def paired(n_clusters, generators):
    """Each cluster: a photograph, and an image of each of these generators."""
    group = np.tile([*generators, max(generators) + 1], n_clusters)
    return group, np.repeat(np.arange(n_clusters), len(generators) + 1)


def unpaired(n_clusters, shares=(1, 1), n_rows=1):
    """Each cluster: rows of a generator or, by the last share, photographs."""
    ends = np.cumsum(shares[:-1]) / sum(shares) * n_clusters
    group = np.searchsorted(ends, np.arange(n_clusters), side="right")
    return np.repeat(group, n_rows), np.repeat(np.arange(n_clusters), n_rows)


DESIGNS = {
    "paired, 1 of each": lambda n: paired(n, [0]),
    "paired, 4 synthetic": lambda n: paired(n, [0, 0, 0, 0]),
    "unpaired": lambda n: unpaired(n),
    "unpaired, 3 rows a cluster": lambda n: unpaired(n, n_rows=3),
    "4 generators, paired": lambda n: paired(n, [0, 1, 2, 3]),
    "4 generators, unpaired": lambda n: unpaired(n, (1, 1, 1, 1, 4)),
    "4 generators, unequal": lambda n: unpaired(n, (1, 1, 2, 4, 8)),
    "unpaired, 1 synthetic in 10": lambda n: unpaired(n, (1, 9)),
    "unpaired, 1 photograph in 10": lambda n: unpaired(n, (9, 1)),
}


def main():
    """Print the coverage of each case, and where it is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--clusters", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--auc", type=float, nargs="+", default=[0.75, 0.92, 0.99])
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    parser.add_argument(
        "--others", type=int, default=500, help="most clusters for other methods"
    )
    parser.add_argument("--law", default="normal", choices=LAWS)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(describe_machine())
    print(f"{options.repetitions} repetitions, {options.draws} draws, {options.law}")
    failures = []
    for n_clusters, design in product(options.clusters, options.designs):
        failures += report(design, n_clusters, options)
    print(f"\nOutside 93-97 %: {len(failures)} cells")
    print("\n".join(failures))


def report(design, n_clusters, options):
    """Print the coverage of the cases of a design, and return cells of ours off."""
    results = Parallel(n_jobs=options.jobs)(
        delayed(repetition)(design, n_clusters, options, seed)
        for seed in range(options.repetitions)
    )
    limits = np.transpose(results, (1, 3, 2, 4, 0))  # (AUC, metric, method, limit, _)
    failures = []
    for auc, of_auc in zip(options.auc, limits):
        case = f"{design}, {n_clusters} clusters, AUC {auc}"
        print("\n" + case)
        truths = true_scores(design, n_clusters, auc, LAWS[options.law])
        for name, truth, of_metric in zip(("AP", "AUC"), truths, of_auc):
            covered = [coverage(truth, *limits) for limits in of_metric]
            line = " | ".join(
                map(
                    "{} {:.1f} ({:.1f} + {:.1f}, {:.3f})".format,
                    METHODS,
                    *zip(*covered),
                )
            )
            print(f"  {name:3} ({truth:.3f}) | {line}", flush=True)
            held, below, above, _ = covered[0]
            if not 93 <= held <= 97:
                failures.append(
                    f"{'under' if held < 93 else 'over'}: {case}, {name}: {held:.1f} % "
                    f"(truth below {below:.1f} %, above {above:.1f} %)"
                )
    return failures


def coverage(truth, low, high):
    """Return how often intervals hold it, lie above and below, and their mean width."""
    below, above = 100 * (truth < low).mean(), 100 * (truth > high).mean()
    return 100 - below - above, below, above, (high - low).mean()


def repetition(design, n_clusters, options, seed):
    """Return the limits of the intervals, (n_auc, n_methods, 2 metrics, 2 limits)."""
    group, cluster = DESIGNS[design](n_clusters)
    n_generators = group.max()
    rng = np.random.RandomState(seed)
    noise = np.sqrt(SHARED) * rng.standard_normal(n_clusters)[cluster]
    noise += np.sqrt(1 - SHARED) * rng.standard_normal(len(cluster))
    if options.law != "normal":
        noise = LAWS[options.law].ppf(norm.cdf(noise))
    scores = [
        noise + np.append(distances(n_generators, a), 0)[group] for a in options.auc
    ]
    names = [str(j) for j in range(n_generators + 1)]
    rows = arrange_generators(group < n_generators, names, group, cluster, "shared")
    result = bootstrap_generators(
        rows, np.array(scores), n_boot=options.draws, level=LEVEL, random_state=rng
    )
    ours = np.stack([result.low, result.high], axis=-1)[
        :, :, -1
    ]  # (metric, AUC, limit)
    if n_clusters > options.others:
        return ours.swapaxes(0, 1)[:, np.newaxis]
    counts = draw_counts(rows.stratum, options.draws, rng)
    weights = [w.T.astype(float) for w in (counts, 1 - np.eye(n_clusters))]
    limits = []
    for i, score in enumerate(scores):
        rankings = Rankings(score, rows)
        draws, jackknife = (rankings.score(w).mean(axis=1) for w in weights)
        percentile = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1).T
        accelerated = bca(result.value[:, i, -1], draws, jackknife)
        limits.append([ours[:, i], percentile, accelerated])
    return limits


def distances(n_generators, auc):
    """Return how far generators are from photographs, for this AUC of normal scores."""
    return np.sqrt(2) * norm.ppf(auc) * np.array(APART if n_generators > 1 else [1.0])


def true_scores(design, n_clusters, auc, law):
    """Return mean AP and AUC of endlessly many images in the same shares."""
    n_rows = np.bincount(DESIGNS[design](n_clusters)[0])
    results = []
    for distance, n_own in zip(distances(len(n_rows) - 1, auc), n_rows):

        def precision(score, distance=distance, n_own=n_own):
            hits = n_own * law.sf(score - distance)
            return hits / (hits + n_rows[-1] * law.sf(score))

        results.append([mean_over(law, distance, f) for f in (precision, law.cdf)])
    return np.mean(results, axis=0)


def mean_over(law, distance, function):
    """Integrate a function over the scores of a generator."""
    return quad(
        lambda score: law.pdf(score - distance) * function(score),
        distance - 12,
        distance + 12,
        points=[0, distance],
        limit=500,
    )[0]


def bca(value, draws, jackknife):
    """Take bias-corrected and accelerated percentiles (Efron 1987)."""
    below = (draws < value[:, None]).mean(axis=1)
    bias = norm.ppf(np.clip(below, TINY, 1 - TINY))
    deviation = jackknife.mean(axis=1, keepdims=True) - jackknife
    cubes, squares = (deviation**3).sum(axis=1), (deviation**2).sum(axis=1)
    acceleration = cubes / np.maximum(6 * squares**1.5, 1e-300)
    z = bias + norm.ppf([[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]])  # (limit, metric)
    share = norm.cdf(bias + z / (1 - acceleration * z))
    return [np.quantile(d, q) for d, q in zip(draws, share.T)]


if __name__ == "__main__":
    main()
