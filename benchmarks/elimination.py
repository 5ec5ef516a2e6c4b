"""Does removing components help on generators and photo sources never seen."""

import argparse

import numpy as np
from embedding_rows import add_row_options, read_rows
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sklearn_clipsid import ComponentEliminator
from sklearn_clipsid._backward_ridge import BackwardRidge
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

BASES = ("coordinates", "principal")
SHOWN = (0, 1, 2, 4, 8, 16, 32, 64)  # removals
ALPHA = 0.3


def nested(X, y, generator, train, test):
    """Return AUC without elimination, and AUC and number of removals with it."""
    detector = LogisticRegression(C=0.001, max_iter=2000)
    model = make_pipeline(StandardScaler(), detector).fit(X[train], y[train])
    row = [roc_auc_score(y[test], model.decision_function(X[test]))]
    for basis in BASES:
        eliminator = ComponentEliminator(basis, alpha=ALPHA)
        model = make_pipeline(StandardScaler(), eliminator, clone(detector))
        groups = {"componenteliminator__groups": generator[train]}
        model.fit(X[train], y[train], **groups)
        auc = roc_auc_score(y[test], model.decision_function(X[test]))
        row += [auc, len(model[1].removed_)]
    return row


def regardless(X, y, generator, train, test):
    """Return AUC by number of removals, on the folds that chose and on unseen rows.

    These are the paths that nothing stops, of the ridge classifier inside.
    """
    paths = []
    for basis in BASES:
        scaler = StandardScaler().fit(X[train])
        Z = scaler.transform(X).astype(np.float64)
        if basis == "principal":
            Z = PCA().fit(Z[train]).transform(Z)
        ridges = BackwardRidge(Z, y == 1, ALPHA * Z[train].var(axis=0).mean())
        inner = LeaveOneGeneratorOut().split(train, y[train], generator[train])
        splits = [(train[one], train[two]) for one, two in inner]
        order, chosen = ridges.eliminate(splits, max(SHOWN))
        unseen = ridges.ridge((train, test))
        path = [unseen.auc()]
        for component in order:
            unseen.remove(component)
            path.append(unseen.auc())
        paths.append([chosen[list(SHOWN)], np.array(path)[list(SHOWN)]])
    return paths


def print_nested(rows):
    """Print what elimination as it comes does."""
    rows = np.array(rows)
    print(f"{'':<18}{'mean':>7}{'lowest':>8}{'< .7':>6}{'better':>8}{'removed':>9}")
    for name, auc, removed in (
        ("all components", rows[:, 0], None),
        ("coordinates", rows[:, 1], rows[:, 2]),
        ("principal", rows[:, 3], rows[:, 4]),
    ):
        text = (
            f"{name:<18}{auc.mean():>7.3f}{auc.min():>8.3f}{(auc < 0.7).mean():>6.0%}"
        )
        if removed is not None:
            text += f"{(auc > rows[:, 0]).mean():>8.0%}{removed.mean():>9.1f}"
        print(text, flush=True)


def print_regardless(paths):
    """Print what happens on the way to many removals."""
    means = np.mean(paths, axis=0)  # (n_bases, 2, n_shown)
    print(f"{'removals':<32}" + "".join(f"{n:>7}" for n in SHOWN))
    for basis, both in zip(BASES, means):
        for name, path in zip(("folds that chose", "unseen"), both):
            print(f"{basis + ', ' + name:<32}" + "".join(f"{a:>7.3f}" for a in path))


def main():
    """Print AUC with and without elimination, on two sets of splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_row_options(parser)
    parser.add_argument("--every", type=int, default=1, help="take each n-th split")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    X, y, generator = read_rows(options)
    print(f"{len(y)} rows, {X.shape[1]} {options.features} features")
    for name, cv in {
        "generator held out": LeaveOneGeneratorOut(hold_out_real_source=False),
        "generator and photo source held out": LeaveOneGeneratorOut(
            hold_out_real_source=True, every_real_fold=True
        ),
    }.items():
        splits = list(cv.split(X, y, generator))[:: options.every]
        print(f"\n{name}, mean AUC over {len(splits)} splits", flush=True)
        for measure, show in ((regardless, print_regardless), (nested, print_nested)):
            done = Parallel(options.jobs, return_as="generator")(
                delayed(measure)(X, y, generator, *split) for split in splits
            )
            show(list(tqdm(done, measure.__name__, len(splits), leave=False)))


if __name__ == "__main__":
    main()
