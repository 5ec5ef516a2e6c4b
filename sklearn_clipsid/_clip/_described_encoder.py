"""Describe an encoder by its name, without its weights."""

from __future__ import annotations

from typing import Any

from sklearn_clipsid._clip._weights import (
    Encoder,
    declared_by_file,
    is_local_file,
    read_config,
    recipe_of,
    schema_of,
    tag_config,
)


def describe_encoder(
    model_name: str,
    pretrained: str,
    *,
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """Return what can be known of an encoder before its weights are there.

    Parameters
    ----------
    model_name, pretrained, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    facts : dict
        Architecture and preprocessing, and under "config" their digest as in the
        fingerprint of an embedder. "tag" is that of open_clip, None for files and
        repositories.
    """
    name, config, preprocess = read_config(
        model_name, pretrained, weights_dir, local_files_only
    )
    tag = None
    if schema_of(model_name, pretrained) is None:
        if is_local_file(name, pretrained):
            preprocess, _ = declared_by_file(pretrained, name)
        else:
            preprocess, tag = tag_config(name, pretrained), pretrained
    recipe = recipe_of(name, config, preprocess)
    encoder = Encoder(name, config, recipe, path="", quick_gelu=None)
    vision = config["vision_cfg"]
    return {
        "width": vision.get("width"),
        "layers": vision.get("layers"),
        "patch_size": vision.get("patch_size"),
        "image_size": recipe.size,
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
        "interpolation": recipe.interpolation,
        "geometry": recipe.geometry,
        "mean": recipe.mean,
        "std": recipe.std,
        "tag": tag,
        "config": encoder.config_digest(),
    }
