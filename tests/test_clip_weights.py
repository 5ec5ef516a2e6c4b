import json
import os
import pickle
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid._clip import get_image_tower, known_weights
from sklearn_clipsid._clip._weights import Encoder, Recipe, resolve_encoder

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.fixture
def tiny_name(monkeypatch, tiny_clip):
    """Let open_clip know the tiny architecture, with both activations."""
    folder = Path(tiny_clip.partition(":")[2])
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "tiny", config)
    monkeypatch.setitem(configs, "tiny-quickgelu", dict(config, quick_gelu=True))
    return "tiny"


@pytest.fixture
def tensors(tiny_clip):
    return load_file(Path(tiny_clip.partition(":")[2]) / "open_clip_model.safetensors")


def save_declared(tensors, path, quick_gelu="false"):
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, path, metadata={"quick_gelu": quick_gelu})
    return str(path)


def image_only(tensors):
    return {k: v for k, v in tensors.items() if k.startswith("visual.")}


# Names that mean nothing -------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_name", "pretrained", "message"),
    [
        ("ViT-B16", "openai", r"model_name='ViT-B16'.*nearest are 'ViT-B-16'"),
        ("", "openai", "model_name=''"),
        ("ViT-B-16-quickgelu", "opnai", "nearest tags are 'openai'; all tags: openai"),
        ("ViT-B-16", "", r"pretrained=''.*all tags: openai"),
        ("ViT-B-16", "clip.safetensors", "there is no such file"),
        ("ViT-B-16", "models/clip", "there is no such file"),
        ("local-dir:nowhere", "", "nowhere' but expected a folder that holds open_cl"),
        ("ViT-B-16", "local-dir:nowhere", "expected a folder that holds open_clip_co"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(model_name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        CLIPEmbedder(model_name, pretrained).fit(["a.png"])


@pytest.mark.parametrize(
    ("model_name", "tag", "twin"),
    [
        ("ViT-B-16", "openai", "ViT-B-16-quickgelu"),
        ("ViT-L-14-336", "openai", "ViT-L-14-336-quickgelu"),
        ("ViT-H-14", "dfn5b", "ViT-H-14-quickgelu"),
    ],
)
def test_a_tag_of_the_other_activation_names_the_fitting_model(
    model_name, tag, twin, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "any")
    )
    with pytest.raises(ValueError, match=f"QuickGELU; pass model_name='{twin}'"):
        CLIPEmbedder(model_name, tag).fit(["a.png"])


def test_every_published_tag_is_accepted_with_its_own_activation(monkeypatch):
    from sklearn_clipsid._clip import _weights

    monkeypatch.setattr(_weights, "download_tag", lambda *_: "not read")
    refused = []
    for model_name, tag in open_clip.list_pretrained():
        declared = open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu")
        built = open_clip.get_model_config(model_name).get("quick_gelu", False)
        try:
            resolve_encoder(model_name, tag)
        except ValueError:
            refused.append((model_name, tag))
        else:
            assert declared in (None, built)
    named = {f"{name}-quickgelu" for name, _ in refused}
    assert named <= set(open_clip.list_models())


def test_a_file_does_not_shadow_the_tag_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("openai").write_text("not a checkpoint")
    asked = []

    def download(repo, filename, **_):
        asked.append(repo)
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(
        ValueError, match=r"of 'timm/vit_base_patch16_clip_224\.openai'"
    ):
        CLIPEmbedder("ViT-B-16-quickgelu", "openai").fit(["a.png"])
    assert asked


# Files -------------------------------------------------------------------------------


def _variants(tensors, folder):
    prefixed = {f"module.{key}": value for key, value in tensors.items()}
    bare = {k.removeprefix("visual."): v for k, v in image_only(tensors).items()}
    yield save_declared(tensors, folder / "both.safetensors")
    yield save_declared(image_only(tensors), folder / "image.safetensors")
    yield save_declared(bare, folder / "bare.safetensors")
    yield save_declared(prefixed, folder / "prefixed.safetensors")
    for name, saved in {
        "plain.pt": tensors,
        "wrapped.pt": {"epoch": 3, "state_dict": prefixed, "optimizer": {"lr": 1.0}},
        "bare.bin": bare,
    }.items():
        torch.save(saved, folder / name)
        yield str(folder / name)


@pytest.mark.filterwarnings("ignore:The file .* does not say whether")
def test_every_form_of_the_same_weights_is_the_same_encoder(
    tiny_clip, tiny_name, tensors, tmp_path, fresh_memo
):
    expected = CLIPEmbedder(pretrained=tiny_clip).fit_transform([PIXELS])
    digest = get_image_tower("", tiny_clip).weights_digest
    for path in _variants(tensors, tmp_path):
        tower = get_image_tower(tiny_name, path)
        assert tower.weights_digest == digest, path
        config = tower.encoder.config_digest()
        assert known_weights(digest, config) == (tiny_name, path)
        fresh_memo.clear()
        rows = CLIPEmbedder(tiny_name, path).transform([PIXELS])
        # A bare file does not bring the folder's mean and standard deviation.
        np.testing.assert_allclose(rows, expected, atol=0.5)
    assert not np.array_equal(rows, expected)


def test_half_precision_checkpoints_are_read_in_full(tiny_name, tensors, tmp_path):
    full = save_declared(tensors, tmp_path / "full.safetensors")
    half = {key: value.half() for key, value in tensors.items()}
    half = save_declared(half, tmp_path / "half.safetensors")
    rows = [CLIPEmbedder(tiny_name, path).transform([PIXELS]) for path in (full, half)]
    assert np.abs(rows[0] - rows[1]).max() < 0.05
    digests = {get_image_tower(tiny_name, path).weights_digest for path in (full, half)}
    assert len(digests) == 2


def test_a_file_of_the_image_tower_alone_embeds_no_text(tiny_name, tensors, tmp_path):
    path = save_declared(image_only(tensors), tmp_path / "image.safetensors")
    embedder = CLIPEmbedder(tiny_name, path)
    assert embedder.transform([PIXELS]).shape == (1, 64)
    with pytest.raises(ValueError, match="no text tower, but embed_text needs one"):
        embedder.embed_text(["a photograph"])


class _Malice:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.filterwarnings("ignore:The file .* does not say whether")
@pytest.mark.parametrize("name", ["clip.pt", "clip.bin", "clip.safetensors"])
@pytest.mark.parametrize("save", [torch.save, lambda x, path: pickle.dump(x, path)])
def test_no_code_in_a_checkpoint_is_run(tiny_name, tmp_path, name, save):
    mark = tmp_path / "code was run"
    with open(tmp_path / name, "wb") as file:
        save({"state_dict": {"visual.proj": _Malice(str(mark))}}, file)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        CLIPEmbedder(tiny_name, str(tmp_path / name)).fit(["a.png"])
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:The file .* does not say whether")
@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors"])
@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80\x05.", b"PK\x03\x04", b"(" * 99]
)
def test_what_is_no_checkpoint_is_refused(tiny_name, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        CLIPEmbedder(tiny_name, str(tmp_path / name)).fit(["a.png"])


@pytest.mark.filterwarnings("ignore:The file .* does not say whether")
def test_a_torchscript_program_is_refused_with_its_conversion(tiny_name, tmp_path):
    # The layout of OpenAI's files; torch.jit itself warns of its own removal.
    import zipfile

    path = str(tmp_path / "ViT-B-16.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/code/__torch__.py", b"")
    with pytest.raises(ValueError, match=r"TorchScript.*torch\.jit\.load\(path\)"):
        CLIPEmbedder("ViT-B-16-quickgelu", path).fit(["a.png"])


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda key: "vision_model.encoder." + key, r"Hugging Face's format"),
        (lambda key: "model.vision_model." + key, r"Hugging Face's format"),
        (lambda key: "backbone." + key, r"expected an image tower"),
    ],
)
def test_foreign_keys_are_explained(tiny_name, tensors, tmp_path, rename, message):
    renamed = {rename(key): value for key, value in tensors.items()}
    path = save_declared(renamed, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=message):
        CLIPEmbedder(tiny_name, path).fit(["a.png"])


