import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sklearn_clipsid._clip import read_file_facts
from sklearn_clipsid.datasets import equalize_images

SIZE = 32
MODES = ["RGB", "RGBA", "L", "P", "CMYK"]


def noise(rng, width, height):
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def sources(tmp_path, rng):
    """Paths of images of many kinds, in a folder of their own."""
    folder = tmp_path / "sources"
    folder.mkdir()
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat")
    exif = Image.Exif()
    exif[0x0131] = "camera"
    saved = {
        "RGB": ("jpg", {"quality": 40, "exif": exif, "icc_profile": b"0" * 128}),
        "RGBA": ("png", {"pnginfo": text}),
        "L": ("webp", {}),
        "P": ("gif", {}),
        "CMYK": ("jpg", {"progressive": True, "subsampling": "4:4:4"}),
    }
    paths = []
    for index, mode in enumerate(MODES):
        suffix, options = saved[mode]
        paths.append(str(folder / f"{mode}.{suffix}"))
        noise(rng, 40 + index, 60 - index).convert(mode).save(paths[-1], **options)
    return paths


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, dtype=float)


def test_copies_differ_in_nothing_but_the_picture(sources, tmp_path):
    copies = equalize_images(sources, tmp_path / "copies", size=SIZE)
    facts = [read_file_facts(copy) for copy in copies]
    same = {fact._replace(n_bytes=0, look=b"") for fact in facts}
    assert len(same) == 1
    (fact,) = same
    assert (fact.format, fact.mode, fact.quality) == ("JPEG", "RGB", 90)
    assert (fact.width, fact.height, fact.subsampling) == (SIZE, SIZE, "4:2:0")
    assert not (fact.has_exif or fact.software or fact.fields or fact.profile)
    for copy in copies:
        with Image.open(copy) as image:
            assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)


