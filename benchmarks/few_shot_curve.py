"""Train on few images of one generator, and test on all others, by their number."""

import argparse
import csv

import numpy as np
from embedding_rows import add_row_options, read_rows
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.inspection import FewShotDisplay
from sklearn_clipsid.model_selection import few_shot_curve

METHOD = "ours"  # the name that Cozzolino et al. have in the file of their figure


def detectors():
    """Return what is trained: the first is theirs, as far as it is known."""
    return {
        "unit norm, linear SVM": make_pipeline(Normalizer(), LinearSVC()),
        "logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(C=0.001, max_iter=1000)
        ),
        "k = 1, published recipe": OrthogonalLinearDetector(1, random_state=0),
    }


def read_published(path):
    """Return sizes and AUC (0 to 1) of a file with method, train_size and AUC in %."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == METHOD]
    return (
        np.array([int(row["train_size"]) for row in rows]),
        np.array([float(row["generalization_auc"]) / 100 for row in rows]),
    )


def print_rows(name, real, result):
    """Print the summary of one detector."""
    for row in result.summary:
        print(
            f"{name:<26}{real:<10}{row['size']:>6}{row['auc']:>7.3f}"
            f"{row['lowest']:>8.3f}{row['highest']:>8.3f}{row['below_chance']:>8.0%}",
            flush=True,
        )


def main():
    """Print AUC by number of training images; draw the first detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_row_options(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--published", help=".csv with method, train_size, ..._auc")
    parser.add_argument("--figure", help="where to draw the curve, .png or .svg")
    options = parser.parse_args()
    X, y, generator = read_rows(options)
    names, counts = np.unique(generator[y == 1], return_counts=True)
    large = names[counts >= max(options.sizes)].tolist()
    small = sorted(set(names.tolist()) - set(large))
    published = {}
    print(f"{len(y)} rows, {options.features} features, {options.repeats} draws")
    print(f"trained on {', '.join(large)}; only tested on {', '.join(small) or 'none'}")
    if options.published:
        sizes, auc = read_published(options.published)
        published["Cozzolino et al., 18 generators"] = sizes, auc
        print("published:", *(f"{n}: {a:.3f}" for n, a in zip(sizes, auc)))
    print(f"{'':<26}{'real':<10}{'images':>6}{'AUC':>7}  lowest highest   below .5")
    for name, detector in detectors().items():
        for by_source, real in ((True, "by source"), (False, "random")):
            result = few_shot_curve(
                detector,
                *(X, y, generator),
                sizes=options.sizes,
                train_generators=large,
                n_repeats=options.repeats,
                hold_out_real_source=by_source,
                random_state=0,
            )
            print_rows(name, real, result)
            if options.figure and not by_source:
                display = FewShotDisplay(result.table, published).plot()
                display.figure_.savefig(options.figure, dpi=150)
                options.figure = None


if __name__ == "__main__":
    main()
