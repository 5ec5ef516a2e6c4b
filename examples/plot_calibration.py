"""
==============================================
When does a score of 0.9 mean nine out of ten?
==============================================

A probability is calibrated when, of all images that get 0.9, nine out of ten are
synthetic. :class:`~sklearn_clipsid.OrthogonalLinearDetector` is trained as if each
label were flipped with probability s = 0.1, so that its probabilities estimate
q = s + (1 - 2s) p and not p. This example undoes that in two ways and checks the result
on images like those the detector was trained on, and on unseen ones.
"""

# %%
# Three readings of one detector
# ------------------------------
#
# - q, as ``predict_proba`` returns it;
# - p = (q - s) / (1 - 2s), clipped to the range from 0 to 1, which needs no data;
# - :class:`~sklearn.calibration.CalibratedClassifierCV`, which learns the way from the
#   score to p on rows that the detector was not fitted to.

import numpy as np
from sklearn.calibration import CalibratedClassifierCV

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings

sample = load_sample_embeddings()
X, y, groups = sample.data, sample.target, sample.generator
detector = OrthogonalLinearDetector(n_components=8, random_state=0)
calibrated = CalibratedClassifierCV(detector, method="sigmoid", cv=5)


def read_probabilities(splits):
    """Return the labels of all test folds, and their probabilities in each reading."""
    labels, q, learned = [], [], []
    for train, test in splits:
        labels.append(y[test])
        q.append(detector.fit(X[train], y[train]).predict_proba(X[test])[:, 1])
        calibrated.fit(X[train], y[train])
        learned.append(calibrated.predict_proba(X[test])[:, 1])
    labels, q, learned = map(np.concatenate, (labels, q, learned))
    s = detector.label_smoothing
    solved = np.clip((q - s) / (1 - 2 * s), 0, 1)
    return labels, {"q": q, "solved for p": solved, "CalibratedClassifierCV": learned}


# %%
# Known and unseen images
# -----------------------
#
# In the first split, each test fold holds images of all generators and photo sources.
# In the second it holds one generator and one photo source that are not in training.

import pandas as pd
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedKFold

from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

results = {
    "known": read_probabilities(
        StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)
    ),
    "unseen": read_probabilities(LeaveOneGeneratorOut().split(X, y, groups)),
}
brier = pd.DataFrame(
    {
        name: {reading: brier_score_loss(labels, p) for reading, p in readings.items()}
        for name, (labels, readings) in results.items()
    }
)

# %%
# The answer
# ----------

import matplotlib.pyplot as plt
from sklearn.calibration import calibration_curve

styles = {"q": ("o", "#777777"), "solved for p": ("s", "#0072B2"),
          "CalibratedClassifierCV": ("^", "#E69F00")}  # fmt: skip
fig, axes = plt.subplots(ncols=2, sharey=True, figsize=(10, 5), layout="constrained")
for ax, (name, (labels, readings)) in zip(axes, results.items()):
    ax.plot([0, 1], [0, 1], color="black", lw=1, ls=":", label="calibrated")
    for reading, p in readings.items():
        observed, predicted = calibration_curve(labels, p, n_bins=8)
        marker, colour = styles[reading]
        ax.plot(predicted, observed, marker=marker, color=colour, label=reading)
    ax.set(
        title=f"{name} generators and photo sources",
        xlabel="predicted probability of synthetic",
        aspect="equal",
    )
axes[0].set_ylabel("share of synthetic images")
axes[0].legend(frameon=False)
best = brier.idxmin()
fig.suptitle(
    f"Best Brier score on known images: {brier['known'].min():.3f} ({best['known']}), "
    f"on unseen ones: {brier['unseen'].min():.3f} ({best['unseen']})"
)
plt.show()

# %%
# The Brier score is the mean squared distance of the probability from the label: lower
# is better, and 0.25 is what a constant 0.5 gets.

brier.round(3)

# %%
# The left curve of q is too steep: scores near 0.9 are right more often than they say,
# because of the smoothing. Either correction brings it closer to the diagonal. On the
# right all curves are too flat: confident scores are wrong more often than they say,
# and a correction that was learned from known images cannot know it. A calibrated
# probability is a statement about images like those it was calibrated on, mixed in the
# same proportion of real and synthetic.
