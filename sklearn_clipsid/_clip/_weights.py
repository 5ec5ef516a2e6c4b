"""Find, check and read the checkpoint that a model name and a tag or file stand for."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sklearn_clipsid._clip._checkpoint import read_metadata
from sklearn_clipsid._clip._download import (
    CONFIG_NAME,
    WEIGHTS_NAMES,
    download_tag,
    download_weights,
    hub_file,
    weights_in_folder,
)
from sklearn_clipsid._warn_user import warn_user

SCHEMAS = ("hf-hub:", "local-dir:")
# What open_clip's transforms can do, its own default first.
KNOWN_PREPROCESSING = {
    "interpolation": ("bicubic", "bilinear"),
    "resize_mode": ("shortest", "longest", "squash"),
}
# Digests of weights and configuration -> where this process read them, so that a
# detector saved without machine paths finds its encoder again (see persistence.load).
_SEEN_WEIGHTS: dict[tuple[str, str], tuple[str, str]] = {}


@dataclass(frozen=True)
class Recipe:
    """How an RGB image becomes the model's input tensor."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    geometry: str = "shortest"  # "shortest" | "longest" | "squash" | "crop"
    fill: int = 0

    def with_resize(self, resize: str) -> Recipe:
        """Return the recipe that the `resize` parameter of CLIPEmbedder names."""
        if resize == "bilinear":
            return replace(self, interpolation="bilinear", geometry="shortest")
        if resize in ("crop", "squash"):
            return replace(self, geometry=resize)
        return self


