import contextlib
import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from joblib import parallel_config
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from sklearn_clipsid import (
    CLIPEmbedder,
    OrthogonalLinearDetector,
    _cache_database,
    _embedding_run,
)
from sklearn_clipsid._clip import _registry
from sklearn_clipsid._content_hash import SETTLED_NS
from sklearn_clipsid._embedding_cache import EmbeddingCache
from sklearn_clipsid._embedding_memo import CacheInfo, EmbeddingMemo
from sklearn_clipsid.persistence import dump, load

# Where rows are kept: in memory or in a database.
KINDS = ["memory", "database"]


@pytest.fixture
def later(monkeypatch):
    """Move the clock: waiting for files to settle would take seconds."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cached(tiny_clip, folder, fresh_memo):
    """An embedder whose database is empty."""
    return CLIPEmbedder(pretrained=tiny_clip, batch_size=2, cache_dir=folder)


@pytest.fixture
def embedder_of(tiny_clip, folder, fresh_memo):
    def make(kind, **parameters):
        cache_dir = {"memory": None, "database": folder}[kind]
        return CLIPEmbedder(
            pretrained=tiny_clip, batch_size=2, cache_dir=cache_dir, **parameters
        )

    return make


@pytest.fixture(scope="module")
def expected(tiny_clip, image_files):
    """Rows of the images, embedded with nothing known."""
    return (
        CLIPEmbedder(pretrained=tiny_clip, batch_size=2)._embed_apart(image_files).rows
    )


@pytest.fixture
def pixels(image_files):
    return [np.asarray(Image.open(path)) for path in image_files]


def bmp(path, grey):
    """Write an image whose size in bytes is the same for all contents."""
    Image.new("RGB", (40, 40), (grey, 0, 99)).save(path)


def row_of(tiny_clip, grey):
    image = Image.new("RGB", (40, 40), (grey, 0, 99))
    return CLIPEmbedder(pretrained=tiny_clip)._embed_apart([image]).rows


def open_files(folder):
    """List the files of a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return [path for path in found if path.startswith(str(folder))]


