import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import CLIPEmbedder, PrecomputedEmbedder, embed_to_shards
from sklearn_clipsid._clip._described_encoder import describe_encoder
from sklearn_clipsid._clip._tower import ImageTower
from sklearn_clipsid.metrics import mean_average_precision_score
from sklearn_clipsid.persistence import dump, load
from sklearn_clipsid.reference import (
    list_reference_detectors,
    load_reference_head,
    reference_pipeline,
)
from sklearn_clipsid.reference._detectors import KINDS

# The constants of CLIP, as the three repositories write them down.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WIDTHS = {"pooled": 1024, "projected": 768}


def shapes_of(kind, d):
    """Names and shapes of the tensors of a checkpoint."""
    head = "model.classification_head."
    if kind == "clip_orthogonal":
        shapes = {"layers.0.weight": (3, d), "layers.0.bias": (3,)}
        shapes |= {"to_logits.weight": (1, 3), "to_logits.bias": (1,)}
    elif kind == "cm_antonyms":
        head = "model."
        shapes = {"text_embeddings": (5, d), "W_concepts.weight": (5, d)}
        shapes |= {"W_concepts.bias": (5,), "W_classifier.bias": (1,)}
        shapes["W_classifier.weight"] = (1, 5)
    else:
        head = {"linear_probe": f"{head}fc.", "clipdet": "fc."}.get(kind, "")
        shapes = {"weight": (1, d), "bias": (1,)}
    return {f"{head}{key}": shape for key, shape in shapes.items()}


@pytest.fixture
def checkpoint(rng, tmp_path):
    """Function that writes a checkpoint of a kind and returns its path."""

    def write(kind, width=None):
        shapes = shapes_of(kind, width or WIDTHS[KINDS[kind].features])
        state = {k: torch.from_numpy(rng.normal(size=v)) for k, v in shapes.items()}
        file = tmp_path / f"{kind}.ckpt"
        torch.save({"state_dict": state}, file)
        return file

    return write


@pytest.fixture
def as_if_published(monkeypatch, tiny_clip):
    """Put a tiny encoder in the place of the published ones."""
    for kind, published in list(KINDS.items()):
        monkeypatch.setitem(KINDS, kind, replace(published, model_name=tiny_clip))
    return {"pooled": 64, "projected": 32}


def published_transform(kind):
    """The published recipe of pixels, in torchvision's words."""
    from torchvision import transforms as T

    bicubic = T.InterpolationMode.BICUBIC
    geometry = {
        "clip_orthogonal": [T.Resize(336), T.CenterCrop(336)],
        "linear_probe": [T.Resize(336), T.CenterCrop(336)],
        "cm_antonyms": [T.Resize(336, bicubic), T.CenterCrop(336)],
        "universal_fake_detect": [T.CenterCrop(224)],
        "clipdet": [T.Resize(224, bicubic), T.CenterCrop((224, 224))],
    }[kind]
    return T.Compose([*geometry, T.ToTensor(), T.Normalize(MEAN, STD)])


@pytest.fixture
def seen_by(tmp_path, write_tiny_clip, monkeypatch, fresh_memo):
    """Function that returns the tensors which the encoder of a kind is given."""
    import open_clip

    def seen(kind, images):
        published = KINDS[kind]
        facts = describe_encoder(published.model_name, published.pretrained)
        vision = {"image_size": facts["image_size"], "layers": 1, "width": 32}
        vision |= {"patch_size": 112, "head_width": 32}
        config = {"embed_dim": 8, "vision_cfg": vision}
        config["text_cfg"] = {"context_length": 16, "width": 32, "heads": 2}
        small = write_tiny_clip(
            tmp_path / kind,
            config=config,
            preprocessing={
                key: value
                for key, value in open_clip.get_pretrained_cfg(
                    published.model_name, published.pretrained
                ).items()
                if key in ("mean", "std", "interpolation", "resize_mode")
            },
        )
        tensors, forward = [], ImageTower._forward

        def noted(tower, x, features):
            tensors.extend(x.numpy().copy())
            return forward(tower, x, features)

        monkeypatch.setattr(ImageTower, "_forward", noted)
        embedder = CLIPEmbedder(small, resize=published.resize, decode_threads=1)
        embedder.transform(images)
        return tensors

    return seen