@dataclass(frozen=True)
class Encoder:
    """A resolved encoder: its architecture, its preprocessing, and where it lies."""

    name: str
    config: dict[str, Any]
    recipe: Recipe
    path: str
    quick_gelu: bool | None  # what the weights declare; None when they do not

    def config_digest(self) -> str:
        """Digest of what, beside the weights, decides the numbers."""
        from open_clip.model import CLIPVisionCfg

        # Settings at their default are left out, so that neither a new one in
        # open_clip nor one that is spelled out makes another encoder.
        defaults = vars(CLIPVisionCfg()) | {"timm_model_pretrained": None}
        vision = {
            key: value
            for key, value in self.config["vision_cfg"].items()
            if key != "timm_model_pretrained" and value != defaults.get(key)
        }
        recipe = self.recipe
        described = {
            "embed_dim": self.config["embed_dim"],
            "vision_cfg": vision,
            "quick_gelu": bool(self.config.get("quick_gelu", False)),
            "recipe": [recipe.size, *recipe.mean, *recipe.std],
            "resize": [recipe.interpolation, recipe.geometry, recipe.fill],
        }
        text = json.dumps(described, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def feature_widths(self) -> dict[str, int]:
        """Return the widths of the features, as `feature_widths` does."""
        return _feature_widths(self.config)


def known_weights(weights: str, config: str) -> tuple[str, str] | None:
    """Return (model_name, pretrained) of an encoder built earlier in this process."""
    return _SEEN_WEIGHTS.get((weights, config))


def remember_weights(
    weights: str, config: str, model_name: str, pretrained: str
) -> None:
    """Note where the weights and configuration of these digests were read."""
    _SEEN_WEIGHTS[weights, config] = (model_name, pretrained)


def feature_widths(
    model_name: str,
    pretrained: str,
    *,
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> dict[str, int]:
    """Return the widths of the features of a model, without building it.

    Parameters
    ----------
    model_name, pretrained, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    widths : dict
        "projected", and for open_clip's own ViT "pooled", "n_blocks" and "n_heads" (of
        one block).
    """
    config = read_config(model_name, pretrained, weights_dir, local_files_only)[1]
    return _feature_widths(config)


def _feature_widths(config: dict[str, Any]) -> dict[str, int]:
    widths = {"projected": int(config["embed_dim"])}
    vision = config["vision_cfg"]
    if isinstance(vision.get("layers"), int) and not vision.get("timm_model_name"):
        widths["pooled"] = int(vision["width"])
        widths["n_blocks"] = int(vision["layers"])
        widths["n_heads"] = widths["pooled"] // int(vision.get("head_width", 64))
    return widths


def resolve_encoder(
    model_name: str,
    pretrained: str,
    *,
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> Encoder:
    """Locate a checkpoint, downloading it when a tag or hub name asks for that.

    Parameters
    ----------
    model_name, pretrained, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    encoder : Encoder
        With a local path. A QuickGELU mismatch has been refused.
    """
    name, config, preprocess = read_config(
        model_name, pretrained, weights_dir, local_files_only
    )
    quick_gelu = config.get("quick_gelu", False)
    schema = schema_of(model_name, pretrained)
    if schema == "local-dir:":
        path = weights_in_folder(Path(_schema_target(model_name, pretrained)))
    elif schema == "hf-hub:":
        repo = _schema_target(model_name, pretrained)
        path = download_weights(repo, "", weights_dir, local_files_only)
    elif is_local_file(name, pretrained):
        path = pretrained
        preprocess, quick_gelu = declared_by_file(path, name)
    else:
        preprocess = tag_config(name, pretrained)
        # A tag that declares nothing was trained as its architecture's config says.
        quick_gelu = preprocess.get("quick_gelu", quick_gelu)
        path = download_tag(preprocess, weights_dir, local_files_only)
    encoder = Encoder(
        name=name,
        config=config,
        recipe=recipe_of(name, config, preprocess),
        path=str(path),
        quick_gelu=quick_gelu,
    )
    _refuse_other_activation(encoder, pretrained)
    return encoder


def schema_of(model_name: str, pretrained: str) -> str | None:
    """Return "hf-hub:" or "local-dir:", None for a tag or a file."""
    for schema in SCHEMAS:
        if model_name.startswith(schema) or pretrained.startswith(schema):
            return schema
    return None


def _schema_target(model_name: str, pretrained: str) -> str:
    """Return the folder or repository of a schema, or the plain model name."""
    if model_name.startswith(SCHEMAS) or not pretrained.startswith(SCHEMAS):
        return model_name.removeprefix(SCHEMAS[0]).removeprefix(SCHEMAS[1])
    return pretrained.partition(":")[2]


def is_local_file(name: str, pretrained: str) -> bool:
    """Say whether `pretrained` is a checkpoint on this machine, not a tag."""
    import open_clip

    # A file that happens to be called "openai" does not shadow the tag.
    is_tag = bool(open_clip.get_pretrained_cfg(name, pretrained))
    return not is_tag and os.path.isfile(pretrained)


def local_files(model_name: str, pretrained: str) -> list[str]:
    """List the local files that a model would be read from, there or not."""
    schema = schema_of(model_name, pretrained)
    if schema == "local-dir:":
        folder = Path(_schema_target(model_name, pretrained))
        return [str(folder / name) for name in (CONFIG_NAME, *WEIGHTS_NAMES)]
    if schema is None:
        return [pretrained, os.path.join(os.path.dirname(pretrained), CONFIG_NAME)]
    return []


def tokenizer_name(model_name: str, pretrained: str) -> str:
    """Return the name under which open_clip finds the tokenizer of a model."""
    schema = schema_of(model_name, pretrained)
    return (schema or "") + _schema_target(model_name, pretrained)


def read_config(
    model_name: str, pretrained: str, weights_dir: str | None, local_files_only: bool
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the architecture's name, its config and the declared preprocessing."""
    import open_clip

    schema = schema_of(model_name, pretrained)
    if schema is None:
        config = open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(
                _unknown("model_name", model_name, open_clip.list_models())
            )
        return model_name, config, {}
    target = _schema_target(model_name, pretrained)
    if schema == "local-dir:":
        path = str(Path(target) / CONFIG_NAME)
        if not os.path.isfile(path):
            raise ValueError(
                f"Got {schema}{target!r} but expected a folder that holds "
                f"{CONFIG_NAME} and the weights; copy both files of the model's "
                "repository into it."
            )
    else:
        path = hub_file(target, CONFIG_NAME, weights_dir, local_files_only)
    config, preprocess = _read_declared(path)
    return Path(target).resolve().name, config, preprocess


def _read_declared(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the architecture and the preprocessing that a config file declares."""
    try:
        declared = json.loads(Path(path).read_text(encoding="utf-8"))
        config = declared.get("model_cfg", declared)
        if not {"embed_dim", "vision_cfg"} <= config.keys():
            raise KeyError("no embed_dim and vision_cfg")
        return config, dict(declared.get("preprocess_cfg") or {})
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"Got {str(path)!r}, which is no model configuration ({error}), but "
            "expected JSON with 'model_cfg' and 'preprocess_cfg'; copy it from the "
            "model's repository again."
        ) from error


def _unknown(parameter: str, value: str, known: list[str]) -> str:
    near = difflib.get_close_matches(value, known, n=5, cutoff=0.4) or sorted(known)[:5]
    return (
        f"Got {parameter}={value!r} but expected one of open_clip's {len(known)}; "
        f"the nearest are {', '.join(map(repr, near))}. See open_clip.list_pretrained()"
        " for all, or name a folder as 'local-dir:FOLDER'."
    )


def tag_config(name: str, pretrained: str) -> dict[str, Any]:
    """Return what open_clip declares of a tag, or say what is wrong with it."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    found = open_clip.get_pretrained_cfg(name, pretrained)
    if found:
        return found
    if os.path.isdir(pretrained):
        raise ValueError(
            f"Got pretrained={pretrained!r}, which is a folder, but expected a file or "
            f"a tag; pass the checkpoint in it, or 'local-dir:{pretrained}' if "
            f"{CONFIG_NAME} lies beside it."
        )
    if any(c in pretrained for c in "/\\") or Path(pretrained).suffix in (
        ".pt",
        ".pth",
        ".bin",
        ".safetensors",
    ):
        raise ValueError(
            f"Got pretrained={pretrained!r} but there is no such file; give the path "
            f"of a checkpoint (persistence.load(file, pretrained=PATH) for a saved "
            f"detector) or one of the tags of {name}: {', '.join(tags)}."
        )
    near = difflib.get_close_matches(pretrained, tags, n=3, cutoff=0.4)
    raise ValueError(
        f"Got pretrained={pretrained!r} but expected a tag of {name}, a local file, "
        f"'hf-hub:ORG/REPO' or 'local-dir:FOLDER'; "
        + (f"the nearest tags are {', '.join(map(repr, near))}; " if near else "")
        + f"all tags: {', '.join(tags) or 'none'}."
    )


def recipe_of(name: str, config: dict[str, Any], preprocess: dict[str, Any]) -> Recipe:
    """Return how a model sees an image, from what its files declare."""
    size = config["vision_cfg"]["image_size"]
    if isinstance(size, (list, tuple)):
        if size[0] != size[1]:
            raise ValueError(
                f"Got {name}, whose input is {size[0]} x {size[1]} pixels, but "
                "expected a square input; choose another model."
            )
        size = size[0]
    preprocess = {**_agreed_preprocessing(name), **preprocess}
    for field, known in KNOWN_PREPROCESSING.items():
        if preprocess.setdefault(field, known[0]) not in known:
            raise ValueError(
                f"Got {name}, whose configuration says {field}={preprocess[field]!r}, "
                f"but expected one of {', '.join(known)}; choose another model."
            )
    return Recipe(
        size=int(size),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        interpolation=preprocess["interpolation"],
        geometry=preprocess["resize_mode"],
        fill=int(preprocess.get("fill_color", 0)),
    )


def _agreed_preprocessing(name: str) -> dict[str, Any]:
    """Preprocessing of most published tags of an architecture, for bare files.

    open_clip falls back to OpenAI's constants for every local file, which is wrong for
    SigLIP, MobileCLIP and others.
    """
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    fields = ("mean", "std", "interpolation", "resize_mode")
    described = [json.dumps([c[f] for f in fields]) for c in configs]
    if not described:
        return {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
    commonest = max(described, key=described.count)
    return dict(zip(fields, json.loads(commonest)))


def declared_by_file(path: str, name: str) -> tuple[dict[str, Any], bool | None]:
    """Return the preprocessing and activation that a local checkpoint declares."""
    import open_clip

    config_path = Path(path).with_name(CONFIG_NAME)
    if config_path.is_file():
        config, preprocess = _read_declared(str(config_path))
        return preprocess, config.get("quick_gelu", False)
    metadata = read_metadata(path)
    if "quick_gelu" in metadata:
        return {}, metadata["quick_gelu"].lower() == "true"
    # A file in a hub cache lies under models--ORG--REPO, which names the tag.
    repos = [p[8:].replace("--", "/") for p in Path(path).parts if p[:8] == "models--"]
    for model, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(model, tag)
        if config.get("hf_hub", "").rpartition("/")[0] in repos and model == name:
            return config, config.get("quick_gelu", False)
    return {}, None


def _refuse_other_activation(encoder: Encoder, pretrained: str) -> None:
    import open_clip

    built = bool(encoder.config.get("quick_gelu", False))
    twin = encoder.name.removesuffix("-quickgelu") + ("" if built else "-quickgelu")
    if encoder.quick_gelu is None:
        if twin in open_clip.list_models():
            warn_user(
                f"The file {pretrained!r} does not say whether its weights were "
                f"trained with QuickGELU; model_name={encoder.name!r} builds "
                f"{'QuickGELU' if built else 'GELU'} and {twin!r} the other, and the "
                "wrong one silently spoils every feature. Put the model's "
                f"{CONFIG_NAME} beside the file to have it checked."
            )
    elif bool(encoder.quick_gelu) != built:
        raise ValueError(
            f"Got model_name={encoder.name!r}, which builds "
            f"{'QuickGELU' if built else 'GELU'}, but pretrained={pretrained!r} was "
            f"trained with {'GELU' if built else 'QuickGELU'}; pass "
            f"model_name={twin!r}."
        )
