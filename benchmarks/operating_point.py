"""Count what an operating point gives on clean images and on recompressed ones.

python benchmarks/operating_point.py MANIFEST.csv

Recompressed is what social media leave: the long side scaled to 1,080 pixels, then
JPEG of quality 75. Each image is tested once, by a detector that has seen no image of
its generator and none of its motif, nor, where sources are held out, any photograph of
its source. Thresholds are chosen in the same way within the training images.
"""

import io
import time
import warnings
from itertools import product

import numpy as np
from image_options import image_parser
from machine import describe_machine
from PIL import Image
from sklearn.model_selection import GroupKFold, KFold

from sklearn_clipsid import (
    AbstainingClassifier,
    CLIPEmbedder,
    OrthogonalLinearDetector,
)
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.metrics import wilson_interval
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

LONG_SIDE, QUALITY = 1080, 75
N_FOLDS = 5
LIMITS = (0.05, 0.01)
CONDITIONS = (  # trained with thresholds on, tested on
    ("clean", "clean"),
    ("clean", "recompressed"),
    ("recompressed", "recompressed"),
)


def recompress(path):
    """Return the bytes of the image as a platform would send it on."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    factor = LONG_SIDE / max(image.size)
    size = [max(round(factor * side), 1) for side in image.size]
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def outer_folds(data, by_source):
    """Yield training and test rows; generators are held out, and sources if asked."""
    fold = np.empty(len(data.target), dtype=int)
    for label in (0, 1):
        rows = np.flatnonzero(data.target == label)
        groups = data.generator[rows]
        if label == 1 or by_source:
            splits = GroupKFold(N_FOLDS).split(rows, groups=groups)
        else:
            splits = KFold(N_FOLDS, shuffle=True, random_state=0).split(rows)
        for number, (_, test) in enumerate(splits):
            fold[rows[test]] = number
    for number in range(N_FOLDS):
        test = fold == number
        motifs = data.pair_id[test & (data.pair_id != "")]
        train = ~test & ~np.isin(data.pair_id, motifs)
        yield np.flatnonzero(train), np.flatnonzero(test)


def decide(X_train, X_test, data, train, limit, by_source):
    """Return verdicts on the test rows, and the number of held-out photographs."""
    y, groups = data.target[train], data.generator[train]
    cv = LeaveOneGeneratorOut(hold_out_real_source=by_source)
    model = AbstainingClassifier(
        OrthogonalLinearDetector(random_state=0),
        max_fpr=limit,
        cv=list(cv.split(X_train, y, groups)),
    )
    with warnings.catch_warnings():
        # Too few photographs for a limit: the table says how many there were.
        warnings.filterwarnings("ignore", "Got .* held-out")
        model.fit(X_train, y)
    return model.decide(X_test), model.n_real_


def share(events):
    """Return a share in percent with its Wilson interval."""
    low, high = wilson_interval(int(events.sum()), len(events))
    return f"{100 * events.mean():.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def print_row(rows, data, by_source, limit, condition):
    """Pool the verdicts of all folds and print their rates."""
    verdicts = np.empty(len(data.target), dtype="U10")
    counts = []
    for train, test in outer_folds(data, by_source):
        fitted_on, tested_on = (rows[name] for name in condition)
        verdicts[test], n_real = decide(
            fitted_on[train], tested_on[test], data, train, limit, by_source
        )
        counts.append(n_real)
    on_real, on_synthetic = (verdicts[data.target == label] for label in (0, 1))
    cells = [
        "unseen source" if by_source else "random",
        f"{100 * limit:g}",
        *condition,
        share(on_real == "synthetic"),
        share(on_synthetic == "synthetic"),
        share(on_synthetic == "real"),
        *(f"{100 * (v == 'undecided').mean():.0f}" for v in (on_real, on_synthetic)),
        f"{min(counts)} to {max(counts)}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main():
    """Embed the images twice, and print the table."""
    parser = image_parser(__doc__.splitlines()[0])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--cache-dir", default="build/benchmark_cache")
    options = parser.parse_args()
    start = time.perf_counter()
    data = load_image_folder(options.images)
    embedder = CLIPEmbedder(
        options.model_name,
        options.pretrained,
        precision=options.precision,
        cache_dir=options.cache_dir,
        verbose=True,
    ).fit(data.data)
    rows = {
        "clean": embedder.transform(data.data),
        "recompressed": embedder.transform([recompress(path) for path in data.data]),
    }
    print(describe_machine())
    n_synthetic = data.target.sum()
    print(f"{len(data.target) - n_synthetic} photographs, {n_synthetic} synthetic\n")
    print(
        "| photographs | limit, % | fitted on | tested on | false alarms, % "
        "| found, % | called real, % | photographs undecided, % "
        "| synthetic undecided, % | photographs for the threshold |"
    )
    print("|---|--:|---|---|--:|--:|--:|--:|--:|--:|")
    for by_source, limit, condition in product((False, True), LIMITS, CONDITIONS):
        print_row(rows, data, by_source, limit, condition)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
