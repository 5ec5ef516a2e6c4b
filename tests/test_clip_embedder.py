import copy
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import BlockSelector, CLIPEmbedder, OrthogonalLinearDetector
from sklearn_clipsid._clip import _registry

D_POOLED, D_PROJECTED, N_BLOCKS = 64, 32, 3


@pytest.fixture
def embedder(tiny_clip, fresh_memo):
    return CLIPEmbedder(pretrained=tiny_clip, batch_size=4)


@pytest.fixture
def pixels(image_files):
    return [np.asarray(Image.open(path).convert("RGB")) for path in image_files]


def cosine_distance(A, B):
    A, B = (X / np.linalg.norm(X, axis=1, keepdims=True) for X in (A, B))
    return 1 - (A * B).sum(axis=1)


# Estimator contract ------------------------------------------------------------------


def test_parameters_round_trip_through_get_and_set_params():
    parameters = {"model_name": "ViT-B-32", "features": -2, "on_error": "nan"}
    embedder = CLIPEmbedder().set_params(**parameters)
    assert parameters.items() <= embedder.get_params().items()
    assert CLIPEmbedder(**embedder.get_params()).get_params() == embedder.get_params()


def test_init_loads_and_checks_nothing(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(_registry, "_get_or_build", fail)
    embedder = CLIPEmbedder("no such model", "no such weights", batch_size=-1)
    assert clone(embedder).get_params() == embedder.get_params()
    assert vars(embedder).keys() == embedder.get_params().keys()


def test_clone_drops_the_fingerprint_and_embeds_the_same(embedder, image_files):
    before = clone(embedder).transform(image_files)
    embedder.fit(image_files)
    twin = clone(embedder)
    assert not hasattr(twin, "fingerprint_")
    np.testing.assert_array_equal(twin.transform(image_files), before)


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
@pytest.mark.parametrize(
    "parameter",
    [
        {"batch_size": 0},
        {"batch_size": "many"},
        {"features": "class token"},
        {"features": 1.5},
        {"resize": "stretch"},
        {"precision": "int8"},
        {"decode_threads": 0},
        {"on_error": "skip"},
        {"pretrained": None},
        {"normalize": "l2"},
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(embedder, image_files, method, parameter):
    embedder.set_params(**parameter)
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        getattr(embedder, method)(image_files)


def test_a_device_that_torch_cannot_use_is_named(embedder, image_files):
    with pytest.raises(ValueError, match=r"device='gpu'.*'auto' or 'cpu'"):
        embedder.set_params(device="gpu").fit(image_files)


def test_transform_needs_no_fit_and_fit_reads_no_image(embedder, image_files):
    fitted = clone(embedder).fit(["there is no such file"])
    np.testing.assert_array_equal(
        embedder.transform(image_files), fitted.transform(image_files)
    )


def test_pickles_and_deep_copies_are_small_and_hold_no_tensor(embedder, image_files):
    embedder.fit_transform(image_files)
    stored = pickle.dumps(embedder)
    assert len(stored) < 5000
    assert b"torch" not in stored
    for copied in (pickle.loads(stored), copy.deepcopy(embedder)):
        assert copied.fingerprint_ == embedder.fingerprint_


def test_set_output_keeps_the_index_and_names_the_columns(embedder, image_files):
    series = pd.Series(image_files, index=[f"row {i}" for i in range(9)])
    frame = embedder.set_output(transform="pandas").fit_transform(series)
    assert frame.index.equals(series.index)
    assert list(frame.columns) == list(embedder.get_feature_names_out())
    assert list(frame.columns[:2]) == ["clipembedder0", "clipembedder1"]
    assert frame.shape == (9, D_POOLED)


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ("pooled", D_POOLED),
        ("projected", D_PROJECTED),
        (2, D_POOLED),
        ("blocks", N_BLOCKS * D_POOLED),
    ],
)
def test_feature_names_are_as_many_as_features(embedder, image_files, features, width):
    embedder.set_params(features=features)
    assert len(embedder.get_feature_names_out()) == width
    assert embedder.transform(image_files[:2]).shape == (2, width)


def test_tags_declare_a_stateless_transformer_of_strings():
    tags = CLIPEmbedder().__sklearn_tags__()
    assert tags.input_tags.string and tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array and not tags.requires_fit


# What an image may be ----------------------------------------------------------------


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        lambda X: np.array(X, dtype=object),
        lambda X: np.array(X, dtype=object)[:, None],
        lambda X: np.array(X)[:, None],
        pd.Series,
        pd.Index,
        lambda X: pd.Series(X, index=range(9, 0, -1)),
        lambda X: pd.DataFrame({"path": X}),
        lambda X: [Path(x) for x in X],
        lambda X: [Path(x).read_bytes() for x in X],
        lambda X: [bytearray(Path(x).read_bytes()) for x in X],
        lambda X: [Image.open(x) for x in X],
        lambda X: [np.asarray(Image.open(x)) for x in X],
    ],
    ids=(
        "list tuple <U object column <Ucolumn Series Index reindexed frame Path bytes "
        "bytearray PIL pixels"
    ).split(),
)
def test_every_kind_of_input_gives_the_same_rows(embedder, image_files, container):
    expected = embedder.transform(image_files)
    embedder_of_other_kind = clone(embedder)
    rows = embedder_of_other_kind.transform(container(image_files))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    assert rows.dtype == np.float32


