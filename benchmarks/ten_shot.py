"""Update a detector with ten images of a new generator: what it gains and forgets."""

import argparse
import copy
import csv

import numpy as np
from embedding_rows import MIN_IMAGES
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.metrics import average_precision_by_generator

N_FOLDS, N_NEW = 5, 10
ROW_NORM = 32.95  # at which the penalty of the linear probe is meant


def read_rows(npz, manifest, features):
    """Return features, labels, generators and clusters of one motif or one image."""
    with np.load(npz) as arrays:
        X = arrays[features].astype(np.float32)
    X *= ROW_NORM / np.linalg.norm(X, axis=1).mean()
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    y = np.array([int(row["label"]) for row in rows])
    generator = np.array([row["generator"] for row in rows])
    motif = [row["pair_id"] or f"image {i}" for i, row in enumerate(rows)]
    names, counts = np.unique(generator[y == 1], return_counts=True)
    kept = (y == 0) | np.isin(generator, names[counts >= MIN_IMAGES])
    cluster = np.unique(motif, return_inverse=True)[1]
    return X[kept], y[kept], generator[kept], cluster[kept]


def visited(detector, X, y, weights, n_passes):
    """Return a copy that has visited these rows several times."""
    detector = copy.deepcopy(detector)
    # An int would put the rows in the same order each time.
    detector.set_params(random_state=np.random.RandomState(0))
    for _ in range(n_passes):
        detector.partial_fit(X, y, sample_weight=weights)
    return detector


def candidates(X, y, stored, new, options, seed):
    """Yield (name, detector before, detector after)."""
    head = OrthogonalLinearDetector(random_state=seed)
    before = copy.deepcopy(head).fit(X[stored], y[stored])
    rows, n_passes = np.concatenate([stored, new]), options.passes
    weights = np.where(np.isin(rows, new), options.weight, 1)
    both = X[rows], y[rows], weights
    yield "replay", before, visited(before, *both, n_passes)
    # What further passes do without any new image.
    again = X[stored], y[stored], None
    yield "stored rows alone", before, visited(before, *again, n_passes)
    # Ten rows are one step of the optimiser, all rows are many.
    n_steps = n_passes * -(-len(rows) // head.batch_size)
    alone = X[new], y[new], None
    yield "ten alone, as many passes", before, visited(before, *alone, n_passes)
    yield "ten alone, as many steps", before, visited(before, *alone, n_steps)
    yield "fitted anew", before, copy.deepcopy(head).fit(*both)
    # The linear probe.
    yield "logistic regression, fitted anew", probe(*again), probe(*both)


def probe(X, y, weights):
    """Fit the linear probe."""
    return LogisticRegression(C=0.01, max_iter=5_000).fit(X, y, weights)


def measure(detector, X, y, generator, test, name):
    """Return AP of the new generator, mean AP of the others, false alarms."""
    score = detector.decision_function(X[test])
    ap = average_precision_by_generator(y[test], score, generator[test])
    own = ap.pop(name)
    return own, np.mean(list(ap.values())), (score[y[test] == 0] > 0).mean()


def run(X, y, generator, cluster, options):
    """Return by way what was measured, (n_seeds, n_generators, before and after, 3)."""
    names, found = np.unique(generator[y == 1]), {}
    for seed in tqdm(range(options.seeds), leave=False):
        folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        folds = list(folds.split(X, generator, cluster))
        rng = np.random.default_rng(seed)
        for number, name in enumerate(names):
            train, test = folds[(number + seed) % N_FOLDS]
            own = train[generator[train] == name]
            new = rng.choice(own, N_NEW, replace=False)
            stored = np.setdiff1d(train, own)
            for way, *pair in candidates(X, y, stored, new, options, seed):
                row = [measure(m, X, y, generator, test, name) for m in pair]
                found.setdefault(way, []).append(row)
    shape = options.seeds, len(names), 2, 3
    return {way: np.reshape(rows, shape) for way, rows in found.items()}


def report(found, names):
    """Print means over generators and seeds, and the gain of each generator."""
    print(f"{'':<34}{'AP, new':^17}{'AP, others':^17}{'false alarms':^17}gain, new")
    for way, rows in found.items():
        gain = (rows[:, :, 1] - rows[:, :, 0])[..., 0]  # (n_seeds, n_generators)
        error = gain.mean(axis=1).std(ddof=1) / np.sqrt(len(gain))
        text = f"{gain.mean():+.3f} ± {error:.3f}, "
        text += f"median of generators {np.median(gain.mean(axis=0)):+.3f}"
        print(f"{way:<34}{cells(rows)}{text}")
    way = next(iter(found))
    print(f"by generator, {way}:")
    for number, name in enumerate(names):
        print(f"  {name:<32}{cells(found[way][:, number])}")


def cells(rows):
    """Write means before and after."""
    before, after = rows.reshape(-1, 2, 3).mean(axis=0)
    return "".join(f"{f'{b:.3f} to {a:.3f}':<17}" for b, a in zip(before, after))


def main():
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", help="embeddings")
    parser.add_argument("--manifest", required=True, help=".csv, row by row")
    parser.add_argument("--features", default="pooled")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--weight", type=float, default=10, help="of a new image")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    rows = read_rows(options.npz, options.manifest, options.features)
    X, y, generator, _ = rows
    names = np.unique(generator[y == 1])
    found = run(*rows, options)
    print(f"{len(X)} images, {len(names)} generators, {options.seeds} seeds")
    report(found, names)


if __name__ == "__main__":
    main()
