"""
=================================
One report that leaves little out
=================================

A single score hides most of what decides whether a detector is of use.
:func:`~sklearn_clipsid.report.evaluate` fits and tests it in domain, on unseen
generators, on unseen photo sources and on both, beside two baselines, and writes what
it found as one page.
"""

# %%
# One call
# --------
#
# To build the documentation quickly this takes a part of the packaged embeddings: four
# generators and four photo sources, which make 29 trainings in the four settings. Pass
# the whole sample, and `n_jobs`, to see more.

import numpy as np

from sklearn_clipsid import OrthogonalLinearDetector
from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.report import evaluate

sample = load_sample_embeddings()
chosen = ["StyleGAN-faces-256", "GLID-3-XL-256", "SD2.1", "FLUX.1-dev"]
chosen += ["FFHQ-256", "BSDS500-Corel", "ImageNet", "Camera-EXIF"]
rows = np.isin(sample.generator, chosen)
report = evaluate(
    OrthogonalLinearDetector(n_components=8, random_state=0),
    sample.data[rows],
    sample.target[rows],
    groups=sample.generator[rows],
    pair_id=sample.pair_id[rows],
    max_fpr=0.05,
    n_boot=200,
    random_state=0,
)
print(report)

# %%
# The page
# --------
#
# ``report.to_html("report.html")`` writes it: one file without scripts, that opens
# without a network and names no folder of your machine. In a notebook it is shown
# where the report is the last value of a cell, as here. With image paths and a pipeline
# that starts with :class:`~sklearn_clipsid.CLIPEmbedder` it also has recompressed and
# scaled images, the leak audit of the files and the worst errors as thumbnails.

report

# %%
# Tables
# ------
#
# All figures are lists of dict.

import pandas as pd

table = pd.DataFrame(report.summary).pivot(
    index="setting", columns="model", values="auc"
)
table.loc[report.settings].round(3)

# %%
# ``report.to_markdown()`` returns the same as text, ``report.to_dict()`` what JSON can
# hold, and ``report.to_card(detector)`` a model card of skops to ship with a detector:

detector = OrthogonalLinearDetector(n_components=8, random_state=0)
card = report.to_card(detector.fit(sample.data[rows], sample.target[rows]))
print(card.render()[:900])
