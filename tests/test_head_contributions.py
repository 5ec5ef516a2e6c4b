import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid._clip import _registry
from sklearn_clipsid._embedding_cache import EmbeddingCache
from sklearn_clipsid.persistence import dump, load

D, N_BLOCKS, N_HEADS = 32, 3, 2
VISION = {
    "image_size": 32,
    "layers": N_BLOCKS,
    "width": 64,
    "patch_size": 8,
    "head_width": 32,
}
TEXT = {"context_length": 16, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def write_model(tmp_path_factory, write_tiny_clip):
    """Function that writes a random CLIP none of whose vectors is 0 or 1."""

    def write(**vision):
        import torch
        from safetensors.torch import load_file, save_file

        folder = tmp_path_factory.mktemp("models")
        config = {"embed_dim": D, "vision_cfg": VISION | vision, "text_cfg": TEXT}
        name = write_tiny_clip(folder, config=config)
        path = folder / "open_clip_model.safetensors"
        generator = torch.Generator().manual_seed(0)
        tensors = {
            key: value + 0.3 * torch.randn(value.shape, generator=generator)
            if value.ndim == 1 and key.startswith("visual")
            else value
            for key, value in load_file(path).items()
        }
        save_file(tensors, path)
        return name

    return write


@pytest.fixture(scope="module")
def model(write_model):
    return write_model()


@pytest.fixture
def embedder(model, fresh_memo):
    return CLIPEmbedder(pretrained=model, features="heads", head_blocks=2)


def parts_of(rows, d=D):
    return rows.reshape(len(rows), -1, d)  # (n_images, n_heads_of_all + 1, d)


def parts_by_hand(embedder, images):
    """Parts of the embedding from the full attention maps of open_clip's own modules.

    The rest is added up from what it is made of, not what the heads leave over.
    """
    import torch
    from torch.nn.functional import linear

    tower = embedder._image_tower()._module
    seen = {}

    def watch(key):
        return lambda _module, inputs, out: seen.update({key: (inputs, out)})

    hooks = [tower.ln_post.register_forward_hook(watch("norm"))]
    for block in tower.transformer.resblocks:
        hooks.append(block.ln_1.register_forward_hook(watch((block, "ln_1"))))
        hooks.append(block.ls_2.register_forward_hook(watch((block, "mlp"))))
    pixels = torch.from_numpy(embedder.preprocess(images)).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in (
            embedder._image_tower().recipe.mean,
            embedder._image_tower().recipe.std,
        )
    )
    with torch.no_grad():
        tower((pixels.float() / 255 - mean) / std)
        for hook in hooks:
            hook.remove()
        blocks = tower.transformer.resblocks[-embedder.head_blocks :]
        heads, rest = [], seen[blocks[0], "ln_1"][0][0][:, 0]
        for block in blocks:
            x, attn = seen[block, "ln_1"][1], block.attn
            maps = attn(x, x, x, average_attn_weights=False)[1]  # (n, heads, t, t)
            V, b = attn.in_proj_weight.chunk(3)[2], attn.in_proj_bias.chunk(3)[2]
            values = linear(x, V, b).unflatten(-1, (attn.num_heads, -1))
            scale = getattr(block.ls_1, "gamma", torch.ones(x.shape[-1]))
            for h in range(attn.num_heads):
                z = (maps[:, h] @ values[:, :, h])[:, 0]
                columns = slice(h * attn.head_dim, (h + 1) * attn.head_dim)
                heads.append(scale * linear(z, attn.out_proj.weight[:, columns]))
            rest = rest + scale * attn.out_proj.bias + seen[block, "mlp"][1][:, 0]
        token = seen["norm"][0][0][:, 0]
        std = (token.var(dim=1, correction=0) + tower.ln_post.eps).sqrt()

        def read_out(c):
            c = (c - c.mean(dim=1, keepdim=True)) / std[:, None]
            return c * tower.ln_post.weight @ tower.proj

        parts = [read_out(c) for c in heads]
        parts.append(read_out(rest) + tower.ln_post.bias @ tower.proj)
    return torch.stack(parts, dim=1).numpy()


# The decomposition -------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head_blocks", [1, 2, 3])
def test_the_parts_add_up_to_the_embedding(
    embedder, image_files, head_blocks, precision
):
    embedder.set_params(head_blocks=head_blocks, precision=precision)
    parts = parts_of(embedder.transform(image_files))
    projected = embedder.set_params(features="projected").transform(image_files)
    assert parts.shape == (9, head_blocks * N_HEADS + 1, D)
    np.testing.assert_allclose(parts.sum(axis=1), projected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("head_blocks", [1, 2, 3])
@pytest.mark.parametrize("vision", [{}, {"ls_init_value": 0.5}], ids=["plain", "ls"])
def test_each_part_is_what_the_modules_of_open_clip_add(
    write_model, fresh_memo, image_files, head_blocks, vision
):
    embedder = CLIPEmbedder(
        pretrained=write_model(**vision), features="heads", head_blocks=head_blocks
    )
    expected = parts_by_hand(embedder, image_files)
    assert np.abs(expected).mean(axis=(0, 2)).min() > 0.01  # no part is negligible
    parts = parts_of(embedder.transform(image_files))
    np.testing.assert_allclose(parts, expected, rtol=0, atol=1e-5)


def test_parts_in_bf16_are_close_to_those_in_fp32(embedder, image_files):
    fp32 = parts_of(embedder.transform(image_files))
    bf16 = parts_of(embedder.set_params(precision="bf16").transform(image_files))
    scale = np.linalg.norm(fp32, axis=2).mean(axis=0)
    error = np.linalg.norm(bf16 - fp32, axis=2).mean(axis=0)
    assert (0 < error).all() and (error < 0.02 * scale).all()


def test_blocks_come_in_order_and_the_last_block_last(embedder, image_files):
    two = parts_of(embedder.transform(image_files))
    one = parts_of(embedder.set_params(head_blocks=1).transform(image_files))
    np.testing.assert_allclose(two[:, N_HEADS:-1], one[:, :-1], rtol=0, atol=1e-6)


@pytest.mark.real_clip
def test_the_real_embedding_is_the_sum_of_its_parts(demo_encoder, shared_images):
    images = sorted(str(path) for path in shared_images.rglob("*.jpg"))[::100][:4]
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder), features="heads")
    parts = parts_of(embedder.transform(images), d=512)
    projected = clone(embedder).set_params(features="projected").transform(images)
    assert parts.shape == (len(images), 49, 512)
    np.testing.assert_allclose(parts.sum(axis=1), projected, rtol=0, atol=1e-4)
    by_hand = parts_by_hand(embedder, images)
    np.testing.assert_allclose(parts, by_hand, rtol=0, atol=1e-4)


