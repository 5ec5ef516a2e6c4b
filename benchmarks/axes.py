"""Measure whether the axes come back over seeds and over bootstrap samples."""

import argparse
from itertools import combinations, pairwise

import numpy as np
from embedding_rows import add_row_options, read_rows
from machine import describe_machine
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid._axis_stability import matched_cosines
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

CANONICAL = "canonical"


class Moments:
    """Covariance, principal axes and class gap of weighted training rows."""

    def __init__(self, X, y, weights):
        X = X.astype(np.float64)
        means = [np.average(X[y == c], axis=0, weights=weights[y == c]) for c in (0, 1)]
        self.gap = means[1] - means[0]
        centred = X - np.average(X, axis=0, weights=weights)
        self.cov = (centred.T * (weights / weights.sum())) @ centred
        self.principal = np.linalg.eigh(self.cov)[1].T[::-1]


def with_remainder(U, moments, w):
    """Return axes made uncorrelated in their order, and last the remainder of w."""
    axes = []
    for u in U:
        for _ in range(2):
            for v in axes:
                u = u - (v @ moments.cov @ u) * v
        axes.append(u / np.sqrt(u @ moments.cov @ u))
    axes = np.array(axes).reshape(-1, len(w))
    return np.vstack([axes, w - (axes @ moments.cov @ w) @ axes])


def first_attempt(moments, w, k):
    """Return the principal axes with the largest share of the gap, and the rest."""
    share = (moments.principal @ w) * (moments.principal @ moments.gap)
    chosen = moments.principal[np.argsort(-share)[: k - 1]]
    return with_remainder(chosen, moments, w)


def leading(moments, w, k):
    """Return the first principal axes, whatever their share, and the rest."""
    return with_remainder(moments.principal[: k - 1], moments, w)


def octaves(moments, w, k):
    """Return the class gap within blocks of 1, 1, 2, 4, … principal axes, the rest."""
    edges = [0, *(2 ** np.arange(k - 1))]
    blocks = [moments.principal[a:b] for a, b in pairwise(edges)]
    return with_remainder([Q.T @ (Q @ moments.gap) for Q in blocks], moments, w)


def label_covariance(moments, w, k):
    """Return partial least squares on the labels, and the rest."""
    U, images = [], np.zeros((len(w), 0))
    for _ in range(k - 1):
        Q = np.linalg.qr(images)[0]
        u = moments.gap - Q @ (Q.T @ moments.gap)
        U.append(u - Q @ (Q.T @ u))
        images = np.column_stack([images, moments.cov @ U[-1]])
    return with_remainder(U, moments, w)


OTHERS = {
    "first attempt": first_attempt,
    "leading principal": leading,
    "octaves": octaves,
    "PLS on labels": label_covariance,
}


def fit_both(X, y, k, seed, weights=None):
    """Return a learned and a canonical detector of one seed, and all axes by name."""
    detectors = {
        axes: OrthogonalLinearDetector(k, axes=axes, random_state=seed).fit(
            X, y, sample_weight=weights
        )
        for axes in ("learned", CANONICAL)
    }
    w = detectors["learned"].coef_[0]
    assert (detectors[CANONICAL].coef_[0] == w).all()
    moments = Moments(X, y, np.ones(len(y)) if weights is None else weights)
    axes = {"learned": detectors["learned"].components_}
    axes |= {name: method(moments, w, k) for name, method in OTHERS.items()}
    axes[CANONICAL] = detectors[CANONICAL].components_
    return detectors, axes


def remainder_of(name, detector, axes, gap):
    """Return index and share of the remainder; the alternatives have it last."""
    if name == CANONICAL:
        index = int(np.flatnonzero(detector.axis_is_remainder_)[0])
        return index, detector.axis_share_[index]
    return len(axes) - 1, (axes[-1] @ gap) / (detector.coef_[0] @ gap)


