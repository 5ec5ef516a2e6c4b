import csv
import re
from collections import Counter

import numpy as np
import pytest

from sklearn_clipsid.datasets import load_photographic_antonyms, read_antonyms

COLUMNS = (
    "names",
    "positive",
    "negative",
    "positive_prompt",
    "negative_prompt",
    "category",
    "explanation",
)
# Text encoders read "no grain" much as "grain".
NEGATIONS = {"free", "lacking", "never", "no", "none", "not", "without"}


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "own.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture(scope="module")
def published(oracles):
    return oracles / "clip_cues" / "antonyms.csv"


def test_the_packaged_antonyms_are_complete():
    antonyms = load_photographic_antonyms()
    for key in COLUMNS:
        assert antonyms[key].shape == (229,)
        assert antonyms[key].dtype.kind == "U"
        assert all(text and text == text.strip() for text in antonyms[key])
    assert len(set(antonyms.names)) == 229
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in antonyms.names)


def test_the_table_in_the_docstring_counts_the_packaged_antonyms():
    counts = Counter(load_photographic_antonyms().category.tolist())
    assert min(counts.values()) >= 20
    table = re.findall(
        r"^    (\w[\w ]*?) +(\d+)$", load_photographic_antonyms.__doc__, re.MULTILINE
    )
    assert table == [("Pairs", "229"), *((k, str(n)) for k, n in counts.items())]


def test_no_packaged_pole_is_used_twice_or_says_what_is_not_there():
    antonyms = load_photographic_antonyms()
    poles = [*antonyms.positive, *antonyms.negative]
    assert len(set(poles)) == len(poles)
    for pole in poles:
        words = pole.split()
        assert not NEGATIONS & set(words), pole
        assert len(words) <= 7, pole
        assert pole[0].islower() or words[0].isupper(), pole


@pytest.mark.oracle
def test_the_packaged_antonyms_are_not_the_published_ones(published):
    theirs, ours = read_antonyms(published), load_photographic_antonyms()
    pairs = [
        {
            tuple(re.sub("^(an?|the) ", "", pole.lower()) for pole in pair)
            for pair in zip(antonyms.positive, antonyms.negative)
        }
        for antonyms in (theirs, ours)
    ]
    assert not pairs[0] & pairs[1]


def test_the_template_makes_the_prompts():
    antonyms = load_photographic_antonyms()
    assert antonyms.template == "A photograph with {}"
    np.testing.assert_array_equal(
        antonyms.negative_prompt,
        [f"A photograph with {pole}" for pole in antonyms.negative],
    )
    other = load_photographic_antonyms(template="{} {0}")
    np.testing.assert_array_equal(
        other.positive_prompt, [f"{pole} {{0}}" for pole in antonyms.positive]
    )


@pytest.mark.parametrize("template", ["A photograph", "{} and {}", "{0}", None])
@pytest.mark.parametrize("load", [load_photographic_antonyms, read_antonyms])
def test_a_template_has_one_place_for_the_pole(load, template):
    # Said before a file is looked for.
    filename = () if load is load_photographic_antonyms else ("missing.csv",)
    expected = re.escape(f"Got template={template!r} but expected a string with one {{")
    with pytest.raises(ValueError, match=expected):
        load(*filename, template=template)


def test_categories_choose_antonyms_in_the_order_of_the_file():
    antonyms = load_photographic_antonyms()
    some = load_photographic_antonyms(categories=["lens", "colour"])
    chosen = (antonyms.category == "colour") | (antonyms.category == "lens")
    for key in COLUMNS:
        np.testing.assert_array_equal(some[key], antonyms[key][chosen])
    lens = load_photographic_antonyms(categories="lens")
    assert set(lens.category) == {"lens"}
    assert lens.DESCR == antonyms.DESCR


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ("lenses", r"categories='lenses'.*'colour', 'camera'.*leave out \['lenses'\]"),
        (["lens", "cat"], r"leave out \['cat'\]"),
        ([], r"Got categories=\[\] but expected None or some of"),
    ],
)
def test_unknown_categories_are_an_error(categories, message):
    with pytest.raises(ValueError, match=message):
        load_photographic_antonyms(categories=categories)


def test_the_description_is_valid_rst_and_names_the_categories():
    docutils = pytest.importorskip("docutils.core")
    antonyms = load_photographic_antonyms()
    docutils.publish_doctree(antonyms.DESCR, settings_overrides={"halt_level": 2})
    for category in set(antonyms.category):
        assert f"- ``{category}``: " in antonyms.DESCR


