"""
===========================
How far is an image spoilt?
===========================

A quality score is learned from images with opinions. Here the opinion is how strongly a
picture was blurred or how much noise was added, and the question is whether the order
comes back on pictures that were not seen.
"""

# %%
# Images and encoder are stand-ins, so that this page needs no download: drawn scenes,
# and a small CLIP of random weights with both towers. **Scores on them say nothing
# about real images.** In earnest it is ``CLIPEmbedder(features="projected")``.

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from sklearn_clipsid.datasets import make_paired_images

folder = tempfile.TemporaryDirectory()
clip = Path(folder.name, "clip")
vision = {"image_size": 64, "layers": 1, "width": 256, "patch_size": 8}
text = {"context_length": 24, "width": 32, "heads": 2, "layers": 1}
config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
torch.manual_seed(0)
weights = open_clip.CLIP(**config).state_dict()
patches = weights["visual.conv1.weight"]
weights["visual.conv1.weight"] = 5 * (patches - patches.mean((2, 3), keepdim=True))
clip.mkdir()
(clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
save_file(weights, clip / "open_clip_model.safetensors")

# %%
# Each scene is spoilt in two ways, at five strengths each. The score falls from 5.


def spoil(pixels, kind, severity, rng):
    """Return a blurred or noisy copy."""
    if kind == "blur":
        spoilt = gaussian_filter(pixels, (0.6 * severity, 0.6 * severity, 0))
    else:
        spoilt = pixels + rng.normal(scale=12 * severity, size=pixels.shape)
    return spoilt.clip(0, 255).astype(np.uint8)


scenes = make_paired_images(Path(folder.name, "scenes"), n_pairs=40, image_size=64)
photographs = scenes.data[scenes.target == 0]
rng = np.random.default_rng(0)
images, scores, kinds, scene = [], [], [], []
for number, path in enumerate(photographs):
    pixels = 255 * plt.imread(path)[..., :3]
    for kind in ("blur", "noise"):
        for severity in range(1, 6):
            images.append(spoil(pixels, kind, severity, rng))
            scores.append(6 - severity)
            kinds.append(kind)
            scene.append(number)
scores, kinds, scene = np.array(scores), np.array(kinds), np.array(scene)

# %%
# The context in front of the words "terrible" to "perfect" is learned through the text
# tower. All copies of a scene are on one side of every split: outside, and inside of
# ``fit``, which gets the scenes as groups.

from sklearn_clipsid import CLIPEmbedder, CLIPQualityRegressor
from sklearn_clipsid.metrics import quality_scorers

embedder = CLIPEmbedder(pretrained=f"local-dir:{clip}", features="projected")
regressor = CLIPQualityRegressor(embedder, dropout=0.1, max_iter=40, random_state=0)
train, test = np.flatnonzero(scene < 30), np.flatnonzero(scene >= 30)
regressor.fit([images[i] for i in train], scores[train], groups=scene[train])
held_out = [images[i] for i in test]
predicted = regressor.predict(held_out)
for name, scorer in quality_scorers().items():
    print(f"{name} {scorer(regressor, held_out, scores[test]):.2f}")

fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for kind, shift in (("blur", -0.1), ("noise", 0.1)):
    rows = kinds[test] == kind
    ax.plot(scores[test][rows] + shift, predicted[rows], "o", alpha=0.5, label=kind)
ax.set(xlabel="Score", ylabel="Predicted score", title="Ten scenes that were held out")
ax.legend()
plt.show()

# %%
# The prompts are the same beside every image, and so a bias: one row of numbers for
# each word, whatever the image.

print(regressor.prompts_, regressor.context_.shape, regressor.prompt_features_.shape)
folder.cleanup()
