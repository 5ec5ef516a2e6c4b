import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from sklearn_clipsid._clip import UnreadableImageError, read_file_facts
from sklearn_clipsid.datasets import _near_duplicates as near_duplicates
from sklearn_clipsid.datasets import (
    equalize_images,
    leak_audit,
    load_image_folder,
)
from sklearn_clipsid.datasets._cue_auc import _Ranking

N = 15  # images of each class
Y = np.repeat([0, 1], N)
JPEG = {"format": "JPEG", "quality": 90, "subsampling": "4:2:0"}


def picture(rng, size=(32, 32), mode="RGB"):
    """A smooth random picture, as recognisable as a photograph."""
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def software(text):
    exif = Image.Exif()
    exif[0x0131] = text
    return exif


def write(folder, rng, saved, *, size=(32, 32), mode="RGB", prefix=""):
    """Write a picture under a name that says nothing, and return its path."""
    name = f"{prefix}{rng.integers(16**7, 16**8):x}0a{rng.integers(10, 99)}"
    path = folder / f"{name}.{saved['format'].lower()}"
    picture(rng, size, mode).save(path, **saved)
    return str(path)


def audit(paths, y=Y, groups=None, **changed):
    options = {"cv": 3, "n_boot": 200, "random_state": 0} | changed
    return leak_audit(paths, y, groups, **options)


def row(report, cue):
    return report.table[report.table["cue"] == cue][0]


# What the synthetic images have that the photographs have not, the cue that is to
# say so, what it saw, and the cues that cannot help but follow.
LEAKS = {
    "format": ({"format": "PNG"}, {}, "'JPEG': 100% of", {"JPEG", "chroma"}),
    "size": (JPEG, {"size": (40, 40)}, "32 to 32 of photographs, 40 to 40", set()),
    "aspect": (JPEG, {"size": (32, 40)}, "1 to 1 of photographs, 0.8", {"size"}),
    "JPEG quality": (JPEG | {"quality": 60}, {}, "quality: 90 to 90 of", set()),
    "chroma subsampling": (JPEG | {"subsampling": "4:4:4"}, {}, "'4:", set()),
    "progressive JPEG": (JPEG | {"progressive": True}, {}, "0% of photo", set()),
    "EXIF and software": (JPEG | {"exif": software("SD")}, {}, "EXIF: 0%", set()),
    "colour profile": (JPEG | {"icc_profile": b"0" * 128}, {}, "0% of p", set()),
    "colour mode": (JPEG, {"mode": "L"}, "mode 'RGB'", {"JPEG", "chroma"}),
    "file name": (JPEG, {"prefix": "sdxl_"}, "length of name: 12", set()),
}


@pytest.mark.parametrize("cue", LEAKS)
def test_a_leak_is_found_and_named(cue, tmp_path, rng):
    saved, drawn, saw, followers = LEAKS[cue]
    paths = [write(tmp_path, rng, JPEG) for _ in range(N)]
    paths += [write(tmp_path, rng, saved, **drawn) for _ in range(N)]
    report = audit(paths)
    found = row(report, cue)
    assert (found["verdict"], found["leaks"]) == ("leaks", True)
    assert found["auc"] == found["high"] == 1
    # So many pairs of other images would all be in order by chance.
    assert found["low"] == pytest.approx(0.025 ** (1 / N))
    assert saw in found["saw"]
    assert row(report, "all together")["leaks"]
    # Bits per pixel follow most of them.
    allowed = {cue, "bits per pixel", "all together"}
    for other in set(report.table["cue"][report.table["leaks"]]) - allowed:
        assert other.split()[0] in followers
    assert f"{cue:<20} 1.00  0.78  1.00  LEAKS" in repr(report)
    assert f"  {cue}: {found['remedy']}." in repr(report)


def test_bits_per_pixel_leak_where_one_class_has_less_detail(tmp_path, rng):
    paths = [write(tmp_path, rng, JPEG) for _ in range(N)]
    for index in range(N):
        paths.append(str(tmp_path / f"{rng.integers(16**8, 16**9):x}a{index:02}.jpeg"))
        Image.new("RGB", (32, 32), (index, 0, 0)).save(paths[-1], **JPEG)
    report = audit(paths)
    assert row(report, "bits per pixel")["auc"] == 1
    assert report.n_flat == N
    assert f"photograph: 0 (not compared, for want of contrast: {N})" in repr(report)