def in_fresh_process(program, *args, **environment):
    """Run a program and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Once per image ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [False, True])
def test_a_grid_search_embeds_each_image_once(
    embedder_of, image_files, encoded, kind, threads
):
    search = GridSearchCV(
        make_pipeline(
            embedder_of(kind), OrthogonalLinearDetector(max_iter=2, random_state=0)
        ),
        {"orthogonallineardetector__n_components": [1, 2, 3, 4]},
        cv=KFold(5),
        error_score="raise",
        n_jobs=2 if threads else None,
    )
    with parallel_config("threading"):
        search.fit(image_files, np.arange(9) % 2)
    assert sum(encoded) == 9
    info = search.best_estimator_[0].cache_info()
    assert (info.rows, info.misses) == (9, 9)
    # Four candidates, fitted and scored on five folds, and the best one on all.
    assert info.hits == 4 * 5 * 9 + 9 - 9


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_the_work(embedder_of, image_files, expected, encoded, kind):
    embedder = embedder_of(kind, decode_threads=2)
    barrier = threading.Barrier(6)

    def work(seed):
        order = np.random.default_rng(seed).permutation(9)
        barrier.wait(30)
        rows = embedder.transform([image_files[i] for i in order])
        return rows[np.argsort(order)]

    with ThreadPoolExecutor(6) as pool:
        for rows in pool.map(work, range(6)):
            np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert sum(encoded) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_those_that_are_embedded_apart(
    embedder_of, image_files, expected, encoded, kind
):
    embedder = embedder_of(kind)
    cold = embedder.transform(image_files)
    warm = clone(embedder).transform(image_files[::-1])[::-1]
    np.testing.assert_array_equal(cold, expected)
    np.testing.assert_array_equal(warm, cold)
    assert encoded == [2, 2, 2, 2, 1]
    assert warm.dtype == cold.dtype == np.float32
    assert warm.flags.writeable


def test_returned_rows_may_be_changed(cached, image_files, expected):
    for _ in range(2):
        rows = cached.transform(image_files)
        np.testing.assert_array_equal(rows, expected)
        rows[:] = 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_or_another_name_is_not_embedded_again(
    embedder_of, image_files, tmp_path, encoded, later, kind
):
    embedder = embedder_of(kind)
    row = embedder.transform(image_files[:1])
    copied, renamed = tmp_path / "copied.png", tmp_path / "renamed.png"
    shutil.copy(image_files[0], copied)
    assert (embedder.transform([copied]) == row).all()
    copied.rename(renamed)
    linked = tmp_path / "linked.png"
    linked.symlink_to(renamed)
    data = renamed.read_bytes()
    rows = embedder.transform([renamed, linked, str(linked), data, bytearray(data)])
    assert (rows == row).all()
    assert encoded == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_images_and_bytes_are_kept_by_content(
    embedder_of, pixels, image_files, expected, encoded, kind
):
    embedder = embedder_of(kind)
    for _ in range(2):
        np.testing.assert_array_equal(embedder.transform(pixels), expected)
        images = [Image.fromarray(array) for array in pixels]
        np.testing.assert_array_equal(embedder.transform(images), expected)
        np.testing.assert_array_equal(
            embedder.transform([np.asfortranarray(array) for array in pixels]), expected
        )
    assert sum(encoded) == 9  # an image and an array of its pixels are one content
    for _ in range(2):
        data = [Path(path).read_bytes() for path in image_files]
        np.testing.assert_array_equal(embedder.transform(data), expected)
        np.testing.assert_array_equal(embedder.transform(image_files), expected)
    assert sum(encoded) == 18  # the bytes of a file are another


def test_an_array_that_is_changed_in_place_gets_its_new_row(cached, pixels, encoded):
    image = pixels[0].copy()
    first = cached.transform([image])
    image[:] = pixels[1][: image.shape[0]]
    second = cached.transform([image])
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(
        cached.transform([image, pixels[0]]), [*second, *first]
    )
    assert encoded == [1, 1]


def test_only_what_is_missing_is_embedded(cached, image_files, expected, encoded):
    cached.transform(image_files[::2])
    del encoded[:]
    rows = cached.transform([*image_files, *image_files])
    np.testing.assert_allclose(rows, np.vstack([expected, expected]), atol=1e-6)
    assert sum(encoded) == 4


def test_rows_before_an_unreadable_image_are_kept(cached, image_files, encoded):
    with pytest.raises(ValueError, match=r"index 3.*'missing\.png'"):
        cached.transform([*image_files[:3], "missing.png", *image_files[3:]])
    assert cached.cache_info().rows == 3
    cached.transform(image_files)
    assert sum(encoded) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_rows_before_an_interrupt_are_kept(
    embedder_of, image_files, encoded, monkeypatch, kind
):
    from sklearn_clipsid._clip._tower import ImageTower

    embedder, encode = embedder_of(kind), ImageTower.encode

    def interrupted(tower, pixels, features):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(tower, pixels, features)

    with monkeypatch.context() as patch:
        patch.setattr(ImageTower, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedder.transform(image_files)
    assert embedder.cache_info()._replace(bytes=0) == CacheInfo(4, 0, 0, 4)
    begun = time.monotonic()
    embedder.transform(image_files)
    assert time.monotonic() - begun < 30, "it waited for a run that is over"
    assert sum(encoded) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_was_not_kept_counts_no_hit(
    embedder_of, image_files, monkeypatch, kind
):
    def interrupted(*_):
        raise KeyboardInterrupt

    embedder = embedder_of(kind)
    for cache in (EmbeddingMemo, EmbeddingCache):
        monkeypatch.setattr(cache, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedder.transform(image_files)
    assert embedder.cache_info()._replace(bytes=0) == CacheInfo(0, 0, 0, 2)


# Never a stale row -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["os.utime", "cp -p", "rename", "link", "settled"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_overwritten_image_of_equal_size_and_times_gets_its_new_row(
    embedder_of, tiny_clip, tmp_path, encoded, monkeypatch, how, kind
):
    path, other = tmp_path / "image.bmp", tmp_path / "other.bmp"
    embedder = embedder_of(kind)
    bmp(path, 10)
    if how != "os.utime":  # which is tried while the file is young
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)
    before = embedder.transform([path])
    times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
    bmp(other, 200)
    if how == "os.utime":
        path.write_bytes(other.read_bytes())
    time.sleep(0.02)  # one tick of the file system's clock
    os.utime(other, ns=times)
    if how == "cp -p":
        shutil.copy2(other, path)
    elif how == "rename":
        other.replace(path)
    elif how == "link":
        path.unlink()
        path.symlink_to(other)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=times)
    assert os.stat(path).st_mtime_ns == times[1]
    after = embedder.transform([path])
    np.testing.assert_allclose(before, row_of(tiny_clip, 10), atol=1e-6)
    np.testing.assert_allclose(after, row_of(tiny_clip, 200), atol=1e-6)
    np.testing.assert_array_equal(embedder.transform([path]), after)


def test_an_image_overwritten_within_one_tick_gets_its_new_row(
    cached, tiny_clip, tmp_path, monkeypatch
):
    path = tmp_path / "image.bmp"
    bmp(path, 10)
    # A file system that counts in whole seconds.
    stat = os.stat

    def coarse(path, **options):
        found = stat(path, **options)
        second = 10**9
        parts = {n: getattr(found, n) for n in dir(found) if n.startswith("st_")}
        parts["st_mtime_ns"] = parts["st_ctime_ns"] = (
            found.st_ctime_ns // second * second
        )
        return type("Stat", (), parts)()

    monkeypatch.setattr("sklearn_clipsid._content_hash.os.stat", coarse)
    for grey in (10, 200, 90):
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            bmp(tmp_path / "other.bmp", grey)
            data[:] = (tmp_path / "other.bmp").read_bytes()
            file.seek(0)
            file.write(data)
        rows = cached.transform([path])
        np.testing.assert_allclose(rows, row_of(tiny_clip, grey), atol=1e-6)


def test_a_known_old_file_is_not_opened_again(
    cached, image_files, expected, later, monkeypatch
):
    cached.transform(image_files)
    monkeypatch.setattr(_embedding_run, "read_file", None)
    np.testing.assert_array_equal(cached.transform(image_files), expected)


def test_a_young_file_is_opened_again(cached, tmp_path, monkeypatch):
    bmp(tmp_path / "image.bmp", 10)
    cached.transform([tmp_path / "image.bmp"])
    monkeypatch.setattr(_embedding_run, "read_file", None)
    with pytest.raises(TypeError):
        cached.transform([tmp_path / "image.bmp"])


def test_a_file_that_is_deleted_after_it_was_listed_is_named(
    cached, image_files, tmp_path, monkeypatch, later
):
    path = tmp_path / "image.png"
    shutil.copy(image_files[0], path)
    signature_of = _embedding_run.signature_of

    def deleted_later(path):
        signature = signature_of(path)
        Path(path).unlink()
        return signature

    monkeypatch.setattr(_embedding_run, "signature_of", deleted_later)
    with pytest.raises(ValueError, match=r"index 0.*image\.png.*No such file"):
        cached.transform([path])
    assert cached.cache_info().rows == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_read_gets_the_row_of_one_whole_content(
    embedder_of, tiny_clip, tmp_path, monkeypatch, later, kind
):
    path = tmp_path / "image.bmp"
    bmp(path, 10)
    read_file, changed = _embedding_run.read_file, []

    def changes_afterwards(path):
        found = read_file(path)
        if not changed:
            time.sleep(0.02)
            changed.append(bmp(path, 200))
        return found

    monkeypatch.setattr(_embedding_run, "read_file", changes_afterwards)
    embedder = embedder_of(kind)
    embedder.transform([path])  # while it is not known, an image may be read twice
    after = embedder.transform([path])
    np.testing.assert_allclose(after, row_of(tiny_clip, 200), atol=1e-6)
    # Both contents, if kept, are under their own hashes.
    for grey in (10, 200):
        bmp(path, grey)
        rows = embedder.transform([path])
        np.testing.assert_allclose(rows, row_of(tiny_clip, grey), atol=1e-6)


def test_a_file_that_grows_without_end_is_named(cached, tmp_path, monkeypatch):
    path = tmp_path / "image.bmp"
    bmp(path, 10)

    def grows(path, mode):
        with open(path, "ab") as file:
            file.write(b"x")
        return open(path, mode)

    monkeypatch.setattr("sklearn_clipsid._content_hash.open", grows, raising=False)
    with pytest.raises(ValueError, match="it is being written"):
        cached.transform([path])
    assert cached.cache_info().rows == 0


# Settings ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_another_setting_are_never_read(
    embedder_of, image_files, encoded, fresh_memo, kind
):
    settings = [
        {},
        {"features": "projected"},
        {"features": 2},
        {"resize": "crop"},
        {"resize": "squash"},
        {"precision": "bf16"},
    ]
    apart = [embedder_of(kind, **s)._embed_apart(image_files).rows for s in settings]
    del encoded[:]
    for _ in range(2):
        for setting, rows in zip(settings, apart):
            np.testing.assert_array_equal(
                embedder_of(kind, **setting).transform(image_files), rows
            )
    assert sum(encoded) == 9 * len(settings)


def test_rows_of_other_weights_are_never_read(
    folder, image_files, write_tiny_clip, tmp_path, later, fresh_memo
):
    # The same file, replaced by another one of the same size with the same times.
    names = [write_tiny_clip(tmp_path / str(seed), seed=seed) for seed in (2, 3)]
    apart = [CLIPEmbedder(pretrained=n)._embed_apart(image_files).rows for n in names]
    embedder = CLIPEmbedder(pretrained=names[0], cache_dir=folder)
    np.testing.assert_allclose(embedder.transform(image_files), apart[0], atol=1e-5)
    first, second = (tmp_path / k / "open_clip_model.safetensors" for k in "23")
    times = os.stat(first).st_atime_ns, os.stat(first).st_mtime_ns
    second.replace(first)
    os.utime(first, ns=times)
    np.testing.assert_allclose(embedder.transform(image_files), apart[1], atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"device": "cpu"},
        {"batch_size": 3},
        {"decode_threads": 1},
        {"normalize": True},
        {"on_error": "nan"},
    ],
    ids=str,
)
def test_what_does_not_decide_the_row_does_not_embed_again(
    cached, image_files, expected, encoded, changed
):
    cached.transform(image_files)
    rows = clone(cached).set_params(**changed).transform(image_files)
    if "normalize" in changed:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_array_equal(rows, expected)
    assert sum(encoded) == 9


def test_a_precision_that_resolves_otherwise_than_remembered_gives_right_rows(
    cached, image_files, encoded, later, monkeypatch
):
    resolves_to = ["fp32"]
    monkeypatch.setattr(
        _registry,
        "resolve_precision",
        lambda asked, device: resolves_to[0] if asked == "auto" else asked,
    )
    apart = {
        precision: clone(cached)
        .set_params(precision=precision)
        ._embed_apart(image_files)
        .rows
        for precision in ("fp32", "bf16")
    }
    cached.set_params(precision="auto")
    np.testing.assert_array_equal(cached.transform(image_files[:8]), apart["fp32"][:8])
    resolves_to[0] = "bf16"
    # Eight rows are known in fp32; the ninth needs the model, which is another one.
    del encoded[:]
    np.testing.assert_array_equal(cached.transform(image_files), apart["bf16"])
    assert sum(encoded) == 9
    assert cached.fit(image_files).fingerprint_["precision"] == "bf16"


def test_a_fitted_pipeline_is_told_when_its_precision_resolves_otherwise(
    cached, image_files, later, monkeypatch
):
    resolves_to = ["fp32"]
    monkeypatch.setattr(
        _registry, "resolve_precision", lambda asked, device: resolves_to[0]
    )
    cached.set_params(precision="auto").fit(image_files)
    resolves_to[0] = "bf16"
    with pytest.warns(UserWarning, match="precision 'bf16', fitted with 'fp32'") as w:
        cached.transform(image_files)
    assert [warning.filename for warning in w] == [__file__]


# Runs without a model ----------------------------------------------------------------

NO_TORCH = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        heavy = ("torch", "torchvision", "open_clip", "timm", "safetensors")
        assert name.partition(".")[0] not in heavy, f"{name} was imported"
sys.meta_path.insert(0, Forbidden())
import numpy as np
from sklearn_clipsid import CLIPEmbedder
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_clip, image_files):
    """Folder with a cache of all images as files and as arrays, and a detector."""
    folder = tmp_path_factory.mktemp("filled")
    now = time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 2 * SETTLED_NS)
        embedder = CLIPEmbedder(pretrained=tiny_clip, cache_dir=folder / "cache")
        pipe = make_pipeline(
            embedder,
            OrthogonalLinearDetector(n_components=2, max_iter=5, random_state=0),
        ).fit(image_files, np.arange(9) % 2)
        embedder.transform([np.asarray(Image.open(path)) for path in image_files])
        np.save(folder / "rows.npy", embedder.transform(image_files))
        np.save(folder / "scores.npy", pipe.predict_proba(image_files))
    dump(pipe, folder / "detector.skops")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_known_run_imports_no_torch_whatever_the_images_are(
    filled, tiny_clip, image_files
):
    in_fresh_process(
        NO_TORCH
        + """
