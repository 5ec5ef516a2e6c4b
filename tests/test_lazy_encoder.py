import json
import os
import shutil
import time
from pathlib import Path

import pytest

from sklearn_clipsid import CLIPEmbedder, _lazy_encoder
from sklearn_clipsid._clip import _registry
from sklearn_clipsid._content_hash import SETTLED_NS
from sklearn_clipsid._embedding_cache import EmbeddingCache
from sklearn_clipsid._embedding_memo import EmbeddingMemo
from sklearn_clipsid._lazy_encoder import (
    EncoderChangedError,
    LazyEncoder,
    feature_width,
    recall_encoder,
)


@pytest.fixture
def later(monkeypatch):
    """Move the clock: waiting for files to settle would take seconds."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)


@pytest.fixture
def cache(tmp_path):
    with EmbeddingCache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def model(tmp_path, tiny_clip):
    """Folder of a model that may be changed."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_clip.removeprefix("local-dir:"), folder)
    return folder


@pytest.fixture
def embedder(model):
    return CLIPEmbedder(pretrained=f"local-dir:{model}")


@pytest.fixture
def no_model(monkeypatch):
    """Refuse to build any model from here on."""

    def install():
        def fail(*_, **__):
            raise AssertionError("a model was built")

        monkeypatch.setattr(_registry, "get_image_tower", fail)
        monkeypatch.setattr("sklearn_clipsid._clip.get_image_tower", fail)

    return install


def setting_of(embedder):
    return LazyEncoder(embedder, EmbeddingMemo()).setting


def change_config(folder, **changes):
    path = folder / "open_clip_config.json"
    declared = json.loads(path.read_text())
    for section, values in changes.items():
        declared[section].update(values)
    path.write_text(json.dumps(declared))


def replace_weights(folder, write_tiny_clip, tmp_path):
    write_tiny_clip(tmp_path / "other", seed=1)
    name = "open_clip_model.safetensors"
    times = os.stat(folder / name)
    time.sleep(0.02)
    (tmp_path / "other" / name).replace(folder / name)
    os.utime(folder / name, ns=(times.st_atime_ns, times.st_mtime_ns))


# What decides a row ------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"features": "projected"},
        {"features": "blocks"},
        {"features": 2},
        {"resize": "bilinear"},
        {"resize": "crop"},
        {"resize": "squash"},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"apply_exif": True},
    ],
    ids=str,
)
def test_rows_are_kept_apart_by(embedder, changed):
    before = setting_of(embedder)
    assert setting_of(embedder.set_params(**changed)) != before


@pytest.mark.parametrize(
    "changed",
    [
        {"device": "cpu"},
        {"batch_size": 1},
        {"decode_threads": 1},
        {"normalize": True},
        {"on_error": "nan"},
        {"verbose": True},
        {"local_files_only": True},
        {"weights_dir": "elsewhere"},
        {"cache_dir": "elsewhere"},
        {"model_name": "ViT-B-32"},  # which a folder overrides
    ],
    ids=str,
)
def test_rows_are_not_kept_apart_by(embedder, changed):
    before = setting_of(embedder)
    assert setting_of(embedder.set_params(**changed)) == before


def test_other_weights_keep_rows_of_their_own(
    embedder, model, write_tiny_clip, tmp_path
):
    before = setting_of(embedder)
    replace_weights(model, write_tiny_clip, tmp_path)
    assert setting_of(embedder) != before


