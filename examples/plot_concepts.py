"""
===========================
Is it the concepts at work?
===========================

:class:`~sklearn_clipsid.ConceptBottleneckClassifier` detects by named concepts and says
how much each adds. This example fits it on 20 edits of photographs (grain, bloom, JPEG
blocks, …), shows its explanations, and then asks the question that every such figure
needs: would directions without any meaning do as well?
"""

# %%
# A detector made of concepts
# ---------------------------
#
# Directions that are nearly parallel to one before them are left out: a linear model
# would play them off against each other, and give one of them the wrong sign. So are
# the photographs that the directions were found with.

import numpy as np

from sklearn_clipsid import ConceptBottleneckClassifier
from sklearn_clipsid.datasets import load_sample_concepts, load_sample_embeddings

concepts = load_sample_concepts(features="projected")
close = np.abs(np.tril(concepts.directions @ concepts.directions.T, -1)) > 0.7
distinct = ~close.any(axis=1)
directions, names = concepts.directions[distinct], concepts.names[distinct]

sample = load_sample_embeddings(features="projected")
others = ~np.isin(sample.sha256, concepts.sha256)
X, y, groups = (
    column[others] for column in (sample.data, sample.target, sample.generator)
)

detector = ConceptBottleneckClassifier(
    directions, names, gates="none", random_state=0
).fit(X, y)

# %%
# Without gates all concepts count. The bars of each class add up to its mean logit:

import matplotlib.pyplot as plt

from sklearn_clipsid.inspection import ConceptContributionDisplay

ConceptContributionDisplay.from_estimator(detector, X, y, top=12)
plt.show()

# %%
# And those of one image to its own:

synthetic = np.flatnonzero(groups == "SD2.1")[0]
ConceptContributionDisplay.from_estimator(
    detector, X[[synthetic]], top=10, name="an image of SD2.1"
)
plt.show()

# %%
# Some bars pull against each other: JPEG compression and motion blur both lie further
# along in synthetic images, and one of them has a negative weight to take back what
# they share. No bar can be read without the others. The same as a table, with the
# similarity and the weight behind each contribution:

import pandas as pd

pd.DataFrame(detector.explain(X[[synthetic]], top=5)[0]).round(3)

# %%
# Named against random directions
# -------------------------------
#
# Unseen generators, photographs at random, and two draws of 20 random directions. A
# linear probe on all 512 features is the most that can be had.

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklearn_clipsid.model_selection import LeaveOneGeneratorOut

cv = LeaveOneGeneratorOut(hold_out_real_source=False)


def mean_auc(model):
    return cross_val_score(
        model, X, y, groups=groups, cv=cv, scoring="roc_auc", n_jobs=2
    ).mean()


probe = mean_auc(make_pipeline(Normalizer(), LogisticRegression(C=11, max_iter=500)))
rng = np.random.default_rng(0)
random = [rng.standard_normal(directions.shape) for _ in range(2)]
recovered = {}
for gates in ("none", "similarity", "embedding"):
    for kind, draws in {"edits": [directions], "random": random}.items():
        model = ConceptBottleneckClassifier(gates=gates, max_iter=50, random_state=0)
        scores = [mean_auc(model.set_params(concept_embeddings=T)) for T in draws]
        recovered[gates, kind] = (np.mean(scores) - 0.5) / (probe - 0.5)

# %%
table = pd.Series(recovered).unstack()[["edits", "random"]]
table = table.loc[["none", "similarity", "embedding"]]
ax = table.plot.barh(color=["#0072B2", "#BBBBBB"], figsize=(8, 3.4))
ax.invert_yaxis()
ax.axvline(1, color="k", lw=1)
ax.set(
    xlabel="share of the linear probe's AUC above .5 that is recovered",
    ylabel="what the gates see",
    title="Gates that see the embedding need no concepts",
)
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
ax.figure.set_layout_engine("constrained")
plt.show()

# %%
# With ``gates="embedding"``, as published, random directions detect as well as named
# ones: the gates carry the decision, and the names on the bars are decoration. With
# ``gates="none"`` and ``"similarity"`` the concepts themselves are needed. ``python
# benchmarks/concepts.py`` measures it with ten draws, with photo sources held out, and
# with the share of open gates.
