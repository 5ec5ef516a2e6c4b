"""Tell the image files of a folder from what lies beside them."""

import os
from pathlib import Path
from typing import NoReturn

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()
)
# What lies beside images in published sets and is left out without a word.
_SIDE_FILE_SUFFIXES = frozenset(
    ".csv .db .htm .html .ini .json .jsonl .log .md .npy .npz .parquet .pdf .pkl .py "
    ".rst .sh .toml .tsv .txt .url .xlsx .xml .yaml .yml".split()
)
_SIDE_FILE_NAMES = frozenset("checksums copying license md5sums readme".split())


def list_image_files(root: Path) -> tuple[list[str], list[str]]:
    """List the images beneath a folder, and the files that may be images.

    Parameters
    ----------
    root : pathlib.Path
        The folder.

    Returns
    -------
    images : list of str
        Names relative to `root`, with "/" between folders, sorted.

    unknown : list of str
        Likewise, the files that are neither known as images nor as side files.
    """
    images, unknown = [], []
    seen = set()
    # Large sets are often assembled from links, so these are followed.
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_reraise):
        where = os.path.realpath(folder)
        if where in seen:
            raise ValueError(
                f"Got {folder!r}, a link to a folder that is read already, but "
                "expected each folder once; remove the link."
            )
        seen.add(where)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            stem, suffix = os.path.splitext(name.lower())
            path = Path(folder, name).relative_to(root).as_posix()
            if suffix in IMAGE_SUFFIXES and not name.startswith("."):
                images.append(path)
            elif not (
                name.startswith(".")
                or suffix in _SIDE_FILE_SUFFIXES
                or stem in _SIDE_FILE_NAMES
            ):
                unknown.append(path)
    return sorted(images), sorted(unknown)


def _reraise(error: OSError) -> NoReturn:
    # os.walk skips folders it may not read unless told otherwise.
    raise error
