"""Logits of images as scaled cosines to a vector for each class, as CLIP makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sklearn_clipsid._clip._tower import TextTower
from sklearn_clipsid._clip._tunable_tower import TunableTower

CLASS_VECTORS, LOG_SCALE = "class_vectors", "log_scale"
TEXT = "text."  # before the names of the text tower's tensors


class CosineModel:
    """Logits of images as scaled cosines to class vectors.

    Parameters
    ----------
    tower : TunableTower
        Makes the embeddings.

    text : tuple of TextTower and list of str, default=None
        A text tower that is trained too, and the captions that it makes the class
        vectors of. None trains the class vectors themselves.
    """

    def __init__(
        self, tower: TunableTower, text: tuple[TextTower, list[str]] | None = None
    ) -> None:
        self.tower = tower
        self._text = text

    @property
    def trains_text(self) -> bool:
        """Whether class vectors are made by a text tower that is trained."""
        return self._text is not None

    def start_of_text(self) -> dict[str, np.ndarray]:
        """Return the tensors of the text tower, as they are before training."""
        if self._text is None:
            return {}
        state = self._text[0]._module.named_parameters()
        return {TEXT + name: value.cpu().numpy().copy() for name, value in state}

    def class_vectors(self, tensors: Mapping[str, Any]) -> Any:
        """Return the class vectors, (n_classes, d_projected)."""
        if self._text is None:
            return tensors[CLASS_VECTORS]
        from torch.func import functional_call

        tower, captions = self._text
        own = {
            name.removeprefix(TEXT): value
            for name, value in tensors.items()
            if name.startswith(TEXT)
        }
        tokens = tower._tokenizer(captions).to(tower.device)
        vectors = functional_call(tower._module, own, (tokens,))
        return vectors[0] if isinstance(vectors, tuple) else vectors

    def class_vector_array(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the class vectors of trained arrays, (n_classes, d_projected)."""
        import torch

        with torch.no_grad():
            return self.class_vectors(self.tower.to_tensors(arrays)).cpu().numpy()

    def logits(self, tensors: Mapping[str, Any], rows: np.ndarray) -> Any:
        """Return the logits, (n_images, n_classes), differentiable in the tensors."""
        from torch.nn.functional import normalize

        f = normalize(self.tower.embed(tensors, rows)[1], dim=1)
        g = normalize(self.class_vectors(tensors), dim=1)
        return tensors[LOG_SCALE].exp() * (f @ g.T)

    def loss(
        self,
        tensors: Mapping[str, Any],
        rows: np.ndarray,
        codes: np.ndarray,
        weights: np.ndarray,
    ) -> Any:
        """Return the mean weighted cross-entropy over the class captions."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = self.logits(tensors, rows)
        target = torch.from_numpy(codes).to(logits.device)
        weight = torch.from_numpy(weights).to(logits)
        return (weight * cross_entropy(logits, target, reduction="none")).mean()