@pytest.mark.parametrize(
    "changes",
    [
        {"model_cfg": {"quick_gelu": True}},
        {"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}},
        {"preprocess_cfg": {"std": [0.5, 0.5, 0.5]}},
        {"preprocess_cfg": {"interpolation": "bilinear"}},
        {"preprocess_cfg": {"resize_mode": "squash"}},
    ],
    ids=str,
)
def test_another_configuration_keeps_rows_of_its_own(embedder, model, changes):
    before = setting_of(embedder)
    time.sleep(0.02)
    change_config(model, **changes)
    assert setting_of(embedder) != before


def test_the_folder_of_a_model_decides_nothing(embedder, model):
    before = setting_of(embedder)
    moved = model.rename(model.with_name("moved"))
    assert setting_of(embedder.set_params(pretrained=f"local-dir:{moved}")) == before


def test_auto_shares_the_rows_of_the_precision_that_it_becomes(embedder, monkeypatch):
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(
            _registry,
            "resolve_precision",
            lambda asked, device, is_now=precision: (
                is_now if asked == "auto" else asked
            ),
        )
        auto = setting_of(embedder.set_params(precision="auto"))
        assert auto == setting_of(embedder.set_params(precision=precision))


# What is remembered ------------------------------------------------------------------


def test_a_described_encoder_is_known_without_building_it(
    embedder, cache, later, no_model
):
    built = LazyEncoder(embedder, cache)
    assert built.tower is not None
    no_model()
    known = LazyEncoder(embedder, cache)
    assert known.tower is None
    assert known.description == built.description
    assert known.fingerprint == built.fingerprint
    assert known.setting == built.setting


@pytest.mark.parametrize(
    ("features", "width"), [("projected", 32), ("pooled", 64), ("blocks", 192), (2, 64)]
)
def test_the_width_of_rows_is_known_without_building(
    embedder, cache, no_model, features, width
):
    no_model()
    embedder.set_params(features=features)
    assert feature_width(embedder, cache) == width


def test_the_width_of_a_described_encoder_is_not_read_again(
    embedder, cache, later, no_model, monkeypatch
):
    LazyEncoder(embedder, cache)
    monkeypatch.setattr("sklearn_clipsid._clip.feature_widths", None)
    assert feature_width(embedder.set_params(features="blocks"), cache) == 192


def test_one_description_serves_all_features(embedder, cache, later, no_model):
    settings = {LazyEncoder(embedder, cache).setting}
    no_model()
    for features in ("projected", "blocks", -1):
        settings.add(LazyEncoder(embedder.set_params(features=features), cache).setting)
    assert len(settings) == 4


@pytest.mark.parametrize("features", [4, -4, 0])
def test_a_block_that_is_not_there_is_refused_without_building(
    embedder, cache, later, no_model, features
):
    LazyEncoder(embedder, cache)
    no_model()
    with pytest.raises(ValueError, match=rf"Got block {features} but expected 1 to 3"):
        LazyEncoder(embedder.set_params(features=features), cache)


@pytest.mark.parametrize(
    "young", ["open_clip_model.safetensors", "open_clip_config.json"]
)
def test_files_younger_than_two_seconds_are_not_trusted(
    embedder, cache, model, young, monkeypatch
):
    time.sleep(0.02)
    os.utime(model / young)  # the other file is older
    changed = os.stat(model / young).st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed + SETTLED_NS - 1)
    LazyEncoder(embedder, cache)
    assert recall_encoder(embedder, cache) is None
    monkeypatch.setattr(time, "time_ns", lambda: changed + SETTLED_NS)
    LazyEncoder(embedder, cache)
    assert recall_encoder(embedder, cache) is not None


def test_weights_replaced_on_disk_are_read_again(
    embedder, cache, later, model, write_tiny_clip, tmp_path
):
    before = LazyEncoder(embedder, cache)
    replace_weights(model, write_tiny_clip, tmp_path)
    assert recall_encoder(embedder, cache) is None
    after = LazyEncoder(embedder, cache)
    assert after.tower is not None
    assert after.description["weights"] != before.description["weights"]
    assert recall_encoder(embedder, cache) == after.description


def test_weights_in_the_folder_of_a_hub_may_be_replaced_too(
    embedder, cache, later, model, write_tiny_clip, tmp_path, monkeypatch
):
    # A tag names no file.
    monkeypatch.setattr("sklearn_clipsid._clip.local_signatures", lambda *names: [])
    LazyEncoder(embedder, cache)
    assert recall_encoder(embedder, cache) is not None
    replace_weights(model, write_tiny_clip, tmp_path)
    assert recall_encoder(embedder, cache) is None


