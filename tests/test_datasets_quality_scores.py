import numpy as np
import pytest

from sklearn_clipsid.datasets import load_quality_scores

# The headers and first rows are laid out as in the published tables.
AGIQA = (
    "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
    "AttnGAN_normal_000.jpg,statue of a man,,,,0.9,0.2,0.4,0.6\n"
    'sd1.5_highcorr_060.jpg,"a king, anime style",,,anime style,3.5,0.7,2.9,0.8\n'
    "midjourney_lowstep_001.jpg,statue of a man,,,,3.1,0.5,3.3,0.1\n"
)
AIGCIQA = (
    ",name,prompt,style,class,quality_mos,authenticity_mos,correspondence_mos,"
    "quality_std,authenticity_std,correspondence_std\n"
    "0,0.png,a corgi,Basic,Animals,60.1,47.2,59.9,0.8,1.2,1.3\n"
    "4,4.png,a girl,Basic,People,49.5,51.0,59.8,1.2,1.1,1.1\n"
    "400,400.png,a corgi,Basic,Animals,63.3,62.1,63.9,1.0,1.0,1.1\n"
)


@pytest.fixture
def write(tmp_path):
    """Function that writes a table, and empty files for the images it names."""

    def write(text, name="data.csv", folder="."):
        images = tmp_path / folder
        images.mkdir(parents=True, exist_ok=True)
        for line in text.splitlines()[1:]:
            for cell in line.split(","):
                if cell.endswith((".jpg", ".png")):
                    (images / cell).touch()
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_agiqa_3k_is_read_with_generators_and_prompts(write):
    table = write(AGIQA)
    images = load_quality_scores(table)
    assert images.data.tolist() == [
        str(table.parent / name)
        for name in (
            "AttnGAN_normal_000.jpg",
            "sd1.5_highcorr_060.jpg",
            "midjourney_lowstep_001.jpg",
        )
    ]
    np.testing.assert_array_equal(images.target, [0.9, 3.5, 3.1])
    np.testing.assert_array_equal(images.target_std, [0.2, 0.7, 0.5])
    assert images.generator.tolist() == ["AttnGAN", "sd1.5", "midjourney"]
    assert images.prompt[1] == "a king, anime style"
    assert images.prompt[0] == images.prompt[2]
    assert "3 images of AGIQA-3K" in images.DESCR
    aligned = load_quality_scores(table, score="alignment")
    np.testing.assert_array_equal(aligned.target, [0.4, 2.9, 3.3])


def test_aigciqa2023_is_read_with_its_images_elsewhere(write):
    table = write(AIGCIQA, "AIGCIQA2023.csv", "Image/allimg")
    folder = table.parent / "Image" / "allimg"
    images = load_quality_scores(table, folder)
    np.testing.assert_array_equal(images.target, [60.1, 49.5, 63.3])
    assert images.generator.tolist() == ["0", "0", "1"]
    assert images.data[2] == str(folder / "400.png")
    authentic = load_quality_scores(table, folder, score="authenticity")
    np.testing.assert_array_equal(authentic.target, [47.2, 51.0, 62.1])
    np.testing.assert_array_equal(authentic.target_std, [1.2, 1.1, 1.0])


def test_images_elsewhere_are_found_for_the_message(write):
    table = write(AIGCIQA, "AIGCIQA2023.csv", "Image/allimg")
    with pytest.raises(
        FileNotFoundError, match=r"Got 3 of 3 images.*pass image_folder='.*allimg'"
    ):
        load_quality_scores(table)
    with pytest.raises(FileNotFoundError, match=r"nowhere', which is no folder"):
        load_quality_scores(table, table.parent / "nowhere")
    (table.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder that holds them"):
        load_quality_scores(table, table.parent / "empty")


def test_one_missing_image_is_named(write):
    table = write(AGIQA)
    (table.parent / "AttnGAN_normal_000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"Got 1 of 3.*AttnGAN_normal_000"):
        load_quality_scores(table)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file.*data\.csv"):
        load_quality_scores(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("mos_align", "align", r"those of AGIQA-3K or AIGCIQA2023; for AGIQA-3K"),
        ("0.9,0.2", "n/a,0.2", r"Got mos_quality='n/a' in line 2"),
        ("0.9,0.2", "nan,0.2", r"Got mos_quality='nan' in line 2"),
        ("0.9,0.2", "0_9,0.2", r"Got mos_quality='0_9' in line 2"),
        ("0.9,0.2", "0.9,-2", r"Got std_quality='-2' .* at least 0"),
        ("mos_align", "prompt", r"Got the columns \['prompt'\] more than once"),
        ("0.9,0.2", "0.9", "another number of cells than the 9"),
        ("AttnGAN_normal_000.jpg", " ", "an empty name in line 2"),
        ("midjourney_lowstep_001", "AttnGAN_normal_000", "1 images more than once"),
        ("3.5", '"3.5', "cannot be read after line"),
    ],
)
def test_a_table_that_says_something_else_is_refused(write, old, new, problem):
    with pytest.raises(ValueError, match=problem):
        load_quality_scores(write(AGIQA.replace(old, new)))


def test_a_table_without_rows_is_refused(write):
    with pytest.raises(ValueError, match="Got no rows"):
        load_quality_scores(write(AGIQA.splitlines()[0] + "\n"))


def test_a_score_that_a_set_does_not_have_is_refused(write):
    with pytest.raises(ValueError, match=r"'authenticity'.*\['quality', 'alignment'\]"):
        load_quality_scores(write(AGIQA), score="authenticity")


def test_aigciqa2023_numbers_its_images(write):
    for name in ("four", "2400"):
        with pytest.raises(ValueError, match=rf"Got the name '{name}\.png'"):
            load_quality_scores(write(AIGCIQA.replace("4.png", f"{name}.png")))