def test_a_stack_of_images_is_a_sequence(embedder, pixels):
    stack = np.stack([image[:40] for image in pixels])  # (9, 40, 50, 3)
    np.testing.assert_array_equal(
        embedder.transform(stack), embedder.transform(list(stack))
    )


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("photo.png", r"Got one str \('photo.png'\).*\[path\]"),
        (b"\x89PNG", "Got one bytes"),
        (bytearray(b"\x89PNG"), "Got one bytearray"),
        (Path("photo.png"), "Got one .*Path"),
        (Image.new("RGB", (4, 4)), "Got one Image.*pass a list"),
        (np.zeros((4, 5, 3), np.uint8), r"shape \(4, 5, 3\).*\[image\]"),
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\).*\[image\]"),
        (np.zeros((4, 1), np.uint8), r"shape \(4, 1\).*\[image\]"),
        (np.array("photo.png"), r"shape \(\)"),
        (np.array([b"photo.png"]), "pass a list, or str for paths"),
        (np.zeros((3, 64)), r"shape \(3, 64\).*Embeddings|embeddings go to the det"),
        (np.zeros((3, 1)), "embeddings go to the detector"),
        (np.zeros(3), "Got float64 .* at index 0"),
        (np.array([["a.png", "b.png"]]), "one image per row"),
        (pd.DataFrame({"path": ["a"], "y": [1]}), "frame of 2 columns"),
        ({"a.png": 0}, "Got one dict"),
        ({"a.png"}, "Got one set"),
        ((path for path in ["a.png"]), "Got one generator"),
        (None, "Got one NoneType"),
        (["a.png", None], "Got NoneType .* at index 1"),
        (pd.Series(["a.png", np.nan]), r"Got float \(nan\) at index 1"),
        ([["a.png"]], "Got list .* at index 0"),
        ([], "Got 0 images"),
        (pd.Series([], dtype=str), "Got 0 images"),
        (pd.DataFrame({"path": []}), "Got 0 images"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_what_is_no_sequence_of_images_is_refused(embedder, method, X, message):
    if hasattr(X, "__next__"):
        X = (path for path in ["a.png"])  # not the one that another method has drawn
    with pytest.raises(ValueError, match=message):
        getattr(embedder, method)(X)


def test_subclasses_of_pil_images_are_images(embedder, image_files):
    class Photograph(Image.Image):
        pass

    photograph = Photograph()
    photograph.__dict__.update(Image.open(image_files[0]).convert("RGB").__dict__)
    assert embedder.transform([photograph]).shape == (1, D_POOLED)


def test_one_lazily_opened_image_may_be_given_many_times(embedder, image_files):
    for path in image_files:
        rows = embedder.set_params(decode_threads=8).transform([Image.open(path)] * 16)
        assert (rows == rows[0]).all()


def test_an_image_closed_too_early_is_explained(embedder, image_files):
    with Image.open(image_files[0]) as closed:
        pass
    with pytest.raises(ValueError, match=r"index 0, a PngImageFile: .*image\.load\(\)"):
        embedder.transform([closed])


def test_the_callers_images_are_not_changed(embedder, image_files):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(image_files[0]).convert("RGB").save(buffer, "JPEG", exif=exif)
    image = Image.open(buffer)
    palette = Image.new("P", (8, 8))
    palette.info["transparency"] = bytes(256)
    embedder.set_params(apply_exif=True).transform([image, palette])
    assert image.getexif()[0x0112] == 6
    assert palette.info["transparency"] == bytes(256)


# Batches, order and duplicates -------------------------------------------------------


@pytest.mark.parametrize("n_images", [1, 3, 4, 5, 8, 9])
def test_rows_keep_their_order_over_batches(
    embedder, image_files, encoded, fresh_memo, n_images
):
    expected = np.vstack([embedder.transform([path]) for path in image_files])
    fresh_memo.clear()  # or the second call would not embed
    encoded.clear()
    np.testing.assert_allclose(
        clone(embedder).set_params(features="pooled").transform(image_files[:n_images]),
        expected[:n_images],
        atol=1e-5,
    )


def test_rows_are_right_when_every_second_one_is_known(embedder, image_files, encoded):
    expected = embedder.transform(image_files)
    embedder_memo_half_full = clone(embedder).set_params(resize="squash")
    squashed = embedder_memo_half_full.transform(image_files[::2])
    both = embedder_memo_half_full.transform(image_files)
    np.testing.assert_array_equal(both[::2], squashed)
    assert encoded == [4, 4, 1, 4, 1, 4]
    assert np.abs(both - expected).max() > 1e-3


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 5e-4)])
def test_a_row_does_not_depend_on_its_batch(
    embedder, image_files, encoded, fresh_memo, precision, bound
):
    rows = {}
    for batch_size in (1, 32):
        fresh_memo.clear()
        embedder.set_params(batch_size=batch_size, precision=precision)
        rows[batch_size] = embedder.transform(image_files)
    assert encoded == [1] * 9 + [9]
    assert cosine_distance(rows[1], rows[32]).max() < bound