def test_a_configuration_replaced_on_disk_is_read_again(embedder, cache, later, model):
    before = LazyEncoder(embedder, cache)
    time.sleep(0.02)
    change_config(model, preprocess_cfg={"mean": [0.5, 0.5, 0.5]})
    assert recall_encoder(embedder, cache) is None
    after = LazyEncoder(embedder, cache)
    assert after.description["config"] != before.description["config"]


@pytest.mark.parametrize("what", ["weights", "configuration"])
def test_files_that_change_while_they_are_read_are_not_remembered(
    embedder, cache, later, model, write_tiny_clip, tmp_path, monkeypatch, what
):
    build = CLIPEmbedder._image_tower

    def meanwhile(embedder):
        tower = build(embedder)
        time.sleep(0.02)
        if what == "weights":
            replace_weights(model, write_tiny_clip, tmp_path)
        else:
            change_config(model, preprocess_cfg={"mean": [0.5, 0.5, 0.5]})
        return tower

    monkeypatch.setattr(CLIPEmbedder, "_image_tower", meanwhile)
    read = LazyEncoder(embedder, cache)
    monkeypatch.undo()
    assert recall_encoder(embedder, cache) is None
    assert LazyEncoder(embedder, cache).setting != read.setting


def test_deleted_weights_are_not_remembered(embedder, cache, later, model):
    LazyEncoder(embedder, cache)
    (model / "open_clip_model.safetensors").unlink()
    assert recall_encoder(embedder, cache) is None
    with pytest.raises(ValueError, match="open_clip_model"):
        LazyEncoder(embedder, cache)


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "CUDA_VISIBLE_DEVICES"])
def test_other_surroundings_may_mean_another_encoder(
    embedder, cache, later, monkeypatch, name
):
    LazyEncoder(embedder, cache)
    monkeypatch.setenv(name, "elsewhere")
    assert recall_encoder(embedder, cache) is None


@pytest.mark.parametrize("what", ["host", "versions"])
def test_another_machine_may_mean_another_precision(
    embedder, cache, later, monkeypatch, what
):
    LazyEncoder(embedder, cache)
    assert recall_encoder(embedder, cache) is not None
    if what == "host":
        monkeypatch.setattr(_lazy_encoder.platform, "node", lambda: "another")
    else:
        monkeypatch.setattr(_lazy_encoder, "_version", lambda name: "99.0")
    assert recall_encoder(embedder, cache) is None


# What is remembered and no longer so -------------------------------------------------


def test_an_encoder_that_resolves_otherwise_is_described_anew(
    embedder, cache, later, monkeypatch
):
    embedder.set_params(precision="auto")
    precision = ["fp32"]
    monkeypatch.setattr(
        _registry, "resolve_precision", lambda asked, device: precision[0]
    )
    before = LazyEncoder(embedder, cache)
    precision[0] = "bf16"
    known = LazyEncoder(embedder, cache)
    assert known.setting == before.setting  # not noticed while nothing is built
    with pytest.raises(EncoderChangedError):
        known.build()
    assert known.description["precision"] == "bf16"
    assert known.setting != before.setting
    assert known.tower.precision == "bf16"
    # The next one knows.
    assert LazyEncoder(embedder, cache).setting == known.setting
    assert known.build() is known.tower


def test_an_encoder_that_is_as_described_is_built_without_ado(embedder, cache, later):
    LazyEncoder(embedder, cache)
    known = LazyEncoder(embedder, cache)
    assert known.tower is None
    assert known.build() is known.tower is not None


def test_a_path_in_the_description_is_absolute(model, cache, later, monkeypatch):
    monkeypatch.chdir(model.parent)
    embedder = CLIPEmbedder(pretrained="local-dir:model")
    described = LazyEncoder(embedder, cache).description["file"][0]
    assert Path(described) == model / "open_clip_model.safetensors"
    assert recall_encoder(embedder, cache) is not None
    # Elsewhere the same relative name is another model.
    (model.parent / "elsewhere").mkdir()
    monkeypatch.chdir(model.parent / "elsewhere")
    assert recall_encoder(embedder, cache) is None
