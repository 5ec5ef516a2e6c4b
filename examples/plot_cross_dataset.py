"""
======================================
Does a detector know other generators?
======================================

A detector that is trained on one family of generators and tested on another shows how
far it generalises. :func:`~sklearn_clipsid.model_selection.cross_dataset_validate` fits
on each data set and scores on each, and on all of them together.
"""

# %%
# Three families of generators
# ----------------------------
#
# The packaged embeddings, split into GANs, latent diffusion models, and more recent
# models. Each family gets a third of the photographs, of all sources alike. The user
# guide shows the matrix in which each has photo sources of its own.

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch

from sklearn_clipsid.datasets import load_sample_embeddings
from sklearn_clipsid.model_selection import cross_dataset_validate

sample = load_sample_embeddings()
X = sample.data * (32.95 / np.linalg.norm(sample.data, axis=1).mean())

families = {
    "GAN": [
        "StyleGAN-faces-256",
        "StyleGAN-thisrentaldoesnotexist",
        "DALL-E-mini-256",  # autoregressive, but decoded by a GAN
    ],
    "latent diffusion": ["LDM-text2im-256", "SD1.4", "SD1.5", "SD2.1", "GLID-3-XL-256"],
    "modern": ["FLUX.1-dev", "SDXL-RealVisXL3-Turbo", "DALL-E2"],
}
share = np.random.default_rng(0).integers(3, size=len(X))  # of the photographs
datasets = {}
for i, (family, generators) in enumerate(families.items()):
    rows = np.isin(sample.generator, generators) | ((sample.target == 0) & (share == i))
    columns = ("target", "generator", "pair_id")
    datasets[family] = Bunch(
        data=X[rows], **{name: sample[name][rows] for name in columns}
    )

# %%
# Train on each, test on each
# ---------------------------
#
# In its own domain a detector is tested on motifs that it was not trained on.

probe = make_pipeline(StandardScaler(with_std=False), LogisticRegression(C=0.01))
result = cross_dataset_validate(probe, datasets, n_boot=200, random_state=0)

# %%
import matplotlib.pyplot as plt

from sklearn_clipsid.inspection import CrossDatasetDisplay

CrossDatasetDisplay.from_result(result)
plt.show()

# %%
# The long table behind it has one row per generator:

import pandas as pd

pd.DataFrame(result.table).round(3).head(8)
