"""Read the arrays of a published head from a checkpoint, and refuse all else in it."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np

from sklearn_clipsid._clip._checkpoint import (
    is_safetensors,
    is_torchscript,
    load_safetensors,
)

# Under one of these keys a checkpoint may keep its tensors.
WRAPPERS = ("state_dict", "model", "net")
# Facts that may stand beside them, such as the number of an epoch.
FACTS = (str, int, float, bool, type(None))
# The published heads have up to 258,385 numbers, 1 MB. A small file can claim any size,
# by compression or by tensors that repeat one number, which a copy would write out.
MAX_BYTES, MAX_NUMBERS = 2**27, 2**25
# Products of larger numbers would overflow.
LARGEST = float(np.finfo(np.float32).max)
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
    _check_file(path)
    loaded = load_safetensors(path) if is_safetensors(path) else _load_torch(path)
    tensors = _unwrap(loaded, path)
    odd = {key: _fault(key, value) for key, value in tensors.items()}
    odd = {str(key): fault for key, fault in odd.items() if fault}
    if odd or not tensors:
        raise ValueError(_refusal(path, odd or "nothing"))
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    if n_numbers > MAX_NUMBERS:
        raise ValueError(_refusal(path, f"tensors of {n_numbers:,} numbers"))
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
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise ValueError(
            f"Got {path!r} of {size:,} bytes, but expected a head, of at most "
            f"{MAX_BYTES:,}; pass its file, not the weights of the encoder."
        )


def _load_torch(path: str) -> Any:
    import torch

    if is_torchscript(path):
        raise ValueError(_refusal(path, "a TorchScript program"))
    if zipfile.is_zipfile(path):
        _check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or malicious file makes the restricted unpickler fail in any way. Its
    # message is not quoted whole, as it explains how to switch the restriction off.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reasons = [line for line in lines if line.startswith("WeightsUnpickler error")]
        held = f"nothing that can be read as a checkpoint ({type(error).__name__})"
        if reasons:
            held = f"something else ({reasons[0].partition('. Please')[0]:.160})"
        raise ValueError(_refusal(path, held)) from error


def _check_archive(path: str) -> None:
    """Refuse a file of the newer format that unpacks to too much, or is damaged.

    torch.load takes weights whose checksum is wrong for what they are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            damaged = archive.testzip() if size <= MAX_BYTES else None
    except Exception as error:
        damaged, size = type(error).__name__, 0
    if size > MAX_BYTES:
        raise ValueError(_refusal(path, f"an archive that unpacks to {size:,} bytes"))
    if damaged is not None:
        raise ValueError(_refusal(path, f"a damaged archive ({damaged:.60})"))


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


def _fault(key: Any, value: Any) -> str | None:
    """Say what an entry is, unless it is a floating-point tensor under a name."""
    import torch

    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.layout != torch.strided:
        return str(value.layout)
    if value.device.type != "cpu":
        return f"on the device {value.device}"
    if not value.is_floating_point():
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return None


def _as_array(key: str, tensor: Any, path: str) -> np.ndarray:
    import torch

    array = tensor.detach().to(torch.float64, copy=True).numpy()
    if not (np.abs(array) <= LARGEST).all():
        raise ValueError(
            f"Got {path!r}, whose tensor {key!r} holds NaN, infinity or numbers above "
            f"{LARGEST:.1g}, but expected finite weights; get the file again."
        )
    return array


def _refusal(path: str, held: dict[str, Any] | str) -> str:
    if isinstance(held, dict):
        first = sorted(held.items())[:5]
        held = ", ".join(f"{key!r:.60} ({kind})" for key, kind in first)
    return (
        f"Got {path!r}, which holds {held}, but expected the floating-point tensors of "
        "one head and nothing else; nothing else is ever unpickled. Get the published "
        "file, or save only head.state_dict()."
    )