def test_the_number_of_threads_changes_nothing(embedder, image_files, fresh_memo):
    rows = {}
    for n_threads in (1, 4):
        fresh_memo.clear()
        embedder.set_params(decode_threads=n_threads)
        rows[n_threads] = embedder.transform(image_files)
    np.testing.assert_array_equal(rows[1], rows[4])


@pytest.mark.parametrize("distance", [1, 3, 5, 8])
def test_duplicates_are_embedded_once(embedder, image_files, encoded, distance):
    # At a distance beyond the batch, the twin is decoded before the first is embedded.
    images = image_files[:distance] * 3
    rows = embedder.transform(images)
    assert sum(encoded) == distance
    np.testing.assert_array_equal(rows[:distance], rows[-distance:])


def test_no_more_than_a_few_batches_are_decoded_ahead(
    embedder, image_files, encoded, monkeypatch
):
    from sklearn_clipsid import _clip

    n_decoded, ahead, decode = [], [], _clip.decode_image

    def counted(*args, **options):
        n_decoded.append(1)
        return decode(*args, **options)

    monkeypatch.setattr(_clip, "decode_image", counted)
    images = [
        Path(path).read_bytes() + bytes(k) for k in range(8) for path in image_files
    ]
    embedder.set_params(batch_size=2, decode_threads=2)
    tower = embedder._image_tower()
    encode = type(tower).encode

    def watched(tower, pixels, features):
        ahead.append(len(n_decoded) - sum(encoded))
        return encode(tower, pixels, features)

    monkeypatch.setattr(type(tower), "encode", watched)
    assert len(embedder.transform(images)) == 72
    assert max(ahead) <= 2 + (2 * 2 + 2) + 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(embedder, image_files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(image_files[0]).read_bytes()[:200])
    embedder.set_params(on_error="nan").transform(image_files[:1])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.warns(UserWarning, match="Could not read one image, whose row is NaN"):
        embedder.transform([*image_files, broken])
    assert len(os.listdir("/proc/self/fd")) == before


# Unreadable images -------------------------------------------------------------------


