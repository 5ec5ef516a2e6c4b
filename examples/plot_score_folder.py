"""
=================================================
Which images of a folder are worth a second look?
=================================================

A detector is fitted once, saved as one file, and used on folders by whoever gets it, in
Python or from the shell. A file that cannot be read is named, and the rest is scored.
"""

# %%
# Images and encoder are stand-ins, so that this page needs no download: drawn scenes,
# three of four with a fingerprint, and a CLIP of random weights that looks at texture.
# **Scores on them say nothing about real images.** In earnest it is ``CLIPEmbedder()``.

import json
import tempfile
import warnings
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from sklearn_clipsid.datasets import make_paired_images

folder = tempfile.TemporaryDirectory()
inbox, clip = Path(folder.name, "inbox"), Path(folder.name, "clip")
images = make_paired_images(Path(folder.name, "images"), n_pairs=40, image_size=64)
make_paired_images(inbox, n_pairs=4, image_size=64, random_state=1)
(inbox / "cut_off.png").write_bytes(Path(images.data[0]).read_bytes()[:99])

vision = {"image_size": 64, "layers": 1, "width": 256, "patch_size": 8}
text = {"context_length": 16, "width": 32, "heads": 2, "layers": 1}
config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
torch.manual_seed(0)
weights = open_clip.CLIP(**config).state_dict()
patches = weights["visual.conv1.weight"]
weights["visual.conv1.weight"] = 5 * (patches - patches.mean((2, 3), keepdim=True))
clip.mkdir()
(clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
save_file(weights, clip / "open_clip_model.safetensors")

# %%
# Fit and save. Thresholds are chosen so that at most one photograph in ten is called
# synthetic, and one synthetic image in ten real. What lies between is undecided.

from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import AbstainingClassifier, CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid.persistence import dump, load

by_pair = list(GroupKFold(5).split(images.data, groups=images.pair_id))
head = OrthogonalLinearDetector(random_state=0)
head = AbstainingClassifier(head, max_fpr=0.1, cv=by_pair)
embedder = CLIPEmbedder(pretrained=f"local-dir:{clip}", on_error="nan")
file = Path(folder.name, "detector.skops")
dump(make_pipeline(embedder, head).fit(images.data, images.target), file)

# %%
# Load and score. A row of NaN stands for an image that cannot be read.

detector = load(file, pretrained=f"local-dir:{clip}")
paths = np.array(sorted(inbox.rglob("*.png")))
with warnings.catch_warnings(record=True, action="always") as said:
    rows = detector[0].transform(paths)
print(str(said[0].message).replace(folder.name, "..."))
is_read = np.isfinite(rows).all(axis=1)
probability = detector[1].predict_proba(rows[is_read])[:, 1]
verdict = detector[1].decide(rows[is_read])

fig, axes = plt.subplots(2, 8, figsize=(11, 3.4), layout="constrained")
for ax, i in zip(axes.flat, probability.argsort()[::-1]):
    ax.imshow(plt.imread(paths[is_read][i]))
    name = paths[is_read][i].parent.name
    ax.set_title(f"{probability[i]:.2f} {verdict[i]}\n({name})", fontsize=8)
    ax.axis("off")
n_synthetic = (verdict == "synthetic").sum()
fig.suptitle(f"{n_synthetic} of {len(verdict)} images are called synthetic")
plt.show()

# %%
# In the shell ``clipsid score detector.skops inbox`` does it all. The exit status is 1,
# as one file could not be read.

from sklearn_clipsid.cli import main

with chdir(folder.name):
    main(["score", "detector.skops", "inbox", "--pretrained", "local-dir:clip"])
folder.cleanup()
