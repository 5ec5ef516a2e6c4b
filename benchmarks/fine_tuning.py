"""Attribute images to generators: fine-tuned CLIP against a probe of frozen features.

python benchmarks/fine_tuning.py MANIFEST.csv
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from fresh_process import FreshProcess, add_step_options
from image_options import image_parser
from machine import describe_machine, peak_memory
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clipsid import CLIPEmbedder, CLIPFineTuneClassifier
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import dump

# What `--parts settings` tries, and the epochs of each mode.
SETTINGS = [
    {"learning_rate_init": rate, "batch_size": size, "max_iter": n_epochs}
    for rate, size, n_epochs in (
        (2e-5, 32, 5),
        (5e-5, 32, 3),
        (5e-5, 16, 3),
        (1e-4, 32, 2),
        (1e-4, 16, 2),
    )
]
EPOCHS = {"head": 10, "lora": 5, "blocks": 2, "all": 3}


class Images:
    """All photographs, and the images of generators with enough of them.

    Parameters
    ----------
    options : argparse.Namespace
        The command line.
    """

    def __init__(self, options):
        data = load_image_folder(options.images)
        names, counts = np.unique(data.generator, return_counts=True)
        large = names[counts >= options.min_images]
        rows = (data.target == 0) | np.isin(data.generator, large)
        self.X, self.synthetic = data.data[rows], data.target[rows]
        self.source = data.generator[rows]
        self.y = np.where(self.synthetic == 1, self.source, "real")
        pair_id = data.pair_id[rows]
        own = np.arange(len(self.X)).astype(str)
        self.motif = np.where(pair_id == "", own, pair_id)
        self.groups = np.column_stack([self.source, pair_id])

    def folds(self, rows=None, seed=0):
        """Return folds that keep pairs together and the classes in proportion."""
        rows = np.arange(len(self.X)) if rows is None else rows
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        splits = splitter.split(rows, self.y[rows], self.motif[rows])
        return [(rows[train], rows[test]) for train, test in splits]


def embedder_of(options):
    """Return the encoder."""
    return CLIPEmbedder(
        options.model_name, options.pretrained, precision=options.precision
    )


def tuner_of(options, train, **params):
    """Return a classifier that fine-tunes."""
    params = {"max_iter": options.max_iter or EPOCHS[train]} | params
    return CLIPFineTuneClassifier(
        embedder_of(options),
        train=train,
        early_stopping=False,
        class_weight="balanced",  # as the probe has
        random_state=0,
        **params,
    )


def fitted_probe(X, y, groups):
    """Return a logistic regression whose penalty is chosen on the training rows."""
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=3000)
    )
    search = GridSearchCV(
        probe,
        {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]},
        scoring="balanced_accuracy",
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
    )
    return search.fit(X, y, groups=groups)


def choose(images, pooled, options):
    """Print what settings do in five folds of the training rows of the first fold."""
    X, y = images.X, images.y
    rows = images.folds()[0][0]
    folds = images.folds(rows)
    print(f"\nsettings, five folds of the {len(rows)} training rows of the first fold")

    def show(name, fit_predict):
        table = [
            balanced_accuracy_score(y[test], fit_predict(train, test))
            for train, test in folds
        ]
        cells = " ".join(f"{score:.3f}" for score in table)
        print(f"{name:<42}{np.mean(table):.3f}   {cells}", flush=True)

    def probe(train, test):
        of_train = fitted_probe(pooled[train], y[train], images.motif[train])
        return of_train.predict(pooled[test])

    def tuned(train, test):
        tuner = tuner_of(options, "blocks", **params)
        return tuner.fit(X[train], y[train], images.groups[train]).predict(X[test])

    show("probe", probe)
    for params in SETTINGS:
        show(", ".join(f"{name}={value:g}" for name, value in params.items()), tuned)


def compare_attribution(images, pooled, options):
    """Print macro accuracy on the same folds, for several draws of the folds."""
    gains = []
    for seed in range(options.repeats):
        print(f"\nattribution, draw {seed} of the folds")
        gains += compare_on(images.folds(seed=seed), images, pooled, options)
    gains = np.array(gains)
    print(
        f"\n{len(gains)} folds in all: gain {gains.mean():+.3f}, above 0 in "
        f"{(gains > 0).sum()} and below in {(gains < 0).sum()}"
    )


def compare_on(folds, images, pooled, options):
    """Print macro accuracy on some folds, and the confusion matrices."""
    X, y = images.X, images.y
    predicted = {"probe": np.empty_like(y), "blocks": np.empty_like(y)}
    table, start = [], time.perf_counter()
    for train, test in folds:
        probe = fitted_probe(pooled[train], y[train], images.motif[train])
        predicted["probe"][test] = probe.predict(pooled[test])
        tuner = tuner_of(options, "blocks")
        tuner.fit(X[train], y[train], images.groups[train])
        predicted["blocks"][test] = tuner.predict(X[test])
        table.append(
            [balanced_accuracy_score(y[test], p[test]) for p in predicted.values()]
        )
        print(
            f"fold {len(table)}: probe {table[-1][0]:.3f}, two blocks "
            f"{table[-1][1]:.3f}, {tuner.n_iter_} epochs, "
            f"{time.perf_counter() - start:.0f} s since the start",
            flush=True,
        )
    gain = np.diff(table)[:, 0]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    means = np.mean(table, axis=0)
    print(
        f"macro accuracy: probe {means[0]:.3f}, two blocks {means[1]:.3f}, "
        f"gain {gain.mean():+.3f} ± {error:.3f}"
    )
    for name, of_model in predicted.items():
        labels = np.unique(y)
        print(f"\n{name}: rows are true classes, columns predicted ones")
        for label, row in zip(labels, confusion_matrix(y, of_model, labels=labels)):
            print(f"{label:<24}" + "".join(f"{count:5d}" for count in row))
    return [*gain]


def compare_detection(images, pooled, options):
    """Print ROC AUC on generators and photo sources that were held out."""
    X, y, synthetic = images.X, images.y, images.synthetic
    print("\ndetection, ROC AUC; generator and photo source held out")
    table = []
    for train, test in LeaveOneGeneratorOut().split(X, synthetic, images.groups):
        probe = fitted_probe(pooled[train], synthetic[train], images.motif[train])
        tuner = tuner_of(options, "blocks")
        tuner.fit(X[train], y[train], images.groups[train])
        scores = (
            probe.decision_function(pooled[test]),
            tuner.predict_synthetic_proba(X[test]),
        )
        table.append([roc_auc_score(synthetic[test], score) for score in scores])
        held_out = " and ".join(np.unique(images.source[test])[::-1])
        print(
            f"{held_out:<45} probe {table[-1][0]:.3f}, two blocks {table[-1][1]:.3f}",
            flush=True,
        )
    means = np.mean(table, axis=0)
    print(f"{'mean':<45} probe {means[0]:.3f}, two blocks {means[1]:.3f}")


def measure(images, options):
    """Train one mode on the first fold, and print what it takes as JSON."""
    train, test = images.folds()[0]
    tuner = tuner_of(options, options.step)
    start = time.perf_counter()
    tuner.fit(images.X[train], images.y[train], images.groups[train])
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.skops")
        dump(tuner, file)
        size = file.stat().st_size
    predicted = tuner.predict(images.X[test])
    found = {
        "accuracy": balanced_accuracy_score(images.y[test], predicted),
        "epochs": tuner.n_iter_,
        "seconds": seconds,
        "peak": peak_memory() / 2**20,
        "file": size / 1e6,
    }
    print(json.dumps(found))


def compare_modes(images, pooled, options):
    """Print accuracy, time, memory and size of each mode, in fresh processes."""
    train, test = images.folds()[0]
    probe = fitted_probe(pooled[train], images.y[train], images.motif[train])
    score = balanced_accuracy_score(images.y[test], probe.predict(pooled[test]))
    print(f"\nfirst fold, {len(train)} images to train on; probe {score:.3f}")
    print(f"{'':<8}{'accuracy':>9}{'epochs':>8}{'seconds':>9}{'peak MiB':>10}{'MB':>7}")
    for mode in EPOCHS:
        found = FreshProcess(mode).result()
        print(
            f"{mode:<8}{found['accuracy']:>9.3f}{found['epochs']:>8}"
            f"{found['seconds']:>9.0f}{found['peak']:>10.0f}{found['file']:>7.1f}",
            flush=True,
        )


def main():
    """Run what is asked for."""
    parser = image_parser(__doc__)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--min-images", type=int, default=40, help="of a generator")
    parser.add_argument("--max-iter", type=int, help="epochs, of all modes")
    parser.add_argument("--repeats", type=int, default=2, help="draws of the folds")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["attribution", "detection", "modes"],
        choices=["settings", "attribution", "detection", "modes"],
    )
    add_step_options(parser)
    options = parser.parse_args()
    images = Images(options)
    if options.step:
        measure(images, options)
        return
    print(describe_machine())
    names, counts = np.unique(images.y, return_counts=True)
    print(", ".join(f"{name} {count}" for name, count in zip(names, counts)))
    start = time.perf_counter()
    pooled = embedder_of(options).fit_transform(images.X)
    print(f"frozen features: {time.perf_counter() - start:.0f} s")
    for part, compare in {
        "settings": choose,
        "attribution": compare_attribution,
        "detection": compare_detection,
        "modes": compare_modes,
    }.items():
        if part in options.parts:
            start = time.perf_counter()
            compare(images, pooled, options)
            print(f"{part}: {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