def _unreadable_files(folder, good):
    """Name -> (file, reason)."""
    png = Path(good).read_bytes()
    jpeg = io.BytesIO()
    Image.open(good).save(jpeg, "JPEG")
    for name, data in {
        "empty.png": b"",
        "text.jpg": b"not an image\n" * 20,
        "short.png": png[: len(png) // 2],
        "header.png": png[:30],
        "short.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
    }.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    return {
        "missing.png": "No such file",
        "empty.png": r"empty \(0 bytes\)",
        "text.jpg": "not an image in a format that Pillow reads",
        "short.png": "truncated|broken data",
        "header.png": "not an image|truncated|Truncated",
        "short.jpg": "truncated",
        "program.png": "EPS program",
        "folder.png": "Is a directory",
        "dangling.png": "No such file",
        "pipe.png": "it is a pipe",
        "nul\0.png": "null byte",
        "\ud800.png": "surrogates not allowed",
        "": "Is a directory",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_each_unreadable_file_is_named_with_its_index_and_reason(
    embedder, image_files, tmp_path
):
    for name, reason in _unreadable_files(tmp_path, image_files[0]).items():
        path = os.path.join(tmp_path, name)
        with pytest.raises(ValueError, match=reason) as raised:
            embedder.transform([image_files[0], path, image_files[1]])
        assert str(raised.value).startswith(
            f"Could not read the image at index 1, {path!r}: "
        )
        assert "on_error='nan'" in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_unreadable_files_become_nan_rows_and_one_warning(
    embedder, image_files, tmp_path
):
    bad = [
        os.path.join(tmp_path, n) for n in _unreadable_files(tmp_path, *image_files[:1])
    ]
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="whose rows are NaN") as caught:
        rows = embedder.transform([*image_files[:2], *bad, image_files[2]])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert all(repr(path) in str(caught[0].message) for path in bad)
    is_nan = np.isnan(rows).all(axis=1)
    np.testing.assert_array_equal(is_nan, [False, False, *[True] * len(bad), False])
    np.testing.assert_array_equal(rows[~is_nan], embedder.transform(image_files[:3]))


def test_the_warning_counts_what_it_does_not_name(embedder):
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match=r"Could not read 50 images(.|\n)*and 30 more"):
        rows = embedder.transform([f"{i}.png" for i in range(50)])
    assert rows.shape == (50, D_POOLED) and np.isnan(rows).all()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_forbidden_file_is_unreadable(embedder, image_files, tmp_path):
    path = tmp_path / "forbidden.png"
    path.write_bytes(Path(image_files[0]).read_bytes())
    path.chmod(0)
    with pytest.raises(ValueError, match="Permission denied"):
        embedder.transform([path])


def test_decompression_bombs_are_unreadable(embedder, image_files, monkeypatch):
    for limit, reason in (
        (100, "DecompressionBombError|exceeds limit"),
        (1500, "Bomb"),
    ):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=f"index 0.*({reason})"):
            embedder.transform(image_files[:1])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
    ],
    ids=str,
)
def test_arrays_that_are_no_image_are_unreadable(embedder, pixels):
    with pytest.raises(ValueError, match="index 0, a ndarray: got an array of dtype"):
        embedder.transform([pixels])


def test_rows_before_the_unreadable_image_are_kept(embedder, image_files, encoded):
    with pytest.raises(ValueError, match="index 6"):
        embedder.transform([*image_files[:6], "missing.png", *image_files[6:]])
    assert sum(encoded) == 6
    embedder.transform(image_files[:6])
    assert sum(encoded) == 6


def test_the_detector_names_the_rows_of_unreadable_images(embedder, image_files):
    embedder.set_params(on_error="nan")
    detector = OrthogonalLinearDetector(n_components=2, max_iter=2)
    images = [*image_files[:5], "missing.png", *image_files[5:]]
    with pytest.warns(UserWarning, match=r"index 5, 'missing\.png'"):
        with pytest.raises(ValueError, match="NaN in 1 of 10 rows: 5"):
            make_pipeline(embedder, detector).fit(images, np.arange(10) % 2)


def test_numbers_that_overflow_are_refused(embedder, image_files, monkeypatch):
    tower = embedder._image_tower()
    monkeypatch.setattr(
        type(tower), "encode", lambda *_: np.full((4, D_POOLED), np.inf, np.float32)
    )
    with pytest.raises(ValueError, match="Got NaN or infinity from tiny-clip"):
        embedder.transform(image_files)


# Features ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tiny_clip):
    """open_clip's own whole model and preprocessing."""
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(tiny_clip)
    return model.eval(), preprocess


def test_projected_features_are_those_of_open_clip(embedder, image_files, reference):
    import torch

    model, preprocess = reference
    x = torch.stack([preprocess(Image.open(path)) for path in image_files])
    with torch.no_grad():
        expected = model.encode_image(x).numpy()
        unit = model.encode_image(x, normalize=True).numpy()
    embedder.set_params(features="projected")
    np.testing.assert_allclose(embedder.transform(image_files), expected, atol=1e-5)
    embedder.set_params(normalize=True)
    np.testing.assert_allclose(embedder.transform(image_files), unit, atol=1e-5)


def test_pooled_features_times_the_projection_are_projected(embedder, image_files):
    pooled = embedder.transform(image_files)
    projected = clone(embedder).set_params(features="projected").transform(image_files)
    P = embedder.projection()
    assert P.shape == (D_POOLED, D_PROJECTED)
    np.testing.assert_allclose(pooled @ P, projected, atol=1e-5)


