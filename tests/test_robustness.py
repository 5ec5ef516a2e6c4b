import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.signal import convolve2d
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import AbstainingClassifier, CLIPEmbedder, _progress
from sklearn_clipsid.model_selection import _robustness, robustness_table
from sklearn_clipsid.model_selection._robustness import OPERATIONS


class Measuring(ClassifierMixin, BaseEstimator):
    """Scores an image by a number of its pixels, and notes what it was given."""

    def __init__(self, measure=np.mean, threshold=128.0):
        self.measure = measure
        self.threshold = threshold

    def fit(self, images, y):
        self.classes_ = np.unique(y)
        self.batches_ = []
        return self

    def decision_function(self, images):
        self.batches_.append(images)
        pixels = [i if isinstance(i, np.ndarray) else Image.open(i) for i in images]
        pixels = [
            np.asarray(i if isinstance(i, np.ndarray) else i.convert("RGB"))
            for i in pixels
        ]
        return np.array([float(self.measure(p)) for p in pixels]) - self.threshold

    def predict(self, images):
        return self.classes_[(self.decision_function(images) > 0).astype(int)]


def add(pixels, strength, random_state):
    """Brighten, whatever the image."""
    return np.clip(pixels + strength, 0, 255).astype(np.uint8)


def stripes(height, width):
    """A picture with edges, and no two channels alike."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 2), np.cos(y / 3), np.sin((x + y) / 4)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.fixture
def grey():
    """Grey squares: photographs dark, synthetic images light, with an overlap."""
    levels = np.r_[20:120:10, 100:200:10]
    y = np.repeat([0, 1], 10)
    images = [np.full((6, 8, 3), level, dtype=np.uint8) for level in levels]
    return images, y, levels


@pytest.fixture
def detector():
    return Measuring().fit(None, [0, 1])


def test_the_table_counts_scores_and_verdicts(grey, detector):
    images, y, levels = grey
    result = robustness_table(
        detector, images, y, {"lighter": (add, [10, 30]), "darker": (add, [-50])}
    )
    assert result.table["operation"].tolist() == [
        "clean",
        "lighter",
        "lighter",
        "darker",
    ]
    assert result.table["strength"].tolist() == [0, 10, 30, -50]
    for row, shift in zip(result.table, [0, 10, 30, -50]):
        score = np.clip(levels + shift, 0, 255) - 128.0
        called = score > 0
        assert row["n"] == 20
        assert row["ap"] == average_precision_score(y, score)
        assert row["auc"] == roc_auc_score(y, score)
        assert row["fpr"] == called[y == 0].mean()
        assert row["tpr"] == called[y == 1].mean()
        assert row["flips"] == np.mean(called != (levels > 128))
        assert row["score_shift"] == np.mean(score - (levels - 128))
    np.testing.assert_array_equal(result.scores[1], levels + 10 - 128.0)
    np.testing.assert_array_equal(result.verdicts, result.scores > 0)
    assert len(pd.DataFrame(result.table)) == 4


def test_clean_scores_are_those_of_the_files(image_files, detector):
    y = np.arange(9) % 2
    result = robustness_table(detector, image_files, y, {"crop": [1], "resize": [1]})
    np.testing.assert_array_equal(
        result.scores[0], detector.decision_function(image_files)
    )
    # Nothing was cropped or scaled.
    for row in (1, 2):
        np.testing.assert_array_equal(result.scores[row], result.scores[0])
    assert result.table["flips"].tolist() == [0, 0, 0]


def test_a_pipeline_embeds_each_picture_once(tiny_clip, image_files, encoded):
    pipe = make_pipeline(
        CLIPEmbedder(tiny_clip, tiny_clip, decode_threads=1), LogisticRegression()
    )
    y = np.arange(9) % 2
    pipe.fit(image_files, y)
    encoded.clear()
    result = robustness_table(pipe, image_files, y, {"jpeg": [50], "blur": [1]})
    assert sum(encoded) == 3 * 9  # for score and verdict
    from_files = pipe.decision_function(image_files)
    np.testing.assert_allclose(result.scores[0], from_files, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(result.verdicts, result.scores > 0)


def test_every_operation_is_done_at_every_strength_unless_chosen(detector):
    images, y = [stripes(9, 12), stripes(12, 9)], [0, 1]
    rows = robustness_table(detector, images, y, random_state=0).table
    expected = [
        (name, strength)
        for name, (_, strengths) in OPERATIONS.items()
        for strength in strengths
    ]
    assert rows[["operation", "strength"]].tolist()[1:] == expected
    assert {s for name, s in expected if name == "jpeg"} == {95, 75, 50, 30}
    chosen = robustness_table(detector, images, y, ["blur", "crop"]).table
    assert chosen["operation"].tolist() == ["clean"] + ["blur"] * 3 + ["crop"] * 3
    assert len(robustness_table(detector, images, y, "webp").table) == 4


def edit(name, strength, pixels, seed=0):
    before = pixels.copy()
    random_state = np.random.RandomState(seed)
    edited = OPERATIONS[name][0](pixels, strength, random_state)
    np.testing.assert_array_equal(pixels, before)
    return edited


@pytest.mark.parametrize(("name", "format_name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("quality", [30, 90])
def test_compression_is_pillows(name, format_name, quality, tmp_path):
    pixels = stripes(40, 50)
    path = tmp_path / "image"
    Image.fromarray(pixels).save(path, format_name, quality=quality)
    expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(edit(name, quality, pixels), expected)
    assert (expected != pixels).any()


@pytest.mark.parametrize(
    ("name", "strength", "shape"),
    [
        ("resize", 0.25, (10, 15)),
        ("resize", 2, (80, 120)),
        ("resize", 0.01, (1, 1)),
        ("crop", 0.5, (20, 30)),
        ("crop", 0.01, (1, 1)),
        ("screenshot", 90, (720, 1080)),
    ],
)
def test_sizes_are_those_asked_for(name, strength, shape):
    assert edit(name, strength, stripes(40, 60)).shape == (*shape, 3)


def test_a_crop_keeps_the_centre():
    pixels = stripes(40, 61)
    np.testing.assert_array_equal(edit("crop", 0.5, pixels), pixels[10:30, 15:45])


def test_a_blur_is_the_convolution_with_a_gaussian():
    pixels = np.zeros((21, 21, 3), dtype=np.uint8)
    pixels[8:13, 8:13] = 250
    x = np.arange(-8, 9)
    kernel = np.exp(-(x**2) / (2 * 2.0**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = convolve2d(pixels[..., 0].astype(float), kernel, mode="same")
    np.testing.assert_allclose(edit("blur", 2, pixels)[..., 0], expected, atol=1)
    np.testing.assert_array_equal(edit("blur", 0, stripes(9, 9)), stripes(9, 9))


def test_noise_has_the_deviation_asked_for():
    pixels = np.full((200, 200, 3), 128, dtype=np.uint8)
    weak, strong = (edit("noise", s, pixels).astype(float) - 128 for s in (5, 10))
    assert weak.std() == pytest.approx(5, rel=0.01)
    assert strong.std() == pytest.approx(10, rel=0.01)
    assert np.abs(strong - 2 * weak).max() <= 1.5  # the same noise, and rounding


def test_a_screenshot_is_scaled_and_compressed():
    pixels = stripes(1350, 1620)
    scaled = edit("resize", 1080 / 1620, pixels)
    np.testing.assert_array_equal(
        edit("screenshot", 75, pixels), edit("jpeg", 75, scaled)
    )


def test_noise_depends_on_the_seed_alone(grey, monkeypatch):
    images, y, _ = grey
    texture = Measuring(lambda pixels: pixels.std(), 5.0).fit(None, [0, 1])

    def scores(operations, seed=0, **options):
        return robustness_table(
            texture, images, y, operations, random_state=seed, **options
        ).scores[-1]

    alone = scores({"noise": [5]})
    assert len(np.unique(alone)) > 15  # each image has its own
    np.testing.assert_array_equal(alone, scores({"blur": [1], "noise": [2, 5]}))
    np.testing.assert_array_equal(alone, scores({"noise": [5]}, n_jobs=2))
    assert (alone != scores({"noise": [5]}, seed=1)).all()
    monkeypatch.setattr(_robustness, "MAX_IMAGES", 3)
    np.testing.assert_array_equal(alone, scores({"noise": [5]}))


def test_memory_holds_few_images_at_once(grey, detector, monkeypatch):
    images, y, _ = grey
    monkeypatch.setattr(_robustness, "MAX_PIXELS", 3 * 48)
    read = []
    monkeypatch.setattr(
        _robustness,
        "read_image",
        lambda image, *args, **options: read.append(image) or image,
    )
    result = robustness_table(
        detector, images, y, {"lighter": (add, [1, 2])}, threshold=0
    )
    sizes = [len(batch) for batch in detector.batches_]
    assert sizes == [3] * 18 + [2] * 3  # clean, 1, 2 for each batch
    assert len(read) == 20  # each image is decoded once
    np.testing.assert_array_equal(result.scores[2], result.scores[0] + 2)


def test_an_image_larger_than_the_limit_is_a_batch_of_its_own(
    grey, detector, monkeypatch
):
    images, y, _ = grey
    monkeypatch.setattr(_robustness, "MAX_PIXELS", 1)
    robustness_table(detector, images, y, {"crop": [0.5]}, threshold=0)
    assert {len(batch) for batch in detector.batches_} == {1}
    assert all(
        isinstance(b[0], np.ndarray) and b[0].dtype == np.uint8
        for b in detector.batches_
    )


def test_verdicts_follow_the_threshold_or_predict(grey, detector):
    images, y, levels = grey
    lighter = {"lighter": (add, [5])}
    given = robustness_table(detector, images, y, lighter, threshold=-40)
    np.testing.assert_array_equal(given.verdicts[0], levels - 128 > -40)
    # predict of a meta-estimator has a threshold of its own.
    dark = Measuring(threshold=0.0).fit(None, [0, 1])
    model = AbstainingClassifier(dark, cv="prefit", max_fpr=0.5, confidence=0.6)
    model.fit(images, y)
    own = robustness_table(model, images, y, lighter)
    np.testing.assert_array_equal(own.verdicts[0], model.predict(images) == 1)
    assert 0 < own.verdicts[0].mean() < 1


def test_pos_label_names_the_synthetic_images(grey):
    images, y, _ = grey
    text = np.where(y == 1, "fake", "photo")
    # The second label in sorted order is the photograph: light ones here.
    turned = Measuring().fit(None, ["fake", "photo"])
    table = robustness_table(turned, images, text, "crop", pos_label="fake").table
    straight = robustness_table(turned, images, text, "crop", pos_label="photo").table
    assert table["auc"][0] == straight["auc"][0] == pytest.approx(0.02)
    assert table["fpr"][0] == 1 - straight["tpr"][0]


def test_exif_rotation_is_applied_when_asked(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    tall = Measuring(lambda pixels: pixels.shape[0], 25.0).fit(None, [0, 1])
    images = [path, np.zeros((20, 30, 3), dtype=np.uint8)]
    for apply_exif, height in ((False, 20), (True, 30)):
        result = robustness_table(tall, images, [1, 0], "blur", apply_exif=apply_exif)
        assert result.scores[:, 0].tolist() == [height - 25.0] * 4


def test_a_bar_counts_edited_images_when_it_takes_long(
    grey, detector, capsys, monkeypatch
):
    images, y, _ = grey
    robustness_table(detector, images, y, "crop")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "SECONDS_OF_SILENCE", 0)
    robustness_table(detector, images, y, "crop")
    assert "/80" in capsys.readouterr().err  # 20 images: clean, and three crops


@pytest.mark.parametrize("features", [np.zeros((2, 5)), pd.DataFrame(np.zeros((2, 5)))])
def test_features_are_told_from_images(detector, features):
    with pytest.raises(ValueError, match=r"table of numbers of shape \(2, 5\).*paths"):
        robustness_table(detector, features, [0, 1])


def test_a_detector_of_features_is_told_what_it_lacks(grey):
    images, y, _ = grey
    model = LogisticRegression().fit(np.arange(20.0)[:, None], y)
    with pytest.raises(
        ValueError, match=r"LogisticRegression could not score images.*put"
    ):
        robustness_table(model, images, y)


def test_an_unreadable_image_is_named(tmp_path, detector):
    Image.fromarray(stripes(8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    paths = [tmp_path / "good.png", tmp_path / "bad.png"]
    with pytest.raises(ValueError, match=r"at index 1, '.*bad\.png'"):
        robustness_table(detector, paths, [0, 1])


def test_an_image_that_an_encoder_refuses_is_named(detector):
    wide = np.zeros((1, 20_000, 3), dtype=np.uint8)  # WebP ends at 16,383 pixels
    with pytest.raises(
        ValueError, match=r"'webp' with strength 50\.0 to the image at index 1"
    ):
        robustness_table(detector, [stripes(8, 8), wide], [0, 1], {"webp": 50})


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), dtype=np.uint8), r"\(4, 4\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\(0, 4, 3\)"),
        ([1, 2], "list"),
    ],
)
def test_what_an_own_operation_returns_is_checked(grey, detector, returned, kind):
    images, y, _ = grey
    mine = {"mine": (lambda pixels, strength, random_state: returned, [1])}
    with pytest.raises(ValueError, match=f"{kind}.*from 'mine' with strength 1.0"):
        robustness_table(detector, images, y, mine)


def test_an_own_operation_that_fails_is_named(grey, detector):
    images, y, _ = grey
    mine = {"mine": (lambda pixels, strength, random_state: 1 / 0, [1])}
    with pytest.raises(ValueError, match=r"'mine'.*index 0.*ZeroDivisionError"):
        robustness_table(detector, images, y, mine)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (["jepg"], "the operation 'jepg' but expected one of"),
        ({"sepia": [1, 2]}, r"'sepia'.*\{'sepia': \(function, strengths\)\}"),
        ({}, "at least one operation"),
        ({"jpeg": []}, "at least one operation"),
        ({"jpeg": [0]}, "strength 0 of 'jpeg' but expected a number from 1 to 100"),
        ({"crop": [1.5]}, "strength 1.5 of 'crop'"),
        ({"resize": ["half"]}, "strength 'half' of 'resize'"),
        ({"noise": [np.nan]}, "strength nan of 'noise'"),
    ],
    ids=str,
)
def test_bad_operations_are_named(grey, detector, operations, message):
    images, y, _ = grey
    with pytest.raises(ValueError, match=message):
        robustness_table(detector, images, y, operations)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([1, 1], {}, "the label 1 alone"),
        ([0, 0], {}, "y == pos_label=1"),
        ([0, 1, 1], {}, "y with 3 rows but expected 2"),
        ([0, 1], {"threshold": "auto"}, "threshold='auto'"),
        ([0, 1], {"threshold": np.nan}, "threshold=nan"),
        (["a", "b"], {"pos_label": "b"}, r"'b' for an estimator.* labels \[0, 1\]"),
    ],
)
def test_bad_labels_and_thresholds_are_named(detector, y, options, message):
    with pytest.raises(ValueError, match=message):
        robustness_table(detector, [stripes(4, 4)] * 2, y, **options)


def test_one_image_is_not_a_sequence(detector):
    with pytest.raises(ValueError, match=r"one image goes in a list"):
        robustness_table(detector, stripes(4, 4), [0, 1])
