"""Train on views of the images too: AUC on unseen generators, clean and compressed.

python benchmarks/views.py MANIFEST.csv
"""

import io
import time

import numpy as np
from image_options import embedder_options, image_parser
from machine import describe_machine
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clipsid import CLIPEmbedder, ViewAugmentedClassifier
from sklearn_clipsid._training_views import make_views
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

C = 0.001
QUALITIES = (75, 50)  # of the test images


def pick_images(data, n_images, min_images):
    """Return as many rows of each large generator and photo source, at random."""
    names, counts = np.unique(data.generator, return_counts=True)
    names = names[counts >= min_images]
    rng = np.random.default_rng(0)
    picked = [
        rng.permutation(np.flatnonzero(data.generator == name))[
            : n_images // len(names)
        ]
        for name in names
    ]
    return np.sort(np.concatenate(picked))


def describe_views(X, n_views):
    """Print how long views take to make, and how large they are."""
    start = time.perf_counter()
    views = make_views(X, n_views, 0, folder=None, apply_exif=False, n_jobs=None)
    seconds = time.perf_counter() - start
    sizes = [len(view) / 1024 for of_image in views for view in of_image]
    print(
        f"{len(sizes)} views: {1000 * seconds / len(sizes):.0f} ms each in one thread, "
        f"{np.mean(sizes):.0f} KiB each"
    )


def compressed(path, quality):
    """Return the image as a JPEG file."""
    stream = io.BytesIO()
    Image.open(path).convert("RGB").save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def auc_table(models, splits, X, y, shown):
    """Return the AUC of each split, model and kind of test image."""
    table = np.empty((len(splits), len(models), len(shown)))
    for i, (train, test) in enumerate(splits):
        for j, model in enumerate(models):
            model = clone(model).fit(X[train], y[train])
            for k, images in enumerate(shown):
                score = model.decision_function([images[row] for row in test])
                table[i, j, k] = roc_auc_score(y[test], score)
    return table


def print_table(title, table, names, kinds):
    """Print mean, minimum and share below .7 of each model and kind of image."""
    print(f"\n{title}, {len(table)} splits\n{'':<22}", end="")
    print("".join(f"{kind:^25}" for kind in kinds))
    print(f"{'':<22}" + f"{'mean':>9}{'min':>7}{'< .7':>7}  " * len(kinds))
    for j, name in enumerate(names):
        numbers = [
            f"{auc.mean():>9.3f}{auc.min():>7.3f}{(auc < 0.7).mean():>7.0%}  "
            for auc in table[:, j].T
        ]
        print(f"{name:<22}" + "".join(numbers))


def print_gain(table, generators, kinds):
    """Print what views add, with the standard error over generators."""
    gain = table[:, -1] - table[:, 0]  # (n_splits, n_kinds)
    names = np.unique(generators)
    means = np.array([gain[generators == name].mean(axis=0) for name in names])
    for kind, of_kind in zip(kinds, means.T):
        error = of_kind.std(ddof=1) / np.sqrt(len(names))
        print(f"views add {of_kind.mean():+.3f} ± {error:.3f} ({kind})")


def main():
    """Embed images and views, and print AUC with and without views."""
    parser = image_parser(__doc__, n_images=195)
    parser.add_argument("--n-views", type=int, default=4)
    parser.add_argument("--min-images", type=int, default=20, help="of a source")
    parser.add_argument("--views-dir", default="build/views")
    parser.add_argument("--cache-dir", help="folder of kept rows")
    options = parser.parse_args()
    print(describe_machine())
    data = load_image_folder(options.images)
    rows = pick_images(data, options.n_images, options.min_images)
    X, y, pair_id = data.data[rows], data.target[rows], data.pair_id[rows]
    groups = np.column_stack([data.generator[rows], pair_id])
    embedder = CLIPEmbedder(
        **embedder_options(options), cache_dir=options.cache_dir, verbose=True
    )
    n_rows = 1 + options.n_views
    plain, weaker, head = (
        make_pipeline(
            embedder,
            StandardScaler(),
            LogisticRegression(C=c, class_weight="balanced", max_iter=1000),
        )
        for c in (C, n_rows * C, C / n_rows)
    )
    augmented = ViewAugmentedClassifier(
        head, n_views=options.n_views, views_dir=options.views_dir, n_jobs=2
    )
    describe_views(X, options.n_views)
    for label in ("first", "second"):
        start = time.perf_counter()
        augmented.fit(X, y)
        print(f"{label} fit to {len(X)} images: {time.perf_counter() - start:.0f} s")
    shown = [X, *([compressed(path, q) for path in X] for q in QUALITIES)]
    for images in shown:
        embedder.transform(images)
    for pipe in (plain, weaker, head):
        pipe[0].set_params(verbose=False)  # all is embedded
    models = {"images": plain, f"images, C x {n_rows}": weaker, "and views": augmented}
    kinds = ["clean", *(f"JPEG {q}" for q in QUALITIES)]
    splitter = LeaveOneGeneratorOut(hold_out_real_source=True, every_real_fold=True)
    splits = list(splitter.split(X, y, groups))
    table = auc_table(models.values(), splits, X, y, shown)
    print_table("unseen generator and photo source", table, models, kinds)
    generators = np.array([groups[test][y[test] == 1][0, 0] for _, test in splits])
    print_gain(table, generators, kinds)
    own = np.arange(len(X)).astype(str)
    motif = np.where(pair_id == "", own, pair_id)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    splits = list(folds.split(X, y, motif))
    table = auc_table(models.values(), splits, X, y, shown)
    print_table("seen sources", table, models, kinds)


if __name__ == "__main__":
    main()