def test_the_packaged_file_can_be_read_as_a_users_file():
    antonyms = load_photographic_antonyms(template="a picture of {}")
    own = read_antonyms(antonyms.filename, template="a picture of {}")
    assert own.pop("DESCR").startswith("229 pairs of antonyms, read from ")
    for key in own:
        np.testing.assert_array_equal(own[key], antonyms[key])


@pytest.mark.oracle
def test_the_published_antonyms_are_read_with_their_prompts(published):
    antonyms = read_antonyms(published)
    assert Counter(antonyms.category.tolist()) == {
        "others": 67,
        "technique": 38,
        "color": 25,
        "lense": 20,
        "camera": 18,
    }
    with open(published, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for key in COLUMNS:
        column = "attribute_name" if key == "names" else key
        np.testing.assert_array_equal(antonyms[key], [r[column].strip() for r in rows])
    assert antonyms.template is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_needs_names_and_poles_only(write, encoding):
    path = write(
        'note, negative ,name,positive\r\nx," clear, dry air",haze,Dunst über allem\r\n'
        "\r\ny,a sharp view,blur,a blurred view\r\n",
        encoding,
    )
    antonyms = read_antonyms(path, template="<{}>")
    assert {key: antonyms[key].tolist() for key in COLUMNS} == {
        "names": ["haze", "blur"],
        "positive": ["Dunst über allem", "a blurred view"],
        "negative": ["clear, dry air", "a sharp view"],
        "positive_prompt": ["<Dunst über allem>", "<a blurred view>"],
        "negative_prompt": ["<clear, dry air>", "<a sharp view>"],
        "category": ["", ""],
        "explanation": ["", ""],
    }
    assert (antonyms.template, antonyms.filename) == ("<{}>", str(path))


HEADER = "attribute_name,positive,negative\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"Got the columns \[\] in .*own.csv' but .*'attribute_name', 'positive'"),
        (
            "name,positive\nhaze,haze\n",
            r"columns \['name', 'positive'\] in .*own.csv' .*; add \['negative'\]",
        ),
        (
            "name,positive,negative,negative_prompt\n",
            r"both positive_prompt.*or neither; add \['positive_prompt'\]",
        ),
        (
            "name,attribute_name,positive,negative\n",
            r"columns \['attribute_name', 'name'\] in .*own.csv', which hold the same",
        ),
        ("name,positive,negative,positive\n", r"columns \['positive'\] in .*the same"),
        (HEADER, r"Got no antonyms in '.*own.csv' but expected one row for each"),
        (
            HEADER + "haze,haze,clear air\n\nblur,blurred, \n,a,b\ngrain,,fine\n",
            r"own.csv' of which something is missing.*: name of '' \(line 5\), "
            r"positive of 'grain' \(line 6\), negative of 'blur' \(line 4\)\.",
        ),
        (
            "name,positive,negative,positive_prompt,negative_prompt\nhaze,a,b,a,\n",
            r"negative_prompt of 'haze' \(line 2\)\.",
        ),
        (
            HEADER + "haze,haze,clear air\nblur,a,b\n haze,mist,clear air\n",
            r"repeated names in '.*own.csv'.*: 'haze' \(line 2 and line 4\)\.",
        ),
        (
            HEADER + "haze,Thick  haze,thick haze\n",
            r"own.csv' whose two poles.*remove: 'haze' \(line 2\)\.",
        ),
        (
            "name,positive,negative,positive_prompt,negative_prompt\nhaze,a,b,c,c\n",
            r"or prompts are equal.*remove: 'haze' \(line 2\)\.",
        ),
        (HEADER + "haze,haze\n", r"number of cells than the 3 .* in line 2 of '.*own"),
        (HEADER + "a,b,c\nhaze,haze,dry, clear\n", r"in line 3 of .*; quote cells"),
        (HEADER + 'a,"b"c,d\n', r"own.csv', which cannot be read after line \d"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_antonyms(write(text))


def test_a_file_in_another_encoding_is_an_error(write):
    path = write(HEADER + "haze,Dunst über allem,klare Luft\n", "latin-1")
    with pytest.raises(ValueError, match=r"cannot be read after line .*utf-8.*UTF-8"):
        read_antonyms(path)