def measure_fold(X, y, train, test, options, seed):
    """Return what one training fold says about each kind of axes, and of each axis."""
    X_train, y_train, X_test, y_test = X[train], y[train], X[test], y[test]
    gap = X_train[y_train == 1].mean(axis=0) - X_train[y_train == 0].mean(axis=0)
    fits = [
        fit_both(X_train, y_train, options.k, seed) for seed in range(options.seeds)
    ]
    random_state = np.random.RandomState(seed)
    boots = []
    for i in range(options.boot):
        drawn = [
            random_state.choice(rows, len(rows))
            for rows in (np.flatnonzero(y_train == c) for c in (0, 1))
        ]
        counts = np.bincount(np.concatenate(drawn), minlength=len(train))
        boots.append(fit_both(X_train, y_train, options.k, 100 + i, counts)[1])
    measured = {}
    for name in fits[0][1]:
        detector = fits[0][0].get(name, fits[0][0][CANONICAL])
        first = fits[0][1][name]
        over_seeds = [
            matched_cosines(a[name], b[name])
            for (_, a), (_, b) in combinations(fits, 2)
        ]
        of_first = [matched_cosines(first, axes[name]) for _, axes in fits[1:]]
        over_boot = [matched_cosines(first, axes[name]) for axes in boots]
        last, share = remainder_of(name, detector, first, gap)
        measured[name] = [
            np.mean(over_seeds),
            np.mean(over_boot),
            share,
            np.mean(of_first, axis=0)[last],
            np.mean(over_boot, axis=0)[last],
        ]
    scores = [d[CANONICAL].decision_function(X_test) for d, _ in fits]
    quality = [
        np.mean([metric(y_test, score) for score in scores])
        for metric in (average_precision_score, roc_auc_score)
    ]
    canonical = fits[0][0][CANONICAL]
    A = canonical.transform(X_test)
    by_axis = np.column_stack(
        [
            canonical.axis_share_,
            np.mean(
                [matched_cosines(canonical.components_, b[CANONICAL]) for b in boots],
                axis=0,
            ),
            [roc_auc_score(y_test, a) for a in A.T],
            canonical.axis_is_remainder_,
        ]
    )
    largest = np.abs(np.corrcoef(canonical.transform(X_train), rowvar=False))
    largest = (largest - np.eye(options.k)).max()
    return measured, quality, by_axis, largest


def main():
    """Print both tables, means over the folds of LeaveOneGeneratorOut."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_row_options(parser)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--boot", type=int, default=5, help="bootstrap samples a fold")
    options = parser.parse_args()
    print(describe_machine())
    X, y, generator = read_rows(options)
    splits = list(
        LeaveOneGeneratorOut(hold_out_real_source=False).split(X, y, generator)
    )
    folds = [
        measure_fold(X, y, train, test, options, seed)
        for seed, (train, test) in enumerate(tqdm(splits, leave=False))
    ]
    print(
        f"{len(y)} rows, k = {options.k}; mean matched |cos| over {options.seeds} "
        f"seeds and {options.boot} bootstrap samples, in {len(folds)} training folds"
    )
    print(
        f"{'':<20}{'seeds':>8}{'boot':>8}"
        f"   remainder:{'share':>8}{'seeds':>8}{'boot':>8}"
    )
    for name in folds[0][0]:
        row = np.mean([fold[0][name] for fold in folds], axis=0)
        text = f"{name:<20}{row[0]:>8.3f}{row[1]:>8.3f}"
        if name != "learned":
            text += f"{'':13}{row[2]:>8.3f}{row[3]:>8.3f}{row[4]:>8.3f}"
        print(text)
    ap, auc = np.mean([fold[1] for fold in folds], axis=0)
    print(f"unseen generators, learned and canonical alike: AP {ap:.3f}, AUC {auc:.3f}")
    print(f"largest correlation of two activations {max(f[3] for f in folds):.0e}")
    print("canonical axes in order of their share; AUC of one axis, unseen generators")
    print(f"{'axis':>4}{'share':>8}{'boot':>8}{'AUC':>8}{'remainder in folds':>20}")
    by_axis = np.array([fold[2] for fold in folds])  # (n_folds, k, 4)
    for i, (share, boot, alone, _) in enumerate(by_axis.mean(axis=0)):
        n_rest = int(by_axis[:, i, 3].sum())
        print(f"{i + 1:>4}{share:>8.3f}{boot:>8.3f}{alone:>8.3f}{n_rest:>20}")
    print_floors(X, y, generator, options)


def print_floors(X, y, generator, options):
    """Say how stable axes are that mean nothing, and those of other generators."""
    detector = OrthogonalLinearDetector(options.k, axes=CANONICAL, random_state=0)
    permuted = np.random.RandomState(0).permutation(y)
    print("canonical axes of all rows without the remainder, bootstrap of")
    for title, labels, groups in (
        ("rows", y, None),
        ("generators, photo sources", y, generator),
        ("rows, labels permuted", permuted, None),
    ):
        detector.fit(X, labels)
        cosines = detector.axis_stability(
            X, labels, options.boot, groups=groups, random_state=0
        )
        print(f"  {title:<26}{cosines[:, ~detector.axis_is_remainder_].mean():>6.3f}")


if __name__ == "__main__":
    main()
