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
WEIGHT = 10  # of a new image; a stored one has 1


def read_rows(npz, manifest, features):
    """Return features, labels, generators and clusters of one motif or one image."""
    with np.load(npz) as arrays:
        X = arrays[features].astype(np.float32)
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    y = np.array([int(row["label"]) for row in rows])
    generator = np.array([row["generator"] for row in rows])
    motif = [row["pair_id"] or f"image {i}" for i, row in enumerate(rows)]
    names, counts = np.unique(generator[y == 1], return_counts=True)
    kept = (y == 0) | np.isin(generator, names[counts >= MIN_IMAGES])
    cluster = np.unique(motif, return_inverse=True)[1]
    return X[kept], y[kept], generator[kept], cluster[kept]


def replayed(detector, X, y, stored, new, n_passes):
    """Return a copy that has visited the new rows with all stored ones."""
    rows = np.concatenate([stored, new])
    weights = np.where(np.isin(rows, new), WEIGHT, 1)
    return visited(detector, X[rows], y[rows], weights, n_passes)


def visited(detector, X, y, weights, n_passes):
    """Return a copy that has visited these rows several times."""
    detector = copy.deepcopy(detector)
    # An int would put the rows in the same order each time.
    detector.set_params(random_state=np.random.RandomState(0))
    for _ in range(n_passes):
        detector.partial_fit(X, y, sample_weight=weights)
    return detector


def candidates(X, y, train, new, passes, seed):
    """Yield (name, detector before, detector after)."""
    before = OrthogonalLinearDetector(random_state=seed).fit(X[train], y[train])
    for n_passes in passes:
        after = replayed(before, X, y, train, new, n_passes)
        yield f"replay, {n_passes} passes", before, after
    for n_passes in passes:
        after = visited(before, X[new], y[new], None, n_passes)
        yield f"ten alone, {n_passes} passes", before, after
    refit = [probe(X[train], y[train], None)]
    rows = np.concatenate([train, new])
    refit.append(probe(X[rows], y[rows], np.where(np.isin(rows, new), WEIGHT, 1)))
    yield "logistic regression, refitted", *refit


def probe(X, y, weights):
    """Fit the linear probe."""
    return LogisticRegression(C=0.01, max_iter=1000).fit(X, y, weights)


def measure(detector, X, y, generator, test, name):
    """Return AP of the new generator, mean AP of the others, false alarms."""
    score = detector.decision_function(X[test])
    ap = average_precision_by_generator(y[test], score, generator[test])
    own = ap.pop(name)
    return own, np.mean(list(ap.values())), (score[y[test] == 0] > 0).mean()


def main():
    """Print the means over generators, folds and seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", help="embeddings")
    parser.add_argument("--manifest", required=True, help=".csv, row by row")
    parser.add_argument("--features", default="pooled")
    parser.add_argument("--passes", type=int, nargs="+", default=[3])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    X, y, generator, cluster = read_rows(
        options.npz, options.manifest, options.features
    )
    names = np.unique(generator[y == 1])
    found, of_generator = {}, {}
    for seed in tqdm(range(options.seeds), leave=False):
        folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        folds = list(folds.split(X, generator, cluster))
        rng = np.random.default_rng(seed)
        for number, name in enumerate(names):
            train, test = folds[number % N_FOLDS]
            own = train[generator[train] == name]
            new = rng.choice(own, N_NEW, replace=False)
            train = np.setdiff1d(train, own)  # the fold holds whole motifs
            for way, *pair in candidates(X, y, train, new, options.passes, seed):
                row = [measure(m, X, y, generator, test, name) for m in pair]
                found.setdefault(way, []).append(row)
                of_generator.setdefault((name, way), []).append(row)
    print(f"{len(X)} images, {len(names)} generators, {options.seeds} seeds")
    print(f"{'':<36}{'AP, new':>18}{'AP, others':>18}{'false alarms':>18}")
    for way, rows in found.items():
        print_row(way, rows)
    way = next(iter(found))
    print(f"by generator, {way}:")
    for name in names:
        print_row(f"  {name}", of_generator[name, way])


def print_row(name, rows):
    """Print means before and after."""
    before, after = np.mean(rows, axis=0)
    cells = "".join(f"{b:8.3f} to {a:.3f} " for b, a in zip(before, after))
    print(f"{name:<36}{cells}")


if __name__ == "__main__":
    main()
