import io

import numpy as np
import pytest
from PIL import Image

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid._clip import _images
from sklearn_clipsid._clip._images import (
    UnreadableImageError,
    crop_to_input,
    decode_image,
    save_image,
)
from sklearn_clipsid._clip._weights import Recipe

OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


def scene(height, width, seed=0):
    """Smooth shapes with some noise: neither constant nor pure noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + k) + y / (7 - k)) for k in range(3)]
    pixels = 110 + 80 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(image, format_name, **options):
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def _palette(**options):
    return saved(scene(30, 40).quantize(64), "PNG", **options)


def _sixteen_bit():
    ramp = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    return saved(Image.fromarray(ramp), "PNG")


def _animation(format_name, **options):
    frames = [scene(30, 40, seed) for seed in range(3)]
    if format_name == "GIF":
        frames = [frame.quantize(64) for frame in frames]
    options = {"save_all": True, "append_images": frames[1:], "duration": 90, **options}
    return saved(frames[0], format_name, **options)


def _with_orientation(orientation, format_name="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(scene(30, 40), format_name, exif=exif)


ZOO = {
    "palette": _palette,
    "palette with a transparent colour": lambda: _palette(transparency=3),
    "palette with alphas": lambda: _palette(transparency=bytes(range(64))),
    "grey": lambda: saved(scene(30, 40).convert("L"), "PNG"),
    "grey with a transparent colour": lambda: saved(
        scene(30, 40).convert("L"), "PNG", transparency=9
    ),
    "LA": lambda: saved(scene(30, 40).convert("LA"), "PNG"),
    "RGBA": lambda: saved(scene(30, 40).convert("RGBA"), "PNG"),
    "CMYK": lambda: saved(scene(30, 40).convert("CMYK"), "JPEG"),
    "grey JPEG": lambda: saved(scene(30, 40).convert("L"), "JPEG"),
    "progressive": lambda: saved(scene(300, 400), "JPEG", progressive=True),
    "subsampled": lambda: saved(scene(31, 41), "JPEG", quality=20, subsampling=2),
    "16 bit": _sixteen_bit,
    "1 bit": lambda: saved(scene(30, 40).convert("1"), "PNG"),
    "animated GIF": lambda: _animation("GIF"),
    "animated WebP": lambda: _animation("WEBP", lossless=True),
    "animated PNG": lambda: _animation("PNG"),
    "many TIFF pages": lambda: _animation("TIFF"),
    "float TIFF": lambda: saved(scene(30, 40).convert("F"), "TIFF"),
    "LAB": lambda: saved(scene(30, 40).convert("LAB"), "TIFF"),
    "MPO": lambda: _animation("MPO"),
    "BMP": lambda: saved(scene(30, 40), "BMP"),
    "rotated": lambda: _with_orientation(6),
    "1 x 1": lambda: saved(scene(1, 1), "PNG"),
    "wide": lambda: saved(scene(3, 5000), "PNG"),
    "high": lambda: saved(scene(5000, 3), "PNG"),
}


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_pixels_are_those_of_pillow(kind):
    data = ZOO[kind]()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_image(data)), expected)
    opened = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(decode_image(opened)), expected)


@pytest.mark.parametrize("kind", ZOO)
def test_decoding_never_warns(kind):
    data = ZOO[kind]()
    decode_image(data)
    decode_image(data, apply_exif=True)


@pytest.mark.parametrize("kind", ["animated GIF", "animated WebP", "animated PNG"])
def test_an_animation_counts_as_its_first_frame(kind):
    data = ZOO[kind]()
    assert Image.open(io.BytesIO(data)).n_frames == 3
    first = np.asarray(decode_image(data)).astype(float)
    errors = [np.abs(first - np.asarray(scene(30, 40, s))).mean() for s in range(3)]
    assert np.argmin(errors) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", ["bytes", "PIL"])
def test_exif_rotation_is_applied_once_and_only_when_asked(orientation, source):
    from PIL import ImageOps

    data = _with_orientation(orientation, "PNG")
    plain = np.asarray(scene(30, 40))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = data if source == "bytes" else Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(decode_image(image)), plain)
    turned = decode_image(image, apply_exif=True)
    np.testing.assert_array_equal(np.asarray(turned), upright)
    again = decode_image(turned, apply_exif=True)
    np.testing.assert_array_equal(np.asarray(again), upright)
    assert (upright.shape != plain.shape) == (orientation >= 5)


def test_rotation_reaches_the_embedding(tiny_clip, fresh_memo):
    embedder = CLIPEmbedder(pretrained=tiny_clip)
    data = _with_orientation(6, "PNG")
    turned = np.asarray(scene(30, 40).transpose(Image.Transpose.ROTATE_270))
    upright, plain = embedder.transform([turned, np.asarray(scene(30, 40))])
    np.testing.assert_allclose(embedder.transform([data])[0], plain, atol=1e-5)
    embedder.set_params(apply_exif=True)
    for image in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_allclose(embedder.transform([image])[0], upright, atol=1e-5)


def test_arrays_of_any_layout_are_pixels():
    pixels = np.asarray(scene(30, 40))
    for array in (
        pixels,
        np.asfortranarray(pixels),
        pixels[::-1][::-1],
        np.dstack([pixels, np.full((30, 40), 7, np.uint8)]),
    ):
        np.testing.assert_array_equal(np.asarray(decode_image(array)), pixels)
    grey = np.asarray(decode_image(pixels[..., 0]))
    np.testing.assert_array_equal(grey, np.dstack([pixels[..., 0]] * 3))


def test_damaged_files_raise_nothing_but_unreadable():
    rng = np.random.default_rng(0)
    formats = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "PPM", "TGA", "ICO"]
    n_refused = 0
    for format_name in formats:
        data = saved(scene(24, 30), format_name)
        for cut in range(24):
            damaged = bytearray(data if cut % 2 else data[: rng.integers(len(data))])
            for position in rng.integers(0, max(1, min(200, len(damaged))), 4):
                damaged[position : position + 1] = bytes([rng.integers(256)])
            try:
                decode_image(bytes(damaged), apply_exif=True)
            except UnreadableImageError as error:
                n_refused += 1
                assert str(error)
    assert n_refused > 50


# Geometry ----------------------------------------------------------------------------


def torchvision_recipe(resize, size):
    from open_clip.transform import image_transform
    from torchvision import transforms as T

    standard = [T.ToTensor(), T.Normalize(**OPENAI)]
    bicubic = T.InterpolationMode.BICUBIC
    return {
        "model": image_transform(size, is_train=False),
        "bilinear": T.Compose([T.Resize(size), T.CenterCrop(size), *standard]),
        "crop": T.Compose([T.CenterCrop(size), *standard]),
        "squash": T.Compose([T.Resize((size, size), bicubic), *standard]),
    }[resize]


def input_tensor(tower, image, recipe):
    """The tensor that the tower takes, under another recipe than its own."""
    from dataclasses import replace

    tower.recipe = replace(tower.recipe, mean=recipe.mean, std=recipe.std)
    return tower._standardise([crop_to_input(image, recipe)])[0].numpy()


@pytest.fixture
def tower(tiny_clip):
    from sklearn_clipsid._clip._tower import ImageTower
    from sklearn_clipsid._clip._weights import resolve_encoder

    return ImageTower(resolve_encoder("", tiny_clip), "cpu", "fp32")


SIZES = [(224, 224), (300, 400), (401, 299), (1, 1), (3, 500), (500, 3), (100, 150)]


@pytest.mark.parametrize("resize", ["model", "bilinear", "crop", "squash"])
@pytest.mark.parametrize("size", [32, 224])
def test_input_equals_the_torchvision_recipe(tower, resize, size):
    recipe = Recipe(size, **OPENAI).with_resize(resize)
    expected = torchvision_recipe(resize, size)
    for height, width in SIZES:
        image = scene(height, width)
        np.testing.assert_allclose(
            input_tensor(tower, image, recipe), expected(image).numpy(), atol=1e-6
        )


@pytest.mark.parametrize("resize", ["model", "bilinear", "crop", "squash"])
def test_input_of_real_files_equals_the_torchvision_recipe(
    tower, shared_images, resize
):
    folders = sorted(path for path in shared_images.iterdir() if path.is_dir())
    paths = [next(p for p in sorted(f.rglob("*")) if p.is_file()) for f in folders]
    recipe = Recipe(224, **OPENAI).with_resize(resize)
    expected = torchvision_recipe(resize, 224)
    for path in paths[:8]:
        image = decode_image(path.read_bytes())
        np.testing.assert_allclose(
            input_tensor(tower, image, recipe),
            expected(Image.open(path).convert("RGB")).numpy(),
            atol=1e-6,
        )


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_longest_side_resizing_is_open_clips(tower, shape):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    declared = PreprocessCfg(size=64, resize_mode="longest", fill_color=9, **OPENAI)
    expected = image_transform_v2(declared, is_train=False)
    recipe = Recipe(64, **OPENAI, geometry="longest", fill=9)
    image = scene(*shape)
    np.testing.assert_allclose(
        input_tensor(tower, image, recipe), expected(image).numpy(), atol=1e-6
    )


@pytest.mark.parametrize("shape", [(40, 700), (701, 40), (37, 1003), (300, 3001)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_panoramas_are_resampled_alike_without_the_panorama(
    monkeypatch, shape, interpolation
):
    recipe = Recipe(64, **OPENAI, interpolation=interpolation)
    image = scene(*shape)
    plain = crop_to_input(image, recipe).astype(int)
    scaled_pixels = 64 * 64 * max(shape) / min(shape)
    monkeypatch.setattr(_images, "MAX_RESIZED_PIXELS", scaled_pixels - 1)
    monkeypatch.setattr("torchvision.transforms.Resize", None)
    shortcut = crop_to_input(image, recipe).astype(int)
    assert np.abs(shortcut - plain).max() <= 1


def test_a_thin_line_does_not_fill_the_memory():
    pixels = np.zeros((1, 60_000, 3), np.uint8)
    cropped = crop_to_input(decode_image(pixels), Recipe(224, **OPENAI))
    assert cropped.shape == (224, 224, 3)


def test_small_images_are_padded_with_black_by_crop():
    recipe = Recipe(32, **OPENAI).with_resize("crop")
    cropped = crop_to_input(Image.new("RGB", (10, 10), "white"), recipe)
    assert (cropped == 255).all(axis=-1).sum() == 100
    assert (cropped == 0).all(axis=-1).sum() == 32 * 32 - 100


def test_saved_images_hold_the_pixels(tmp_path):
    pixels = np.asarray(scene(30, 40))
    save_image(pixels, tmp_path / "image.png")
    data = (tmp_path / "image.png").read_bytes()
    np.testing.assert_array_equal(np.asarray(decode_image(data)), pixels)
