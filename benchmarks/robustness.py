"""Measure what compression, scaling and the like do to a detector of real images.

python benchmarks/robustness.py MANIFEST.csv --figure robustness.png
"""

import sys
import time

import numpy as np
from image_options import image_parser
from machine import describe_machine
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.inspection import RobustnessDisplay
from sklearn_clipsid.model_selection import robustness_table

SHARES = ("ap", "auc", "fpr", "tpr", "flips")


def hold_out(data, n_images, rng):
    """Return rows to train on and to test on: half photographs, no shared motif."""
    test = np.concatenate(
        [
            rng.permutation(np.flatnonzero(data.target == label))[: n_images // 2]
            for label in (0, 1)
        ]
    )
    motifs = data.pair_id[test][data.pair_id[test] != ""]
    left = ~np.isin(data.pair_id, motifs)
    left[test] = False
    return np.flatnonzero(left), test


def print_table(table):
    """Print the rows as Markdown."""
    print("| operation | strength | AP | AUC | false alarms | found | flips | shift |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in table:
        shares = " | ".join(f"{row[name]:.2f}" for name in SHARES)
        strength = "" if row["operation"] == "clean" else f"{row['strength']:g}"
        shift = row["score_shift"]
        print(f"| {row['operation']} | {strength} | {shares} | {shift:+.2f} |")


def main():
    """Fit a detector, score edited images, and print and draw the table."""
    parser = image_parser(__doc__)
    parser.add_argument("--n-images", type=int, default=120, help="tested at most")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cache-dir", default="build/benchmark_cache")
    parser.add_argument("--n-jobs", type=int, default=2, help="threads that edit")
    parser.add_argument("--figure", help="where to draw the table, such as a .png")
    options = parser.parse_args()
    start = time.perf_counter()
    data = load_image_folder(options.images)
    train, test = hold_out(data, options.n_images, np.random.default_rng(0))
    pipe = make_pipeline(
        CLIPEmbedder(
            options.model_name,
            options.pretrained,
            precision=options.precision,
            cache_dir=options.cache_dir,
            verbose=True,
        ),
        OrthogonalLinearDetector(random_state=0),
    ).fit(data.data[train], data.target[train])
    pipe[0].set_params(verbose=False)  # robustness_table has a bar of its own
    table = robustness_table(
        pipe, data.data[test], data.target[test], random_state=0, n_jobs=options.n_jobs
    ).table
    print(describe_machine())
    n_real = (data.target[test] == 0).sum()
    print(
        f"{len(train)} images to train on, {n_real} photographs and "
        f"{len(test) - n_real} synthetic images to test on, "
        f"{time.perf_counter() - start:.0f} s\n"
    )
    print_table(table)
    if options.figure:
        display = RobustnessDisplay(table).plot()
        display.figure_.savefig(options.figure, dpi=110)
        print(f"drawn to {options.figure}", file=sys.stderr)


if __name__ == "__main__":
    main()