def test_changing_the_returned_projection_changes_no_model(embedder):
    P = embedder.projection()
    before = P.copy()
    P[:] = 0
    np.testing.assert_array_equal(embedder.projection(), before)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_block_is_its_class_token(embedder, image_files, reference, block):
    import torch

    model, preprocess = reference
    seen = []
    hook = model.visual.transformer.resblocks[block - 1].register_forward_hook(
        lambda _module, _in, out: seen.append(out[:, 0].numpy())
    )
    with torch.no_grad():
        model.encode_image(
            torch.stack([preprocess(Image.open(p)) for p in image_files])
        )
    hook.remove()
    for number in (block, block - N_BLOCKS - 1):
        rows = clone(embedder).set_params(features=number).transform(image_files)
        np.testing.assert_allclose(rows, seen[0], atol=1e-5)


def test_blocks_are_all_blocks_side_by_side(embedder, image_files):
    one_by_one = [
        clone(embedder).set_params(features=block).transform(image_files)
        for block in (1, 2, 3)
    ]
    together = embedder.set_params(features="blocks").transform(image_files)
    np.testing.assert_allclose(together, np.hstack(one_by_one), atol=1e-6)
    picked = BlockSelector(block=2, n_blocks=3).fit_transform(together)
    np.testing.assert_array_equal(picked, together[:, D_POOLED : 2 * D_POOLED])


@pytest.mark.parametrize("block", [0, 4, -4, True])
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_a_block_that_is_not_there_is_refused_before_any_image(embedder, block, method):
    with pytest.raises(ValueError, match=f"block {block} but expected 1 to 3"):
        getattr(embedder.set_params(features=block), method)(["missing.png"])


def test_normalised_rows_have_unit_norm_and_are_not_embedded_again(
    embedder, image_files, encoded
):
    plain = embedder.transform(image_files)
    unit = clone(embedder).set_params(normalize=True).transform(image_files)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    assert cosine_distance(plain, unit).max() < 1e-6
    assert sum(encoded) == 9


def test_texts_are_embedded_as_by_open_clip(embedder, tiny_clip, reference):
    import open_clip
    import torch

    texts = ["a photograph", "a very long text " * 20, ""]
    with torch.no_grad():
        expected = reference[0].encode_text(open_clip.get_tokenizer(tiny_clip)(texts))
    rows = embedder.set_params(batch_size=2).embed_text(texts)
    np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)
    unit = embedder.set_params(normalize=True).embed_text(texts)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_text(texts[0]), unit[:1], atol=1e-6)


@pytest.mark.parametrize("texts", [[], [1], ["a", None]])
def test_what_is_no_text_is_refused(embedder, texts):
    with pytest.raises(ValueError, match="at least one string"):
        embedder.embed_text(texts)


# The encoder that a pipeline was fitted with -----------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"features": "projected"},
        {"features": 3},
        {"resize": "crop"},
        {"apply_exif": True},
        {"normalize": True},
    ],
    ids=str,
)
def test_changing_a_setting_after_fit_is_refused(embedder, image_files, changed):
    embedder.fit(image_files).set_params(**changed)
    with pytest.raises(ValueError, match=f"{next(iter(changed))} .*, fitted with"):
        embedder.transform(image_files)
    assert embedder.fit_transform(image_files).shape[0] == 9


def test_other_weights_after_fit_are_refused(
    embedder, image_files, write_tiny_clip, tmp_path
):
    other = write_tiny_clip(tmp_path / "other", seed=1)
    embedder.fit(image_files).set_params(pretrained=other)
    with pytest.raises(ValueError, match=r"weights '[0-9a-f]+', fitted with"):
        embedder.transform(image_files)


def test_the_same_weights_in_another_folder_are_accepted(
    embedder, image_files, write_tiny_clip, tmp_path
):
    expected = embedder.fit_transform(image_files)
    embedder.set_params(pretrained=write_tiny_clip(tmp_path / "moved"))
    np.testing.assert_array_equal(embedder.transform(image_files), expected)


