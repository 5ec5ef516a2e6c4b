"""Read the tensors of one tower from a checkpoint, running none of its code."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import Any


def read_tensors(path: str) -> dict[str, Any]:
    """Read every tensor of a checkpoint without running any code in it.

    Parameters
    ----------
    path : str
        A .safetensors file, or a .pt file that holds a state dict.

    Returns
    -------
    tensors : dict of str to torch.Tensor
        With wrappers ("state_dict", "module.") taken off.
    """
    import torch

    loaded = load_safetensors(path) if is_safetensors(path) else _load_torch(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise ValueError(_not_a_checkpoint(path, ValueError(type(loaded).__name__)))
    tensors = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def is_safetensors(path: str) -> bool:
    """Say whether a file is to be read as safetensors."""
    return path.lower().endswith(".safetensors")


def load_safetensors(path: str) -> Any:
    """Return the tensors of a .safetensors file, which holds nothing else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(_not_a_checkpoint(path, error)) from error


def _load_torch(path: str) -> Any:
    import torch

    if is_torchscript(path):
        raise ValueError(
            f"Got {path!r}, a TorchScript program (OpenAI's original format), but "
            "expected a state dict; convert it once, in a place where you trust the "
            "file: torch.save(torch.jit.load(path).float().state_dict(), 'clip.pt')."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes the restricted unpickler fail in any way.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(_not_a_checkpoint(path, ValueError(reason))) from error


def is_torchscript(path: str) -> bool:
    """Say whether a file is an archive that holds a TorchScript program."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith("/constants.pkl") for n in archive.namelist())
    # A damaged directory fails in any way; whoever loads the file says so.
    except Exception:
        return False


def read_metadata(path: str) -> dict[str, str]:
    if not is_safetensors(path):
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(_not_a_checkpoint(path, error)) from error


def _not_a_checkpoint(path: str, error: Exception) -> str:
    return (
        f"Got {path!r}, which cannot be read as a checkpoint ({error}), but expected a "
        ".safetensors file or a .pt file that holds tensors only; nothing else is "
        "ever unpickled."
    )


def image_tensors(path: str) -> dict[str, Any]:
    """Return the image tower's tensors in fp32, named as the tower names them.

    Parameters
    ----------
    path : str
        An open_clip checkpoint of both towers or of the image tower alone.

    Returns
    -------
    tensors : dict of str to torch.Tensor
    """
    tensors = read_tensors(path)
    if any(key.startswith("visual.") for key in tensors):
        tensors = {
            key.removeprefix("visual."): value
            for key, value in tensors.items()
            if key.startswith("visual.")
        }
    elif any("vision_model." in key for key in tensors):
        raise ValueError(
            f"Got {path!r} in Hugging Face's format (keys 'vision_model.…') but "
            "expected open_clip's (keys 'visual.…'); use the open_clip conversion of "
            "the same weights, which the hub lists under the model's tag "
            "(open_clip.list_pretrained())."
        )
    elif not any(key in tensors for key in ("conv1.weight", "class_embedding")) and (
        not any(key.startswith("trunk.") for key in tensors)
    ):
        raise ValueError(
            f"Got {path!r} with the tensors {sorted(tensors)[:5]} … but expected an "
            "image tower (keys 'visual.…'); pass the checkpoint of a CLIP model."
        )
    return _in_fp32(tensors, path)


def _in_fp32(tensors: dict[str, Any], path: str) -> dict[str, Any]:
    import torch

    # Copies, as safetensors maps the file into memory: overwriting it would otherwise
    # change the built tower, and truncating it would end the process.
    tensors = {k: v.to(torch.float32, copy=True) for k, v in tensors.items()}
    bad = [key for key, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise ValueError(
            f"Got {path!r}, which holds NaN or infinity in {len(bad)} tensors "
            f"({', '.join(sorted(bad)[:3])}), but expected finite weights; get the "
            "file again."
        )
    return tensors


def text_tensors(path: str) -> dict[str, Any]:
    """Return the text tower's tensors in fp32, named as the tower names them.

    Parameters
    ----------
    path : str
        An open_clip checkpoint of both towers.

    Returns
    -------
    tensors : dict of str to torch.Tensor
    """
    tensors = read_tensors(path)
    others = ("visual.", "logit_scale", "logit_bias", "attn_mask", "text.attn_mask")
    text = {
        key.removeprefix("text."): value
        for key, value in tensors.items()
        if not key.startswith(others) and not key.startswith(("conv1.", "class_emb"))
    }
    if _text_tower_in(text) is None:
        raise ValueError(
            f"Got {path!r}, which holds no text tower, but embed_text needs one; pass "
            "a checkpoint of both towers."
        )
    return _in_fp32(text, path)


def text_tower_kind(path: str) -> str | None:
    """Say whose text tower a checkpoint holds.

    Parameters
    ----------
    path : str
        The checkpoint.

    Returns
    -------
    kind : {"open_clip", "hugging_face"} or None
    """
    return _text_tower_in(key.removeprefix("text.") for key in read_tensors(path))


def _text_tower_in(names: Iterable[str]) -> str | None:
    for name in names:
        if name == "token_embedding.weight":
            return "open_clip"
        if name.startswith("transformer.embeddings"):
            return "hugging_face"
    return None
