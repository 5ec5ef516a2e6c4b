import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.parallel import Parallel, delayed

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid._clip import _registry, get_image_tower


@pytest.fixture
def built(monkeypatch):
    """Names of the towers built, in an empty registry."""
    names = []
    build = _registry.ImageTower

    def recorded(encoder, *args):
        names.append(encoder.name)
        time.sleep(0.05)  # long enough for every thread to ask meanwhile
        return build(encoder, *args)

    monkeypatch.setattr(_registry, "ImageTower", recorded)
    monkeypatch.setattr(_registry, "_towers", type(_registry._towers)())
    return names


def test_threads_that_ask_at_once_share_one_tower(tiny_clip, built):
    barrier = threading.Barrier(8)

    def ask(_):
        barrier.wait()
        return get_image_tower("", tiny_clip)

    with ThreadPoolExecutor(8) as pool:
        towers = set(pool.map(ask, range(8)))
    assert len(towers) == len(built) == 1


def test_clones_and_settings_that_share_weights_share_the_tower(
    tiny_clip, built, image_files, fresh_memo
):
    for settings in (
        {},
        {"features": "projected"},
        {"resize": "crop"},
        {"device": None},
    ):
        CLIPEmbedder(pretrained=tiny_clip, **settings).fit_transform(image_files[:1])
    assert len(built) == 1


@pytest.mark.parametrize("max_models", ["0", "1", "2"])
def test_the_least_recently_used_towers_are_dropped(
    write_tiny_clip, tmp_path, built, monkeypatch, max_models
):
    monkeypatch.setenv("SKLEARN_CLIPSID_MAX_MODELS", max_models)
    names = [write_tiny_clip(tmp_path / f"model{k}") for k in range(3)]
    for k in (0, 1, 0, 2, 0):
        get_image_tower("", names[k])
    expected = {
        "0": ["model0", "model1", "model0", "model2", "model0"],
        "1": ["model0", "model1", "model0", "model2", "model0"],
        "2": ["model0", "model1", "model2"],
    }
    assert built == expected[max_models]
    assert len(_registry._towers) == max(1, int(max_models))


def test_a_bound_that_is_no_number_is_named(tiny_clip, built, monkeypatch):
    monkeypatch.setenv("SKLEARN_CLIPSID_MAX_MODELS", "two")
    with pytest.raises(ValueError, match="SKLEARN_CLIPSID_MAX_MODELS='two'"):
        get_image_tower("", tiny_clip)


@pytest.mark.parametrize(("has_tiles", "resolved"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_what_the_cpu_multiplies_fast(
    monkeypatch, tiny_clip, has_tiles, resolved
):
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    embedder = CLIPEmbedder(pretrained=tiny_clip, precision="auto", device="cpu")
    assert embedder.fit(["a.png"]).fingerprint_["precision"] == resolved
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert _registry.resolve_precision("auto", "cpu") == "fp32"


def test_replaced_files_are_noticed(write_tiny_clip, tmp_path, image_files, fresh_memo):
    folder = tmp_path / "model"
    embedder = CLIPEmbedder(pretrained=write_tiny_clip(folder))
    before = embedder.fit_transform(image_files)
    stat = os.stat(folder / "open_clip_model.safetensors")
    write_tiny_clip(folder, seed=1)
    os.utime(
        folder / "open_clip_model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns)
    )
    with pytest.raises(ValueError, match=r"weights .*, fitted with"):
        embedder.transform(image_files)
    assert np.abs(embedder.fit_transform(image_files) - before).max() > 1e-3


def test_a_failed_build_is_tried_again(write_tiny_clip, tmp_path):
    name = f"local-dir:{tmp_path / 'model'}"
    with pytest.raises(ValueError, match="expected a folder"):
        get_image_tower("", name)
    write_tiny_clip(tmp_path / "model")
    assert get_image_tower("", name).encoder.name == "model"


def _rows_of(embedder, images):
    return embedder.transform(images)


def test_loky_workers_build_their_own(tiny_clip, image_files):
    embedder = CLIPEmbedder(pretrained=tiny_clip)
    expected = embedder.fit_transform(image_files)
    halves = (image_files[:4], image_files[4:])
    rows = Parallel(n_jobs=2)(delayed(_rows_of)(embedder, half) for half in halves)
    np.testing.assert_allclose(np.vstack(rows), expected, atol=1e-5)


def test_cross_validation_in_processes_scores_a_pipeline(tiny_clip, image_files):
    y = np.arange(8) % 2
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), RidgeClassifier())
    scores = {
        n_jobs: cross_validate(
            pipe, image_files[:8], y, cv=2, n_jobs=n_jobs, error_score="raise"
        )["test_score"]
        for n_jobs in (1, 2)
    }
    np.testing.assert_array_equal(scores[1], scores[2])


FORKING = """
    import os, sys, time, traceback, warnings
    # Python 3.12 warns of every fork that has threads beside it.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import open_clip  # once for both processes; only running a model forbids to fork
    from sklearn_clipsid import CLIPEmbedder

    name, *paths = sys.argv[1:]
    embedder = CLIPEmbedder(pretrained=name)

    def in_child(what):
        pid = os.fork()
        if pid == 0:
            started = time.monotonic()
            try:
                print(what, "rows", embedder.transform(paths).shape, flush=True)
            except RuntimeError as error:
                quick = time.monotonic() - started < 30
                print(what, "refused", quick, "loky" in str(error), flush=True)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    in_child("before")
    embedder.transform(paths[:1])
    in_child("after")
    print("parent rows", embedder.transform(paths).shape)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_works_before_the_first_use_and_is_refused_after(tiny_clip, image_files):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), tiny_clip, *image_files],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "before rows (9, 64)",
        "after refused True True",
        "parent rows (9, 64)",
    ], done.stderr