def test_another_precision_after_fit_warns_at_the_users_line(embedder, image_files):
    pipe = make_pipeline(embedder).fit(image_files)
    embedder.set_params(precision="bf16")
    for transform in (embedder.transform, pipe.transform):
        with pytest.warns(
            UserWarning, match="precision 'bf16', fitted with 'fp32'"
        ) as w:
            transform(image_files)
        assert [warning.filename for warning in w] == [__file__]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_to_full(embedder, image_files, precision):
    full = embedder.transform(image_files)
    half = clone(embedder).set_params(precision=precision).transform(image_files)
    assert half.dtype == np.float32
    assert 0 < cosine_distance(full, half).max() < 1e-3


# Once per image ----------------------------------------------------------------------


def test_a_grid_search_embeds_each_image_once(embedder, image_files, encoded, tmp_path):
    paths = []
    for k in range(20):
        paths.append(str(tmp_path / f"{k}.png"))
        Image.fromarray(np.full((9, 9, 3), 12 * k, np.uint8)).save(paths[-1])
    pipe = make_pipeline(embedder, RidgeClassifier())
    grid = {"ridgeclassifier__alpha": [0.1, 1, 10, 100]}
    GridSearchCV(pipe, grid, cv=5, error_score="raise").fit(paths, np.arange(20) % 2)
    assert sum(encoded) == 20


def test_choosing_a_block_by_grid_search_embeds_each_image_once(
    embedder, image_files, encoded
):
    pipe = make_pipeline(
        embedder.set_params(features="blocks"),
        BlockSelector(n_blocks=3),
        RidgeClassifier(),
    )
    grid = {"blockselector__block": [1, 2, 3]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise")
    search.fit(image_files, np.arange(9) % 2)
    assert sum(encoded) == 9


# Progress ----------------------------------------------------------------------------


class Recorder:
    """The least that scikit-learn accepts as a callback."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, **_):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, **_):
        self.events.append(f"end {context.task_name}")


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("n_images", [8, 9])
def test_callbacks_hear_of_every_batch(embedder, image_files, in_pipeline, n_images):
    recorder = Recorder()
    embedder.set_callbacks(recorder)
    fitted = make_pipeline(embedder) if in_pipeline else embedder
    fitted.fit_transform(image_files[:n_images])
    n_batches = -(-n_images // 4)
    assert recorder.events[0] == "setup" and recorder.events[-1] == "teardown"
    assert recorder.events.count("begin batch") == n_batches
    assert recorder.events.count("end batch") == n_batches
    assert recorder.events.count("end fit") == 1


def test_callbacks_are_torn_down_after_an_error(embedder):
    recorder = Recorder()
    with pytest.raises(ValueError, match="index 0"):
        embedder.set_callbacks(recorder).fit_transform(["missing.png"])
    assert recorder.events[-1] == "teardown"


def test_verbose_draws_on_standard_error_alone(embedder, image_files, capfd):
    embedder.transform(image_files)
    assert capfd.readouterr() == ("", "")
    embedder.set_params(verbose=True).transform(image_files)
    out, err = capfd.readouterr()
    assert out == ""
    assert "tiny-clip on" in err and "9/9" in err and "fp32" in err


# The real encoder --------------------------------------------------------------------


@pytest.fixture
def real_images(shared_images):
    folders = sorted(path for path in shared_images.iterdir() if path.is_dir())
    images = [sorted(p for p in f.rglob("*") if p.is_file())[0] for f in folders]
    return images[:16]


@pytest.mark.real_clip
def test_bf16_is_close_to_fp32_on_real_images(demo_encoder, real_images):
    fp32 = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder))
    bf16 = clone(fp32).set_params(precision="bf16")
    cosine = 1 - cosine_distance(
        fp32.transform(real_images), bf16.transform(real_images)
    )
    assert cosine.mean() >= 0.9995
    assert cosine.min() >= 0.995


@pytest.mark.real_clip
def test_real_features_are_those_of_open_clips_tower(demo_encoder, real_images):
    import open_clip
    import torch
    from open_clip.model import _build_vision_tower
    from open_clip.transform import image_transform
    from safetensors.torch import load_file

    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"], True).eval()
    tensors = load_file(demo_encoder)
    tower.load_state_dict({k.removeprefix("visual."): v for k, v in tensors.items()})
    preprocess = image_transform(224, is_train=False)
    x = torch.stack([preprocess(Image.open(path)) for path in real_images[:3]])
    with torch.no_grad():
        expected = tower(x).numpy()
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder))
    pooled = embedder.transform(real_images[:3])
    embedder.set_params(features="projected")
    projected = embedder.transform(real_images[:3])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(projected, expected, atol=1e-5 * scale)
    np.testing.assert_allclose(
        pooled @ embedder.projection(), projected, atol=1e-5 * scale
    )
