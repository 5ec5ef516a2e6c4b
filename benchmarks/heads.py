"""Time and use of attention heads: a pass with them, and unseen generators by them."""

import time

import numpy as np
from image_options import image_parser
from joblib import Parallel, delayed
from machine import describe_machine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sklearn_clipsid import CLIPEmbedder, HeadSelector
from sklearn_clipsid._clip import get_image_tower
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

ROUNDS = 5  # of timing; their median counts
N_TIMED = 8  # images of a pass
MIN_IMAGES = 20  # of a generator or photo source


def time_passes(embedder, images):
    """Print how long a batch takes with the heads of more and more blocks."""
    pixels = list(embedder.preprocess(images))
    tower = get_image_tower(
        embedder.model_name,
        embedder.pretrained,
        precision=embedder.precision,
        device=embedder.device,
    )
    asked = ["projected", *(("heads", n_blocks) for n_blocks in (4, 12))]
    seconds = {features: [] for features in asked}
    for step in range(ROUNDS + 1):  # in turn, so that other jobs slow all of them
        for features in asked:
            start = time.perf_counter()
            tower.encode(pixels, features)
            if step:  # the first pass warms up
                seconds[features].append(time.perf_counter() - start)
    plain = np.median(seconds["projected"])
    print(f"{len(pixels)} images, plain pass {plain:.2f} s")
    for features in asked[1:]:
        ratio = np.median(np.array(seconds[features]) / seconds["projected"])
        print(f"with heads of {features[1]} blocks: {ratio:.3f} times as long")


def rows_of_large_groups(heads, data):
    """Leave out generators and photo sources of few images; return X, y and groups."""
    names, counts = np.unique(data.generator, return_counts=True)
    kept = np.isin(data.generator, names[counts >= MIN_IMAGES])
    groups = np.column_stack([data.generator, data.pair_id])
    return heads[kept], data.target[kept], groups[kept]


def logistic():
    """Return the classifier behind all features."""
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.001, class_weight="balanced", max_iter=1000),
    )


def fold_auc(X, y, groups, train, test, n_parts):
    """Return the AUC of one fold by kind of features, and how many heads were kept."""
    parts = X.reshape(len(X), n_parts, -1)
    selector = HeadSelector(embed_dim=parts.shape[2]).fit(
        X[train], y[train], groups[train]
    )
    selected = selector.transform(X)
    kinds = {
        "projected": parts.sum(axis=1),
        "rest (no heads)": parts[:, -1],
        "all heads": X[:, : -parts.shape[2]],
        "selected heads": selected,
        "their sum": selected.reshape(len(X), -1, parts.shape[2]).sum(axis=1),
    }
    auc = {}
    for name, features in kinds.items():
        model = logistic().fit(features[train], y[train])
        auc[name] = roc_auc_score(y[test], model.decision_function(features[test]))
    return auc, selector


def main():
    """Time the passes, embed a folder and print AUC on unseen generators."""
    parser = image_parser(__doc__)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache-dir", help="folder of kept rows")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(describe_machine())
    data = load_image_folder(options.images)
    embedder = CLIPEmbedder(
        options.model_name,
        options.pretrained,
        features="heads",
        precision=options.precision,
        device=options.device,
        batch_size=options.batch_size,
        cache_dir=options.cache_dir,
        verbose=True,
    )
    time_passes(embedder, data.data[:N_TIMED])
    X, y, groups = rows_of_large_groups(embedder.fit_transform(data.data), data)
    n_parts = X.shape[1] // embedder.projection().shape[1]
    splitter = LeaveOneGeneratorOut(hold_out_real_source=True, every_real_fold=True)
    splits = list(splitter.split(X, y, groups))
    print(f"{len(X)} images; each generator with each photo source held out together")
    done = Parallel(options.jobs, return_as="generator")(
        delayed(fold_auc)(X, y, groups, *split, n_parts) for split in splits
    )
    scores, selectors = zip(*tqdm(done, "pairs", len(splits)))
    print(f"{'':<18}{'mean AUC':>10}{'minimum':>9}{'below .7':>10}")
    for name in scores[0]:
        auc = np.array([score[name] for score in scores])
        print(
            f"{name:<18}{auc.mean():>10.3f}{auc.min():>9.3f}{(auc < 0.7).mean():>10.0%}"
        )
    n_selected = [len(selector.selected_) for selector in selectors]
    print(f"selected heads: median {np.median(n_selected):.0f} of {n_parts - 1}")
    often = np.mean([selector.support_ for selector in selectors], axis=0)
    per_block = often.reshape(embedder.head_blocks, -1).sum(axis=1)
    print(f"mean number by block, the last one last: {np.round(per_block, 1)}")


if __name__ == "__main__":
    main()
