"""Compare the last layer with earlier transformer blocks, on generators not seen."""

import numpy as np
from image_options import image_parser
from machine import describe_machine
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from sklearn_clipsid import BlockSelector, CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_image_folder
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

BLOCKS = (-5, -4, -3, -2, -1)


def mean_auc(model, X, data, splits, name):
    """Return the mean AUC over splits; a search gets the groups of its rows."""
    auc = []
    for train, test in tqdm(splits, desc=name, leave=False):
        groups = {"groups": data.generator[train]} if hasattr(model, "cv") else {}
        model.fit(X[train], data.target[train], **groups)
        auc.append(roc_auc_score(data.target[test], model.decision_function(X[test])))
    return float(np.mean(auc))


def main():
    """Embed a folder once and print AUC by block, and by a nested choice of block."""
    options = image_parser(__doc__).parse_args()
    print(describe_machine())
    data = load_image_folder(options.images)
    embedder = CLIPEmbedder(
        options.model_name, options.pretrained, precision="auto", verbose=True
    )
    pooled = embedder.fit_transform(data.data)
    blocks = embedder.set_params(features="blocks").fit_transform(data.data)
    detector = OrthogonalLinearDetector(random_state=0)
    on_block = make_pipeline(BlockSelector(), detector)
    # The outer test generator is in neither the inner training nor its test folds.
    nested = GridSearchCV(
        on_block,
        {"blockselector__block": list(BLOCKS)},
        cv=LeaveOneGeneratorOut(hold_out_real_source=False),
        scoring="roc_auc",
    )
    rows = [("pooled", detector, pooled), ("block by nested choice", nested, blocks)]
    for block in BLOCKS:
        fixed = make_pipeline(BlockSelector(block), detector)
        rows.append((f"block {block}", fixed, blocks))
    print(f"{len(data.data)} images; mean AUC over generators, k = 8")
    print(f"{'':<26}{'photographs at random':>24}{'by source':>12}")
    splits = [
        list(
            LeaveOneGeneratorOut(hold_out_real_source=by_source).split(
                data.data, data.target, data.generator
            )
        )
        for by_source in (False, True)
    ]
    for name, model, X in rows:
        auc = [mean_auc(model, X, data, chosen, name) for chosen in splits]
        print(f"{name:<26}{auc[0]:>24.3f}{auc[1]:>12.3f}", flush=True)


if __name__ == "__main__":
    main()
