"""
===========================================================
How well does a detector do on a generator it has not seen?
===========================================================

A detector is of use when it recognises images of generators that were not in its
training data. :class:`~sklearn_clipsid.model_selection.LeaveOneGeneratorOut` asks for
that: each test fold holds the images of one generator and the photographs of one
source, and the detector is trained on neither.
"""

# %%
# The data
# --------
#
# 2,050 rows: CLIP embeddings of photographs from 7 sources (``y`` is 0) and of images
# from 11 generators (``y`` is 1). ``groups`` says where each image comes from: the
# generator of a synthetic image, the source of a photograph.

import pandas as pd

from sklearn_clipsid.datasets import load_sample_embeddings

sample = load_sample_embeddings()
X, y, groups = sample.data, sample.target, sample.generator
pd.Series(groups).groupby([y, groups]).size().rename_axis(["y", "group"]).to_frame("n")

# %%
# One score per unseen generator
# ------------------------------
#
# The detector scales its features itself, so it needs no other step before it. With
# images instead of embeddings it would be the second step of a pipeline whose first is
# :class:`~sklearn_clipsid.CLIPEmbedder`; nothing else would change.

from sklearn.model_selection import cross_validate

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

results = cross_validate(
    OrthogonalLinearDetector(n_components=8, random_state=0),
    X,
    y,
    groups=groups,
    cv=LeaveOneGeneratorOut(),
    scoring={"AP": "average_precision", "AUC": "roc_auc"},
    return_indices=True,
)

# %%
# Average precision (AP) depends on the share of synthetic images in the test fold, its
# prevalence: a detector that guesses has an AP equal to it. It therefore stands in the
# table, and so does the area under the ROC curve (AUC), where guessing always gives
# one half.

rows = []
for i, test in enumerate(results["indices"]["test"]):
    synthetic = y[test] == 1
    rows.append(
        {
            "generator": groups[test][synthetic][0],
            "photographs": groups[test][~synthetic][0],
            "n": len(test),
            "prevalence": synthetic.mean(),
            "AP": results["test_AP"][i],
            "AUC": results["test_AUC"][i],
        }
    )
table = pd.DataFrame(rows).set_index("generator").sort_values("AUC", ascending=False)
table.round(2)

# %%
# The answer
# ----------

import matplotlib.pyplot as plt
import numpy as np

rank = np.arange(len(table))[::-1]
fig, (left, right) = plt.subplots(
    ncols=2, sharey=True, figsize=(10, 5), layout="constrained"
)
left.barh(rank, table["AP"], color="#56B4E9", label="average precision")
left.scatter(
    table["prevalence"], rank, marker="|", s=220, color="black", label="guessing"
)
left.set(
    xlabel="average precision",
    xlim=(0, 1),
    yticks=rank,
    yticklabels=[
        f"{name}  |  {photographs}"
        for name, photographs in table["photographs"].items()
    ],
    ylabel="unseen generator  |  unseen photographs",
)
right.barh(rank, table["AUC"], color="#E69F00")
right.axvline(0.5, color="black", lw=1.5)
right.set(xlabel="area under the ROC curve", xlim=(0, 1))
left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
fig.suptitle(
    f"On unseen generators and photo sources: mean AP {table['AP'].mean():.2f}, "
    f"mean AUC {table['AUC'].mean():.2f},\n"
    f"but AUC {table['AUC'].min():.2f} for {table.index[-1]} against "
    f"{table['photographs'].iloc[-1]}"
)
plt.show()

# %%
# The bars differ for two reasons that one score per generator cannot tell apart: how
# hard the generator is, and which photographs happen to stand against it.
# :ref:`sphx_glr_auto_examples_plot_photo_sources.py` separates them.
