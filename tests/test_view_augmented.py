import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedGroupKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from torchvision.transforms import RandomResizedCrop

from sklearn_clipsid import CLIPEmbedder, SourceEraser, ViewAugmentedClassifier
from sklearn_clipsid import _training_views as training_views
from sklearn_clipsid._training_views import draw_crop, draw_view
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import dump, load

Y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps what it is fitted to, and predicts what it gets."""

    def fit(self, X, y, **params):
        self.X_, self.y_, self.params_ = X, y, params
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return X


def views_of(model):
    """The views of each image that the detector of a fitted model has seen."""
    step = 1 + model.n_views
    X = model.estimator_.X_
    return [X[start + 1 : start + step] for start in range(0, len(X), step)]


def decoded(view):
    return Image.open(io.BytesIO(view) if isinstance(view, bytes) else view)


# The views ---------------------------------------------------------------------------


def test_a_crop_shows_half_of_the_image_or_more_in_the_ratios_of_the_recipe(rng):
    crops = np.array([draw_crop(400, 500, rng) for _ in range(2000)])
    top, left, height, width = crops.T
    assert (top >= 0).all() and (top + height <= 400).all()
    assert (left >= 0).all() and (left + width <= 500).all()
    area, ratio = height * width / 200_000, width / height
    assert 0.498 < area.min() < 0.51 and 0.9 < area.max() <= 1
    assert 0.745 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.34
    # Nowhere preferred: the room on either side is the same.
    assert abs(np.mean(left - (500 - left - width))) < 5


@pytest.mark.parametrize("size", [(100, 1000), (1000, 100), (1, 7), (1, 1)], ids=str)
def test_a_panorama_is_cropped_as_torchvision_does(rng, size):
    image = Image.new("RGB", size[::-1])
    expected = RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3])
    assert draw_crop(*size, rng) == tuple(expected)


def test_a_view_is_a_jpeg_of_the_size_and_the_qualities_of_the_recipe(rng):
    tables = {}
    for quality in range(1, 101):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
        tables[str(decoded(stream.getvalue()).quantization)] = quality
    grey = np.full((30, 40, 3), 90, dtype=np.uint8)
    views = [decoded(draw_view(grey, rng)) for _ in range(300)]
    assert {(view.format, view.size) for view in views} == {("JPEG", (512, 512))}
    qualities = [tables[str(view.quantization)] for view in views]
    assert min(qualities) >= 65 and set(qualities) >= {65, 66, 99, 100}
    assert all(abs(np.asarray(view).astype(int) - 90).max() <= 1 for view in views)


def test_one_view_in_two_is_mirrored(rng):
    half = np.zeros((64, 64, 3), dtype=np.uint8)
    half[:, 32:] = 255
    views = [np.asarray(decoded(draw_view(half, rng))).astype(int) for _ in range(200)]
    # The seam is never out of sight, as a crop shows more than half of the width.
    light_is_right = [view[:, -1].mean() > view[:, 0].mean() for view in views]
    assert 70 < sum(light_is_right) < 130


# What the detector is fitted to ------------------------------------------------------


def test_each_image_stands_before_its_views_and_they_have_its_label(image_files):
    model = ViewAugmentedClassifier(Recorder(), n_views=3).fit(image_files, Y)
    assert model.estimator_.X_[::4] == image_files
    np.testing.assert_array_equal(model.estimator_.y_, np.repeat(Y, 4))
    assert all(isinstance(view, bytes) for of in views_of(model) for view in of)
    assert len({view for of in views_of(model) for view in of}) == 27


def test_prediction_sees_the_image_itself(image_files):
    model = ViewAugmentedClassifier(Recorder(), n_views=1).fit(image_files, Y)
    assert model.predict(image_files) is image_files


def test_an_image_has_the_same_views_in_every_fold_and_form(image_files):
    model = ViewAugmentedClassifier(Recorder(), n_views=2, n_jobs=2)
    views = views_of(model.fit(image_files, Y))
    assert views_of(model.fit(image_files[::-1], Y)) == views[::-1]
    as_bytes = [Path(path).read_bytes() for path in image_files]
    assert views_of(model.fit(as_bytes, Y)) == views
    arrays = [np.asarray(Image.open(path)) for path in image_files]
    of_pixels = views_of(model.fit(arrays, Y))
    assert views_of(model.fit([Image.fromarray(a) for a in arrays], Y)) == of_pixels
    others = views_of(model.set_params(random_state=1).fit(image_files, Y))
    assert not {view for of in views for view in of} & {
        view for of in others for view in of
    }


def test_a_view_is_rotated_as_the_image_is(tmp_path):
    wide = np.zeros((40, 60, 3), dtype=np.uint8)
    wide[:, 30:] = 255
    path, exif = str(tmp_path / "turned.jpg"), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(path, exif=exif)
    model = ViewAugmentedClassifier(Recorder(), n_views=1)
    changes = {}
    for apply_exif in (False, True):
        model.set_params(apply_exif=apply_exif).fit([path, path], [0, 1])
        view = np.asarray(decoded(views_of(model)[0][0])).astype(float)
        changes[apply_exif] = [np.ptp(view.mean(axis=(a, 2))) > 50 for a in (0, 1)]
    assert changes == {False: [True, False], True: [False, True]}


def test_views_in_a_folder_are_those_in_memory_and_are_made_once(
    image_files, tmp_path, monkeypatch
):
    folder = tmp_path / "new" / "views"
    model = ViewAugmentedClassifier(Recorder(), n_views=2)
    in_memory = views_of(model.fit(image_files, Y))
    model.set_params(views_dir=folder, n_jobs=2).fit(
        [*image_files, image_files[0]], [0, *Y]
    )
    paths = views_of(model)
    assert [[Path(path).read_bytes() for path in of] for of in paths[:-1]] == in_memory
    assert paths[-1] == paths[0]
    assert len(os.listdir(folder)) == 18  # and no draft

    def fail(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(training_views, "read_image", fail)
    assert views_of(model.set_params(n_views=1).fit(image_files[3:], Y[3:])) == [
        of[:1] for of in paths[3:-1]
    ]


def test_cross_validation_embeds_each_image_and_view_once(
    tiny_clip, encoded, image_files, tmp_path
):
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), RidgeClassifier())
    for views_dir in (None, tmp_path):
        model = ViewAugmentedClassifier(pipe, n_views=2, views_dir=views_dir)
        cv = KFold(3, shuffle=True, random_state=0)
        cross_validate(model, image_files, Y, cv=cv, error_score="raise")
        # The views in the folder are those in memory, and known.
        assert sum(encoded) == 9 * (1 + 2)


def test_the_detector_that_is_fitted_is_the_pipeline_of_images_and_views(
    tiny_clip, fresh_memo, image_files
):
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), RidgeClassifier())
    model = ViewAugmentedClassifier(pipe, n_views=2).fit(np.array(image_files), Y)
    recorded = ViewAugmentedClassifier(Recorder(), n_views=2).fit(image_files, Y)
    alone = clone(pipe).fit(recorded.estimator_.X_, np.repeat(Y, 3))
    expected = alone.decision_function(image_files)
    np.testing.assert_array_equal(model.decision_function(image_files), expected)
    assert not hasattr(model, "predict_proba")
    np.testing.assert_array_equal(model.classes_, [0, 1])


@pytest.mark.parametrize("of", [str, Path])
def test_a_saved_file_does_not_tell_the_folder_of_views(
    tiny_clip, fresh_memo, image_files, tmp_path, of
):
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), LogisticRegression())
    model = ViewAugmentedClassifier(pipe, n_views=1, views_dir=of(tmp_path / "views"))
    file = io.BytesIO()
    dump(model.fit(image_files, Y), file)
    assert model.views_dir == of(tmp_path / "views")
    with zipfile.ZipFile(file) as archive:
        members = [archive.read(name) for name in archive.namelist()]
    assert any(b"ViewAugmentedClassifier" in member for member in members)
    assert not any(tmp_path.name.encode() in member for member in members)
    file.seek(0)
    loaded = load(file, pretrained=tiny_clip)
    assert loaded.views_dir is None
    expected = model.predict_proba(image_files)
    np.testing.assert_array_equal(loaded.predict_proba(image_files), expected)


# Groups ------------------------------------------------------------------------------

SOURCES = np.array(["COCO"] * 5 + ["GAN", "GAN", "SD", "SD"])


@pytest.mark.parametrize("paired", [False, True])
def test_views_stay_on_one_side_of_every_split_within_the_detector(image_files, paired):
    pair_id = ["a", "b", None, "", "", "a", "b", None, "c"]
    groups = np.column_stack([SOURCES, pair_id]) if paired else SOURCES
    model = ViewAugmentedClassifier(Recorder(), n_views=3)
    model.fit(image_files, Y, groups=groups)
    seen = model.estimator_.params_["groups"]
    np.testing.assert_array_equal(seen[:, 0], np.repeat(SOURCES, 4))
    ids = seen[:, 1].reshape(9, 4)
    assert (ids == ids[:, :1]).all()
    # Images share an id where they are a pair, and nowhere else.
    assert len(set(ids[:, 0])) == (7 if paired else 9)
    assert (ids[0, 0] == ids[5, 0]) == paired
    image = np.repeat(np.arange(9), 4)
    cv = LeaveOneGeneratorOut(3, hold_out_real_source=False, every_real_fold=True)
    splits = list(cv.split(seen, np.repeat(Y, 4), seen))
    assert len(splits) >= 3
    for train, test in splits:
        assert not set(image[train]) & set(image[test])


def test_pair_ids_that_stand_apart_are_completed_and_groups_left_alone(image_files):
    model = ViewAugmentedClassifier(Recorder(), n_views=1)
    model.fit(image_files, Y, cv__pair_id=["a", *"bcdefg", "", "a"], cv__groups=SOURCES)
    params = model.estimator_.params_
    np.testing.assert_array_equal(params["cv__groups"], np.repeat(SOURCES, 2))
    ids = params["cv__pair_id"].reshape(9, 2)
    assert (ids[:, 0] == ids[:, 1]).all()
    assert ids[0, 0] == ids[8, 0] and len(set(ids[:, 0])) == 8
    # They say nothing of the groups of another step.
    model.fit(image_files, Y, cv__pair_id=range(9), groups=SOURCES)
    assert model.estimator_.params_["groups"].shape == (18, 2)


def test_group_splitters_of_sklearn_take_groups_of_another_name(
    tiny_clip, fresh_memo, image_files
):
    pipe = make_pipeline(CLIPEmbedder(pretrained=tiny_clip), LogisticRegression())
    sources = np.array(["COCO", "COCO", "RAISE", "RAISE", "RAISE", *SOURCES[5:]])
    with config_context(enable_metadata_routing=True):
        cv = StratifiedGroupKFold(2).set_split_request(groups="source")
        search = GridSearchCV(
            pipe, {"logisticregression__C": [0.1, 1]}, cv=cv, error_score="raise"
        )
        model = ViewAugmentedClassifier(search, n_views=1)
        model.fit(image_files, Y, source=sources)
    assert model.estimator_.n_splits_ == 2


def test_parameters_reach_a_step_by_its_name_and_by_routing(
    tiny_clip, fresh_memo, image_files
):
    sources = np.array(["COCO", "COCO", "RAISE", "RAISE", "RAISE", *SOURCES[5:]])
    pipe = make_pipeline(
        CLIPEmbedder(pretrained=tiny_clip),
        SourceEraser(1),
        LogisticRegression(max_iter=1000),
    )
    model = ViewAugmentedClassifier(pipe, n_views=2)
    weight = np.arange(1.0, 10)
    by_name = clone(model).fit(
        image_files,
        Y,
        sourceeraser__groups=sources,
        logisticregression__sample_weight=weight,
    )
    with config_context(enable_metadata_routing=True):
        pipe[-1].set_fit_request(sample_weight=True)
        routed = clone(model).fit(image_files, Y, groups=sources, sample_weight=weight)
    expected = by_name.decision_function(image_files)
    np.testing.assert_array_equal(routed.decision_function(image_files), expected)
    unweighted = clone(model).fit(image_files, Y, sourceeraser__groups=sources)
    assert (unweighted.decision_function(image_files) != expected).all()


# Errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameter",
    [{"n_views": 0}, {"n_views": 1.5}, {"views_dir": 3}, {"random_state": "x"}],
    ids=str,
)
def test_a_bad_parameter_is_named(image_files, parameter):
    model = ViewAugmentedClassifier(Recorder(), **parameter)
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter"):
        model.fit(image_files, Y)


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_an_image_that_cannot_be_read_is_named(image_files, tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "damaged":
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"at index 9, '.*{kind}\.png': .*Repair or"):
        ViewAugmentedClassifier(Recorder()).fit([*image_files, path], [*Y, 1])


def test_features_and_wrong_lengths_are_refused(image_files):
    model = ViewAugmentedClassifier(Recorder())
    with pytest.raises(ValueError, match="embeddings go to the detector"):
        model.fit(np.zeros((9, 3)), Y)
    with pytest.raises(ValueError, match="Got y with 8 rows but expected 9"):
        model.fit(image_files, Y[1:])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        model.fit(image_files, None)
    with pytest.raises(ValueError, match="Got groups with 8 rows but expected 9"):
        model.fit(image_files, Y, groups=SOURCES[1:])