def assert_published_pixels(kind, images, tensors):
    transform = published_transform(kind)
    assert len(tensors) == len(images)
    for path, tensor in zip(images, tensors):
        with Image.open(path) as image:
            expected = transform(image.convert("RGB")).numpy()
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_published_recipe(
    seen_by, image_files, tmp_path, kind, rng
):
    # Smaller than the input: scaled up, or padded with black where nothing is scaled.
    # Larger: scaled down or cut off, on one side by an odd number of pixels.
    images = image_files[:3]
    for size in ((613, 400), (351, 1024), (300, 150)):
        images.append(str(tmp_path / f"{size[0]}.png"))
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images[-1])
    tensors = seen_by(kind, images)
    assert_published_pixels(kind, images, tensors)
    if kind == "universal_fake_detect":
        black = -np.array(MEAN) / STD
        np.testing.assert_allclose(tensors[0][:, 0, 0], black, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_real_files_are_those_of_the_published_recipe(
    seen_by, shared_images, kind
):
    with (shared_images / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    sizes = {
        str(shared_images / row["path"]): (int(row["width"]), int(row["height"]))
        for row in rows
    }
    images = list(sizes)[::60]
    for suffix in (".jpg", ".png", ".webp"):
        paths = [path for path in sizes if path.endswith(suffix)]
        # The smallest, and the one furthest from a square.
        images.append(min(paths, key=lambda path: min(sizes[path])))
        images.append(max(paths, key=lambda path: max(sizes[path]) / min(sizes[path])))
    images = list(dict.fromkeys(images))  # as each is embedded once
    assert_published_pixels(kind, images, seen_by(kind, images))


def test_published_encoders_are_the_ones_that_open_clip_has():
    sizes = {"clip_orthogonal": 336, "linear_probe": 336, "cm_antonyms": 336}
    for kind, published in KINDS.items():
        facts = describe_encoder(published.model_name, published.pretrained)
        assert facts["image_size"] == sizes.get(kind, 224)
        assert facts["quick_gelu"] == (kind != "clipdet")  # as OpenAI trained
        assert facts["mean"] == MEAN and facts["std"] == STD
        assert (facts["interpolation"], facts["geometry"]) == ("bicubic", "shortest")
        assert (facts["width"], facts["embed_dim"]) == (1024, 768)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip_orthogonal_synthclic", ("pooled", False, "bilinear")),
        ("linear_probe_combined", ("pooled", False, "bilinear")),
        ("cm_antonyms_cnnspot", ("projected", False, "model")),
        ("universal_fake_detect", ("projected", False, "crop")),
        ("clipdet_latent10k", ("pooled", True, "model")),
    ],
)
def test_a_published_detector_gets_its_embedder(checkpoint, name, settings):
    kind = next(d["kind"] for d in list_reference_detectors() if d["name"] == name)
    pipeline = reference_pipeline(
        name, checkpoint(kind), batch_size=7, precision="bf16"
    )
    embedder, head = pipeline
    assert (embedder.features, embedder.normalize, embedder.resize) == settings
    assert embedder.apply_exif is False
    assert (embedder.batch_size, embedder.precision) == (7, "bf16")
    assert head.n_features_in_ == WIDTHS[embedder.features]
    assert embedder.get_feature_names_out().size == head.n_features_in_


@pytest.mark.oracle
def test_published_checkpoints_make_pipelines(oracles):
    for file in (oracles / "clip_cues").glob("*.ckpt"):
        embedder, _ = reference_pipeline(file.stem, file)
        assert embedder.model_name == "ViT-L-14-336-quickgelu"


