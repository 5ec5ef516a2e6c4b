import copy
import io
import pickle
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from sklearn_clipsid import ConceptBottleneckClassifier, OrthogonalLinearDetector
from sklearn_clipsid._clip import _head_checkpoint
from sklearn_clipsid._detector_archive import STAMP_NAME
from sklearn_clipsid.datasets import read_antonyms
from sklearn_clipsid.persistence import dump, load
from sklearn_clipsid.reference import load_reference_head

HEAD = "model.classification_head."
SUFFIXES = [".ckpt", ".pth", ".pt", ".bin", ".skops"]


def tensors(rng, shapes):
    """Random tensors of these names and shapes."""
    return {
        key: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        for key, shape in shapes.items()
    }


def orthogonal_state(rng, k=3, d=16):
    shapes = {f"{HEAD}layers.0.weight": (k, d), f"{HEAD}layers.0.bias": (k,)}
    shapes |= {f"{HEAD}to_logits.weight": (1, k), f"{HEAD}to_logits.bias": (1,)}
    return tensors(rng, shapes)


def linear_state(rng, d=16, prefix=f"{HEAD}fc."):
    return tensors(rng, {f"{prefix}weight": (1, d), f"{prefix}bias": (1,)})


def concept_state(rng, n_concepts=5, d=16):
    shapes = {"text_embeddings": (n_concepts, d), "W_concepts.weight": (n_concepts, d)}
    shapes |= {"W_concepts.bias": (n_concepts,), "W_classifier.bias": (1,)}
    shapes["W_classifier.weight"] = (1, n_concepts)
    return tensors(rng, {f"model.{key}": shape for key, shape in shapes.items()})


STATES = {
    "clip_orthogonal": orthogonal_state,
    "linear_probe": linear_state,
    "cm_antonyms": concept_state,
    "universal_fake_detect": lambda rng, d=16: linear_state(rng, d, prefix=""),
    "clipdet": lambda rng, d=16: linear_state(rng, d, prefix="fc."),
}


@pytest.fixture
def saved(tmp_path):
    """Function that writes an object with torch.save and returns its path."""

    def save(content, name="head.ckpt", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["combined", "synthclic"])
