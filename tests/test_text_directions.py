import numpy as np
import pytest

from sklearn_clipsid import CLIPEmbedder, PrecomputedEmbedder
from sklearn_clipsid._concept_vocabulary import check_concepts
from sklearn_clipsid.concepts import concept_directions_from_text
from sklearn_clipsid.datasets import load_photographic_antonyms

ANTONYMS = {
    "name": ["haze", "blur", "grain"],
    "positive": ["thick haze", "strong blur", "coarse grain"],
    "negative": ["clear air", "sharp detail", "smooth tones"],
}
PROMPTS = [
    f"A photograph with {pole}" for pole in ANTONYMS["positive"] + ANTONYMS["negative"]
]


class TableEmbedder:
    """Answers with rows of a table, and notes what was asked."""

    def __init__(self, table):
        self.table = table
        self.calls = []

    def embed_text(self, texts):
        self.calls.append(texts)
        return self.table


@pytest.fixture
def table(rng):
    # Lengths differ by orders of magnitude, and all lean to one side as texts do.
    return (rng.normal(size=(6, 5)) + 2) * 10.0 ** np.arange(-3, 3)[:, None]


def unit(A):
    return A / np.linalg.norm(A, axis=1, keepdims=True)


def test_a_direction_is_the_unit_difference_of_unit_embeddings(table):
    concepts = concept_directions_from_text(TableEmbedder(table), ANTONYMS)
    expected = unit(unit(table[:3]) - unit(table[3:]))
    assert concepts.directions.dtype == np.float64
    np.testing.assert_allclose(concepts.directions, expected, rtol=1e-14, atol=1e-15)


def test_single_precision_is_left_before_anything_is_computed(table):
    table = table.astype(np.float32)
    concepts = concept_directions_from_text(TableEmbedder(table), ANTONYMS)
    expected = unit(unit(table[:3].astype(float)) - unit(table[3:].astype(float)))
    np.testing.assert_allclose(concepts.directions, expected, rtol=1e-14, atol=1e-15)


def test_the_length_of_a_text_embedding_does_not_matter(table, rng):
    lengths = rng.uniform(0.1, 10, (6, 1))
    directions = [
        concept_directions_from_text(TableEmbedder(rows), ANTONYMS).directions
        for rows in (table, unit(table), lengths * table)
    ]
    np.testing.assert_allclose(directions[1], directions[0], atol=1e-14)
    np.testing.assert_allclose(directions[2], directions[0], atol=1e-14)


def test_exchanged_poles_turn_the_direction_round(table):
    exchanged = ANTONYMS | {
        "positive": ANTONYMS["negative"],
        "negative": ANTONYMS["positive"],
    }
    there = concept_directions_from_text(TableEmbedder(table), ANTONYMS)
    back = concept_directions_from_text(
        TableEmbedder(np.roll(table, 3, axis=0)), exchanged
    )
    np.testing.assert_array_equal(back.directions, -there.directions)


def test_the_positive_pole_has_the_higher_score(table):
    directions = concept_directions_from_text(TableEmbedder(table), ANTONYMS).directions
    scores = unit(table) @ directions.T
    assert (np.diag(scores[:3]) > np.diag(scores[3:])).all()


def test_all_prompts_are_embedded_in_one_call_and_recorded(table):
    embedder = TableEmbedder(table)
    concepts = concept_directions_from_text(embedder, ANTONYMS)
    assert embedder.calls == [PROMPTS]
    assert all(type(text) is str for text in embedder.calls[0])
    assert concepts.positive_prompt.tolist() == PROMPTS[:3]
    assert concepts.negative_prompt.tolist() == PROMPTS[3:]
    assert concepts.names.tolist() == ANTONYMS["name"]
    assert concepts.positive.tolist() == ANTONYMS["positive"]
    assert concepts.negative.tolist() == ANTONYMS["negative"]
    assert concepts.category.tolist() == ["", "", ""]


def test_prompts_and_categories_of_the_antonyms_are_kept(table):
    own = ANTONYMS | {
        "positive_prompt": ["p0", "p1", "p2"],
        "negative_prompt": ["n0", "n1", "n2"],
        "category": ["air", "lens", "film"],
    }
    embedder = TableEmbedder(table)
    concepts = concept_directions_from_text(embedder, own)
    assert embedder.calls == [["p0", "p1", "p2", "n0", "n1", "n2"]]
    assert concepts.category.tolist() == own["category"]


def test_a_frame_gives_what_the_mapping_gives(table):
    frame = pytest.importorskip("pandas").DataFrame(ANTONYMS, index=[5, 5, 7])
    frame = frame.rename(columns={"name": "attribute_name"})
    from_frame = concept_directions_from_text(TableEmbedder(table), frame)
    expected = concept_directions_from_text(TableEmbedder(table), ANTONYMS)
    assert from_frame.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(from_frame[key], expected[key])


def test_the_concept_model_takes_the_directions_as_they_are(table):
    concepts = concept_directions_from_text(TableEmbedder(table), ANTONYMS)
    directions, names = check_concepts(concepts.directions, concepts.names, 5)
    np.testing.assert_allclose(directions, concepts.directions, rtol=1e-15)
    np.testing.assert_array_equal(names, concepts.names)


