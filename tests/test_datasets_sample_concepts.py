"""The packaged directions belong to the sample, and are those of the packaged edits."""

from pathlib import Path

import numpy as np
import pytest

from sklearn_clipsid.concepts import photographic_edits
from sklearn_clipsid.datasets import load_sample_concepts, load_sample_embeddings


@pytest.mark.parametrize(("features", "width"), [("pooled", 768), ("projected", 512)])
def test_there_is_one_unit_direction_per_edit(features, width):
    concepts = load_sample_concepts(features=features)
    assert concepts.directions.shape == (34, width)
    np.testing.assert_allclose(np.linalg.norm(concepts.directions, axis=1), 1)
    assert concepts.sha256.shape == (concepts.n_photos,) == (32,)
    assert Path(concepts.filename).is_file()


def test_the_records_are_those_of_the_edits():
    concepts, edits = load_sample_concepts(), photographic_edits()
    assert concepts.names.tolist() == [edit.name for edit in edits]
    for key in (
        "category",
        "positive",
        "negative",
        "positive_strength",
        "negative_strength",
    ):
        assert concepts[key].tolist() == [getattr(edit, key) for edit in edits]


def test_directions_and_sample_are_of_one_encoder():
    for features in ("pooled", "projected"):
        concepts = load_sample_concepts(features=features)
        assert concepts.encoder == load_sample_embeddings(features=features).encoder


def test_the_photographs_behind_the_directions_are_photographs_of_the_sample():
    concepts, sample = load_sample_concepts(), load_sample_embeddings()
    used = np.isin(sample.sha256, concepts.sha256)
    assert used.sum() == 22  # of 32; the others are in no packaged row
    assert not sample.target[used].any()


@pytest.mark.real_clip
def test_the_directions_are_found_again(demo_encoder, shared_images):
    from sklearn_clipsid import CLIPEmbedder
    from sklearn_clipsid.concepts import concept_directions_from_images

    concepts = load_sample_concepts()
    photos = [
        path
        for path in sorted(shared_images.rglob("*.jpg"))
        if _digest(path) in set(concepts.sha256)
    ][:4]
    edits = {edit.name: edit for edit in photographic_edits()}
    chosen = ["film_grain", "sepia", "upsampling"]
    found = concept_directions_from_images(
        CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder), precision="bf16"),
        photos,
        [edits[name] for name in chosen],
        random_state=0,
    )
    rows = [concepts.names.tolist().index(name) for name in chosen]
    cosines = found.directions @ concepts.directions.T  # (3, 34)
    # Four of the 32 photographs: nearer to their own direction than to any other.
    assert cosines.argmax(axis=1).tolist() == rows
    assert cosines.max(axis=1).min() > 0.5


def _digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_features_have_no_directions():
    with pytest.raises(ValueError, match="Got features='blocks' but expected one of"):
        load_sample_concepts(features="blocks")
