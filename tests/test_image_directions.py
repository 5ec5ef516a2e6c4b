"""Directions from edited photographs: the formula, the records, and what is refused."""

import numpy as np
import pytest

from sklearn_clipsid import CLIPEmbedder
from sklearn_clipsid.concepts import (
    PhotographicEdit,
    concept_directions_from_images,
    photographic_edits,
)
from sklearn_clipsid.datasets import make_paired_images


class PixelEmbedder:
    """Takes the pixels for the embedding."""

    def fit(self, photos):
        self.fingerprint_ = {"architecture": "none"}
        return self

    def preprocess(self, photos):
        return np.stack(photos)

    def transform(self, images):
        return np.stack(images).reshape(len(images), -1).astype(np.float32)


def add_noise(pixels, strength, random_state):
    return pixels + 0.1 * strength * random_state.standard_normal(pixels.shape)


NOISE = PhotographicEdit("noise", "camera", add_noise, "noisy", "as it was")
LIGHT = PhotographicEdit(
    "light", "light", lambda x, s, _: x * (1 + s), "lighter", "darker", 0.5, -0.3
)


@pytest.fixture
def photos():
    rng = np.random.RandomState(0)
    return list(rng.randint(20, 150, size=(5, 48, 48, 3)).astype(np.uint8))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_a_direction_is_the_mean_difference_of_unit_embeddings(photos):
    embedder = PixelEmbedder()
    concepts = concept_directions_from_images(embedder, photos, [LIGHT])
    lighter, darker = zip(*(LIGHT(photo) for photo in photos))
    gaps = [unit(embedder.transform(x).astype(float)) for x in (lighter, darker)]
    expected = unit((gaps[0] - gaps[1]).mean(axis=0))
    np.testing.assert_allclose(concepts.directions, [expected], atol=1e-12)
    assert concepts.directions.dtype == np.float64


def test_poles_strengths_and_groups_are_recorded(photos):
    concepts = concept_directions_from_images(PixelEmbedder(), photos, [LIGHT, NOISE])
    assert concepts.names.tolist() == ["light", "noise"]
    assert concepts.category.tolist() == ["light", "camera"]
    assert concepts.positive.tolist() == ["lighter", "noisy"]
    assert concepts.negative.tolist() == ["darker", "as it was"]
    assert concepts.positive_strength.tolist() == [0.5, 1]
    assert concepts.negative_strength.tolist() == [-0.3, 0]
    assert concepts.n_photos == 5
    assert concepts.encoder == {"architecture": "none"}


def test_an_edit_draws_the_same_noise_whatever_stands_before_it(photos):
    alone = concept_directions_from_images(
        PixelEmbedder(), photos, [NOISE], random_state=3
    )
    last = concept_directions_from_images(
        PixelEmbedder(), photos, [LIGHT, NOISE], random_state=3
    )
    assert np.array_equal(alone.directions[0], last.directions[1])
    other = concept_directions_from_images(
        PixelEmbedder(), photos, [NOISE], random_state=4
    )
    assert not np.array_equal(alone.directions, other.directions)


def test_the_packaged_edits_are_the_default(photos):
    concepts = concept_directions_from_images(PixelEmbedder(), photos, random_state=0)
    assert concepts.names.tolist() == [edit.name for edit in photographic_edits()]
    np.testing.assert_allclose(np.linalg.norm(concepts.directions, axis=1), 1)


@pytest.mark.parametrize(
    "edits, error, message",
    [
        ([], ValueError, "Got no edits but expected at least one"),
        ([LIGHT, LIGHT], ValueError, r"edits of the same name \(light\)"),
        ([LIGHT, "blur"], TypeError, "Got 'blur' at index 1 of edits"),
        (
            [LIGHT, PhotographicEdit("nothing", "light", lambda x, s, _: x, "a", "b")],
            ValueError,
            r"two poles have the same embedding, in rows 1 \(nothing\)",
        ),
    ],
)
def test_edits_that_make_no_direction_are_refused(photos, edits, error, message):
    with pytest.raises(error, match=message):
        concept_directions_from_images(PixelEmbedder(), photos, edits)


class BlindEmbedder(PixelEmbedder):
    """Embeds the last image to NaN."""

    def transform(self, images):
        X = super().transform(images)
        X[-1] = np.nan
        return X


def test_embeddings_that_are_no_numbers_are_refused(photos):
    with pytest.raises(ValueError, match="infinite for photo 4 edited by 'light'"):
        concept_directions_from_images(BlindEmbedder(), photos, [LIGHT])


def test_something_that_embeds_no_photographs_is_refused(photos):
    with pytest.raises(TypeError, match="has no preprocess, but expected an encoder"):
        concept_directions_from_images("ViT-L-14", photos, [LIGHT])


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:1], lambda x: x * np.nan, lambda x: (x * 255).astype("u1")]
)
def test_an_edit_that_returns_no_image_is_named(photos, wrong):
    edit = PhotographicEdit("broken", "light", lambda x, s, _: wrong(x), "a", "b")
    with pytest.raises(ValueError, match="from the edit 'broken'"):
        concept_directions_from_images(PixelEmbedder(), photos, [edit])


def test_photographs_are_needed(tiny_clip):
    with pytest.raises(ValueError, match="Got 0 images"):
        concept_directions_from_images(CLIPEmbedder(pretrained=tiny_clip), [], [LIGHT])


@pytest.mark.real_clip
@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_a_direction_recognises_the_edit_in_other_images(
    demo_encoder, tmp_path, features
):
    images = make_paired_images(tmp_path, n_pairs=6, random_state=0)
    photos = [path for path, label in zip(images.data, images.target) if label == 0]
    embedder = CLIPEmbedder(
        "ViT-B-16-quickgelu", str(demo_encoder), features=features, precision="bf16"
    )
    edits = [e for e in photographic_edits() if e.name in ("sepia", "film_grain")]
    concepts = concept_directions_from_images(
        embedder, photos[:3], edits, random_state=0
    )
    for edit, direction in zip(edits, concepts.directions):
        for photo in embedder.preprocess(photos[3:6]):
            rows = embedder.transform(list(edit(photo, np.random.RandomState(1))))
            positive, negative = unit(rows.astype(float)) @ direction
            assert positive > negative