@pytest.mark.parametrize("kind", ["clip_orthogonal", "linear_probe"])
def test_published_heads_give_the_published_logits(oracles, kind, corpus):
    folder, name = oracles / "clip_cues", f"{kind}_{corpus}"
    forward = np.load(folder / "heads_forward.npz")
    head = load_reference_head(folder / f"{name}.ckpt")
    logits = head.decision_function(forward["X"])
    np.testing.assert_allclose(logits, forward[f"{name}__logits"], atol=1e-4)
    assert list(head.classes_) == [0, 1]
    if kind == "clip_orthogonal":
        assert head.n_components_ == 8
        expected = forward[f"{name}__activations"]
        np.testing.assert_allclose(head.transform(forward["X"]), expected, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("corpus", ["combined", "synthclic"])
def test_published_concept_models_give_the_published_outputs(oracles, corpus):
    folder, name = oracles / "clip_cues", f"cm_antonyms_{corpus}"
    forward = np.load(folder / "concepts_forward.npz")
    antonyms = read_antonyms(folder / "antonyms.csv").names
    head = load_reference_head(folder / f"{name}.ckpt", concept_names=antonyms)
    E = forward["E"]
    for ours, theirs in (
        (head.decision_function(E)[:, None], "class_logits"),
        (head.transform(E), "per_concept_logit_contribution"),
        (head.gate_probabilities(E), "per_image_concept_samples"),
    ):
        np.testing.assert_allclose(ours, forward[f"{name}__{theirs}"], atol=1e-4)
    assert head.explain(E[:1], top=168)["concept"].tolist()[0][0] in antonyms
    assert head.get_feature_names_out().tolist() == antonyms.tolist()


@pytest.mark.oracle
def test_every_published_checkpoint_is_recognised(oracles):
    files = sorted((oracles / "clip_cues").glob("*.ckpt"))
    assert len(files) == 6
    for file in files:
        assert load_reference_head(file, kind=file.stem.rpartition("_")[0])


def test_sizes_are_those_of_the_file(rng, saved):
    head = load_reference_head(saved(orthogonal_state(rng, k=5, d=24)))
    assert isinstance(head, OrthogonalLinearDetector)
    assert head.components_.shape == (5, 24) == (head.n_components, 24)
    head = load_reference_head(saved(concept_state(rng, n_concepts=7, d=12)))
    assert isinstance(head, ConceptBottleneckClassifier)
    assert head.concept_embeddings_.shape == (7, 12)
    assert head.concept_names_[6] == "concept6"


def test_an_orthogonal_head_is_two_linear_layers(rng, saved):
    state = orthogonal_state(rng)
    X = rng.standard_normal((10, 16))
    W1, b1, W2, b2 = (value.double().numpy() for value in state.values())
    A = X @ W1.T + b1
    head = load_reference_head(saved({"state_dict": state, "model_type": "clip"}))
    np.testing.assert_allclose(head.transform(X), A)
    np.testing.assert_allclose(head.decision_function(X), (A @ W2.T + b2)[:, 0])


@pytest.mark.parametrize("kind", ["linear_probe", "universal_fake_detect", "clipdet"])
def test_a_linear_head_is_a_fitted_logistic_regression(rng, saved, kind):
    state = STATES[kind](rng, d=20)
    head = load_reference_head(saved(state), kind=kind)
    assert type(head) is LogisticRegression
    weight, bias = (value.double().numpy() for value in state.values())
    np.testing.assert_array_equal(head.coef_, weight)
    np.testing.assert_array_equal(head.intercept_, bias)
    X = rng.standard_normal((10, 20))
    logits = X @ weight[0] + bias[0]
    np.testing.assert_allclose(head.decision_function(X), logits)
    np.testing.assert_allclose(head.predict_proba(X)[:, 1], expit(logits))
    np.testing.assert_array_equal(head.predict(X), (logits > 0).astype(int))


def test_concept_directions_of_any_length_give_the_logits_of_the_file(rng, saved):
    state = concept_state(rng)
    X = rng.standard_normal((10, 16))
    T, A, c, b, w = (value.double().numpy() for value in state.values())
    E = X / np.linalg.norm(X, axis=1, keepdims=True)
    contributions = (E @ T.T) * expit(E @ A.T + c) * w
    head = load_reference_head(saved(state))
    np.testing.assert_allclose(head.transform(X), contributions)
    np.testing.assert_allclose(head.decision_function(X), contributions.sum(1) + b)


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: state, ""),
        (lambda state: {"model": state}, "module."),
        (lambda state: {"net": state, "epoch": 3, "note": None}, "model."),
    ],
)
def test_wrappers_around_the_tensors_are_taken_off(rng, saved, wrap, prefix):
    state = STATES["clipdet"](rng)
    wrapped = wrap({f"{prefix}{key}": value for key, value in state.items()})
    head = load_reference_head(saved(wrapped), kind="clipdet")
    np.testing.assert_array_equal(head.coef_, state["fc.weight"].numpy())


def test_every_format_gives_the_same_head(rng, saved, tmp_path):
    from safetensors.torch import save_file

    state = orthogonal_state(rng)
    save_file(state, tmp_path / "head.safetensors")
    heads = [
        load_reference_head(file)
        for file in (
            saved(state),
            saved(state, "old.pth", _use_new_zipfile_serialization=False),
            saved({key: torch.nn.Parameter(v) for key, v in state.items()}, "p.bin"),
            str(tmp_path / "head.safetensors"),
        )
    ]
    for head in heads[1:]:
        np.testing.assert_array_equal(head.coef_, heads[0].coef_)


@pytest.mark.parametrize("kind", STATES)
def test_heads_are_saved_and_loaded(rng, saved, kind):
    head = load_reference_head(saved(STATES[kind](rng)))
    X = rng.standard_normal((6, 16))
    file = io.BytesIO()
    dump(head, file)
    for same in (load(io.BytesIO(file.getvalue())), copy.deepcopy(head)):
        expected = head.decision_function(X)
        np.testing.assert_array_equal(same.decision_function(X), expected)


def test_partial_fit_goes_on_from_the_published_head(rng, saved):
    head = load_reference_head(saved(orthogonal_state(rng)))
    X, y = rng.standard_normal((64, 16)), np.tile([0, 1], 32)
    before = head.decision_function(X)
    head.set_params(learning_rate_init=1e-6, random_state=0).partial_fit(X, y)
    after = head.decision_function(X)
    assert 0 < np.abs(after - before).max() < 1e-3
    assert head.n_iter_ == 1