def test_another_architecture_names_the_one_that_fits(tiny_name, tensors, tmp_path):
    path = save_declared(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"is not that of ViT-B-32.*of tiny"):
        CLIPEmbedder("ViT-B-32", path).fit(["a.png"])


@pytest.mark.real_clip
def test_the_real_file_names_its_architecture(demo_encoder):
    with pytest.raises(ValueError, match=r"those of .*ViT-B-16-quickgelu.*: pass that"):
        CLIPEmbedder("ViT-B-32-quickgelu", str(demo_encoder)).fit(["a.png"])


def test_a_missing_tensor_is_named(tiny_name, tensors, tmp_path):
    del tensors["visual.ln_post.bias"]
    path = save_declared(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"1 tensors missing \['ln_post\.bias'\]"):
        CLIPEmbedder(tiny_name, path).fit(["a.png"])


def test_weights_that_are_not_finite_are_refused(tiny_name, tensors, tmp_path):
    tensors["visual.ln_post.bias"][3] = float("nan")
    path = save_declared(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 tensors \(ln_post\.b"):
        CLIPEmbedder(tiny_name, path).fit(["a.png"])


def test_overwriting_a_file_does_not_change_the_built_tower(
    tiny_name, tensors, tmp_path
):
    path = save_declared(tensors, tmp_path / "clip.safetensors")
    tower = get_image_tower(tiny_name, path)
    image = np.zeros((32, 32, 3), np.uint8)
    before = tower.encode([image], "pooled")
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size // 2))
    np.testing.assert_array_equal(tower.encode([image], "pooled"), before)


# Activation --------------------------------------------------------------------------


@pytest.mark.parametrize("declared_by", ["metadata", "folder"])
def test_a_file_of_the_other_activation_is_refused(
    tiny_name, tensors, tmp_path, declared_by
):
    path = tmp_path / "clip.safetensors"
    if declared_by == "metadata":
        save_declared(tensors, path, quick_gelu="true")
    else:
        torch.save(tensors, path := tmp_path / "clip.pt")
        config = open_clip.get_model_config("tiny-quickgelu")
        (tmp_path / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": config})
        )
    with pytest.raises(ValueError, match="with QuickGELU; pass model_name='tiny-quick"):
        CLIPEmbedder(tiny_name, str(path)).fit(["a.png"])
    CLIPEmbedder("tiny-quickgelu", str(path)).fit(["a.png"])


def test_the_activation_changes_the_rows(tiny_name, tensors, tmp_path):
    rows = []
    for name, quick_gelu in ((tiny_name, "false"), ("tiny-quickgelu", "true")):
        path = save_declared(tensors, tmp_path / f"{name}.safetensors", quick_gelu)
        rows.append(CLIPEmbedder(name, path).transform([PIXELS]))
    assert np.abs(rows[0] - rows[1]).max() > 1e-4


def test_a_file_that_declares_no_activation_warns_at_the_users_line(
    tiny_name, tensors, tmp_path
):
    path = str(tmp_path / "clip.pt")
    torch.save(tensors, path)
    with pytest.warns(UserWarning, match="builds GELU and 'tiny-quickgelu'") as caught:
        CLIPEmbedder(tiny_name, path).fit(["a.png"])
    assert [warning.filename for warning in caught] == [__file__]


# Folders -----------------------------------------------------------------------------


def test_a_folder_brings_its_own_preprocessing(write_tiny_clip, tmp_path):
    declared = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "interpolation": "bilinear"}
    name = write_tiny_clip(tmp_path / "model", preprocessing=declared)
    recipe = resolve_encoder(name, "").recipe
    assert (recipe.mean, recipe.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
    assert recipe.geometry == "shortest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no model configuration"),
        ("[]", "is no model configuration"),
        ('{"model_cfg": {}}', "no embed_dim and vision_cfg"),
        ('{"model_cfg": null}', "is no model configuration"),
    ],
)
def test_a_damaged_configuration_is_named(write_tiny_clip, tmp_path, text, message):
    name = write_tiny_clip(tmp_path / "model")
    (tmp_path / "model" / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        CLIPEmbedder(name).fit(["a.png"])


@pytest.mark.parametrize(
    "declared", [{"interpolation": "random"}, {"resize_mode": "stretch"}]
)
def test_unknown_preprocessing_is_refused(write_tiny_clip, tmp_path, declared):
    name = write_tiny_clip(tmp_path / "model", preprocessing=declared)
    with pytest.raises(ValueError, match=next(iter(declared))):
        CLIPEmbedder(name).fit(["a.png"])


def test_a_folder_without_weights_lists_the_names(write_tiny_clip, tmp_path):
    name = write_tiny_clip(tmp_path / "model")
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected one of open_clip_model\.safetens"):
        CLIPEmbedder(name).fit(["a.png"])


# Towers without a class token --------------------------------------------------------


def _resnet():
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    return {"embed_dim": 32, "vision_cfg": {**vision, "patch_size": None}}


def _timm():
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}
    return {"embed_dim": 32, "vision_cfg": {**vision, "timm_proj": "linear"}}


