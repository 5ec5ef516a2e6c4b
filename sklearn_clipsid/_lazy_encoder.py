"""Know an encoder without building it, where a cache remembers what it is."""

import functools
import hashlib
import json
import os
import platform
from importlib.metadata import version

from sklearn_clipsid._block_index import block_index
from sklearn_clipsid._content_hash import is_settled, signature_of
from sklearn_clipsid._warn_user import warn_user

# What decides, beside the parameters, which weights a name stands for and which
# precision "auto" is.
SURROUNDINGS = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE")


_version = functools.cache(version)  # which reads a file each time


class EncoderChangedError(Exception):
    """An encoder is no longer the one that the cache describes; start over."""


class LazyEncoder:
    """The image tower that an embedder asks for, built at the first unknown image.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Its parameters.

    cache : EmbeddingMemo or EmbeddingCache
        May remember what the tower is; else it is built at once.

    Attributes
    ----------
    tower : ImageTower or None
        None until it is built.

    description : dict
        What it is: architecture, digests of weights and configuration, image size,
        resolved precision and device, and the widths of its features.
    """

    def __init__(self, embedder, cache):
        self.embedder = embedder
        self.cache = cache
        self.tower = None
        self.description = recall_encoder(embedder, cache)
        if self.description is None:
            self.build()
        else:
            _check_features(embedder, self.description["widths"])

    def build(self):
        """Return the built tower.

        Raises
        ------
        EncoderChangedError
            When it is not what was remembered; the description is the right one then.
        """
        # Before the files are read: what changes them later is another identity.
        identity, files = _identity(self.embedder)
        are_settled = all(map(is_settled, files))
        tower = self.embedder._image_tower()
        tower.check_features(self.embedder._tower_features)
        remembered, self.description = self.description, _describe(tower)
        self.tower = tower
        if remembered != self.description:
            if are_settled and is_settled(tower.file):
                self.cache.describe(identity, self.description)
            if remembered is not None:
                raise EncoderChangedError
        return tower

    @property
    def fingerprint(self):
        """Everything but the image that decides a row, by name."""
        embedder, known = self.embedder, self.description
        return {
            "architecture": known["architecture"],
            "config": known["config"],
            "weights": known["weights"],
            "features": _name_of(embedder._tower_features),
            "resize": embedder.resize,
            "image_size": str(known["image_size"]),
            "precision": known["precision"],
            "apply_exif": str(bool(embedder.apply_exif)),
            "normalize": str(bool(embedder.normalize)),
        }

    @property
    def setting(self):
        """Digest of the fingerprint under which rows are kept."""
        # Rows are kept before normalisation; the name of an architecture says no more
        # than its configuration.
        decisive = {
            key: value
            for key, value in self.fingerprint.items()
            if key not in ("architecture", "normalize")
        }
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


def recall_encoder(embedder, cache):
    """Return the description of an encoder that a cache remembers, or None.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Its parameters.

    cache : EmbeddingMemo or EmbeddingCache
        Where to look.

    Returns
    -------
    description : dict or None
        None as well when the file of the weights has changed since.
    """
    description = cache.described(_identity(embedder)[0])
    if description is None:
        return None
    try:
        now = signature_of(description["file"][0])
    except OSError:
        return None
    return description if _as_json(now) == description["file"] else None


def feature_width(embedder, cache):
    """Return the width of an embedder's rows, without building the encoder.

    Parameters
    ----------
    embedder : CLIPEmbedder
        Its parameters.

    cache : EmbeddingMemo or EmbeddingCache
        May remember the encoder; else its configuration is read.

    Returns
    -------
    n_features : int
    """
    from sklearn_clipsid._clip import feature_widths

    known = recall_encoder(embedder, cache)
    if known is not None:
        widths = known["widths"]
    else:
        widths = feature_widths(
            embedder.model_name, embedder.pretrained, **embedder._weights_place()
        )
    _check_features(embedder, widths)
    if embedder.features == "projected":
        return widths["projected"]
    if embedder.features == "heads":
        n_heads = embedder.head_blocks * widths["n_heads"]
        return (n_heads + 1) * widths["projected"]
    n_blocks = widths["n_blocks"] if embedder.features == "blocks" else 1
    return n_blocks * widths["pooled"]


def _check_features(embedder, widths):
    if embedder.features == "projected":
        return
    if "pooled" not in widths:
        raise ValueError(
            f"Got features={embedder.features!r} for {embedder.model_name}, which is "
            "none of open_clip's own ViT models, but expected 'projected' with it."
        )
    if embedder.features == "heads" and embedder.head_blocks > widths["n_blocks"]:
        raise ValueError(
            f"Got head_blocks={embedder.head_blocks} for {embedder.model_name} but "
            f"expected at most {widths['n_blocks']}, the number of its blocks; lower "
            "head_blocks."
        )
    if not isinstance(embedder.features, str):
        block_index(embedder.features, widths["n_blocks"])


def _name_of(features):
    if isinstance(features, tuple):
        return f"{features[0]} of the last {features[1]} blocks"
    return str(features)


def _describe(tower):
    return {
        "architecture": tower.encoder.name,
        "config": tower.encoder.config_digest(),
        "weights": tower.weights_digest,
        "image_size": tower.recipe.size,
        "precision": tower.precision,
        "device": tower.device,
        "widths": tower.encoder.feature_widths(),
        "file": _as_json(tower.file),
    }


def _identity(embedder):
    """Return how an encoder is asked for, and the local files that are named."""
    from sklearn_clipsid._clip import local_signatures

    files = local_signatures(embedder.model_name, embedder.pretrained)
    asked = {
        "model_name": embedder.model_name,
        "pretrained": embedder.pretrained,
        "files": [_as_json(file) for file in files],
        "precision": embedder.precision,
        **embedder._place(),
        "host": platform.node(),
        "versions": [_version("open_clip_torch"), _version("torch")],
        **{name: os.environ.get(name) for name in SURROUNDINGS},
    }
    del asked["local_files_only"]  # decides whether weights are found, not which
    return json.dumps(asked, sort_keys=True), files


def _as_json(signature):
    return [os.fsdecode(signature.path), *signature[1:]]


def check_same_encoder(fitted, fingerprint):
    """Refuse to embed with another encoder than a pipeline was fitted with."""
    if not fitted:
        return
    # The name says where the weights came from: a tag, or a folder of another name
    # with the same weights and configuration.
    changed = [
        key
        for key in sorted(fitted.keys() | fingerprint.keys())
        if key != "architecture" and fitted.get(key) != fingerprint.get(key)
    ]
    if not changed:
        return
    difference = ", ".join(
        f"{key} {fingerprint.get(key)!r}, fitted with {fitted.get(key)!r}"
        for key in changed
    )
    if changed != ["precision"]:
        raise ValueError(
            f"Got an encoder that is not the one this pipeline was fitted with "
            f"({difference}); use the same model, weights and settings, or fit again."
        )
    warn_user(
        f"Embedding at another precision than the detector was fitted at "
        f"({difference}): scores shift slightly. Set precision="
        f"{fitted['precision']!r} for the same numbers."
    )
