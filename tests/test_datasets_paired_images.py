import numpy as np
import pytest
from PIL import Image

from sklearn_clipsid.datasets import load_image_folder, make_paired_images
from sklearn_clipsid.datasets._procedural_images import GENERATORS, PEAK_FREQUENCIES

SIZE = 64


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_paired_images(
        tmp_path_factory.mktemp("pairs"), n_pairs=4, image_size=SIZE
    )


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, dtype=float)


def photographs_and_copies(images, generator):
    """Pixels of the photographs, and of their copies by one generator."""
    real = {p: path for p, path in zip(images.pair_id, images.data) if "camera" in path}
    chosen = images.generator == generator
    copies = [pixels(path) for path in images.data[chosen]]
    return [pixels(real[p]) for p in images.pair_id[chosen]], copies


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def odd_to_even(image):
    """Brightness of every second row relative to its neighbours."""
    rows = image.mean(axis=(1, 2))  # (size,)
    return np.median(2 * rows[1:-1:2] / (rows[:-2:2] + rows[2::2]))


def energy(image, u, v):
    """Power of the mean channel at one frequency, in cycles per pixel."""
    spectrum = np.abs(np.fft.fft2(image.mean(axis=2))) ** 2
    return spectrum[round(u * len(image)), round(v * len(image))]


def test_every_pair_has_one_photograph_and_one_copy_per_generator(images):
    assert len(images.data) == 16
    for pair in np.unique(images.pair_id):
        rows = images.pair_id == pair
        assert sorted(images.target[rows]) == [0, 1, 1, 1]
        assert set(images.generator[rows & (images.target == 1)]) == set(GENERATORS)


def test_there_are_two_photo_sources(images):
    sources = images.generator[images.target == 0]
    assert set(sources) == {"camera-a", "camera-b"}


def test_the_written_manifest_loads_as_the_same_data_set(tmp_path):
    made = make_paired_images(tmp_path, n_pairs=2, image_size=32)
    loaded = load_image_folder(tmp_path / "manifest.csv")
    for name in ("data", "target", "generator", "pair_id", "target_names"):
        np.testing.assert_array_equal(made[name], loaded[name])


def test_paths_in_the_manifest_are_relative(tmp_path):
    make_paired_images(tmp_path / "a", n_pairs=1, image_size=32)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(load_image_folder(tmp_path / "b" / "manifest.csv").data) == 4


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in "ab":
        make_paired_images(tmp_path / name, n_pairs=2, image_size=32, random_state=7)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_seed_gives_other_images(tmp_path):
    for seed in (0, 1):
        make_paired_images(
            tmp_path / str(seed), n_pairs=1, image_size=32, random_state=seed
        )
    first, second = files(tmp_path / "0"), files(tmp_path / "1")
    assert all(first[name] != second[name] for name in first if name.endswith(".png"))


def test_the_first_pairs_do_not_depend_on_the_number_of_pairs(tmp_path):
    for n_pairs in (1, 3):
        make_paired_images(tmp_path / str(n_pairs), n_pairs=n_pairs, image_size=32)
    few, many = files(tmp_path / "1"), files(tmp_path / "3")
    del few["manifest.csv"]
    assert few.items() <= many.items()


@pytest.mark.parametrize("size", [32, 33, 50])
def test_images_are_rgb_png_of_the_asked_size_without_metadata(tmp_path, size):
    images = make_paired_images(tmp_path, n_pairs=1, image_size=size)
    for path in images.data:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (size,) * 2)
            assert not image.info


def test_photographs_use_the_range_of_brightness(images):
    for path in images.data[images.target == 0]:
        image = pixels(path)
        assert 20 < image.mean() < 235
        assert image.std() > 10


def test_checkerboard_darkens_every_other_row_and_column(images):
    # A transposed convolution with outer taps t in [.48, .49] makes them 2 t as bright.
    for real, copy in zip(*photographs_and_copies(images, "checkerboard")):
        for axes in [(0, 1, 2), (1, 0, 2)]:
            assert 0.95 < odd_to_even(copy.transpose(axes)) < 0.99
            assert 0.99 < odd_to_even(real.transpose(axes)) < 1.01


def test_spectral_peaks_are_at_their_frequencies_alone(images):
    for real, copy in zip(*photographs_and_copies(images, "spectral-peaks")):
        added = copy - real
        total = np.sum(np.abs(np.fft.fft2(added.mean(axis=2))) ** 2)
        # A real wave has its power at plus and minus the frequency.
        peaks = 2 * sum(energy(added, u, v) for u, v in PEAK_FREQUENCIES)
        assert peaks > 0.5 * total


def test_over_smoothing_takes_the_noise_away(images):
    for real, copy in zip(*photographs_and_copies(images, "over-smoothing")):
        # Neighbours differ by noise at most places, hence the median.
        assert np.median(np.abs(np.diff(copy, axis=0))) < 0.5 * np.median(
            np.abs(np.diff(real, axis=0))
        )


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_copy_keeps_the_content_and_the_brightness(images, generator):
    for real, copy in zip(*photographs_and_copies(images, generator)):
        assert abs(real.mean() - copy.mean()) < 1.5
        assert np.corrcoef(real.ravel(), copy.ravel())[0, 1] > 0.9


def test_running_again_is_fine_and_changes_nothing(tmp_path):
    make_paired_images(tmp_path, n_pairs=1, image_size=32)
    before = files(tmp_path)
    make_paired_images(tmp_path, n_pairs=1, image_size=32)
    assert files(tmp_path) == before


@pytest.mark.parametrize("changed", [{"random_state": 1}, {"n_pairs": 2}])
def test_other_content_is_not_overwritten(tmp_path, changed):
    arguments = {"n_pairs": 1, "image_size": 32, "random_state": 0}
    make_paired_images(tmp_path, **arguments)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="with other content"):
        make_paired_images(tmp_path, **arguments | changed)
    assert files(tmp_path) == before


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(FileExistsError, match=r"1 other files \('holiday.jpg'\)"):
        make_paired_images(tmp_path, n_pairs=1, image_size=32)
    assert set(files(tmp_path)) == {"holiday.jpg"}


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="choose another name"):
        make_paired_images(tmp_path / "file", n_pairs=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_pairs": 0}, ValueError, "Got n_pairs=0 but expected at least 1"),
        ({"n_pairs": 1.5}, TypeError, "Got n_pairs=1.5 but expected an int"),
        ({"image_size": 8}, ValueError, "Got image_size=8 but expected at least 32"),
        ({"image_size": True}, TypeError, "expected an int"),
    ],
)
def test_wrong_sizes_are_errors(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        make_paired_images(tmp_path, **arguments)


def test_the_description_says_that_these_are_no_photographs(images):
    assert "are no photographs" in images.DESCR
    assert "no\nevidence about real generators" in images.DESCR
    assert "16 images (4 real, 12 synthetic)" in images.DESCR