def test_clip_gives_the_packaged_antonyms_directions(tiny_clip):
    antonyms = load_photographic_antonyms()
    embedder = CLIPEmbedder(pretrained=tiny_clip, features="projected")
    concepts = concept_directions_from_text(embedder, antonyms)
    assert concepts.directions.shape == (229, 32)
    positive, negative = (
        unit(embedder.embed_text(antonyms[key].tolist()).astype(float))
        for key in ("positive_prompt", "negative_prompt")
    )
    # Other batches, so other rounding in single precision.
    np.testing.assert_allclose(
        concepts.directions, unit(positive - negative), atol=1e-4
    )
    for key in ("names", "positive", "negative", "category"):
        np.testing.assert_array_equal(concepts[key], antonyms[key])


def test_an_embedder_that_normalises_gives_the_same_directions(tiny_clip):
    directions = [
        concept_directions_from_text(
            CLIPEmbedder(pretrained=tiny_clip, normalize=normalize), ANTONYMS
        ).directions
        for normalize in (False, True)
    ]
    np.testing.assert_allclose(directions[1], directions[0], atol=1e-5)


def test_an_encoder_without_texts_says_so_itself():
    class ImagesOnly:
        def embed_text(self, texts):
            raise ValueError("holds no text tower")

    with pytest.raises(ValueError, match=r"^holds no text tower$"):
        concept_directions_from_text(ImagesOnly(), ANTONYMS)


def test_an_embedder_of_rows_is_an_error(tmp_path):
    with pytest.raises(TypeError, match=r"Got embedder=PrecomputedEmbedder.*CLIPEmbed"):
        concept_directions_from_text(PrecomputedEmbedder(tmp_path), ANTONYMS)


def test_poles_with_the_same_embedding_are_an_error(table):
    table[4] = 1e3 * table[1] * (1 + 1e-7 * np.arange(5))
    with pytest.raises(ValueError, match=r"same embedding, in rows 1 \(blur\), but"):
        concept_directions_from_text(TableEmbedder(table), ANTONYMS)


def test_words_beyond_what_clip_reads_do_not_make_a_direction(tiny_clip):
    long = "a very " + 15 * "very " + "long description with "
    antonyms = {
        "name": ["length", "haze"],
        "positive": [long + "haze", "haze"],
        "negative": [long + "clear air", "clear air"],
    }
    with pytest.raises(ValueError, match=r"in rows 0 \(length\), but.*encoder reads"):
        concept_directions_from_text(CLIPEmbedder(pretrained=tiny_clip), antonyms)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_texts_without_a_direction_are_named(table, value):
    table[4] = value
    with pytest.raises(
        ValueError, match="infinite for the text 'A photograph with sharp detail', but"
    ):
        concept_directions_from_text(TableEmbedder(table), ANTONYMS)


@pytest.mark.parametrize("shape", [(5, 5), (30,)])
def test_an_embedder_that_answers_otherwise_is_an_error(shape):
    with pytest.raises(ValueError, match=r"shape \(.*one row for each of 6"):
        concept_directions_from_text(TableEmbedder(np.ones(shape)), ANTONYMS)


@pytest.mark.parametrize("antonyms", ["own.csv", [("haze", "clear air")], None])
def test_antonyms_have_columns(antonyms):
    with pytest.raises(TypeError, match=r"Got antonyms of type .*read_antonyms"):
        concept_directions_from_text(TableEmbedder(None), antonyms)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"negative": "clear air"}, r"antonyms\['negative'\] = 'clear air' but"),
        (
            {"negative": ["a", "b"]},
            r"lengths \{'name': 3, 'positive': 3, 'negative': 2",
        ),
        ({"negative": ["a", None, "c"]}, r"missing.*: negative of 'blur' \(row 1\)\."),
        ({"positive": ["a", "b", np.nan]}, r"positive of 'grain' \(row 2\)\."),
        ({"name": ["haze", "blur", ""]}, r"name of '' \(row 2\)\."),
        ({"name": ["blur", "haze", "blur"]}, r"'blur' \(row 0 and row 2\)\."),
        ({"positive": ["a", "Sharp detail", "c"]}, r"equal.*'blur' \(row 1\)\."),
        ({"names": ["a", "b", "c"]}, r"columns \['name', 'names'\] in antonyms, which"),
        ({key: [] for key in ANTONYMS}, "Got no antonyms in antonyms but"),
    ],
)
def test_what_is_wrong_with_antonyms_is_told_by_row(changed, message):
    with pytest.raises(ValueError, match=message):
        concept_directions_from_text(TableEmbedder(None), ANTONYMS | changed)


def test_missing_columns_are_named():
    antonyms = {"name": ["haze"], "positive": ["haze"]}
    with pytest.raises(ValueError, match=r"in antonyms but.*; add \['negative'\]"):
        concept_directions_from_text(TableEmbedder(None), antonyms)
