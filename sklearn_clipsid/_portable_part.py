"""Take what belongs to one machine out of an estimator."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from sklearn_clipsid._clip_embedder import CLIPEmbedder
from sklearn_clipsid._precomputed_embedder import PrecomputedEmbedder

# Parameters that users give as frames or lists.
VOCABULARY = {"concept_embeddings", "concept_names", "text_embeddings", "texts"}


def leave_machine_behind(part: Any) -> None:
    """Take folders and devices out of a part; a file must not choose them either.

    Parameters
    ----------
    part : object
        An estimator or what one holds, without its own parts. It is changed.
    """
    state = getattr(part, "__dict__", {})
    for name in VOCABULARY & state.keys():
        # A frame cannot be read back, and a list would fill the model card.
        if state[name] is not None:
            state[name] = np.asarray(state[name])
    if "memory" in state:  # of a pipeline, where joblib unpickles what it finds
        state["memory"] = None
    for name in {"views_dir", "checkpoint_dir"} & state.keys():
        state[name] = None
    if {"cv", "score_path_"} <= state.keys():
        # Of a fitted ComponentEliminator or HeadSelector, whose choice is made.
        state["cv"] = None
    if isinstance(part, CLIPEmbedder):
        part.set_params(
            cache_dir=None,
            weights_dir=None,
            device="auto",
            model_name=_without_folder(part.model_name),
            pretrained=_without_folder(part.pretrained),
        )
    elif isinstance(part, PrecomputedEmbedder):
        folder = getattr(part.store, "folder", part.store)  # of an EmbeddingStore
        part.set_params(store=_without_folder(str(folder)))


def _without_folder(name: str) -> str:
    """Keep tags and hub names; of a local path keep only the last part."""
    if name.startswith("hf-hub:"):
        return name
    schema = "local-dir:" if name.startswith("local-dir:") else ""
    parts = re.split(r"[\\/]", name.removeprefix(schema).rstrip("\\/"))
    return schema + parts[-1]
