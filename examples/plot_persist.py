"""
===================================================
What is in a saved detector, and what gets refused?
===================================================

Loading a pickle runs whatever code is in it. :func:`sklearn_clipsid.persistence.dump`
writes a skops archive instead, which holds arrays and strings, and
:func:`~sklearn_clipsid.persistence.load` builds the types of an exact list and no
others. This example saves a detector with a threshold, loads it, looks inside, and
tries three things that are refused.
"""

# %%
# A detector with a threshold
# ---------------------------
#
# ``FixedThresholdClassifier`` carries the threshold, ``FrozenEstimator`` says that the
# detector inside is not to be fitted again.

import tempfile
from pathlib import Path

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.persistence import dump, load

X, y = load_sample_embeddings(return_X_y=True)
detector = OrthogonalLinearDetector(n_components=8, random_state=0).fit(X, y)
threshold = np.quantile(detector.decision_function(X[y == 0]), 0.95)
verdict = FixedThresholdClassifier(
    FrozenEstimator(detector),
    threshold=float(threshold),
    response_method="decision_function",
).fit(X, y)

folder = tempfile.TemporaryDirectory()
file = Path(folder.name, "detector.skops")
dump(verdict, file)
same = load(file)
bool((same.predict(X) == verdict.predict(X)).all())

# %%
# What is inside
# --------------
#
# The file is a zip archive: the arrays, the structure, a digest of every member, and a
# model card that any archive tool can show.

import zipfile

import pandas as pd

with zipfile.ZipFile(file) as archive:
    card = archive.read("README.md").decode()
print(card[: card.index("## Parameters")])

# %%
# What is refused
# ---------------
#
# A search holds scorers and splitters, which are code; the message says what to save
# instead. A pickle is no archive. And a file whose arrays were changed no longer agrees
# with its digests.

from sklearn.model_selection import GridSearchCV

refusals = {}
search = GridSearchCV(OrthogonalLinearDetector(random_state=0), {"n_components": [1]})
try:
    dump(search.fit(X, y), file.with_name("search.skops"))
except TypeError as error:
    refusals["dump of a GridSearchCV"] = str(error)

import pickle

pickled = file.with_name("detector.pkl")
pickled.write_bytes(pickle.dumps(detector))
try:
    load(pickled)
except ValueError as error:
    refusals["load of a pickle"] = str(error)

changed = file.with_name("changed.skops")
with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
    for name in old.namelist():
        data = old.read(name)
        if name.endswith(".npy"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        new.writestr(name, data)
try:
    load(changed)
except ValueError as error:
    refusals["load of a changed file"] = str(error)

for attempt, message in refusals.items():
    print(f"{attempt}:\n{message.replace(folder.name, '...')[:240]}\n")

# %%
# The answer
# ----------
#
# What a file holds decides how large it is, and what it gives away: nearest neighbours
# *are* their training rows, and a calibrated detector is one detector per fold. The
# encoder's weights are never in a file. A pipeline with
# :class:`~sklearn_clipsid.CLIPEmbedder` saves the fingerprint of its encoder instead,
# and scoring with other weights is an error.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

models = {
    "LogisticRegression": LogisticRegression(C=0.01, tol=0.01, max_iter=1000),
    "OrthogonalLinearDetector(1)": OrthogonalLinearDetector(1, random_state=0),
    "OrthogonalLinearDetector(8)": detector,
    "the same with a threshold": verdict,
    "the same in CalibratedClassifierCV": CalibratedClassifierCV(detector, cv=5),
    "KNeighborsClassifier": KNeighborsClassifier(9, metric="cosine"),
}
sizes = {}
for name, model in models.items():
    dump(model.fit(X, y), file)
    sizes[name] = file.stat().st_size / 1024
sizes = pd.Series(sizes, name="KiB").sort_values(ascending=False)

fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
bars = ax.barh(sizes.index, sizes, color="#0072B2")
ax.bar_label(bars, fmt="{:,.0f}", padding=3)
ax.set(xlabel="size of the file (KiB)")
ax.margins(x=0.1)
fig.suptitle(
    f"From {sizes.min():.0f} KiB to {sizes.max():,.0f} KiB: "
    f"{sizes.idxmax()} carries all {len(X):,} training rows"
)
plt.show()
folder.cleanup()