class Payload:
    """What unpickles to the call that makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.fixture
def malicious(rng, tmp_path):
    """Writers of a checkpoint with a payload, one for each format."""
    marker = str(tmp_path / "the payload ran")
    state = {"state_dict": linear_state(rng), "extra": Payload(marker)}
    writers = {
        "pickle": lambda path: path.write_bytes(pickle.dumps(state)),
        "archive": lambda path: torch.save(state, path),
        "old": lambda path: torch.save(
            state, path, _use_new_zipfile_serialization=False
        ),
    }
    return tmp_path, tmp_path / "the payload ran", writers


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["pickle", "archive", "old"])
def test_a_malicious_file_is_refused_and_its_payload_does_not_run(
    malicious, monkeypatch, form, suffix
):
    folder, marker, writers = malicious
    file = folder / f"head{suffix}"
    writers[form](file)
    # Of this variable torch says that it loads any pickle.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ValueError, match="nothing else is ever unpickled") as caught:
        load_reference_head(file)
    assert not marker.exists()
    assert "add_safe_globals" not in str(caught.value)  # no advice to trust it
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    # The payload is live: read without care, the same file runs it.
    if form == "pickle":
        pickle.loads(file.read_bytes())["extra"].close()
    else:
        torch.load(file, weights_only=False)["extra"].close()
    assert marker.exists()


@pytest.mark.parametrize("form", ["pickle", "archive", "old"])
def test_a_pickle_that_is_called_a_saved_detector_does_not_run(malicious, form):
    folder, marker, writers = malicious
    file = folder / "detector.skops"
    writers[form](file)
    with pytest.raises(ValueError, match=r"detector\.skops"):
        load(file)
    assert not marker.exists()


def test_a_pickle_inside_a_saved_detector_does_not_run(rng, saved, malicious):
    folder, marker, _ = malicious
    file, pickled = io.BytesIO(), io.BytesIO()
    dump(load_reference_head(saved(linear_state(rng))), file)
    np.save(pickled, np.array([Payload(str(marker))]), allow_pickle=True)
    forged = folder / "detector.skops"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(forged, "w") as new:
        for name in old.namelist():
            data = pickled.getvalue() if name.endswith(".npy") else old.read(name)
            if name != STAMP_NAME:
                new.writestr(name, data)
    with pytest.warns(UserWarning, match="not written by"):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            load(forged)
    assert not marker.exists()
    np.load(io.BytesIO(pickled.getvalue()), allow_pickle=True)[0].close()
    assert marker.exists()


class LivePart:
    """What runs code when skops builds it."""

    def __init__(self, file):
        self.file = file

    def __setstate__(self, state):
        open(state["file"], "w").close()


def test_a_foreign_type_in_a_saved_detector_does_not_run(rng, saved, malicious):
    folder, marker, _ = malicious
    head = load_reference_head(saved(linear_state(rng)))
    head.extra_ = LivePart(str(marker))
    skops.io.dump(head, folder / "detector.skops")
    with pytest.raises(ValueError, match=r"LivePart\. Nothing of it was built"):
        load(folder / "detector.skops")
    assert not marker.exists()
    skops.io.load(folder / "detector.skops", trusted=[f"{__name__}.LivePart"])
    assert marker.exists()


def test_a_torchscript_program_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "head.pt", "w") as archive:
        archive.writestr("head/constants.pkl", b"")
    with pytest.raises(ValueError, match="holds a TorchScript program, but expected"):
        load_reference_head(tmp_path / "head.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"lr": 0.1}}, r"holds 'optimizer' \(dict\), but expected"),
        ({"state_dict": {"fc.weight": [1.0]}}, r"holds 'fc.weight' \(list\)"),
        ({"state_dict": {}}, "holds nothing, but expected"),
        (
            {"state_dict": {"fc.weight": torch.ones(1, 4, dtype=torch.int64)}},
            r"'fc.weight' \(torch.int64 of shape \(1, 4\)\)",
        ),
        (
            # Three numbers in the file.
            {"state_dict": {key: torch.ones(1).expand(2**24) for key in "abc"}},
            "holds tensors of 50,331,648 numbers, but expected",
        ),
        (
            {"state_dict": {"fc.weight": torch.tensor([[np.nan]])}},
            "'fc.weight' holds NaN, infinity or numbers above",
        ),
        (
            {"state_dict": {"fc.weight": torch.tensor([[1e300]]).double()}},
            r"numbers above 3e\+38, but expected finite weights",
        ),
        (
            {"state_dict": {"fc.weight": torch.ones(1, 4).to_sparse()}},
            # torch may warn of sparse tensors, which is an error here.
            r"(torch\.sparse_coo|UserWarning)\), but expected the floating-point",
        ),
        (
            {"state_dict": {"fc.weight": torch.ones(1, 4, device="meta")}},
            r"holds 'fc.weight' \(on the device meta\), but expected",
        ),
        ({"state_dict": {1: torch.ones(1)}}, r"holds '1' \(Tensor\), but expected"),
    ],
)
def test_anything_but_finite_tensors_is_refused(rng, saved, change, message):
    content = {"state_dict": linear_state(rng), "model_type": "linear"} | change
    with pytest.raises(ValueError, match=message):
        load_reference_head(saved(content))


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text"])
def test_a_file_that_is_no_dictionary_is_refused(saved, content):
    with pytest.raises(ValueError, match=f"holds one {type(content).__name__}, but"):
        load_reference_head(saved(content))


def test_other_layers_are_refused_by_name(rng, saved):
    state = orthogonal_state(rng) | {f"{HEAD}layers.1.weight": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=r"layers\.1\.weight.* but expected"):
        load_reference_head(saved(state))


@pytest.mark.parametrize(
    ("kind", "key", "shape", "message"),
    [
        ("clipdet", "fc.weight", (2, 16), r"weight is \(2, 16\), not \(1, 16\)"),
        ("clipdet", "fc.bias", (2,), r"bias is \(2,\), not \(1,\)"),
        ("universal_fake_detect", "weight", (), r"weight is \(\), not \(1, 0\)"),
        ("clipdet", "fc.weight", (1, 0), r"weight is \(1, 0\), empty, but expected"),
        (
            "clip_orthogonal",
            f"{HEAD}to_logits.weight",
            (1, 4),
            r"to_logits.weight is \(1, 4\), not \(1, 3\)",
        ),
        (
            "cm_antonyms",
            "model.W_concepts.weight",
            (5, 9),
            r"W_concepts.weight is \(5, 9\), not \(5, 16\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(rng, saved, kind, key, shape, message):
    state = STATES[kind](rng) | {key: torch.ones(shape)}
    with pytest.raises(ValueError, match=message):
        load_reference_head(saved(state))


def test_two_tensors_of_one_name_are_refused(rng, saved):
    state = linear_state(rng) | linear_state(
        rng, prefix="module.classification_head.fc."
    )
    with pytest.raises(ValueError, match=r"two tensors for 'classification_head\.fc\."):
        load_reference_head(saved(state))


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_a_damaged_archive_is_refused(rng, saved, member):
    file = saved(linear_state(rng, d=1024))
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        content = archive.read(f"head/{member}")
    data[data.index(content) + len(content) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"a damaged archive \(head/{member}\)"):
        load_reference_head(file)
    file.write_bytes(data.replace(b"PK\x01\x02", b"PK\x01\x03"))  # its directory
    with pytest.raises(ValueError, match=r"a damaged archive \(BadZipFile\)"):
        load_reference_head(file)


def test_files_that_are_too_large_for_a_head_are_not_read(tmp_path, monkeypatch):
    bomb, encoder = tmp_path / "bomb.pth", tmp_path / "encoder.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head/data.pkl", bytes(10**6))
    monkeypatch.setattr(_head_checkpoint, "MAX_BYTES", 10**5)
    with pytest.raises(ValueError, match="archive that unpacks to 1,000,000 bytes"):
        load_reference_head(bomb)
    encoder.write_bytes(bytes(10**6))
    with pytest.raises(ValueError, match="of 1,000,000 bytes, but expected a head"):
        load_reference_head(encoder)


def test_a_head_of_another_kind_is_refused(rng, saved):
    file = saved(linear_state(rng))
    with pytest.raises(ValueError, match="of the kind 'linear_probe', but expected"):
        load_reference_head(file, kind="clipdet")
    with pytest.raises(ValueError, match="Got kind='resnet' but expected one of"):
        load_reference_head(file, kind="resnet")
    with pytest.raises(ValueError, match=r"Got concept_names for .* leave them"):
        load_reference_head(file, concept_names=["one"])


def test_concept_names_must_be_as_many_as_the_concepts(rng, saved):
    with pytest.raises(ValueError, match="Got 1 concept_names for 5 rows"):
        load_reference_head(saved(concept_state(rng)), concept_names=["one"])


def test_files_that_hold_no_checkpoint_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_reference_head(tmp_path / "none.ckpt")
    pointer = tmp_path / "weights.pth"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\nsize 5227\n")
    with pytest.raises(ValueError, match="type `git lfs pull`"):
        load_reference_head(pointer)
    (tmp_path / "head.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_reference_head(tmp_path / "head.safetensors")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="nothing else is ever unpickled"):
        load_reference_head(tmp_path / "cut.pt")