def test_a_copy_is_the_scaled_central_square_of_its_source(sources, tmp_path):
    copies = equalize_images(sources, tmp_path / "copies", size=SIZE, quality=95)
    for source, copy in zip(sources, copies):
        with Image.open(source) as image:
            side, left = min(image.size), (image.width - min(image.size)) // 2
            top = (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        expected = square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        expected.save(tmp_path / "expected.jpg", quality=95, subsampling="4:2:0")
        np.testing.assert_array_equal(pixels(copy), pixels(tmp_path / "expected.jpg"))


def test_images_stand_upright(tmp_path):
    (tmp_path / "sources").mkdir()
    path = tmp_path / "sources" / "lying.jpg"
    lying = np.zeros((64, 64, 3), dtype=np.uint8)
    lying[:, :32] = 255  # left, which orientation 6 turns to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(path, exif=exif)
    (copy,) = equalize_images([path], tmp_path / "copies", size=SIZE)
    brightness = pixels(copy).mean(axis=(1, 2))
    assert (brightness[:12] > 250).all()
    assert (brightness[-12:] < 5).all()


def test_names_tell_nothing_and_images_of_equal_bytes_share_a_copy(sources, tmp_path):
    twin = tmp_path / "sources" / "fake_twin.jpg"
    twin.write_bytes(Path(sources[0]).read_bytes())
    out_dir = tmp_path / "copies"
    copies = equalize_images([*sources, twin], out_dir, size=SIZE)
    assert copies[-1] == copies[0]
    assert sorted(os.listdir(out_dir)) == sorted({Path(c).name for c in copies})
    for copy in copies:
        assert re.fullmatch(r"[0-9a-f]{32}\.jpg", Path(copy).name)
    # Whatever the order of the sources, their number and other copies.
    again = equalize_images(sources[::-1], tmp_path / "others", size=SIZE, n_jobs=2)
    assert [Path(c).name for c in again] == [Path(c).name for c in copies[-2::-1]]
    other = equalize_images(sources, out_dir, size=SIZE, quality=80)
    assert not set(other) & set(copies)


def test_a_repeated_call_keeps_whole_copies_and_mends_others(sources, tmp_path):
    out_dir = tmp_path / "copies"
    copies = equalize_images(sources, out_dir, size=SIZE)
    written = {copy: Path(copy).read_bytes() for copy in copies}
    for copy in copies:
        os.utime(copy, (1, 1))
    Path(copies[1]).write_bytes(written[copies[1]][:-40])
    Path(copies[2]).unlink()
    assert equalize_images(sources, out_dir, size=SIZE) == copies
    assert {copy: Path(copy).read_bytes() for copy in copies} == written
    kept = [os.stat(copy).st_mtime == 1 for copy in copies]
    assert kept == [True, False, False, True, True]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_images_that_cannot_be_read_do_not_hold_up_others(n_jobs, sources, tmp_path):
    out_dir = tmp_path / "copies"
    whole = Path(sources[4]).read_bytes()
    # Its header tells the size, and pixels are missing.
    Path(sources[4]).write_bytes(whole[: -len(whole) // 2])
    with pytest.raises(ValueError, match="Got 1 of 5 files that cannot be") as caught:
        equalize_images(sources, out_dir, size=SIZE, n_jobs=n_jobs)
    assert f"{sources[4]!r} at index 4 (OSError: image file is" in str(caught.value)
    begun = os.listdir(out_dir)
    assert len(begun) == 4
    Path(sources[4]).write_bytes(whole)
    copies = equalize_images(sources, out_dir, size=SIZE)
    assert set(begun) == {Path(copy).name for copy in copies[:4]}


def test_a_full_disk_leaves_no_half_copy(sources, tmp_path, monkeypatch):
    from sklearn_clipsid._clip import _images

    save = _images.save_image

    def fail_at_third(pixels, path, **options):
        save(pixels, path, **options)
        if Path(path).name == "2.jpg":
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(_images, "save_image", fail_at_third)
    with pytest.raises(OSError, match="No space left"):
        equalize_images(sources, tmp_path / "copies", size=SIZE)
    names = os.listdir(tmp_path / "copies")
    assert len(names) == 2
    for name in names:
        assert read_file_facts(tmp_path / "copies" / name).width == SIZE


def test_smaller_images_are_enlarged_only_when_asked_to(sources, tmp_path):
    out_dir = tmp_path / "copies"
    with pytest.raises(ValueError, match="Got 2 of 5 images smaller than size=42") as e:
        equalize_images(sources, out_dir, size=42)
    assert f"{sources[0]!r} (40 x 60)" in str(e.value)
    assert "pass size=40, or enlarge=True" in str(e.value)
    assert not out_dir.exists()
    copies = equalize_images(sources, out_dir, size=42, enlarge=True)
    assert {read_file_facts(copy).width for copy in copies} == {42}


@pytest.mark.parametrize("out_dir", ["sources", "sources/copies", "."])
def test_copies_may_not_lie_among_their_sources(out_dir, sources, tmp_path):
    with pytest.raises(ValueError, match="expected folders apart from each other"):
        equalize_images(sources, tmp_path / out_dir, size=SIZE)
    assert sorted(os.listdir(tmp_path)) == ["sources"]


def test_a_folder_that_is_none_is_refused(sources, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, but expected a folder"):
        equalize_images(sources, tmp_path / "file")
    with pytest.raises(ValueError, match="Got out_dir='' but expected a folder"):
        equalize_images(sources, "")


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=str)
@pytest.mark.parametrize("enlarge", [False, True])
def test_an_unreadable_image_is_named(content, enlarge, sources, tmp_path):
    bad = tmp_path / "sources" / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"bad\.png' at index 5 \((it|the|No)"
    ) as caught:
        equalize_images([*sources, bad], tmp_path / "out", size=SIZE, enlarge=enlarge)
    assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize(
    "changed", [{"size": 0}, {"quality": 0}, {"quality": 101}, {"enlarge": 2}], ids=str
)
def test_a_bad_parameter_is_named(changed, sources, tmp_path):
    with pytest.raises(ValueError, match=f"The '{next(iter(changed))}' parameter"):
        equalize_images(sources, tmp_path / "copies", **changed)