def test_what_is_the_same_in_all_files_is_no_leak(tmp_path, rng):
    report = audit([write(tmp_path, rng, JPEG) for _ in Y])
    table = report.table
    told = np.isin(table["cue"], ["bits per pixel", "all together"])
    for bound in ("auc", "low", "high"):
        assert (table[bound][~told] == 0.5).all()
        assert np.isfinite(table[bound]).all()
    assert set(table["saw"][~told]) == {"the same in all files"}
    assert not table["leaks"].any()
    assert set(table["verdict"][~told]) == {"-"}


def test_no_field_of_the_table_holds_a_path(tmp_path, rng):
    exif = software("Lab 3")
    paths = [write(tmp_path, rng, JPEG, prefix="dsc_") for _ in range(N)]
    paths += [write(tmp_path, rng, JPEG | {"exif": exif}) for _ in range(N)]
    report = audit(paths)
    assert "dsc" not in str(tmp_path)
    assert tmp_path.name not in str(report.table.tolist())
    assert str(tmp_path) not in repr(report)


def test_random_labels_do_not_leak(tmp_path, rng):
    kinds = [JPEG, JPEG | {"quality": 60}, {"format": "PNG"}, {"format": "WEBP"}]
    sizes = [(32, 32), (40, 32), (48, 64)]
    paths = [
        write(tmp_path, rng, kinds[i % 4], size=sizes[i % 3], prefix="ab"[i % 2])
        for i in rng.permutation(80)
    ]
    report = audit(paths, rng.permutation(80) % 2)
    assert not report.table["leaks"].any()


def test_what_groups_have_in_common_is_no_leak(tmp_path, rng):
    # Each of 20 motifs is of one size and of one class, by chance.
    motif = np.repeat(np.arange(20), 5)
    y = rng.permutation(20)[motif] % 2
    paths = [write(tmp_path, rng, JPEG, size=(32 + m, 32 + m)) for m in motif]
    assert row(audit(paths, y), "size")["auc"] > 0.95
    assert not row(audit(paths, y, motif), "size")["leaks"]


def test_a_handful_of_sources_leaves_a_perfect_cue_unclear(tmp_path, rng):
    # Seven photo sources of one size, and seven generators of another.
    group = np.repeat(np.arange(14), 3)
    y = group // 7
    paths = [write(tmp_path, rng, JPEG, size=(32 + 8 * c,) * 2) for c in y]
    found = row(audit(paths, y, group, cv=2), "size")
    assert (found["auc"], found["verdict"]) == (1, "unclear")
    assert found["low"] == pytest.approx(0.025 ** (1 / 7))
    assert row(audit(paths, y), "size")["leaks"]


def test_draws_whose_classes_lie_in_other_folds_are_left_out(tmp_path, rng):
    paths = [write(tmp_path, rng, JPEG, size=(32 + i % 4,) * 2) for i in range(2 * N)]
    report = audit(paths, groups=np.arange(2 * N) // 8, cv=2)
    for bound in ("auc", "low", "high"):
        assert np.isfinite(report.table[bound]).all()


def test_the_auc_is_that_of_pairs_within_a_fold(rng):
    score = rng.integers(0, 9, 60) / 9  # with ties
    positive, fold = rng.random(60) < 0.4, rng.integers(0, 3, 60)
    weight = rng.integers(0, 4, 60)
    aucs, n_pairs = [], []
    for k in range(3):
        rows = fold == k
        of_class = [weight[rows & own].sum() for own in (positive, ~positive)]
        aucs.append(
            roc_auc_score(positive[rows], score[rows], sample_weight=weight[rows])
        )
        n_pairs.append(np.prod(of_class))
    expected = np.average(aucs, weights=n_pairs)
    ranking = _Ranking(score, positive, fold)
    assert ranking.auc(weight) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ranking.auc(np.where(positive, 1, 0)))


