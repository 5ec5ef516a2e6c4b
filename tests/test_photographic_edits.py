"""Edits of photographs do what their names say, and nothing at strength zero."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, laplace

from sklearn_clipsid.concepts import PhotographicEdit, photographic_edits

EDITS = {edit.name: edit for edit in photographic_edits()}
CATEGORIES = {
    "colour",
    "camera",
    "lens",
    "technique",
    "light and composition",
    "image artefacts",
}


@pytest.fixture(scope="module")
def photo():
    """A scene of colours, edges and texture, 96 pixels high and 128 wide."""
    rng = np.random.RandomState(0)
    regions = gaussian_filter(rng.standard_normal((96, 128, 3)), (8, 8, 0))
    texture = gaussian_filter(rng.standard_normal((96, 128, 1)), (0.7, 0.7, 0))
    scene = 0.5 + 0.15 * regions / regions.std() + 0.04 * texture / texture.std()
    scene[30:60, 40:90] = [0.75, 0.35, 0.2]
    return np.rint(np.clip(scene, 0.05, 0.95) * 255).astype(np.uint8)


def poles(name, photo):
    """The photograph edited either way, as numbers between 0 and 1."""
    edited = EDITS[name](photo, np.random.RandomState(0))
    return [pole.astype(float) / 255 for pole in edited]


def grey(image):
    return image @ [0.299, 0.587, 0.114]


def test_there_are_many_edits_of_all_groups_but_of_no_name_twice():
    edits = photographic_edits()
    assert len(edits) >= 20 and len(EDITS) == len(edits)
    assert {edit.category for edit in edits} == CATEGORIES


@pytest.mark.parametrize("name", EDITS)
def test_the_poles_are_two_images_of_the_size_of_the_photograph(name, photo):
    before = photo.copy()
    positive, negative = EDITS[name](photo, np.random.RandomState(0))
    assert positive.shape == negative.shape == photo.shape
    assert positive.dtype == negative.dtype == np.uint8
    assert np.abs(positive.astype(float) - negative).mean() > 1
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_repeats_with_its_random_state(name, photo):
    once = EDITS[name](photo, np.random.RandomState(3))
    again = EDITS[name](photo, np.random.RandomState(3))
    assert all(np.array_equal(a, b) for a, b in zip(once, again))


@pytest.mark.parametrize("name", EDITS)
def test_hardly_any_strength_is_hardly_any_change(name, photo):
    pixels = photo.astype(np.float32) / 255
    edited = EDITS[name].apply(pixels, 1e-4, np.random.RandomState(0))
    assert np.abs(edited - pixels).mean() < 0.02


def test_strength_zero_is_the_photograph_itself(photo):
    edit = EDITS["jpeg_compression"]
    assert edit.negative_strength == 0
    assert edit(photo)[1] is photo


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 41)])
@pytest.mark.parametrize("name", EDITS)
def test_small_and_odd_photographs_can_be_edited(name, size):
    photo = np.full((*size, 3), 90, dtype=np.uint8)
    for pole in EDITS[name](photo, np.random.RandomState(0)):
        assert pole.shape == photo.shape


def corners(image):
    light = grey(image)
    return np.mean([light[:9, :9], light[-9:, :9], light[:9, -9:], light[-9:, -9:]])


def detail(image):
    return np.abs(laplace(grey(image))).mean()


MEASURES = {
    "saturation": lambda x: (x.max(axis=2) - x.min(axis=2)).mean(),
    "warmth": lambda x: (x[..., 0] - x[..., 2]).mean(),
    "tint": lambda x: (x[..., 0] + x[..., 2] - 2 * x[..., 1]).mean(),
    "split_toning": lambda x: np.corrcoef(
        grey(x).ravel(), (x[..., 0] - x[..., 2]).ravel()
    )[0, 1],
    "sepia": lambda x: -np.ptp(x[..., 0] - x[..., 2]),
    "exposure": np.mean,
    "contrast": lambda x: grey(x).std(),
    "shadow_detail": lambda x: np.quantile(grey(x), 0.02),
    "vignetting": lambda x: x[40:56, 56:72].mean() - corners(x),
    "haze": lambda x: -grey(x).std(),
    "bloom": np.mean,
    "clarity": lambda x: (grey(x) - gaussian_filter(grey(x), 6)).std(),
    "tone_mapping": lambda x: -gaussian_filter(grey(x), 9).std(),
    "sharpness": detail,
    "shallow_depth_of_field": lambda x: detail(x[40:56, 56:72]) - detail(x[:12]),
    "motion_blur": lambda x: -np.abs(np.diff(grey(x), axis=1)).mean(),
    "lens_flare": lambda x: x[19, 28].mean(),
    "sensor_noise": detail,
    "film_grain": detail,
    "smooth_texture": lambda x: -detail(x),
    "jpeg_compression": lambda x: -len(np.unique(x.reshape(-1, 3), axis=0)),
    "upsampling": lambda x: -detail(x),
    "pixelation": lambda x: -len(np.unique(x.reshape(-1, 3), axis=0)),
    "colour_banding": lambda x: -len(np.unique(x)),
    "dithering": lambda x: -len(np.unique(x)),
    "halos": lambda x: grey(x).std(),
    "checkerboard": detail,
    "grid_pattern": lambda x: -x[::8].mean(),
    "scan_lines": lambda x: -x[2::4].mean(),
    "colour_bleeding": lambda x: (
        -np.square(np.diff(x[..., 0] - x[..., 2], axis=1)).mean()
    ),
    "blotches": lambda x: gaussian_filter(grey(x), 3).std(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_positive_pole_has_more_of_what_the_name_says(name, photo):
    positive, negative = poles(name, photo)
    measure, untouched = MEASURES[name], photo / 255
    assert measure(positive) > measure(untouched)
    if EDITS[name].negative_strength:
        assert measure(untouched) > measure(negative)


def test_what_an_edit_does_not_name_stays(photo):
    untouched = photo / 255
    fringes, _ = poles("chromatic_aberration", photo)
    assert np.array_equal(fringes[..., 1], untouched[..., 1])
    bleeding, _ = poles("colour_bleeding", photo)
    assert np.abs(grey(bleeding) - grey(untouched)).mean() < 0.005
    lines, _ = poles("scan_lines", photo)
    assert np.array_equal(lines[::4], untouched[::4])
    board, _ = poles("checkerboard", photo)
    assert abs(board.mean() - untouched.mean()) < 0.005


def test_an_edit_of_ones_own_is_clipped_and_rounded():
    edit = PhotographicEdit(
        "twice", "light", lambda x, s, r: x * 2 * s, "light", "dark"
    )
    photo = np.array([[[10, 100, 200]]], dtype=np.uint8)
    assert edit(photo)[0].tolist() == [[[20, 200, 255]]]
