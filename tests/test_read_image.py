"""What the encoder sees can be looked at, and embeds to the same rows."""

import numpy as np
import pytest
from PIL import Image

from sklearn_clipsid import CLIPEmbedder


@pytest.mark.parametrize("resize", ["model", "bilinear", "crop", "squash"])
def test_the_pixels_that_an_encoder_sees_embed_to_the_same_rows(
    tiny_clip, image_files, fresh_memo, resize
):
    embedder = CLIPEmbedder(pretrained=tiny_clip, resize=resize)
    pixels = embedder.preprocess(image_files)
    assert pixels.shape == (len(image_files), 32, 32, 3)
    assert pixels.dtype == np.uint8
    rows = embedder.transform(list(pixels))
    np.testing.assert_allclose(rows, embedder.transform(image_files), atol=1e-6)


def test_cropping_keeps_the_centre_as_it_is(tiny_clip, image_files):
    embedder = CLIPEmbedder(pretrained=tiny_clip, resize="crop")
    image = np.asarray(Image.open(image_files[0]))  # 40 by 50 pixels
    assert np.array_equal(embedder.preprocess(image_files[:1])[0], image[4:36, 9:41])


def test_images_are_rotated_only_when_asked(tiny_clip, tmp_path):
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = tmp_path / "rotated.png"
    Image.fromarray(pixels).save(path, exif=exif)
    as_stored = CLIPEmbedder(pretrained=tiny_clip).preprocess([path])[0]
    rotated = CLIPEmbedder(pretrained=tiny_clip, apply_exif=True).preprocess([path])[0]
    assert np.array_equal(as_stored, pixels)
    assert np.array_equal(rotated, pixels[::-1])


def test_an_unreadable_image_is_named(tiny_clip, image_files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    embedder = CLIPEmbedder(pretrained=tiny_clip)
    with pytest.raises(ValueError, match=r"index 1, '.*broken\.jpg': it is not an im"):
        embedder.preprocess([image_files[0], broken])
    with pytest.raises(ValueError, match=r"gone\.jpg': No such file"):
        embedder.preprocess([tmp_path / "gone.jpg"])
    with pytest.raises(ValueError, match="Got 0 images"):
        embedder.preprocess([])
