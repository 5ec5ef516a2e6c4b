from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from sklearn_clipsid.inspection import plot_collage

BLUE, ORANGE = "#0072b2", "#e69f00"
MINUS = "\N{MINUS SIGN}"
NAMES = ["grain", "blur", "glow"]


pytestmark = pytest.mark.usefixtures("plt")


@pytest.fixture
def contributions(rng):
    return rng.standard_normal((9, 3))


def pixels_of(figure):
    return [ax.images[0].get_array() for ax in figure.axes]


def test_paths_bytes_pixels_and_pil_images_are_drawn_alike(image_files, contributions):
    from PIL import Image

    pil = [Image.open(path) for path in image_files]
    sizes = [image.size for image in pil]
    kinds = [
        image_files,
        np.array(image_files),
        [Path(path).read_bytes() for path in image_files],
        [bytearray(Path(path).read_bytes()) for path in image_files],
        pil,
        [np.asarray(image) for image in pil],
    ]
    drawn = [pixels_of(plot_collage(kind, contributions, NAMES)) for kind in kinds]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    assert [image.size for image in pil] == sizes  # those of the caller are not shrunk


def test_images_keep_their_proportions_on_white():
    wide = np.zeros((20, 80, 3), dtype=np.uint8)
    (pixels,) = pixels_of(plot_collage([wide], [[1.0]], ["a"], thumbnail=40))
    is_black = (pixels < 10).all(axis=2)
    assert pixels.shape == (40, 40, 3)
    assert is_black.sum() == 40 * 10
    assert (pixels[~is_black] == 255).all()


def test_the_largest_contributions_are_named_with_bars_of_one_scale():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    figure = plot_collage(
        [image, image], [[0.5, -2.0, 0.1], [1.0, 0.2, 0.0]], NAMES, top=2, thumbnail=200
    )
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert texts == [
        [f"{MINUS}2.00 blur", "+0.50 grain"],
        ["+1.00 grain", "+0.20 blur"],
    ]
    bars = [[bar.get_width() for bar in ax.patches] for ax in figure.axes]
    np.testing.assert_allclose(bars, [[-100, 25], [50, 10]])
    colours = [to_hex(bar.get_facecolor()) for ax in figure.axes for bar in ax.patches]
    assert colours == [BLUE, ORANGE, ORANGE, ORANGE]
    assert all(bar.get_x() == 100 for ax in figure.axes for bar in ax.patches)


def test_labels_and_scores_stand_above(image_files, contributions):
    figure = plot_collage(
        image_files[:2],
        contributions[:2],
        NAMES,
        y_true=np.array([0, 1]),
        y_score=[-0.5, 2],
    )
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"real, score {MINUS}0.50", "synthetic, score 2.00"]
    named = plot_collage(image_files[:1], contributions[:1], NAMES, y_true=["sdxl"])
    assert named.axes[0].get_title() == "sdxl"


@pytest.mark.parametrize(("n_images", "n_rows"), [(1, 1), (4, 1), (5, 2), (9, 3)])
def test_rows_fill_up_and_the_figure_grows(
    image_files, contributions, n_images, n_rows
):
    figure = plot_collage(image_files[:n_images], contributions[:n_images], NAMES)
    assert len(figure.axes) == n_images
    tops = {ax.get_subplotspec().rowspan.start for ax in figure.axes}
    assert len(tops) == n_rows
    assert figure.get_figheight() > 3.3 * n_rows


@pytest.mark.parametrize("size", [120, 220])
def test_a_long_name_ends_within_its_image(size):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    name = "a warm room with many windows and more women " * 2
    figure = plot_collage([image] * 4, [[-1.0]] * 4, [name], thumbnail=size)
    figure.canvas.draw()
    for ax in figure.axes:
        (text,) = ax.texts
        assert text.get_text().endswith("…")
        assert text.get_window_extent().x1 <= ax.get_window_extent().x1


# In the second the layout would take the margin of titles over centred axes.
@pytest.mark.parametrize("size", [None, (9.76, 7.34), (9.8, 8.5)])
def test_nothing_overlaps_above_and_below_an_image(contributions, size, tmp_path, plt):
    square = np.zeros((50, 50, 3), dtype=np.uint8)
    figure = size and plt.figure(figsize=size, layout="constrained")
    figure = plot_collage(
        [square] * 8, contributions[:8], NAMES, y_score=[0.5] * 8, fig=figure
    )
    figure.savefig(tmp_path / "collage.png", dpi=100)
    for ax in figure.axes:
        boxes = [text.get_window_extent() for text in [ax.title, *ax.texts]]
        boxes += [bar.get_window_extent() for bar in ax.patches]
        boxes.append(ax.images[0].get_window_extent())
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
        assert ax.title.get_window_extent().y1 <= figure.bbox.y1 - 2


def test_a_figure_of_the_caller_is_used(image_files, contributions, plt):
    part, _ = plt.figure(layout="constrained").subfigures(1, 2)
    assert plot_collage(image_files, contributions, NAMES, fig=part) is part
    assert len(plt.get_fignums()) == 1


def test_an_unreadable_image_is_named_and_leaves_no_figure(
    image_files, contributions, tmp_path, plt
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for images, message in [
        ([image_files[0], broken], r"at index 1, '.*broken\.jpg': it is not an image"),
        ([tmp_path / "gone.jpg", broken], r"at index 0, '.*gone\.jpg': No such file"),
        ([image_files[0], b""], "at index 1, a bytes: the file is empty"),
    ]:
        with pytest.raises(ValueError, match=f"Could not read the image {message}"):
            plot_collage(images, contributions[:2], NAMES)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "a.jpg"}, "Got one str"),
        ({"contributions": np.zeros((2, 3))}, "Got 9 images for 2 rows of contrib"),
        ({"names": ["a"]}, "Got 1 names for 3 columns"),
        ({"y_true": [0, 1]}, r"Got y_true of shape \(2,\) for 9 images"),
        ({"y_score": np.zeros((9, 2))}, r"Got y_score of shape \(9, 2\) for 9 images"),
        ({"top": 0}, "Got top=0"),
        ({"n_cols": 0}, "Got n_cols=0"),
        ({"thumbnail": 0.5}, "Got thumbnail=0.5"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_named(image_files, contributions, change, message):
    arguments = {
        "images": image_files,
        "contributions": contributions,
        "names": NAMES,
    } | change
    with pytest.raises(ValueError, match=message):
        plot_collage(**arguments)


def test_words_are_shown_for_the_classes_that_they_name():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    figure = plot_collage(
        [image, image],
        [[1.0], [-1.0]],
        ["a"],
        y_true=["real", "fake"],
        y_score=[0.9, 0.1],
        display_labels=np.array(["fake", "real"]),
    )
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["real, score 0.90", "fake, score 0.10"]
    assert "← fake (blue)    real (orange) →" in figure.get_supxlabel()


def test_labels_that_are_no_classes_are_refused():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="Got 2 in y_true but expected 0, 1 or words"):
        plot_collage([image], [[1.0]], ["a"], y_true=[2])
    with pytest.raises(ValueError, match="but expected two, the first of what lowers"):
        plot_collage([image], [[1.0]], ["a"], display_labels=["fake"])