COPIES = {
    "recompressed": lambda image: (image, {"format": "JPEG", "quality": 30}),
    "half as large": lambda image: (image.resize((60, 40)), JPEG),
    "larger, WebP": lambda image: (image.resize((360, 240)), {"format": "WEBP"}),
    "another aspect": lambda image: (image.resize((90, 90)), {"format": "PNG"}),
    "grey": lambda image: (image.convert("L"), {"format": "PNG"}),
    "lying, with EXIF": lambda image: (
        image.transpose(Image.Transpose.ROTATE_90),
        JPEG | {"exif": orientation(6)},
    ),
}


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_copies_of_photographs_in_the_other_class_are_found(tmp_path, rng):
    photos = [picture(rng, (120, 80)) for _ in range(N)]
    paths = [str(tmp_path / f"photo{index}.jpg") for index in range(N)]
    for path, photo in zip(paths, photos):
        photo.save(path, **JPEG)
    for index, copied in enumerate(COPIES.values()):
        image, saved = copied(photos[index])
        paths.append(str(tmp_path / f"copy{index}.{saved['format'].lower()}"))
        image.save(paths[-1], **saved)
    n_copies = len(COPIES)
    paths += [write(tmp_path, rng, JPEG) for _ in range(N - n_copies)]
    groups = np.arange(2 * N)
    groups[N] = 0  # the first copy is known to be one
    pairs = audit(paths, groups=groups).near_duplicates
    assert dict(zip(pairs["synthetic"], pairs["photograph"])) == dict(
        zip(paths[N : N + n_copies], paths[:n_copies])
    )
    assert (np.diff(pairs["difference"]) >= 0).all()
    assert pairs["synthetic"][pairs["same_group"]].tolist() == [paths[N]]
    printed = repr(audit(paths, groups=groups))
    assert f"{n_copies - 1} share no group with it ('copy" in printed
    assert "like 'photo" in printed


