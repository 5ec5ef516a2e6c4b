import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Images, embeddings and published outputs that may not be redistributed lie beside
# the project where its developers have them.
SHARED = Path(os.environ.get("CLIPSID_TEST_DATA", ROOT.parent / "shared"))
DEMO_ENCODER = ROOT / "build" / "demo_encoder" / "ViT-B-16-quickgelu.safetensors"


def _existing(path, reason):
    if not path.exists():
        pytest.skip(reason)
    return path


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
