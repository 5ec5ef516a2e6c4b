"""Write copies of images that differ in nothing but the picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_clipsid._content_hash import read_file
from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._path_rows import as_paths
from sklearn_clipsid.datasets._each_file import for_each_file

SUBSAMPLING = "4:2:0"


class _Recipe(NamedTuple):
    """What is the same for all copies."""

    folder: str
    size: int
    quality: int


@validate_params(
    {
        "out_dir": [str, os.PathLike],
        "size": [Interval(Integral, 1, None, closed="left")],
        "quality": [Interval(Integral, 1, 100, closed="both")],
        "enlarge": ["boolean"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def equalize_images(
    paths: Sequence[str],
    out_dir: str | os.PathLike[str],
    *,
    size: int = 256,
    quality: int = 90,
    enlarge: bool = False,
    n_jobs: int | None = None,
) -> list[str]:
    """Write copies of images of one size, format and JPEG quality, without metadata.

    A detector that is trained and tested on the copies cannot learn from files what
    :func:`leak_audit` finds. Each copy is the central square of an image, turned
    upright as its EXIF orientation says, scaled by bicubic interpolation and written
    as a JPEG with 4:2:0 chroma subsampling.

    Parameters
    ----------
    paths : sequence of str or PathLike of shape (n_images,)
        The images. They are not changed.

    out_dir : str or PathLike
        Folder of the copies, which is made if it is not there. It may neither hold
        one of the images nor lie in a folder that holds one. Choose one outside the
        data set, or copies of both classes are read as one of its sources.

    size : int, default=256
        Width and height of the copies.

    quality : int, default=90
        Of Pillow's JPEG encoder, from 1 to 100.

    enlarge : bool, default=False
        Whether to scale up images that are smaller than `size`. As enlarged images
        are blurred, that is a leak itself where one class has more of them, so that
        smaller images are an error by default.

    n_jobs : int, default=None
        Threads that read and write. None means 1 unless in a
        :func:`joblib.parallel_config` context, -1 all cores.

    Returns
    -------
    copies : list of str
        Path of the copy of each image, in the order of `paths`.

    See Also
    --------
    leak_audit : Find what predicts the label without looking at the picture.

    Notes
    -----
    A copy is named after a hash of its source's bytes and of `size` and `quality`, so
    that neither names nor their order tell anything. Images of equal bytes
    share one copy: the list that is returned may hold a path twice.

    Each copy is written aside and then moved into place. A call that was interrupted
    goes on where it stopped when it is repeated: copies that are there and whole are
    kept, others are written again.

    Colour profiles are dropped and the values of the pixels kept. Photographs of a
    wide gamut look a little paler.

    What an image went through before is still in its pixels: traces of an earlier
    JPEG compression, and how much it was scaled down. Sources of one resolution, all
    larger than `size`, leave less of it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import equalize_images, make_paired_images
    >>> with TemporaryDirectory() as folder:
    ...     images = make_paired_images(Path(folder, "png"), n_pairs=2, image_size=48)
    ...     copies = equalize_images(images.data, Path(folder, "jpeg"), size=32)
    >>> len(copies), {Path(copy).suffix for copy in copies}
    (8, {'.jpg'})
    """
    paths = as_paths(paths)
    recipe = _Recipe(os.fspath(out_dir), int(size), int(quality))
    _check_folder(recipe.folder, paths)
    _check_sizes(paths, recipe.size, enlarge, n_jobs)
    os.makedirs(recipe.folder, exist_ok=True)
    # Threads may still be writing when another one has failed.
    with TemporaryDirectory(
        dir=recipe.folder, prefix=".partial-", ignore_cleanup_errors=True
    ) as drafts:
        return for_each_file(
            _write_copy,
            paths,
            recipe,
            drafts,
            description="writing copies",
            n_jobs=n_jobs,
        )


def _check_folder(folder: str, paths: list[str]) -> None:
    if not folder:
        raise ValueError("Got out_dir='' but expected a folder; pass '.' for this one.")
    out_dir = Path(folder).resolve()
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(
            f"Got out_dir={folder!r}, which is a file, but expected a folder; choose "
            "another name."
        )
    # Paths without a file are named by those who read them.
    parents = {os.path.dirname(path) for path in paths if os.path.exists(path)}
    sources = {Path(parent).resolve() for parent in parents}
    for source in sorted(sources):
        if source == out_dir or source in out_dir.parents or out_dir in source.parents:
            raise ValueError(
                f"Got out_dir={folder!r} and images in {str(source)!r} but expected "
                "folders apart from each other, or copies would be taken for sources; "
                "choose another out_dir."
            )


def _check_sizes(
    paths: list[str], size: int, enlarge: bool, n_jobs: int | None
) -> None:
    """Raise, before anything is written, if images are smaller than their copies."""
    if enlarge:
        return
    sizes = for_each_file(
        _image_size, paths, description="reading sizes", n_jobs=n_jobs
    )
    small = [
        f"{path!r} ({width} x {height})"
        for path, (width, height) in zip(paths, sizes)
        if min(width, height) < size
    ]
    if small:
        smallest = min(min(image_size) for image_size in sizes)
        raise ValueError(
            f"Got {len(small)} of {len(paths)} images smaller than size={size} pixels "
            f"({first_few(small)}) but expected none, as enlarged images are blurred "
            f"and that tells them apart; leave them out, pass size={smallest}, or "
            "enlarge=True if both classes have as many."
        )


def _image_size(index: int, path: str) -> tuple[int, int]:
    from sklearn_clipsid._clip import read_image_size

    return read_image_size(path)


def _write_copy(index: int, path: str, recipe: _Recipe, drafts: str) -> str:
    """Write one copy unless it is there, and return its path."""
    from sklearn_clipsid._clip import UnreadableImageError, decode_image, resize_pixels
    from sklearn_clipsid._clip._images import save_image

    try:
        source = read_file(path)
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    key = source.content + f"{recipe.size} {recipe.quality}".encode()
    name = f"{blake2b(key, digest_size=16).hexdigest()}.jpg"
    copy = os.path.join(recipe.folder, name)
    if _is_whole(copy):
        return copy
    image = decode_image(source.data, apply_exif=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = np.asarray(image.crop((left, top, left + side, top + side)))
    pixels = resize_pixels(square, (recipe.size, recipe.size), "bicubic")
    # Of its own for each index, as images of equal bytes have one copy.
    draft = os.path.join(drafts, f"{index}.jpg")
    save_image(pixels, draft, quality=recipe.quality, subsampling=SUBSAMPLING)
    os.replace(draft, copy)
    return copy


def _is_whole(copy: str) -> bool:
    from sklearn_clipsid._clip import UnreadableImageError, read_file_facts

    # Size and quality are in its name.
    try:
        read_file_facts(copy)
    except UnreadableImageError:
        return False
    return True
