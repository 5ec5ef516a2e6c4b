import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

import sklearn_clipsid
from sklearn_clipsid import (
    AbstainingClassifier,
    BlockSelector,
    CLIPEmbedder,
    ConceptBottleneckClassifier,
    OrthogonalLinearDetector,
)
from sklearn_clipsid._detector_archive import STAMP_NAME
from sklearn_clipsid._loaded_parts import FINGERPRINT_KEYS
from sklearn_clipsid.datasets import make_paired_images
from sklearn_clipsid.model_selection import LeaveOneGeneratorOut
from sklearn_clipsid.persistence import TRUSTED_TYPES, dump, load

DETECTOR = OrthogonalLinearDetector(n_components=2, max_iter=5, random_state=0)
CONCEPTS = ConceptBottleneckClassifier(
    np.random.default_rng(1).normal(size=(3, 12)),
    ["grain", "blur", "tint"],
    max_iter=3,
    random_state=0,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 12))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def dumped(estimator):
    file = io.BytesIO()
    dump(estimator, file)
    return file.getvalue()


def rewritten(data, replace=None, add=None, drop=()):
    """Return the archive with members replaced, added or dropped."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w") as new,
    ):
        for name in old.namelist():
            if name not in drop:
                new.writestr(name, (replace or {}).get(name, old.read(name)))
        for name, content in (add or {}).items():
            new.writestr(name, content)
    return out.getvalue()


def array_members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            name: np.load(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
            if name.endswith(".npy")
        }


def as_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "estimator",
    [
        DETECTOR,
        make_pipeline(StandardScaler(), DETECTOR),
        make_pipeline(BlockSelector(2, n_blocks=3), DETECTOR),
        make_pipeline(StandardScaler(), DETECTOR).set_output(transform="pandas"),
        CONCEPTS,
        make_pipeline(StandardScaler(), CONCEPTS),
        CalibratedClassifierCV(DETECTOR, method="sigmoid", cv=2),
        CalibratedClassifierCV(DETECTOR, method="isotonic", cv=2),
        CalibratedClassifierCV(DETECTOR, method="temperature", cv=2),
        CalibratedClassifierCV(DETECTOR, cv=2, ensemble=False),
        VotingClassifier([("a", DETECTOR), ("b", LogisticRegression())], voting="soft"),
        StackingClassifier([("a", DETECTOR), ("b", LinearSVC())], cv=2),
        FixedThresholdClassifier(DETECTOR, threshold=0.3),
        KNeighborsClassifier(metric="cosine"),
        LogisticRegression(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_predictions_survive_the_file_bit_for_bit(estimator, data):
    X, y = data
    fitted = clone(estimator).fit(X, y)
    loaded = load(io.BytesIO(dumped(fitted)))
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
    if hasattr(fitted, "predict_proba"):
        assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("gates", ["embedding", "similarity", "none"])
def test_explanations_survive_the_file_bit_for_bit(gates, data):
    X, y = data
    fitted = clone(CONCEPTS).set_params(gates=gates).fit(X, y)
    loaded = load(io.BytesIO(dumped(fitted)))
    assert loaded.explain(X).tobytes() == fitted.explain(X).tobytes()
    assert np.array_equal(loaded.concept_usage_, fitted.concept_usage_)


@pytest.mark.filterwarnings("ignore:.*not written by")
@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"concept_names_": np.array(["blur", "grain", "blur"])}, "name 'blur' twice"),
        ({"concept_weights_": np.ones(4)}, "Got concept_weights_ of shape"),
        ({"gate_coef_": np.full((3, 12), np.inf)}, "Got gate_coef_ .* not all finite"),
        ({"explain": np.negative}, "hides a method"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_tampered_concepts_are_refused(data, attributes, problem):
    with pytest.raises(ValueError, match=problem):
        load(forged(clone(CONCEPTS).fit(*data), **attributes))


def test_a_frozen_detector_at_a_tuned_threshold_survives_the_file(data):
    X, y = data
    tuned = TunedThresholdClassifierCV(
        DETECTOR, cv=2, response_method="decision_function"
    ).fit(X, y)
    with pytest.raises(TypeError, match=r"FixedThresholdClassifier\(FrozenEstimator"):
        dump(tuned, io.BytesIO())
    # What the message says to type:
    fixed = FixedThresholdClassifier(
        FrozenEstimator(tuned.estimator_),
        threshold=tuned.best_threshold_,
        response_method=tuned.response_method,
    ).fit(X, y)
    assert np.array_equal(load(io.BytesIO(dumped(fixed))).predict(X), tuned.predict(X))


@pytest.mark.parametrize("place", ["inside", "around"])
def test_verdicts_survive_the_file_whatever_chose_the_thresholds(
    place, tiny_clip, image_files
):
    steps = [("embed", CLIPEmbedder(pretrained=tiny_clip)), ("detect", DETECTOR)]
    options = {"max_fpr": 0.5, "confidence": 0.6, "cv": LeaveOneGeneratorOut()}
    if place == "inside":
        fitted = AbstainingClassifier(Pipeline(steps), **options)
    else:
        steps[1] = ("detect", AbstainingClassifier(DETECTOR, **options))
        fitted = Pipeline(steps)
    images, y = image_files[:8], np.repeat([0, 1], 4)
    with config_context(enable_metadata_routing=True):
        fitted.fit(images, y, groups=np.repeat(["COCO", "RAISE", "GAN", "SD"], 2))
    loaded = load(io.BytesIO(dumped(fitted)))
    verdicts = decide(fitted, image_files)
    assert len(set(verdicts)) > 1
    assert decide(loaded, image_files) == verdicts
    assert np.array_equal(loaded.predict(image_files), fitted.predict(image_files))
    assert vars(last(loaded))["cv"] == "prefit"
    assert last(loaded).estimator is last(loaded).estimator_
    assert isinstance(last(fitted).cv, LeaveOneGeneratorOut), "the original keeps it"


def last(model):
    """The classifier that abstains."""
    return model[-1] if isinstance(model, Pipeline) else model


def decide(model, images):
    """Its verdicts; a pipeline has no `decide`."""
    features = model[:-1].transform(images) if isinstance(model, Pipeline) else images
    return last(model).decide(features).tolist()


@pytest.mark.filterwarnings("ignore:.*not written by")
@pytest.mark.parametrize("name", ["threshold_", "thresholds_"])
def test_thresholds_that_are_nan_are_refused(data, name):
    fitted = AbstainingClassifier(clone(DETECTOR), max_fpr=0.5, confidence=0.6, cv=2)
    fitted.fit(*data)
    with pytest.raises(ValueError, match=rf"Classifier\.{name} holds NaN"):
        load(forged(fitted, **{name: getattr(fitted, name) * np.nan}))


def test_a_search_is_refused_with_what_to_type_instead(data):
    search = GridSearchCV(DETECTOR, {"n_components": [1, 2]}, cv=2).fit(*data)
    with pytest.raises(TypeError, match=r"dump\(search.best_estimator_, file\)"):
        dump(search, io.BytesIO())
    with pytest.raises(TypeError, match="GridSearchCV"):
        dump(make_pipeline(StandardScaler(), search), io.BytesIO())


def test_an_unfitted_detector_is_refused():
    with pytest.raises(NotFittedError):
        dump(OrthogonalLinearDetector(), io.BytesIO())


def test_a_type_that_load_would_refuse_is_refused_when_saving(data):
    forest = RandomForestClassifier(n_estimators=2).fit(*data)
    with pytest.raises(ValueError, match=r"sklearn\.tree\._tree\.Tree"):
        dump(forest, io.BytesIO())
    custom = make_pipeline(FunctionTransformer(array_members), DETECTOR)
    with pytest.raises(ValueError, match="array_members"):
        dump(
            make_pipeline(custom[0], clone(DETECTOR).fit(*data)),
            io.BytesIO(),
        )


def test_every_foreign_type_is_named_and_nothing_is_built(data, tmp_path, monkeypatch):
    fitted = clone(DETECTOR).fit(*data)
    fitted.extra_ = [RandomForestClassifier(n_estimators=1).fit(*data), tmp_path]
    file = skops.io.dumps(fitted)
    built = []
    monkeypatch.setattr(
        OrthogonalLinearDetector, "__setstate__", lambda self, _: built.append(self)
    )
    with pytest.raises(ValueError) as refusal:
        load(io.BytesIO(file))
    assert "sklearn.tree._tree.Tree" in str(refusal.value)
    assert "pathlib.PosixPath" in str(refusal.value)
    assert not built


def forged(estimator, **attributes):
    """Return a file without a stamp whose estimator has attributes set by hand."""
    for name, value in attributes.items():
        vars(estimator)[name] = value
    return io.BytesIO(skops.io.dumps(estimator))


@pytest.mark.filterwarnings("ignore:.*not written by")
@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"classes_": np.array([1, 0])}, "sorted and distinct"),
        ({"classes_": np.array([1, 1])}, "sorted and distinct"),
        ({"classes_": 5}, "sorted and distinct"),
        ({"feature_scale_": 0.0}, "feature_scale_=0.0"),
        ({"coef_": [[0.0] * 12]}, "coef_"),
        ({"n_components_": 3}, "shape"),
        ({"_check_stored_arrays": list}, "_check_stored_arrays|not trusted"),
        ({"predict_proba": np.negative}, "hides a method"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_state_that_no_fit_can_have_made_is_refused(data, attributes, problem):
    with pytest.raises(ValueError, match=problem):
        load(forged(clone(DETECTOR).fit(*data), **attributes))


@pytest.mark.filterwarnings("ignore:.*not written by")
def test_damage_in_steps_of_scikit_learn_is_refused_too(data):
    probe = LogisticRegression()
    with pytest.raises(ValueError, match="sorted and distinct"):
        load(forged(clone(probe).fit(*data), classes_=np.array([1, 0])))
    with pytest.raises(ValueError, match="has 11 columns for 12 features"):
        load(forged(clone(probe).fit(*data), coef_=np.zeros((1, 11))))
    calibrated = CalibratedClassifierCV(DETECTOR, cv=2).fit(*data)
    calibrated.calibrated_classifiers_[0].calibrators[0].a_ = float("nan")
    with pytest.raises(ValueError, match=r"_SigmoidCalibration\.a_ holds NaN"):
        load(forged(calibrated))


def embedder_as_fitted(**parameters):
    embedder = CLIPEmbedder(**parameters)
    embedder.fingerprint_ = dict.fromkeys(FINGERPRINT_KEYS, "a")
    return embedder


def test_folders_and_devices_stay_on_this_machine(tmp_path):
    pipe = Pipeline(
        [
            (
                "embed",
                embedder_as_fitted(
                    pretrained="secret-project/models/w.pt",
                    weights_dir=str(tmp_path),
                    device="cuda:3",
                ),
            )
        ],
        memory=str(tmp_path),
    )
    file = dumped(pipe)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    for secret in (str(tmp_path), "secret-project", "cuda:3"):
        assert secret.encode() not in contents
    loaded = load(io.BytesIO(file))
    assert loaded.memory is None
    assert loaded[0].pretrained == "w.pt"
    assert loaded[0].device == "auto"


@pytest.mark.filterwarnings("ignore:.*not written by")
def test_a_file_cannot_choose_folders_either(tmp_path):
    pipe = Pipeline(
        [("embed", embedder_as_fitted(pretrained="/etc/x.pt", weights_dir="/any"))],
        memory=str(tmp_path),
    )
    loaded = load(io.BytesIO(skops.io.dumps(pipe)))
    assert loaded.memory is None  # joblib would unpickle what lies there
    assert (loaded[0].pretrained, loaded[0].weights_dir) == ("x.pt", None)


@pytest.mark.filterwarnings("ignore:.*not written by")
@pytest.mark.parametrize("fingerprint", [None, {}, {"weights": "a"}, "text"])
def test_an_embedder_without_a_whole_fingerprint_is_refused(fingerprint):
    embedder = embedder_as_fitted()
    embedder.fingerprint_ = fingerprint
    with pytest.raises(ValueError, match="does not describe an encoder"):
        load(io.BytesIO(skops.io.dumps(embedder)))


def test_the_fingerprint_that_is_asked_for_is_the_one_that_is_made(tiny_clip):
    embedder = CLIPEmbedder(pretrained=tiny_clip).fit(["not read"])
    assert embedder.fingerprint_.keys() == FINGERPRINT_KEYS


def test_damage_of_any_kind_is_one_worded_error(data):
    file = dumped(clone(DETECTOR).fit(*data))
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(file)
        damaged[rng.integers(len(file))] ^= 1 << rng.integers(8)
        try:
            load(io.BytesIO(bytes(damaged)))
        except ValueError as error:
            assert "Got " in str(error)
    for size in rng.integers(len(file), size=20):
        with pytest.raises(ValueError, match="Got "):
            load(io.BytesIO(file[:size]))


@pytest.mark.parametrize(
    "stamp", ["[]", "{}", '{"digests": {}, "format": "x", "versions": {}}', "not json"]
)
def test_a_damaged_stamp_is_one_worded_error(data, stamp):
    file = rewritten(dumped(clone(DETECTOR).fit(*data)), {STAMP_NAME: stamp})
    with pytest.raises(ValueError, match="stamp is damaged"):
        load(io.BytesIO(file))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(data):
    file = rewritten(dumped(clone(DETECTOR).fit(*data)), add={"README.md": "forged"})
    with pytest.raises(ValueError, match="two members of one name"):
        load(io.BytesIO(file))


def test_an_archive_that_unpacks_to_too_much_is_refused():
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "{}")
        with archive.open("a.npy", "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))
    with pytest.raises(ValueError, match="which unpacks to 314,572,802"):
        load(io.BytesIO(bomb.getvalue()))


def test_trusted_types_are_exact_names_that_exist():
    import importlib

    for name in TRUSTED_TYPES:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_same_request_state_does_not_stop_a_dump(data):
    X, y = data
    with config_context(enable_metadata_routing=True):
        detector = clone(DETECTOR).set_fit_request(sample_weight=True)
        pipe = make_pipeline(StandardScaler(), detector).fit(X, y)
        file = dumped(pipe)
        assert hasattr(pipe[-1], "_metadata_request"), "the original keeps it"
    assert np.array_equal(load(io.BytesIO(file)).predict(X), pipe.predict(X))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda a: a * 2, "coef_"),
        (lambda a: a[..., :-1], "shape"),
        (lambda a: np.full_like(a, np.nan), "finite"),
    ],
    ids=["scaled", "narrower", "nan"],
)
def test_tampered_arrays_are_refused_even_with_digests_made_to_match(
    data, change, problem
):
    file = dumped(clone(DETECTOR).fit(*data))
    arrays = array_members(file)
    name = next(n for n, a in arrays.items() if a.shape == (2, 12))
    forged = rewritten(file, {name: as_npy(change(arrays[name]))})
    with pytest.raises(ValueError, match=f"{name} were changed"):
        load(io.BytesIO(forged))
    # Whoever tampers can also write the digests; the arrays must still make sense.
    with pytest.warns(UserWarning, match="not written by"):
        with pytest.raises(ValueError, match=problem):
            load(io.BytesIO(rewritten(forged, drop=[STAMP_NAME])))


def test_tampered_arrays_of_scikit_learn_steps_are_refused(data):
    file = dumped(make_pipeline(StandardScaler(), LogisticRegression()).fit(*data))
    arrays = array_members(file)
    name = next(n for n, a in arrays.items() if a.shape == (1, 12))
    forged = rewritten(
        file, {name: as_npy(np.full((1, 12), np.nan))}, drop=[STAMP_NAME]
    )
    with pytest.warns(UserWarning, match="not written by"):
        with pytest.raises(ValueError, match=r"LogisticRegression\.coef_ holds NaN"):
            load(io.BytesIO(forged))


def test_a_pickle_inside_an_array_member_is_not_loaded(data):
    file = dumped(clone(DETECTOR).fit(*data))
    name = next(iter(array_members(file)))
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    forged = rewritten(file, {name: buffer.getvalue()}, drop=[STAMP_NAME])
    with pytest.warns(UserWarning, match="not written by"):
        with pytest.raises(ValueError, match="allow_pickle"):
            load(io.BytesIO(forged))


def test_an_added_member_is_noticed(data):
    file = rewritten(dumped(clone(DETECTOR).fit(*data)), add={"extra.txt": "hello"})
    with pytest.raises(ValueError, match=r"extra\.txt were changed, added or removed"):
        load(io.BytesIO(file))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half"])
def test_what_is_no_archive_is_refused_by_name(content, tmp_path):
    path = tmp_path / "detector.skops"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"detector\.skops.*not a readable"):
        load(path)


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.skops")


def test_another_version_warns_and_a_newer_format_is_refused(data):
    file = dumped(clone(DETECTOR).fit(*data))
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        stamp = json.loads(archive.read(STAMP_NAME))
    assert stamp["versions"]["sklearn_clipsid"] == sklearn_clipsid.__version__
    stamp["versions"]["scikit-learn"] = "1.2.0"
    with pytest.warns(UserWarning, match=r"saved with scikit-learn 1\.2\.0"):
        load(io.BytesIO(rewritten(file, {STAMP_NAME: json.dumps(stamp)})))
    stamp["format"] = 99
    with pytest.raises(ValueError, match="format 99 but expected at most 1"):
        load(io.BytesIO(rewritten(file, {STAMP_NAME: json.dumps(stamp)})))


def test_a_failed_dump_leaves_the_old_file_alone(data, tmp_path):
    path = tmp_path / "detector.skops"
    dump(clone(DETECTOR).fit(*data), path)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        dump(RandomForestClassifier(n_estimators=1).fit(*data), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["detector.skops"]


def test_the_card_names_encoder_versions_and_limits(data):
    file = dumped(clone(DETECTOR).fit(*data))
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        card = archive.read("README.md").decode()
    assert "OrthogonalLinearDetector for synthetic image detection" in card
    assert "scikit-learn" in card
    assert "photo sources" in card


def test_the_largest_common_detector_is_under_200_kb():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 1024)), np.arange(100) % 2
    detector = OrthogonalLinearDetector(16, max_iter=2, random_state=0).fit(X, y)
    assert len(dumped(make_pipeline(detector))) < 200_000


@pytest.mark.real_clip
def test_the_whole_pipeline_goes_through_a_file_without_paths(
    demo_encoder, tmp_path, capfd
):
    images = make_paired_images(tmp_path / "images", n_pairs=4, image_size=96)
    pipe = make_pipeline(
        CLIPEmbedder(
            "ViT-B-16-quickgelu", str(demo_encoder), weights_dir=str(tmp_path)
        ),
        OrthogonalLinearDetector(n_components=2, random_state=0),
    ).fit(images.data, images.target)
    expected = pipe.predict_proba(images.data[:3])
    path = tmp_path / "detector.skops"
    dump(pipe, path)
    with zipfile.ZipFile(path) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    for folder in (tmp_path, demo_encoder.parent):
        assert str(folder).encode() not in contents
    # The process that fitted it knows where the weights are.
    assert np.array_equal(load(path).predict_proba(images.data[:3]), expected)
    # Another one is told, and without being told says what to do.
    script = (
        "import sys, numpy as np\n"
        "from sklearn_clipsid.persistence import load\n"
        "path, weights, *images = sys.argv[1:]\n"
        "loaded = load(path)\n"
        "assert 'open_clip' not in sys.modules\n"
        "try:\n"
        "    loaded.predict_proba(images)\n"
        "except ValueError as error:\n"
        "    assert 'pretrained=PATH' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('found weights it was not told of')\n"
        "print(load(path, pretrained=weights).predict_proba(images)[:, 1].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path, demo_encoder, *images.data[:3]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), expected[:, 1], atol=1e-5)


@pytest.mark.real_clip
def test_other_weights_are_refused_unless_allowed(demo_encoder, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    images = make_paired_images(tmp_path / "images", n_pairs=3, image_size=64)
    pipe = make_pipeline(
        CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder)),
        OrthogonalLinearDetector(n_components=2, max_iter=2, random_state=0),
    ).fit(images.data, images.target)
    path = tmp_path / "detector.skops"
    dump(pipe, path)
    with safe_open(demo_encoder, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(demo_encoder)
    tensors["visual.proj"] = tensors["visual.proj"] + 1e-3
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata=metadata)
    with pytest.raises(ValueError, match="not the one this pipeline was fitted with"):
        load(path, pretrained=str(other)).predict(images.data[:1])
    allowed = load(path, pretrained=str(other), allow_other_weights=True)
    assert allowed.predict(images.data[:1]).shape == (1,)


def test_concepts_of_a_frame_are_saved_as_arrays(data):
    X, y = data
    names = [f"concept {i}" for i in range(3)]
    concepts = pd.DataFrame(np.eye(3, X.shape[1]), index=names)
    detector = ConceptBottleneckClassifier(concepts, pd.Series(names), max_iter=2)
    loaded = load(io.BytesIO(dumped(detector.fit(X, y))))
    assert type(loaded.concept_embeddings) is np.ndarray
    assert loaded.concept_names.tolist() == names
    assert np.array_equal(loaded.explain(X), detector.explain(X))