@pytest.mark.parametrize("block", [1, 50, 10_000])
def test_near_duplicates_are_those_of_all_pairs(block, rng, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    signs = rng.choice([-1.0, 1.0], (70, 63))
    positive = rng.random(70) < 0.5
    signs[positive] = signs[rng.choice(np.flatnonzero(~positive), positive.sum())]
    signs[rng.random(signs.shape) < 0.1] *= -1
    signs[rng.random(signs.shape) < 0.1] = 0
    looks = [np.packbits([row > 0, row != 0], axis=1).tobytes() for row in signs]
    looks[3] = looks[40] = b""
    usable = np.array([look != b"" for look in looks])
    real, fake = np.flatnonzero(usable & ~positive), np.flatnonzero(usable & positive)
    unit = signs / np.linalg.norm(signs, axis=1, keepdims=True)
    distance = (1 - unit[fake] @ unit[real].T) / 2
    expected = distance.min(axis=1) <= near_duplicates.MAX_DIFFERENCE
    assert 0 < expected.sum() < len(fake)
    found = near_duplicates.nearest_photographs(looks, positive, 63)
    np.testing.assert_array_equal(found[0], fake[expected])
    np.testing.assert_array_equal(found[1], real[distance.argmin(axis=1)[expected]])
    np.testing.assert_allclose(found[2], distance.min(axis=1)[expected], atol=1e-6)


def test_without_a_recognisable_photograph_there_are_no_near_duplicates():
    looks = [b"", b"\1" * 16]
    found = near_duplicates.nearest_photographs(looks, np.array([False, True]), 63)
    assert [len(part) for part in found] == [0, 0, 0]


def test_the_quality_of_a_jpeg_is_recovered(tmp_path, rng):
    image = picture(rng)
    for quality in range(1, 101):
        image.save(tmp_path / "image.jpg", quality=quality)
        assert read_file_facts(tmp_path / "image.jpg").quality == quality


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_chroma_subsampling_is_read(subsampling, tmp_path, rng):
    picture(rng).save(tmp_path / "image.jpg", subsampling=subsampling)
    assert read_file_facts(tmp_path / "image.jpg").subsampling == subsampling


def test_metadata_of_a_png_are_named(tmp_path, rng):
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("parameters", "a cat, steps 20")
    texts.add_text("Software", "ComfyUI\0")
    picture(rng, mode="P").save(tmp_path / "image.png", pnginfo=texts)
    facts = read_file_facts(tmp_path / "image.png")
    assert facts.fields == ("Software", "parameters")
    assert facts.software == "ComfyUI"
    assert (facts.format, facts.mode, facts.tables) == ("PNG", "P", "")
    assert facts.n_bytes == (tmp_path / "image.png").stat().st_size
    assert not facts.has_exif
    assert np.isnan(facts.quality)


def test_damaged_exif_is_a_fact_and_no_error(tmp_path, rng):
    picture(rng).save(tmp_path / "image.jpg", exif=b"Exif\0\0II*\0\xff\xff")
    facts = read_file_facts(tmp_path / "image.jpg")
    assert facts.has_exif
    assert facts.software == ""


def test_a_damaged_file_is_named(tmp_path, rng):
    paths = [write(tmp_path, rng, JPEG) for _ in Y]
    whole = (tmp_path / paths[3]).read_bytes()
    with open(paths[3], "wb") as file:
        file.write(whole[:-40])
    with open(paths[7], "wb") as file:
        file.write(b"no image")
    paths[9] = str(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="Got 3 of 30 files that cannot") as caught:
        audit(paths)
    message = str(caught.value)
    assert f"{paths[3]!r} at index 3 (OSError: " in message
    assert "truncated" in message
    assert f"{paths[7]!r} at index 7 (it is not an image in a format that" in message
    assert f"{paths[9]!r} at index 9 (No such file or directory)" in message
    with pytest.raises(UnreadableImageError, match=r"empty \(0 bytes\)"):
        (tmp_path / "empty.png").write_bytes(b"")
        read_file_facts(tmp_path / "empty.png")


ANY = [f"{index}.jpg" for index in range(2 * N)]


@pytest.mark.parametrize(
    ("y", "changed", "message"),
    [
        (np.zeros(2 * N, int), {}, "Got y with the labels 0 but expected rows with"),
        (np.ones(2 * N, int), {}, "Got 0 photographs but expected at least 10"),
        (np.arange(2 * N) < 9, {}, "Got 9 synthetic images but expected at least 10"),
        (Y[1:], {}, "Got y with 29 rows but expected 30"),
        (Y, {"cv": 16}, "Got 15 photographs but expected at least 16"),
        (Y, {"cv": 1}, "The 'cv' parameter"),
        (Y, {"n_boot": 0}, "The 'n_boot' parameter"),
        (Y, {"groups": np.arange(29)}, "Got groups with 29 rows but expected 30"),
        (Y, {"groups": np.arange(30) // 15}, "Got groups with 2 values for cv=3"),
        (Y, {"groups": np.c_[Y, Y]}, r"groups of shape \(30, 2\) but .*one column"),
        (
            Y,
            {"groups": np.r_[np.zeros(15), np.arange(15) // 3 + 1]},
            "groups that leave one of cv=3 folds without photographs",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused(y, changed, message):
    # Before the files are read, as there are none.
    with pytest.raises(ValueError, match=message):
        audit(ANY, y, **changed)


def test_images_that_are_no_files_are_refused():
    with pytest.raises(ValueError, match=r"Got bytes at index 0 but expected paths"):
        audit([b"", *ANY[1:]])


def test_labels_may_be_words_and_jobs_many(tmp_path, rng):
    paths = [write(tmp_path, rng, JPEG) for _ in range(N)]
    paths += [write(tmp_path, rng, JPEG | {"quality": 85}) for _ in range(N)]
    words = np.array(["real", "fake"])[Y]
    with joblib.parallel_config(backend="threading"):
        report = audit(paths, words, pos_label="fake", n_jobs=2)
    assert report.table.tolist() == audit(paths).table.tolist()


def test_the_leaks_of_real_images_are_found_and_removed(shared_images, tmp_path):
    images = load_image_folder(shared_images / "manifest.csv")
    before = audit(images.data, images.target, images.pair_id)
    for cue in ("format", "size", "aspect", "JPEG quality", "file name"):
        assert row(before, cue)["leaks"], cue
    copies = equalize_images(images.data, tmp_path / "copies")
    after = audit(copies, images.target, images.pair_id)
    assert not after.table["leaks"].any()
    told = {"bits per pixel", "all together"}
    assert {r["cue"] for r in after.table if r["auc"] != 0.5} <= told
    # Synthetic images that were made out of photographs, and of no other.
    for pairs in (before.near_duplicates, after.near_duplicates):
        assert len(pairs) >= 9
        assert pairs["same_group"].all()