from pathlib import Path
from PIL import Image
folder, model, *paths = sys.argv[1:]
rows = np.load(folder + "/rows.npy")
embedder = CLIPEmbedder(pretrained=model, cache_dir=folder + "/cache")
arrays = [np.asarray(Image.open(path)) for path in paths]
inputs = {
    "paths": paths,
    "bytes": [Path(path).read_bytes() for path in paths],
    "copies": [bytearray(Path(path).read_bytes()) for path in paths],
    "arrays": arrays,
    "images": [Image.fromarray(array) for array in arrays],
}
for kind, images in inputs.items():
    assert (embedder.transform(images) == rows).all(), kind
    assert (embedder.fit_transform(images) == rows).all(), kind
frame = embedder.set_output(transform="pandas").transform(paths)
assert (frame.to_numpy() == rows).all() and frame.columns[0] == "clipembedder0"
assert len(embedder.get_feature_names_out()) == rows.shape[1]
assert embedder.cache_info().rows == 18
""",
        filled,
        tiny_clip,
        *image_files,
    )


def test_a_known_run_finds_unreadable_images_without_torch(
    filled, tiny_clip, image_files
):
    in_fresh_process(
        NO_TORCH
        + """
import warnings
folder, model, *paths = sys.argv[1:]
rows = np.load(folder + "/rows.npy")
embedder = CLIPEmbedder(
    pretrained=model, cache_dir=folder + "/cache", on_error="nan"
)
for bad in ("/missing.png", "/broken.png"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = embedder.transform([folder + bad, *paths])
        alone = embedder.transform([folder + bad])
    assert len(caught) == 2 and bad in str(caught[0].message), caught
    assert np.isnan(found[0]).all() and (found[1:] == rows).all()
    assert np.isnan(alone).all() and alone.shape == (1, rows.shape[1])
    embedder.set_params(on_error="raise")
    try:
        embedder.transform([*paths, folder + bad])
    except ValueError as error:
        assert bad in str(error)
    else:
        raise AssertionError("nothing was raised")
    embedder.set_params(on_error="nan")
""",
        filled,
        tiny_clip,
        *image_files,
    )


def test_a_loaded_detector_scores_known_images_without_torch(
    filled, tiny_clip, image_files
):
    in_fresh_process(
        NO_TORCH
        + """
from sklearn_clipsid.persistence import load
folder, model, *paths = sys.argv[1:]
loaded = load(
    folder + "/detector.skops", pretrained=model, cache_dir=folder + "/cache"
)
assert loaded[0].cache_dir == folder + "/cache"
scores = loaded.predict_proba(paths)
assert np.allclose(scores, np.load(folder + "/scores.npy"), atol=1e-7)
""",
        filled,
        tiny_clip,
        *image_files,
    )


def test_the_tests_would_notice_torch(filled, tiny_clip, image_files):
    program = NO_TORCH + "CLIPEmbedder(pretrained=sys.argv[1]).fit(['not read'])"
    with pytest.raises(AssertionError, match="was imported"):
        in_fresh_process(program, tiny_clip)


def test_a_known_run_builds_no_model(cached, image_files, later, monkeypatch):
    cached.transform(image_files)

    def fail(*_, **__):
        raise AssertionError("a model was built")

    monkeypatch.setattr(_registry, "_get_or_build", fail)
    cached.fit(image_files)
    cached.fit_transform(image_files)
    cached.set_output(transform="pandas").transform(image_files)
    with pytest.raises(AssertionError, match="a model was built"):
        cached.transform([np.zeros((9, 9, 3), np.uint8)])


# Asking and clearing -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_tells_what_it_holds_and_how_often_it_was_of_use(
    embedder_of, image_files, encoded, kind
):
    embedder = embedder_of(kind)
    assert embedder.cache_info() == CacheInfo(rows=0, bytes=0, hits=0, misses=0)
    embedder.transform([*image_files[:4], image_files[0]])
    assert embedder.cache_info()._replace(bytes=0) == CacheInfo(4, 0, 1, 4)
    embedder.transform(image_files)
    info = embedder.cache_info()
    assert info._replace(bytes=0) == CacheInfo(9, 0, 5, 9)
    assert info.misses == sum(encoded)
    assert info.bytes >= 9 * 64 * 4
    embedder.clear_cache()
    info = embedder.cache_info()
    assert info._replace(bytes=0) == CacheInfo(rows=0, bytes=0, hits=0, misses=0)
    embedder.transform(image_files)
    assert sum(encoded) == 18


def test_clearing_gives_the_space_back(cached, folder, image_files, tmp_path):
    cached.transform(image_files[:1])
    little = cached.cache_info().bytes
    cached.set_params(features="blocks", batch_size=64)
    rng = np.random.default_rng(0)
    cached.transform(list(rng.integers(0, 255, (500, 8, 8, 3), dtype=np.uint8)))
    assert cached.cache_info().bytes > little + 500 * 3 * 64 * 4
    cached.clear_cache()
    assert cached.cache_info().bytes <= little
    assert sum(path.stat().st_size for path in folder.iterdir()) <= little


def test_asking_and_clearing_create_nothing(cached, folder, tmp_path, image_files):
    for where in ("missing", "there"):
        assert cached.cache_info() == CacheInfo(0, 0, 0, 0)
        cached.clear_cache()
        cached.get_feature_names_out()
        assert os.listdir(tmp_path) == ([] if where == "missing" else ["cache"])
        if where == "missing":
            folder.mkdir()
    assert os.listdir(folder) == []


def test_a_cache_may_be_cleared_during_a_run(
    cached, image_files, expected, monkeypatch
):
    from sklearn_clipsid._clip._tower import ImageTower

    encode, twin = ImageTower.encode, clone(cached)

    def cleared(tower, pixels, features):
        twin.clear_cache()
        return encode(tower, pixels, features)

    monkeypatch.setattr(ImageTower, "encode", cleared)
    np.testing.assert_array_equal(cached.transform(image_files), expected)
    assert cached.cache_info().rows == 1  # of the last batch


# The folder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"cache_dir=''.*pass '\.'"),
        ("file", "(File exists|Not a directory)"),
        ("file/below", "Not a directory"),
        ("nul\0", "null byte"),
        (3, "The 'cache_dir' parameter"),
        (b"bytes", "The 'cache_dir' parameter"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform", "cache_info", "clear_cache"])
def test_a_folder_that_cannot_be_used_is_named(
    cached, tmp_path, monkeypatch, image_files, name, message, method
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    cached.set_params(cache_dir=name)
    images = [image_files] if method in ("fit", "transform") else []
    if not images and name in ("file/below", "nul\0"):
        # There is nothing to ask or to clear.
        assert getattr(cached, method)() in (None, CacheInfo(0, 0, 0, 0))
        return
    with pytest.raises(ValueError, match=f"(?s).*{message}"):
        getattr(cached, method)(*images)
    assert os.listdir() == ["file"]


def test_a_folder_may_be_a_path_a_string_or_below_home(
    cached, image_files, tmp_path, monkeypatch, encoded
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for cache_dir in (tmp_path / "cache", str(tmp_path / "cache"), "~/cache", "cache"):
        cached.set_params(cache_dir=cache_dir).transform(image_files)
        assert cached.cache_info().rows == 9
        assert cached.cache_dir is cache_dir
    assert sum(encoded) == 9
    assert os.listdir(tmp_path) == ["cache"]


def test_a_folder_that_is_deleted_during_a_run_loses_no_row_of_it(
    cached, folder, image_files, expected, monkeypatch
):
    from sklearn_clipsid._clip._tower import ImageTower

    encode = ImageTower.encode

    def deleted(tower, pixels, features):
        shutil.rmtree(folder, ignore_errors=True)
        return encode(tower, pixels, features)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        # A thread that has not opened the database yet cannot do so any more.
        warnings.filterwarnings("ignore", "Cannot (write to|read) the embedding cache")
        patch.setattr(ImageTower, "encode", deleted)
        np.testing.assert_array_equal(cached.transform(image_files), expected)
    np.testing.assert_array_equal(cached.transform(image_files), expected)
    assert cached.cache_info().rows == 9


def test_a_network_drive_is_warned_of_at_the_users_line(
    cached, folder, image_files, monkeypatch
):
    monkeypatch.setattr(_cache_database, "is_network_drive", lambda folder: True)
    pipe = make_pipeline(cached)
    for embed in (cached.transform, cached.fit, pipe.fit_transform):
        with pytest.warns(UserWarning, match="network drive") as warned:
            embed(image_files)
        assert {warning.filename for warning in warned} == {__file__}
    assert [name.rpartition("-")[0] for name in os.listdir(folder)] != [""]


# Connections -------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="Linux alone tells")
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, MemoryError])
def test_no_connection_stays_open(cached, folder, image_files, monkeypatch, error):
    from sklearn_clipsid._clip._tower import ImageTower

    encode, seen = ImageTower.encode, []

    def fail(tower, pixels, features):
        seen.extend(open_files(folder))
        if error is not None:
            raise error
        return encode(tower, pixels, features)

    monkeypatch.setattr(ImageTower, "encode", fail)
    with contextlib.suppress(*([error] if error else [])):
        cached.transform(image_files)
    assert seen, "the test would notice an open file"
    assert open_files(folder) == []
    for ask in (cached.cache_info, cached.get_feature_names_out, cached.clear_cache):
        ask()
        assert open_files(folder) == []
    assert os.listdir(folder) == ["embeddings-v1.0.sqlite"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
# A fork beside threads is what is tested.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_after_a_known_run_reads_the_cache(
    cached, image_files, expected, later
):
    cached.transform(image_files)
    pid = os.fork()
    if pid == 0:
        try:
            same = (cached.transform(image_files) == expected).all()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    np.testing.assert_array_equal(cached.transform(image_files), expected)


# As any other estimator --------------------------------------------------------------


def test_clones_copies_and_pickles_share_the_folder(cached, image_files, encoded):
    fitted = cached.fit(image_files)
    rows = fitted.transform(image_files)
    for twin in (
        clone(fitted),
        copy.deepcopy(fitted),
        pickle.loads(pickle.dumps(fitted)),
        CLIPEmbedder(**fitted.get_params()),
        CLIPEmbedder().set_params(**fitted.get_params()),
    ):
        assert twin.cache_dir == cached.cache_dir
        np.testing.assert_array_equal(twin.transform(image_files), rows)
    assert sum(encoded) == 9
    assert len(pickle.dumps(fitted)) < 5000


def test_the_page_of_an_embedder_names_the_folder(cached, folder):
    assert "cache_dir" in repr(cached)
    assert folder.name in cached._repr_html_()
    assert not folder.exists()


def test_a_saved_detector_leaves_the_folder_behind_and_is_given_another(
    cached, folder, image_files, tmp_path, encoded
):
    pipe = make_pipeline(
        cached, OrthogonalLinearDetector(n_components=2, max_iter=2, random_state=0)
    ).fit(image_files, np.arange(9) % 2)
    dump(pipe, tmp_path / "detector.skops")
    assert str(folder).encode() not in (tmp_path / "detector.skops").read_bytes()
    assert load(tmp_path / "detector.skops")[0].cache_dir is None
    loaded = load(tmp_path / "detector.skops", cache_dir=folder)
    assert loaded[0].cache_dir == folder
    np.testing.assert_array_equal(
        loaded.predict_proba(image_files), pipe.predict_proba(image_files)
    )
    assert sum(encoded) == 9
    assert pipe[0].cache_dir == folder


def test_two_encoders_share_one_folder(
    cached, folder, write_tiny_clip, tmp_path, encoded
):
    image = np.zeros((40, 40, 3), np.uint8)
    other = clone(cached).set_params(
        pretrained=write_tiny_clip(tmp_path / "other", seed=1)
    )
    rows = [embedder.transform([image]) for embedder in (cached, other, cached, other)]
    np.testing.assert_array_equal(rows[:2], rows[2:])
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert encoded == [1, 1]
    with EmbeddingCache(folder) as cache:
        assert cache.info().rows == 2


@pytest.mark.real_clip
def test_a_real_encoder_is_known_in_the_next_process(
    demo_encoder, folder, image_files, fresh_memo, later
):
    embedder = CLIPEmbedder("ViT-B-16-quickgelu", str(demo_encoder), cache_dir=folder)
    rows = embedder.transform(image_files[:2])
    np.testing.assert_array_equal(rows, embedder._embed_apart(image_files[:2]).rows)
    np.save(folder / "rows.npy", rows)
    program = """
folder, weights, *paths = sys.argv[1:]
embedder = CLIPEmbedder("ViT-B-16-quickgelu", weights, cache_dir=folder)
assert (embedder.transform(paths) == np.load(folder + "/rows.npy")).all()
"""
    in_fresh_process(NO_TORCH + program, folder, demo_encoder, *image_files[:2])
