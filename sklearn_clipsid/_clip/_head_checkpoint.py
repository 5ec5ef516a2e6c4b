"""Read the arrays of a published head from a checkpoint, and refuse all else in it."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np

from sklearn_clipsid._clip._checkpoint import (
    _is_safetensors,
    _is_torchscript,
    _load_safetensors,
)

# Under one of these keys a checkpoint may keep its tensors.
WRAPPERS = ("state_dict", "model", "net")
# Facts that may stand beside them, such as the number of an epoch.
FACTS = (str, int, float, bool, type(None))
# A head has a few thousand numbers. A tensor that claims more may be a small storage
# expanded without end, which a copy would write out.
MAX_NUMBERS = 2**24
LFS_POINTER = b"version https://git-lfs"


def read_head_arrays(path: str) -> dict[str, np.ndarray]:
    """Read every tensor of a small checkpoint without running any code in it.

    Parameters
    ----------
    path : str
        A .safetensors file, or a file of ``torch.save`` under any name, which holds
        tensors, alone or under "state_dict", "model" or "net".

    Returns
    -------
    arrays : dict of str to ndarray
        In double precision, under the names of the file.

    Raises
    ------
    ValueError
        When the file holds anything but finite tensors and plain facts beside them.
    """
    import torch

    _check_file(path)
    loaded = _load_safetensors(path) if _is_safetensors(path) else _load_torch(path)
    tensors = _unwrap(loaded, path)
    odd = {
        str(key): type(value).__name__
        for key, value in tensors.items()
        if not isinstance(value, torch.Tensor) or not isinstance(key, str)
    }
    if odd or not tensors:
        raise ValueError(_refusal(path, odd or "nothing"))
    return {key: _as_array(key, value, path) for key, value in tensors.items()}


def _check_file(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Got {path!r} but there is no such file; give the path of a checkpoint."
        )
    with open(path, "rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"Got {path!r}, which only points to a checkpoint in Git LFS, but "
                "expected the checkpoint; type `git lfs pull` in the clone it is from."
            )


def _load_torch(path: str) -> Any:
    import torch

    if _is_torchscript(path):
        raise ValueError(_refusal(path, "a TorchScript program"))
    try:
        # Only the newer format, an archive, can be mapped instead of read.
        is_archive = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    # A damaged or malicious file makes the restricted unpickler fail in any way. Its
    # message is not quoted whole, as it explains how to switch the restriction off.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reasons = [line for line in lines if line.startswith("WeightsUnpickler error")]
        reason = (reasons or [type(error).__name__])[0].partition(". Please")[0]
        raise ValueError(_refusal(path, f"something else ({reason:.160})")) from error


def _unwrap(loaded: Any, path: str) -> dict[Any, Any]:
    if not isinstance(loaded, dict):
        raise ValueError(_refusal(path, f"one {type(loaded).__name__}"))
    for wrapper in WRAPPERS:
        if isinstance(loaded.get(wrapper), dict):
            odd = {
                str(key): type(value).__name__
                for key, value in loaded.items()
                if key != wrapper and not isinstance(value, FACTS)
            }
            if odd:
                raise ValueError(_refusal(path, odd))
            return loaded[wrapper]
    return loaded


def _as_array(key: str, tensor: Any, path: str) -> np.ndarray:
    import torch

    is_plain = (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
    )
    if not is_plain or tensor.numel() > MAX_NUMBERS:
        raise ValueError(
            _refusal(path, {key: f"{tensor.dtype} of shape {tuple(tensor.shape)}"})
        )
    array = tensor.detach().to(torch.float64, copy=True).numpy()
    if not np.isfinite(array).all():
        raise ValueError(
            f"Got {path!r}, whose tensor {key!r} holds NaN or infinity, but expected "
            "finite weights; get the file again."
        )
    return array


def _refusal(path: str, held: dict[str, str] | str) -> str:
    if isinstance(held, dict):
        held = ", ".join(f"{key!r} ({kind})" for key, kind in sorted(held.items())[:5])
    return (
        f"Got {path!r}, which holds {held}, but expected the floating-point tensors of "
        "one head and nothing else; nothing else is ever unpickled. Get the published "
        "file, or save only head.state_dict()."
    )
