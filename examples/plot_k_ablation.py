"""
==========================================
How many activations does a detector need?
==========================================

The published :class:`~sklearn_clipsid.OrthogonalLinearDetector` has k = 8 activations.
This example varies k on unseen generators and photo sources, beside three detectors
that scikit-learn already has, and then chooses k by nested cross-validation.
"""

# %%
# The candidates
# --------------
#
# scikit-learn's detectors need no wrapper. All are linear except nearest neighbours.

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

sample = load_sample_embeddings()
y, groups = sample.target, sample.generator
X = sample.data * (32.95 / np.linalg.norm(sample.data, axis=1).mean())

numbers = [1, 2, 4, 8, 16]
seeds = [0, 1, 2]
baselines = {
    "LogisticRegression(C=0.01)": make_pipeline(  # centring only makes it faster
        StandardScaler(with_std=False), LogisticRegression(C=0.01)
    ),
    "LinearSVC(), unit norm": make_pipeline(Normalizer(), LinearSVC()),
    "KNeighborsClassifier(9), cosine": KNeighborsClassifier(9, metric="cosine"),
}

# %%
# Scores per generator
# --------------------
#
# The head starts from random numbers, so each k is fitted with three seeds.

from sklearn.model_selection import cross_validate

cv = LeaveOneGeneratorOut()


def auc_per_generator(estimator):
    return cross_validate(
        estimator, X, y, groups=groups, cv=cv, scoring="roc_auc", n_jobs=2
    )["test_score"]  # (n_generators,)


scores = {name: auc_per_generator(model)[None] for name, model in baselines.items()}
for k in numbers:
    heads = [OrthogonalLinearDetector(k, random_state=seed) for seed in seeds]
    scores[f"k = {k}"] = np.stack([auc_per_generator(head) for head in heads])
    # (n_seeds, n_generators)

# %%
# Choosing k without looking at the test generator
# ------------------------------------------------
#
# Whoever picks the best k of the figure below has used the test generators to do so. In
# nested cross-validation each outer training set is split over *its* generators, and k
# is chosen there. Metadata routing hands ``groups`` on to the inner splitter; without
# it, the outer splitter alone would see them.

from sklearn import config_context
from sklearn.model_selection import GridSearchCV

head, grid = OrthogonalLinearDetector(random_state=0), {"n_components": [1, 8]}
search = GridSearchCV(head, grid, cv=cv, scoring="roc_auc")
with config_context(enable_metadata_routing=True):
    nested = cross_validate(
        search,
        X,
        y,
        params={"groups": groups},
        cv=cv,
        scoring="roc_auc",
        return_estimator=True,
        n_jobs=2,
    )
chosen = [fitted.best_params_["n_components"] for fitted in nested["estimator"]]
scores["k chosen in training"] = nested["test_score"][None]

# %%
# The answer
# ----------
#
# The horizontal bars are standard errors over generators. The generators are the same
# in every row, so a difference between two rows is known better than the bars suggest;
# the table therefore gives the differences, with a standard error of their own.

import matplotlib.pyplot as plt
import pandas as pd

order = [f"k = {k}" for k in numbers] + ["k chosen in training", *baselines]
auc = pd.DataFrame({name: scores[name].mean(axis=0) for name in order})

fig, ax = plt.subplots(figsize=(9, 4.8), layout="constrained")
for rank, name in enumerate(reversed(order)):
    colour = "#E69F00" if name in baselines else "#0072B2"
    ax.errorbar(
        auc[name].mean(),
        rank,
        xerr=auc[name].sem(),
        fmt="o",
        color=colour,
        capsize=4,
    )
    if len(scores[name]) > 1:
        seed_means = scores[name].mean(axis=1)  # (n_seeds,)
        ax.plot(seed_means, [rank] * len(seeds), "k|", ms=10, zorder=3)
ax.set(
    yticks=range(len(order)),
    yticklabels=list(reversed(order)),
    xlabel="mean AUC over unseen generators and photo sources\n"
    "(bars: standard error over generators; ticks: seeds)",
)
ax.grid(axis="x", alpha=0.4)
by_k = np.array([scores[f"k = {k}"].mean(axis=1) for k in numbers])  # (n_k, n_seeds)
fig.suptitle(
    f"Another k moves the mean AUC by at most {np.ptp(by_k.mean(axis=1)):.3f}, "
    f"another seed by up to {np.ptp(by_k, axis=1).max():.3f}"
)
plt.show()

# %%
difference = auc.sub(auc["k = 1"], axis=0)
pd.DataFrame(
    {
        "mean AUC": auc.mean(),
        "minus k = 1": difference.mean(),
        "standard error": difference.sem(),
    }
).round(3)

# %%
# The k that the inner cross-validation chose in each of the outer folds:

pd.Series(chosen, name="folds").value_counts().rename_axis("k").to_frame()
