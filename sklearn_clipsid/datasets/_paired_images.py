"""Write stand-in photographs, each with counterparts that carry known fingerprints."""

import csv
import filecmp
import io
import os
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.utils import Bunch, check_random_state

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.datasets._image_folder import load_image_folder
from sklearn_clipsid.datasets._procedural_images import (
    CAMERAS,
    GENERATORS,
    counterpart,
    photograph,
)
from sklearn_clipsid.datasets._procedural_scenes import draw_scene

_MANIFEST = "manifest.csv"
_MIN_SIZE = 32


def make_paired_images(
    out_dir: str | os.PathLike[str],
    *,
    n_pairs: int = 20,
    image_size: int = 256,
    random_state: int | np.random.RandomState | None = 0,
) -> Bunch:
    """Write stand-ins for photographs and synthetic images, for demos and tests.

    Each pair is a drawn scene as one of two simulated cameras takes it, and three
    copies of that picture, each with the fingerprint of one make-believe generator.
    **These are no photographs, and what a detector does on them is no evidence about
    real generators.** They show that code runs and that a known fingerprint is found.

    Parameters
    ----------
    out_dir : str or path-like
        Folder to write to. It is made if it does not exist; otherwise it must hold
        nothing but what an earlier call with the same arguments wrote.

    n_pairs : int, default=20
        Number of photographs. There are four times as many images.

    image_size : int, default=256
        Height and width of the images in pixels, at least 32.

    random_state : int, RandomState instance or None, default=0
        Decides the scenes, the noise and the strength of the fingerprints. The same
        int gives the same files, whose first pairs do not depend on `n_pairs`.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (4 * n_pairs,), dtype=object
            Paths of the PNG files `{out_dir}/{generator}/{pair_id}.png`, as str.
        target : ndarray of shape (4 * n_pairs,), dtype=int
            1 for the copies, 0 for the pictures that stand in for photographs.
        generator : ndarray of shape (4 * n_pairs,), dtype=str
            "checkerboard", "spectral-peaks" or "over-smoothing" for the copies,
            "camera-a" or "camera-b" for the others.
        pair_id : ndarray of shape (4 * n_pairs,), dtype=str
            Name that a picture shares with its three copies.
        target_names : list of str
            `["real", "synthetic"]`.
        DESCR : str
            What the images are, and what they are no evidence for.

    See Also
    --------
    load_image_folder : Load the written `{out_dir}/manifest.csv` again.
    load_sample_embeddings : Load embeddings of real images.

    Notes
    -----
    The fingerprints are those that the literature describes: the checkerboard of
    transposed convolutions [1]_, peaks in the spectrum [2]_, and too little noise.

    References
    ----------
    .. [1] Odena, Dumoulin & Olah, "Deconvolution and Checkerboard Artifacts",
       Distill, 2016.
    .. [2] Corvi et al., "Intriguing Properties of Synthetic Images: from Generative
       Adversarial Networks to Diffusion Models", CVPR Workshops 2023.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import make_paired_images
    >>> with TemporaryDirectory() as folder:
    ...     images = make_paired_images(folder, n_pairs=2, image_size=32)
    >>> images.target
    array([0, 1, 1, 1, 0, 1, 1, 1])
    >>> images.generator[:4].tolist()
    ['camera-a', 'checkerboard', 'spectral-peaks', 'over-smoothing']
    >>> images.pair_id[::4].tolist()
    ['pair-0000', 'pair-0001']
    """
    _check_int("n_pairs", n_pairs, 1, "ask for at least one photograph")
    _check_int("image_size", image_size, _MIN_SIZE, "draw larger images")
    rng = check_random_state(random_state)
    folder = Path(out_dir)
    rows = _manifest_rows(n_pairs)
    manifest = _manifest_bytes(rows)
    _check_folder(folder, {row[0] for row in rows}, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    # Everything is written here first: what is there already may not be overwritten,
    # and no half of a file may stay behind.
    with TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        draft = Path(name, "draft")
        for (path, *_), pixels in zip(rows, _draw(n_pairs, image_size, rng)):
            _write_image(pixels, draft.with_suffix(".png"))
            _move_if_new(draft.with_suffix(".png"), folder / path)
        draft.write_bytes(manifest)
        _move_if_new(draft, folder / _MANIFEST)
    images = load_image_folder(folder / _MANIFEST)
    images.DESCR = (
        (Path(__file__).parent / "descr" / "paired_images.rst")
        .read_text(encoding="utf-8")
        .rstrip()
        + "\n\n"
        + images.DESCR
    )
    return images


def _check_int(name: str, value: int, minimum: int, remedy: str) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"Got {name}={value!r} but expected an int; {remedy}.")
    if value < minimum:
        raise ValueError(
            f"Got {name}={value!r} but expected at least {minimum}; {remedy}."
        )


def _manifest_rows(n_pairs: int) -> list[tuple[str, int, str, str]]:
    """Name every image: path, label, generator, pair_id, pair after pair."""
    rows = []
    for pair in range(n_pairs):
        pair_id = f"pair-{pair:04d}"
        sources = [(_camera_name(pair), 0)] + [(name, 1) for name in GENERATORS]
        rows += [(f"{name}/{pair_id}.png", y, name, pair_id) for name, y in sources]
    return rows


def _camera_name(pair: int) -> str:
    # In turn, so that two pairs already have two photo sources.
    return list(CAMERAS)[pair % len(CAMERAS)]


def _manifest_bytes(rows: list[tuple[str, int, str, str]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "label", "generator", "pair_id"))
    writer.writerows(rows)
    return stream.getvalue().encode()


def _check_folder(folder: Path, expected: set[str], manifest: bytes) -> None:
    """Refuse a folder that holds anything but the same images, before any work."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(
            f"Got out_dir={str(folder)!r}, which is a file, but expected a folder; "
            "choose another name."
        )
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    if foreign := sorted(found - expected - {_MANIFEST}):
        raise FileExistsError(
            f"Got out_dir={str(folder)!r}, which holds {len(foreign)} other files "
            f"({first_few([repr(name) for name in foreign])}), but expected an empty "
            "or new folder; choose another one, or remove them."
        )
    if _MANIFEST in found and (folder / _MANIFEST).read_bytes() != manifest:
        raise _different_content(folder / _MANIFEST)


def _different_content(path: Path) -> FileExistsError:
    return FileExistsError(
        f"Got {str(path)!r}, which is there with other content, but expected what an "
        "earlier call with the same arguments wrote; choose another out_dir, or "
        "remove this one."
    )


def _draw(
    n_pairs: int, image_size: int, rng: np.random.RandomState
) -> Iterator[np.ndarray]:
    """Draw every picture, each followed by its copies."""
    # One stream for each pair, so that the first pairs do not depend on their number.
    seeds = rng.randint(np.iinfo(np.int32).max, size=n_pairs)
    for pair, seed in enumerate(seeds):
        stream = check_random_state(int(seed))
        camera = CAMERAS[_camera_name(pair)]
        pixels = photograph(draw_scene(stream, image_size), camera, stream)
        yield pixels
        for generator in GENERATORS:
            yield counterpart(pixels, generator, stream)


def _write_image(pixels: np.ndarray, path: Path) -> None:
    # The layer that imports Pillow stays out of `import sklearn_clipsid.datasets`.
    from sklearn_clipsid._clip._images import save_image

    # Noise hardly compresses: trying harder costs a third of the run time.
    save_image(pixels, path, compress_level=1)


def _move_if_new(draft: Path, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        os.replace(draft, path)
    elif not filecmp.cmp(draft, path, shallow=False):
        raise _different_content(path)
