"""Shards on a cluster of processes, one of which is killed."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from PIL import Image

from sklearn_clipsid import CLIPEmbedder, embed_to_shards

pytest.importorskip("pyarrow")
distributed = pytest.importorskip("distributed")

N_IMAGES, SHARD_SIZE = 2000, 100


class CountModels(distributed.WorkerPlugin):
    """Note in a file who builds a model, also in workers that replace dead ones."""

    def __init__(self, log):
        self.log = log

    def setup(self, worker):
        image_tower = CLIPEmbedder._image_tower

        def prepared(embedder):
            # Not before, as a worker that comes too late need not import torch.
            CLIPEmbedder._image_tower = image_tower
            self.count()
            return embedder._image_tower()

        CLIPEmbedder._image_tower = prepared

    def count(self):
        import torch

        from sklearn_clipsid._clip import _registry

        torch.set_num_threads(1)
        build = _registry.ImageTower

        def counted(*args):
            with open(self.log, "a") as log:
                log.write(f"{os.getpid()}\n")
            return build(*args)

        _registry.ImageTower = counted


@pytest.fixture
def client(tmp_path):
    import dask

    settings = {
        "temporary-directory": str(tmp_path),
        # The cluster reports the worker that dies.
        "logging": {"distributed": "critical", "distributed.nanny": "critical"},
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def small_images(tmp_path):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (N_IMAGES, 24, 24, 3), dtype=np.uint8)
    paths = [str(tmp_path / f"{index}.bmp") for index in range(N_IMAGES)]
    for path, image in zip(paths, pixels):
        Image.fromarray(image).save(path)
    return paths


def kill_half_way(pid, folder, log, killed):
    def is_at_work():
        n_finished = len(list(folder.glob("manifest/manifest_*")))
        built = log.read_text().split() if log.exists() else []
        return n_finished >= N_IMAGES / SHARD_SIZE / 2 and str(pid) in built

    while not is_at_work():
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    killed["before the end"] = not (folder / "manifest.json").exists()


def test_a_cluster_completes_what_a_killed_worker_had_begun(
    client, small_images, tiny_clip, tmp_path
):
    log, folder = tmp_path / "models.txt", tmp_path / "embeddings"
    client.register_plugin(CountModels(str(log)))
    embedder = CLIPEmbedder(tiny_clip, batch_size=100, decode_threads=1)
    victim, killed = next(iter(client.run(os.getpid).values())), {}
    assassin = threading.Thread(
        target=kill_half_way, args=(victim, folder, log, killed), daemon=True
    )
    assassin.start()
    with joblib.parallel_config(backend="dask"):
        store = embed_to_shards(embedder, small_images, folder, shard_size=SHARD_SIZE)
    assassin.join(timeout=60)
    assert killed == {"before the end": True}

    store.verify()
    assert store.paths.to_pylist() == small_images
    assert store.failures() == {}
    expected = embedder.transform(small_images)
    np.testing.assert_allclose(store.take(slice(None)), expected, rtol=5e-3, atol=1e-4)
    assert not (folder / "partial").exists()

    built = log.read_text().split()
    assert len(built) == len(set(built)) >= 2
    assert str(os.getpid()) not in built
