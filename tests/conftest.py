import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Images, embeddings and published outputs that may not be redistributed lie beside
# the project where its developers have them.
SHARED = Path(os.environ.get("CLIPSID_TEST_DATA", ROOT.parent / "shared"))
DEMO_ENCODER = ROOT / "build" / "demo_encoder" / "ViT-B-16-quickgelu.safetensors"

# A CLIP of random weights that builds in a blink.
TINY_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 64,
        "patch_size": 8,
        "head_width": 32,
    },
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 2},
}
TINY_PREPROCESSING = {
    "mean": [0.48, 0.45, 0.40],
    "std": [0.26, 0.26, 0.27],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# Tests switch between more models than users do.
os.environ.setdefault("SKLEARN_CLIPSID_MAX_MODELS", "8")


def _existing(path, reason):
    if not path.exists():
        pytest.skip(reason)
    return path


@pytest.fixture(autouse=True)
def _one_thread_for_tiny_models(request):
    # Threads that share a tiny product wait for one another, on a busy machine for
    # forty times as long as the product takes.
    torch = sys.modules.get("torch")
    if torch is None or request.node.get_closest_marker("real_clip"):
        yield
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module", autouse=True)
def _workers_of_its_own():
    # The workers of one module have not imported torch. loky takes the import for a
    # leak of memory and replaces them, which now and then it never finishes.
    yield
    executors = sys.modules.get("joblib.externals.loky.reusable_executor")
    if executors is not None and executors._executor is not None:
        executors._executor.shutdown(wait=True)


@pytest.fixture(scope="session")
def demo_encoder():
    """Path of the real CLIP ViT-B/16 image tower."""
    return _existing(
        DEMO_ENCODER,
        "the demo encoder is not here: run `python tools/fetch_demo_encoder.py`",
    )


@pytest.fixture(scope="session")
def shared_images():
    """Folder of 712 real images with a manifest, not redistributable."""
    return _existing(
        SHARED / "data" / "images",
        "the images may not be redistributed and are not on this machine",
    )


@pytest.fixture(scope="session")
def oracles():
    """Folder of published checkpoints and reference outputs."""
    return _existing(
        SHARED / "oracles", "the published reference outputs are not on this machine"
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def write_tiny_clip():
    """Function that fills a folder with both towers of a random CLIP and its config."""

    def write(folder, *, seed=0, config=TINY_CONFIG, preprocessing=TINY_PREPROCESSING):
        import open_clip
        import torch
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = open_clip.CLIP(**config).state_dict()
        save_file(
            {key: value.contiguous() for key, value in state.items()},
            folder / "open_clip_model.safetensors",
        )
        declared = {"model_cfg": config, "preprocess_cfg": preprocessing}
        (folder / "open_clip_config.json").write_text(json.dumps(declared))
        return f"local-dir:{folder}"

    return write


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory, write_tiny_clip):
    """Name of a random CLIP with both towers: 3 blocks of width 64, 32 pixels."""
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="session")
def image_files(tmp_path_factory):
    """Paths of nine small PNG files of noise, all different."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(7)
    paths = []
    for index in range(9):
        size = (40 + index, 50, 3)
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def fresh_memo():
    """Forget all embeddings before and after a test."""
    from sklearn_clipsid._embedding_memo import MEMO

    MEMO.clear()
    yield MEMO
    MEMO.clear()


@pytest.fixture
def encoded(fresh_memo, monkeypatch):
    """List of the sizes of the batches that were embedded, starting from nothing."""
    from sklearn_clipsid._clip._tower import ImageTower

    batches = []
    encode = ImageTower.encode

    def counted(tower, pixels, features):
        batches.append(len(pixels))
        return encode(tower, pixels, features)

    monkeypatch.setattr(ImageTower, "encode", counted)
    return batches


@pytest.fixture
def plt():
    """Return pyplot without a window, and close what was drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")
