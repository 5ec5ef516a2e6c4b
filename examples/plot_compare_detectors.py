"""
===============================================
Which detector, and is it worth combining them?
===============================================

Three detectors on the same embeddings, and three ways to combine them: mean, learned
weights and a soft "or". Each test is on a generator and a photo source that were not in
training. There are only eleven tests, so each difference comes with an interval.
"""

# %%
# Three detectors on one embedding
# --------------------------------
#
# Images are embedded once: each further detector is a small head on the same rows.
# Published heads are combined in the same way, see :doc:`/user_guide/reference`.

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings

sample = load_sample_embeddings()
y, groups = sample.target, sample.generator
X = sample.data * (32.95 / np.linalg.norm(sample.data, axis=1).mean())
detectors = [
    ("logistic regression", LogisticRegression(C=0.01, tol=0.01, max_iter=1000)),
    ("orthogonal, k = 8", OrthogonalLinearDetector(n_components=8, random_state=0)),
    ("nearest neighbours", KNeighborsClassifier(25, metric="cosine")),
]

# %%
# ``StackingClassifier`` learns how far to trust each detector from rows that the
# detector was not fitted to, and then fits each to all training rows. The two other
# combinations take those: ``FrozenEstimator`` keeps them from being fitted again.

from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold

from sklearn_clipsid.reference import soft_or_fusion

inner = StratifiedKFold(2, shuffle=True, random_state=0)


def probabilities(train, test):
    """Return what each detector and each combination says about the test rows."""
    stack = StackingClassifier(detectors, cv=inner).fit(X[train], y[train])
    fitted = [
        (name, FrozenEstimator(detector))
        for (name, _), detector in zip(detectors, stack.estimators_)
    ]
    vote = VotingClassifier(fitted, voting="soft").fit(X[train], y[train])
    p = {name: detector.predict_proba(X[test])[:, 1] for name, detector in fitted}
    fused = soft_or_fusion(np.column_stack(list(p.values())))
    p["mean of the three"] = vote.predict_proba(X[test])[:, 1]
    p["stacking"] = stack.predict_proba(X[test])[:, 1]
    return p | {'soft "or"': fused}


# %%
# The last two columns are the shares of photographs and of synthetic images that are
# called synthetic at the threshold 0.5.

import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

rows = []
for train, test in LeaveOneGeneratorOut().split(X, y, groups):
    synthetic = y[test] == 1
    for name, p in probabilities(train, test).items():
        scores = {
            "AUC": roc_auc_score(synthetic, p),
            "AP": average_precision_score(synthetic, p),
            "false alarms": (p[~synthetic] > 0.5).mean(),
            "found": (p[synthetic] > 0.5).mean(),
        }
        rows.append({"generator": groups[test][synthetic][0], "row": name, **scores})
table = pd.DataFrame(rows).pivot(index="generator", columns="row")
names = list(dict.fromkeys(row["row"] for row in rows))
table.mean().unstack(level=0).loc[names, list(scores)].round(3)

# %%
# The answer
# ----------
#
# The right side compares each row with the first on the same test images, generator by
# generator. A whisker is the 95 % interval of a paired t-test over generators.

import matplotlib.pyplot as plt
from scipy.stats import t

auc = table["AUC"].sort_values(names[0])
gain = auc[names[:0:-1]].sub(auc[names[0]], axis=0)
reach = t.ppf(0.975, len(auc) - 1) * gain.sem()
fig, (left, right) = plt.subplots(ncols=2, figsize=(11, 4.8), layout="constrained")
for name, marker, colour in zip(names, "osD", ("#0072B2", "#D55E00", "#009E73")):
    left.scatter(auc[name], auc.index, marker=marker, color=colour, label=name)
left.axvline(0.5, color="black", ls=":", lw=1)
left.set(xlabel="AUC on the unseen generator (dotted: guessing)", xlim=(-0.03, 1.03))
fig.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
right.errorbar(gain.mean(), gain.columns, xerr=reach, fmt="ko", capsize=4)
right.axvline(0, color="#0072B2", lw=1.5)
right.set(xlabel=f"difference in AUC from the {names[0]}")
above, below = gain.columns[gain.mean() > reach], gain.columns[gain.mean() < -reach]
text = [", ".join(part) or "none" for part in (above, below)]
fig.suptitle(f"Intervals above zero: {text[0]}. Intervals below zero: {text[1]}")
plt.show()

# %%
# Nothing beats the simplest detector. Nearest neighbours are worse, but one of five
# intervals that just misses zero is weak evidence, and as the tests share training rows
# and photo sources, all intervals are rather too short. Tests differ more than heads
# do. The soft "or" finds most, and calls most photographs synthetic: choose its
# threshold anew. Combine detectors that err in different places, on other features or
# training images. Heads on the same rows mostly err together.