# Rows and names ----------------------------------------------------------------------


def test_the_width_is_known_without_building(embedder, image_files, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was built")

    with monkeypatch.context() as patched:
        patched.setattr(_registry, "_get_or_build", fail)
        names = list(embedder.get_feature_names_out())
    assert len(names) == (2 * N_HEADS + 1) * D
    frame = embedder.set_output(transform="pandas").fit_transform(
        pd.Series(image_files)
    )
    assert list(frame.columns) == names


@pytest.mark.parametrize("cache", [False, True], ids=["memory", "disk"])
def test_rows_are_kept_by_the_number_of_blocks(
    embedder, image_files, tmp_path, encoded, cache
):
    cache_dir = tmp_path / "cache" if cache else None
    embedder.set_params(cache_dir=cache_dir)
    rows = embedder.transform(image_files)
    again = clone(embedder).transform(image_files)
    np.testing.assert_array_equal(rows, again)
    assert encoded == [9]
    fewer = clone(embedder).set_params(head_blocks=1).transform(image_files)
    assert encoded == [9, 9] and fewer.shape[1] == (N_HEADS + 1) * D
    if cache:
        with EmbeddingCache(cache_dir) as kept:
            assert kept.info().rows == 18


def test_the_fingerprint_names_the_blocks_and_other_features_ignore_them(
    embedder, image_files
):
    fitted = clone(embedder).fit(image_files)
    assert fitted.fingerprint_["features"] == "heads of the last 2 blocks"
    fitted.set_params(head_blocks=3)
    with pytest.raises(ValueError, match="fitted with 'heads of the last 2 blocks'"):
        fitted.transform(image_files)
    pooled = clone(embedder).set_params(features="pooled").fit(image_files)
    pooled.set_params(head_blocks=1).transform(image_files)


def test_rows_of_unreadable_images_are_nan(embedder, image_files):
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="Could not read"):
        rows = embedder.transform([image_files[0], "missing.png"])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_a_saved_detector_on_heads_scores_as_before(embedder, image_files):
    y = np.arange(9) % 2
    pipe = make_pipeline(embedder, LogisticRegression()).fit(image_files, y)
    file = io.BytesIO()
    dump(pipe, file)
    loaded = load(io.BytesIO(file.getvalue()))
    assert loaded[0].head_blocks == 2
    np.testing.assert_array_equal(
        loaded.decision_function(image_files), pipe.decision_function(image_files)
    )


# Refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"pool_type": "avg"}, r"pools its tokens \(pool_type='avg'\)"),
        ({"attentional_pool": True}, "no class token before a linear projection"),
        ({"qk_norm": True}, r"of its own kind \(CustomResidualAttentionBlock\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_towers_whose_embedding_is_no_such_sum_are_refused(
    write_model, fresh_memo, image_files, vision, message, method
):
    embedder = CLIPEmbedder(
        pretrained=write_model(**vision), features="heads", head_blocks=1
    )
    with pytest.raises(ValueError, match=f"Got features='heads' for .*{message}"):
        getattr(embedder, method)(image_files)
    with pytest.raises(ValueError, match="use features='projected' with this one"):
        getattr(embedder, method)(image_files)


def test_towers_of_timm_are_refused(fresh_memo, image_files):
    embedder = CLIPEmbedder("ViT-B-16-SigLIP", "webli", features="heads")
    with pytest.raises(ValueError, match="none of open_clip's own ViT models"):
        embedder.get_feature_names_out()


def test_more_blocks_than_there_are_name_their_number(embedder, image_files):
    embedder.set_params(head_blocks=4)
    message = "Got head_blocks=4 for .* but expected at most 3"
    for method in (embedder.fit, embedder.transform):
        with pytest.raises(ValueError, match=message):
            method(image_files)
    with pytest.raises(ValueError, match=message):
        embedder.get_feature_names_out()


@pytest.mark.parametrize("head_blocks", [0, 1.5, None])
def test_a_bad_number_of_blocks_is_named(embedder, image_files, head_blocks):
    with pytest.raises(ValueError, match="The 'head_blocks' parameter"):
        embedder.set_params(head_blocks=head_blocks).transform(image_files)


def test_one_image_of_any_kind_has_its_parts(embedder, image_files):
    pixels = np.asarray(Image.open(image_files[0]).convert("RGB"))
    np.testing.assert_allclose(
        embedder.transform([pixels]), embedder.transform(image_files[:1]), atol=1e-5
    )
