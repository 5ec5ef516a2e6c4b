"""
====================================
Do the axes of a detector come back?
====================================

The activations of a trained :class:`~sklearn_clipsid.OrthogonalLinearDetector` depend
on its random start. ``axes="canonical"`` writes the same decision as axes that come
back. This example measures it, and names the axes by the edits of photographs that they
are nearest to.
"""

# %%
# Over other samples and seeds
# ----------------------------
#
# ``axis_stability`` fits again to bootstrap samples, each time from another random
# start, and compares each axis with its match: 1 is the same direction. Axes of
# permuted labels, which mean nothing, have about 0.67.

import numpy as np

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_concepts, load_sample_embeddings

sample = load_sample_embeddings()
X, y = sample.data, sample.target

detectors, cosines = {}, {}
for axes in ("learned", "canonical"):
    detector = OrthogonalLinearDetector(n_components=8, axes=axes, random_state=0)
    detectors[axes] = detector.fit(X, y)
    cosines[axes] = detector.axis_stability(X, y, n_boot=5, random_state=0)
    # (n_boot, n_components)

same = np.array_equal(detectors["learned"].coef_, detectors["canonical"].coef_)
print("The decision is the same:", same)

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for axes, colour, shift in (
    ("learned", "#E69F00", -0.1),
    ("canonical", "#0072B2", 0.1),
):
    places = np.tile(np.arange(8) + shift, (5, 1))
    ax.plot(places.ravel(), cosines[axes].ravel(), "o", ms=5, color=colour, alpha=0.6)
    ax.plot([], [], "o", color=colour, label=f"{axes}, mean {cosines[axes].mean():.2f}")
remainder = detectors["canonical"].axis_is_remainder_.argmax()
ax.annotate(
    "remainder",
    (remainder + 0.1, cosines["canonical"][:, remainder].max()),
    xytext=(0, 8),
    textcoords="offset points",
    ha="center",
)
ax.set(xlabel="axis", ylabel="absolute cosine with its match", ylim=(0, 1.05))
ax.legend(loc="center right")
fig.suptitle("Canonical axes come back on other samples and seeds, learned axes do not")
plt.show()

# %%
# What are they called?
# ---------------------
#
# The packaged concepts are directions in the same space: the mean change of an
# embedding when a photograph is edited.
# :func:`~sklearn_clipsid.inspection.name_components` ranks them by their cosine with
# each axis, and says how large the largest of 34 would be for a random axis.

from sklearn_clipsid.inspection import AxisDisplay, name_components

concepts = load_sample_concepts()
canonical = detectors["canonical"]
named = name_components(
    canonical.components_, concepts.directions, concepts.names, top=1
)
names = [
    f"{row['pole']} ({abs(row['cosine']):.2f})" if passes else "none above chance"
    for row, passes in zip(named.table[:, 0], named.above_chance[:, 0])
]
display = AxisDisplay.from_estimator(canonical, names=names)
plt.show()
print(f"Cosines of a random axis stay below {named.chance:.2f}.")

# %%
# All are far from 1: an axis is a mixture of what generators and photo sources differ
# in, and no single edit of a photograph. Take the names for hints where to look, and
# look at the images at the ends of an axis (``AxisDisplay.from_estimator(...,
# images=paths)``).
