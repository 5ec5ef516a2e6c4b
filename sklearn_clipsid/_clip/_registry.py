"""Keep a few built towers for the whole process, each built once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sklearn_clipsid._clip._tower import ImageTower, TextTower
from sklearn_clipsid._clip._weights import (
    local_files,
    remember_weights,
    resolve_encoder,
    tokenizer_name,
)
from sklearn_clipsid._content_hash import FileSignature, signature_of

_lock = threading.RLock()
_towers: OrderedDict[tuple, Any] = OrderedDict()
_used = False
_forked_after_use = False


def get_image_tower(
    model_name: str,
    pretrained: str,
    *,
    precision: str = "fp32",
    device: str = "auto",
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> ImageTower:
    """Return the built image tower, building it when this process has not yet.

    Parameters
    ----------
    model_name, pretrained, precision, device, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    tower : ImageTower
        Shared by every estimator and thread of the process.
    """
    _refuse_after_fork()
    device = resolve_device(device)
    precision = resolve_precision(precision, device)

    def build() -> ImageTower:
        encoder = resolve_encoder(
            model_name,
            pretrained,
            weights_dir=weights_dir,
            local_files_only=local_files_only,
        )
        tower = ImageTower(encoder, device, precision)
        remember_weights(
            tower.weights_digest, encoder.config_digest(), model_name, pretrained
        )
        return tower

    files = local_signatures(model_name, pretrained)
    key = ("image", model_name, pretrained, *files, precision, device)
    return _get_or_build(key, build)


def get_text_tower(
    model_name: str,
    pretrained: str,
    *,
    device: str = "auto",
    weights_dir: str | None = None,
    local_files_only: bool = False,
) -> TextTower:
    """Return the built text tower, building it when this process has not yet.

    Parameters
    ----------
    model_name, pretrained, device, weights_dir, local_files_only
        As in CLIPEmbedder.

    Returns
    -------
    tower : TextTower
        Shared by every estimator and thread of the process.
    """
    _refuse_after_fork()
    device = resolve_device(device)

    def build() -> TextTower:
        encoder = resolve_encoder(
            model_name,
            pretrained,
            weights_dir=weights_dir,
            local_files_only=local_files_only,
        )
        return TextTower(encoder, tokenizer_name(model_name, pretrained), device)

    files = local_signatures(model_name, pretrained)
    return _get_or_build(("text", model_name, pretrained, *files, device), build)


def resolve_device(device: str | None) -> str:
    """Name the torch device that `device` means on this machine."""
    import torch

    if device not in ("auto", None, "cpu"):
        try:
            torch.empty(0, device=device)
        # torch raises RuntimeError, AssertionError or NotImplementedError here.
        except Exception as error:
            reason = (str(error).splitlines() or [repr(error)])[0]
            raise ValueError(
                f"Got device={device!r}, which torch cannot use on this machine "
                f"({reason}); pass device='auto' or 'cpu'."
            ) from error
    if device not in ("auto", None):
        return str(device)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """Name the number format that `precision` means on a device."""
    import torch

    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # Without tile registers bf16 gains little on a CPU and may lose. The question is
    # private to torch, and may move.
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16" if device == "cpu" and has_tiles() else "fp32"


def local_signatures(model_name: str, pretrained: str) -> list[FileSignature]:
    """Describe the local files that a model would be read from.

    Parameters
    ----------
    model_name, pretrained
        As in CLIPEmbedder.

    Returns
    -------
    signatures : list of FileSignature
        Of those that are there, so that replaced files are told from known ones.
    """
    paths = local_files(model_name, pretrained)
    return [signature_of(path) for path in paths if os.path.isfile(path)]


def _get_or_build(key: tuple, build: Callable[[], Any]) -> Any:
    global _used
    with _lock:
        if key not in _towers:
            # Before building, as another thread may fork meanwhile.
            _used = True
            tower = build()
            _towers[key] = tower
            while len(_towers) > max(1, _max_models()):
                _towers.popitem(last=False)
        _towers.move_to_end(key)
        return _towers[key]


def _max_models() -> int:
    text = os.environ.get("SKLEARN_CLIPSID_MAX_MODELS", "2")
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"Got SKLEARN_CLIPSID_MAX_MODELS={text!r} but expected a whole number of "
            "models to keep built; unset the variable or give it one."
        ) from error


def _refuse_after_fork() -> None:
    if _forked_after_use:
        raise RuntimeError(
            "This process was forked from one that had already run a CLIP model, and "
            "torch would wait forever for threads that did not survive the fork. Use "
            "joblib's 'loky' backend (scikit-learn's default for n_jobs), the 'spawn' "
            "start method, or fork before the first embedding."
        )


def _forget_in_child() -> None:
    """Drop the parent's towers and locks, whose threads are gone after a fork."""
    global _lock, _forked_after_use
    _forked_after_use = _used
    _lock = threading.RLock()
    _towers.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_in_child)