def _attention_pooled():
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    return {"embed_dim": 32, "vision_cfg": {**vision, "attentional_pool": True}}


@pytest.fixture(params=[_resnet, _timm, _attention_pooled], ids=lambda f: f.__name__)
def other_tower(request, tmp_path):
    from open_clip.model import _build_vision_tower

    config = request.param()
    tower = _build_vision_tower(config["embed_dim"], dict(config["vision_cfg"])).eval()
    state = {f"visual.{k}": v.contiguous() for k, v in tower.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return tower, f"local-dir:{tmp_path}"


def test_other_towers_give_projected_features(other_tower):
    tower, name = other_tower
    embedder = CLIPEmbedder(pretrained=name, features="projected", resize="squash")
    rows = embedder.fit_transform([PIXELS, PIXELS[::-1]])
    assert rows.shape == (2, len(embedder.get_feature_names_out())) == (2, 32)
    built = embedder._image_tower()
    with torch.no_grad():
        pixels = [np.zeros((built.recipe.size,) * 2 + (3,), np.uint8)]
        expected = tower(built._standardise(pixels)).numpy()
    np.testing.assert_allclose(built.encode(pixels, "projected"), expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_towers_run_in_half_precision(other_tower, precision):
    embedder = CLIPEmbedder(
        pretrained=other_tower[1], features="projected", precision=precision
    )
    half = embedder.transform([PIXELS])
    full = embedder.set_params(precision="fp32").transform([PIXELS])
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())


@pytest.mark.parametrize("features", ["pooled", "blocks", 1])
def test_other_towers_refuse_features_of_the_class_token(other_tower, features):
    embedder = CLIPEmbedder(pretrained=other_tower[1], features=features)
    for use in (embedder.fit, embedder.transform):
        with pytest.raises(ValueError, match=r"ViT-B-16.*; use features='projected'"):
            use([PIXELS])
    with pytest.raises(ValueError, match="projection"):
        embedder.projection()


# The hub -----------------------------------------------------------------------------


def test_an_unreachable_hub_names_repository_file_and_remedy(monkeypatch):
    def unreachable(repo, filename, **_):
        raise OSError("Network is unreachable\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(ValueError) as raised:
        CLIPEmbedder("ViT-B-16-quickgelu", "openai").fit(["a.png"])
    message = str(raised.value)
    assert "'open_clip_model.safetensors'" in message
    assert "'timm/vit_base_patch16_clip_224.openai' (Network is unreachable)" in message
    assert "pretrained='PATH/TO/open_clip_model.safetensors'" in message
    assert "pretrained='local-dir:FOLDER'" in message


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(
    ("model_name", "pretrained", "file"),
    [
        ("ViT-B-16-quickgelu", "openai", "open_clip_model.safetensors"),
        ("hf-hub:timm/ViT-B-16-SigLIP", "", "open_clip_config.json"),
        ("RN50-quickgelu", "yfcc15m", ""),
    ],
)
def test_without_the_hub_the_error_comes_at_once(
    monkeypatch, tmp_path, how, model_name, pretrained, file
):
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    embedder = CLIPEmbedder(
        model_name,
        pretrained,
        weights_dir=tmp_path,
        features="projected",
        local_files_only=how == "local_files_only",
    )
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"Could not get the file '{file}"):
        embedder.fit(["a.png"])
    assert time.monotonic() - started < 30


def _hub_that_has(monkeypatch, held, error):
    asked = []

    def download(repo, filename, **_):
        asked.append(filename)
        if filename not in held:
            raise error("not here")
        return str(held[filename])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


class _RemoteEntryNotFoundError(EntryNotFoundError):
    """What the hub client raises where the repository has no such file."""


@pytest.mark.parametrize("error", [_RemoteEntryNotFoundError, LocalEntryNotFoundError])
def test_older_names_of_the_weights_are_tried(monkeypatch, tensors, tmp_path, error):
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(tensors, path)
    asked = _hub_that_has(monkeypatch, {path.name: path}, error)
    encoder = resolve_encoder("ViT-B-16", "laion2b_s34b_b88k")
    assert encoder.path == str(path)
    assert asked[0] == "open_clip_model.safetensors"


def test_the_first_name_is_the_one_to_copy_by_hand(monkeypatch):
    _hub_that_has(monkeypatch, {}, LocalEntryNotFoundError)
    with pytest.raises(ValueError, match=r"the file 'open_clip_model\.safetensors'"):
        resolve_encoder("ViT-B-16", "laion2b_s34b_b88k", local_files_only=True)


def test_a_hub_folder_brings_its_configuration(monkeypatch, tiny_clip, fresh_memo):
    folder = Path(tiny_clip.partition(":")[2])
    held = {path.name: path for path in folder.iterdir()}
    _hub_that_has(monkeypatch, held, _RemoteEntryNotFoundError)
    rows = CLIPEmbedder("hf-hub:someone/tiny").transform([PIXELS])
    fresh_memo.clear()
    expected = CLIPEmbedder(pretrained=tiny_clip).transform([PIXELS])
    np.testing.assert_array_equal(rows, expected)


# What decides the numbers ------------------------------------------------------------


def an_encoder(quick_gelu=False, vision_cfg=None, **recipe):
    recipe = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3} | recipe
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    config = {
        "embed_dim": 32,
        "vision_cfg": vision | (vision_cfg or {}),
        "quick_gelu": quick_gelu,
    }
    return Encoder("tiny", config, Recipe(**recipe), "unused", quick_gelu)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.4)},
        {"size": 64},
        {"interpolation": "bilinear"},
        {"geometry": "longest"},
        {"fill": 255},
        {"quick_gelu": True},
        {"vision_cfg": {"patch_size": 16}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_numbers_changes_the_digest(change):
    assert an_encoder(**change).config_digest() != an_encoder().config_digest()


def test_a_default_that_is_spelled_out_is_the_same_encoder():
    spelled = an_encoder(vision_cfg={"patch_dropout": 0.0, "output_tokens": False})
    assert spelled.config_digest() == an_encoder().config_digest()


def test_a_folder_of_weights_is_pointed_to_its_file(tiny_name, tmp_path):
    with pytest.raises(ValueError, match=r"is a folder.*pass the checkpoint in it"):
        CLIPEmbedder(tiny_name, str(tmp_path)).fit(["not read"])