def test_every_detector_is_described():
    detectors = list_reference_detectors()
    assert len({detector["name"] for detector in detectors}) == len(detectors) == 15
    for detector in detectors:
        assert detector["kind"] in KINDS
        for key in ("paper", "training_data", "licence", "repository", "model_name"):
            assert isinstance(detector[key], str) and detector[key]
        has_figure = detector["published_map"] is not None
        assert has_figure == (detector["published_on"] is not None)


@pytest.mark.oracle
def test_the_published_figures_are_those_of_the_published_predictions(oracles):
    name = "synthclic_clip_orthogonal_synthclic_predictions.csv"
    with (oracles / "published" / name).open() as file:
        rows = list(csv.DictReader(file))
    y, score = (
        np.array([float(row[key]) for row in rows]) for key in ("label", "label_prob")
    )
    detectors = {row["name"]: row for row in list_reference_detectors()}
    published = detectors["clip_orthogonal_synthclic"]["published_map"]
    generators = np.array(
        [row["source"] if row["label"] == "1" else "real" for row in rows]
    )
    measured = mean_average_precision_score(y, score, generators)
    assert round(measured, 4) == published
    # As the user guide says.
    assert ((score > 0.5) & (y == 0)).sum() == 212 and (y == 0).sum() == 428


def test_scores_are_those_of_head_and_embedder(
    checkpoint, as_if_published, image_files
):
    for kind, published in KINDS.items():
        file = checkpoint(kind, as_if_published[published.features])
        pipeline = reference_pipeline(kind, file)
        X = CLIPEmbedder(
            published.model_name,
            features=published.features,
            resize=published.resize,
            normalize=published.normalize,
        ).transform(image_files)
        expected = load_reference_head(file).decision_function(X)
        np.testing.assert_array_equal(pipeline.decision_function(image_files), expected)
        assert pipeline.predict_proba(image_files).shape == (9, 2)


def test_pipelines_of_the_same_features_share_one_embedding(
    checkpoint, as_if_published, image_files, encoded
):
    pipelines = [
        reference_pipeline(kind, checkpoint(kind, 64))
        for kind in ("clip_orthogonal", "linear_probe")
    ]
    P = [p.predict_proba(image_files)[:, 1] for p in pipelines]
    assert sum(encoded) == len(image_files)
    vote = make_pipeline(
        pipelines[0][0],
        VotingClassifier(
            [(str(i), FrozenEstimator(p[-1])) for i, p in enumerate(pipelines)],
            voting="soft",
        ),
    ).fit(image_files, [0, 1] * 4 + [0])
    scores = vote.predict_proba(image_files)[:, 1]
    np.testing.assert_allclose(scores, np.mean(P, axis=0))
    assert sum(encoded) == len(image_files)


def test_the_code_on_the_page_runs_with_stand_ins(
    checkpoint, as_if_published, image_files, encoded, tmp_path, monkeypatch
):
    page = Path(__file__).resolve().parents[1] / "docs/user_guide/reference.md"
    if not page.is_file():
        pytest.skip("the source archive has no documentation")
    monkeypatch.chdir(tmp_path)
    for kind in ("clip_orthogonal", "linear_probe", "cm_antonyms"):
        file = checkpoint(kind, as_if_published[KINDS[kind].features])
        file.rename(f"{kind}_combined.ckpt")
    Path("antonyms.csv").write_text(
        "name,positive,negative\n" + "".join(f"{n},much {n},no {n}\n" for n in "abcde")
    )
    Image.open(image_files[0]).save("photo.jpg")
    names = {"paths": image_files, "y": [0, 1, 1] * 3, "X": np.ones((1, 32))}
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(code, names)  # the documentation
    detectors = names["detectors"].values()
    P = np.column_stack([d.predict_proba(image_files)[:, 1] for d in detectors])
    scores = names["vote"].predict_proba(image_files)[:, 1]
    np.testing.assert_allclose(scores, P.mean(axis=1))
    expected = LogisticRegression().fit(P, names["y"]).predict_proba(P)
    np.testing.assert_allclose(names["stack"].predict_proba(image_files), expected)
    np.testing.assert_allclose(names["fused"], 1 - (1 - P).prod(axis=1))
    # Each once, in spite of all of the above; photo.jpg by a detector without a folder.
    assert names["embedder"].cache_info().misses == len(image_files)
    assert sum(encoded) == len(image_files) + 1


IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from sklearn_clipsid.persistence import load
encoder, images, *files = sys.argv[1:]
for file in files:
    detector = load(file, pretrained=encoder)
    np.save(f"{file}.npy", detector.predict_proba(images.split("|")))
"""


def test_detectors_and_ensembles_score_alike_in_another_process(
    checkpoint, as_if_published, image_files, tmp_path, tiny_clip
):
    pipelines = [
        (kind, reference_pipeline(kind, checkpoint(kind, as_if_published[features])))
        for kind, features in (
            ("clip_orthogonal", "pooled"),
            ("linear_probe", "pooled"),
            ("cm_antonyms", "projected"),
        )
    ]
    frozen = [(kind, FrozenEstimator(pipeline)) for kind, pipeline in pipelines]
    y = [0, 1, 1] * 3
    detectors = dict(pipelines) | {
        "vote": VotingClassifier(frozen, voting="soft").fit(image_files[:2], [0, 1]),
        "stack": StackingClassifier(pipelines, cv="prefit").fit(image_files, y),
        "refitted stack": StackingClassifier(frozen, cv=3).fit(image_files, y),
    }
    files = [str(tmp_path / f"{name}.skops") for name in detectors]
    for detector, file in zip(detectors.values(), files):
        dump(detector, file)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, tiny_clip]
    subprocess.run([*command, "|".join(image_files), *files], check=True)
    for detector, file in zip(detectors.values(), files):
        expected = detector.predict_proba(image_files)
        np.testing.assert_allclose(np.load(f"{file}.npy"), expected, atol=1e-12)


def test_pipelines_are_saved_and_loaded(
    checkpoint, as_if_published, image_files, tmp_path
):
    for kind, published in KINDS.items():
        file = checkpoint(kind, as_if_published[published.features])
        pipeline = reference_pipeline(kind, file)
        dump(pipeline, tmp_path / "detector.skops")
        same = load(tmp_path / "detector.skops")
        expected = pipeline.decision_function(image_files)
        np.testing.assert_array_equal(same.decision_function(image_files), expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": "projected"}, "features='projected', not 'pooled'"),
        ({"features": -3}, "features=-3, not 'pooled'"),
        ({"resize": "model"}, "resize='model', not 'bilinear'"),
        ({"normalize": True}, "normalize=True, not False"),
        ({"apply_exif": True}, "apply_exif=True, not False"),
        ({"model_name": "ViT-L-14-336"}, "quick_gelu False, not True"),
        ({"model_name": "ViT-L-14-quickgelu"}, "image_size 224, not 336"),
        (
            {"model_name": "ViT-B-16-quickgelu"},
            "width 768, not 1024; layers 12, not 24; patch_size 16, not 14",
        ),
        (
            {"model_name": "ViT-L-14-quickgelu", "pretrained": "dfn2b"},
            "tag 'dfn2b', not 'openai'",
        ),
    ],
)
def test_an_embedder_of_other_features_is_called_wrong(checkpoint, wrong, message):
    file = checkpoint("clip_orthogonal")
    name = "clip_orthogonal_synthclic"
    right = {key: getattr(KINDS["clip_orthogonal"], key) for key in ("features",)}
    right |= {"model_name": "ViT-L-14-336-quickgelu", "resize": "bilinear"}
    for attempt in (
        lambda: reference_pipeline(name, file, **wrong),
        lambda: reference_pipeline(name, file, embedder=CLIPEmbedder(**right | wrong)),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "the embedder is wrong, not the head" in str(caught.value)


def test_a_head_of_the_same_width_behind_another_space_is_no_excuse(checkpoint):
    # Pooled features of ViT-B/16 are as wide as projected ones of ViT-L/14.
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", features="pooled", resize="crop")
    file = checkpoint("universal_fake_detect", 768)
    with pytest.raises(ValueError, match=r"features='pooled', not 'projected'.*width"):
        reference_pipeline("universal_fake_detect", file, embedder=embedder)


def test_a_head_of_another_width_is_called_wrong(checkpoint):
    with pytest.raises(
        ValueError, match="takes 768 features, but expected 1024, "
    ) as caught:
        reference_pipeline("clipdet", checkpoint("clipdet", 768))
    assert "the head is wrong, not the embedder" in str(caught.value)


def test_a_head_of_another_kind_is_called_wrong(checkpoint):
    with pytest.raises(ValueError, match="the file or the name of the detector is"):
        reference_pipeline("clipdet_latent10k", checkpoint("universal_fake_detect"))


def test_concept_models_take_rows_of_any_norm(checkpoint):
    file = checkpoint("cm_antonyms")
    names = list("abcde")
    for normalize in (True, False):
        _, head = reference_pipeline(
            "cm_antonyms", file, normalize=normalize, concept_names=names
        )
        assert head.concept_names_.tolist() == names


def test_stored_embeddings_stand_in_for_the_embedder(
    checkpoint, as_if_published, image_files, tmp_path, tiny_clip
):
    file = checkpoint("clipdet", 64)
    embedder = CLIPEmbedder(tiny_clip, features="pooled", normalize=True)
    embed_to_shards(embedder, image_files, tmp_path / "right")
    stored = PrecomputedEmbedder(tmp_path / "right")
    pipeline = reference_pipeline("clipdet", file, embedder=stored)
    expected = reference_pipeline("clipdet", file).decision_function(image_files)
    scores = pipeline.decision_function(image_files)
    np.testing.assert_allclose(scores, expected, atol=1e-3)  # kept in half precision
    embed_to_shards(CLIPEmbedder(tiny_clip), image_files, tmp_path / "wrong")
    with pytest.raises(ValueError, match="normalize=False, not True"):
        reference_pipeline(
            "clipdet", file, embedder=PrecomputedEmbedder(tmp_path / "wrong")
        )


def test_stored_embeddings_of_another_encoder_are_refused(
    checkpoint, as_if_published, image_files, tmp_path, write_tiny_clip, monkeypatch
):
    other = write_tiny_clip(
        tmp_path / "other", preprocessing={"mean": MEAN, "std": STD}
    )
    embedder = CLIPEmbedder(other, normalize=True)
    embed_to_shards(embedder, image_files, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"with config '\w+', not '\w+', but"):
        reference_pipeline(
            "clipdet",
            checkpoint("clipdet", 64),
            embedder=PrecomputedEmbedder(tmp_path / "shards"),
        )


def test_names_and_arguments_are_checked(checkpoint):
    file = checkpoint("clipdet")
    with pytest.raises(ValueError, match="Got name='clipdet10k' but expected a publ"):
        reference_pipeline("clipdet10k", file)
    with pytest.raises(TypeError, match="expected a CLIPEmbedder or a Precomputed"):
        reference_pipeline("clipdet", file, embedder="ViT-L-14")
    with pytest.raises(ValueError, match="Got an embedder and device, but expected"):
        reference_pipeline("clipdet", file, embedder=CLIPEmbedder(), device="cpu")
    with pytest.raises(ValueError, match="there is no such file; give the path"):
        reference_pipeline("clipdet", file, pretrained="weights/none.safetensors")
