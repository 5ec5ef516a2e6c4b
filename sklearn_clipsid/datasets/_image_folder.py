"""Load labelled images from the folder layouts that detection data come in."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.datasets._image_files import IMAGE_SUFFIXES, list_image_files
from sklearn_clipsid.datasets._label_words import (
    TARGET_NAMES,
    folder_label,
    known_labels,
)
from sklearn_clipsid.datasets._manifest import ImageRecord, read_manifest

_LAYOUTS = ("auto", "generator/label", "label/generator", "label", "csv")
_SPLIT_NAMES = frozenset("dev eval test train training val valid validation".split())


def load_image_folder(root: str | os.PathLike[str], *, layout: str = "auto") -> Bunch:
    """Load the paths, labels and generators of a folder or manifest of images.

    The images are neither opened nor decoded: the paths are what
    :class:`~sklearn_clipsid.CLIPEmbedder` takes.

    Parameters
    ----------
    root : str or path-like
        A folder, or a manifest whose name ends in `.csv`.

    layout : {"auto", "generator/label", "label/generator", "label", "csv"}, \
            default="auto"
        How the folders beneath `root` are named. A label folder is called `real`,
        `0_real` or `nature` (photographs) or `fake`, `1_fake`, `synthetic` or `ai`
        (synthetic images), in any case.

        - `"generator/label"`: `{root}/{generator}/{label}/…`, further folders, such
          as classes, above or beneath the label folder. Photographs in the folder of
          a generator get its name, so that they can serve as its matched negatives.
        - `"label/generator"`: `{root}/{label}/{generator}/…`; images that lie in
          the label folder itself get the generator "real" or "fake".
        - `"label"`: `{root}/{label}/…`; the generator is "real" or "fake".
        - `"csv"`: `root` is a manifest, see Notes.
        - `"auto"`: a CSV file is a manifest. A folder is read as
          `"generator/label"` when no folder directly in `root` is a label folder.
          When all of them are, folders beneath them are taken for generators.
          Whatever fits two readings is an error.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (n_images,), dtype=object
            The paths, as str.
        target : ndarray of shape (n_images,), dtype=int
            1 for synthetic images, 0 for photographs.
        generator : ndarray of shape (n_images,), dtype=str
            Generator of a synthetic image, photo source of a photograph, "real"
            where that is not known. Pass it as `groups` to the splitters.
        pair_id : ndarray of shape (n_images,), dtype=str
            Name shared by the images of one motif, "" where unknown.
        target_names : list of str
            `["real", "synthetic"]`.
        DESCR : str
            What was read, with the number of images of each generator.

    Warns
    -----
    UserWarning
        If there are files that are neither known as images nor as side files (text,
        tables, hidden files and the like). They are left out.

    See Also
    --------
    make_paired_images : Write a small set of stand-in images with a manifest.
    load_sample_embeddings : Load embeddings of real images.

    Notes
    -----
    A manifest has the columns `path,label,generator` and possibly `pair_id`, or
    those of one of two published kinds: `filename,typ`, where `typ` is "real" or the
    generator [1]_, and `file_name,label,model` [2]_. Labels are 0 and 1 or words such
    as "real", "photo", "fake" and "synthetic". Relative paths are relative to the
    manifest's folder. A photograph with an empty generator gets "real". Rows keep
    the manifest's order; images of a folder are sorted by path.

    The first folder of `"generator/label"` is that of CNNDetection and
    UniversalFakeDetect (`{generator}/{class}/{0_real,1_fake}`) and of
    Community-Forensics (`{generator}/{real,fake}`).

    References
    ----------
    .. [1] Cozzolino et al., "Raising the Bar of AI-generated Image Detection with
       CLIP", CVPR Workshops 2024.
    .. [2] Livernoche et al., "OpenFake: An Open Dataset and Platform Toward
       Real-World Deepfake Detection", arXiv:2509.09495, 2025.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_clipsid.datasets import load_image_folder
    >>> with TemporaryDirectory() as root:
    ...     for name in ("laion/0_real/1.jpg", "ldm/1_fake/2.png", "ldm/1_fake/3.png"):
    ...         path = Path(root, name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         path.touch()
    ...     images = load_image_folder(root)
    >>> images.target
    array([0, 1, 1])
    >>> images.generator
    array(['laion', 'ldm', 'ldm'], dtype='<U5')
    """
    if layout not in _LAYOUTS:
        raise ValueError(
            f"Got layout={layout!r} but expected one of {_LAYOUTS}; choose the one "
            "that describes how the folders beneath root are named."
        )
    path = Path(root)
    if path.is_dir():
        records, found = _read_folder(path, layout)
    elif path.is_file():
        if path.suffix.lower() != ".csv" or layout not in ("auto", "csv"):
            raise ValueError(
                f"Got the file {str(path)!r} with layout={layout!r} but expected a "
                "folder, or a .csv manifest with layout 'auto' or 'csv'; pass the "
                "folder that holds the images."
            )
        records, found = read_manifest(path)
    else:
        raise FileNotFoundError(
            f"Got root={str(path)!r}, which is not there, but expected a folder or a "
            f".csv manifest; correct the path (working directory: {os.getcwd()!r})."
        )
    return _as_bunch(records, found, path)


def _read_folder(root: Path, layout: str) -> tuple[list[ImageRecord], str]:
    if layout == "csv":
        raise ValueError(
            f"Got the folder {str(root)!r} with layout='csv' but expected a .csv file; "
            "pass the manifest's own path."
        )
    names, unknown = list_image_files(root)
    if unknown:
        warnings.warn(
            f"Got {len(unknown)} files in {str(root)!r} that are not known as images "
            f"({first_few(_quoted(unknown))}) but expected one of the extensions "
            f"{' '.join(sorted(IMAGE_SUFFIXES))}; they are left out. Convert them, or "
            "name them in a manifest, which takes any extension.",
            stacklevel=3,
        )
    if not names:
        raise ValueError(
            f"Got no images in the folder {str(root)!r} but expected some beneath "
            "folders named for their labels; check the path, and that archives are "
            "unpacked."
        )
    folders = [tuple(name.split("/")[:-1]) for name in names]
    if layout == "auto":
        layout = _infer_layout(folders, root)
    sources = [_label_and_generator(folder, layout) for folder in folders]
    _check_labels(names, [labels for labels, _ in sources], root, layout)
    records = [
        ImageRecord(os.path.join(root, *name.split("/")), min(labels), generator, "")
        for name, (labels, generator) in zip(names, sources)
    ]
    return records, layout


def _infer_layout(folders: list[tuple[str, ...]], root: Path) -> str:
    tops = {folder[0] for folder in folders if folder}
    labelled = {name for name in tops if folder_label(name) is not None}
    if labelled and labelled != tops:
        raise ValueError(
            f"Got the label folders {sorted(labelled)} beside "
            f"{first_few(_quoted(tops - labelled))} in {str(root)!r} but expected "
            "either label folders only or generators only; pass "
            "layout='generator/label' if all of them are generators or photo sources, "
            "else move the label folders or write a manifest."
        )
    if labelled:
        return _infer_label_first(folders, root)
    splits = sorted(name for name in tops if name.casefold() in _SPLIT_NAMES)
    if splits:
        raise ValueError(
            f"Got the folders {splits} in {str(root)!r} but expected generators, and "
            "these look like parts of a split; load one part at a time, as in "
            f"load_image_folder({str(root / splits[0])!r}), or pass "
            "layout='generator/label' if they are generators."
        )
    return "generator/label"


def _infer_label_first(folders: list[tuple[str, ...]], root: Path) -> str:
    direct = {folder[0] for folder in folders if len(folder) == 1}
    nested = {folder[0] for folder in folders if len(folder) > 1}
    if not nested:
        return "label"
    beneath: dict[int | None, set[str]] = {0: set(), 1: set()}
    for folder in folders:
        if len(folder) > 1:
            beneath[folder_label(folder[0])].add(folder[1])
    both = {folder for folder in folders if len(_labels_in(folder)) > 1}
    if shared := beneath[0] & beneath[1]:
        reason = f"{first_few(_quoted(shared))} beneath both labels"
    elif mixed := direct & nested:
        reason = f"images beside folders in {first_few(_quoted(mixed))}"
    elif both:
        reason = f"{first_few(_quoted('/'.join(folder) for folder in both))}"
    else:
        return "label/generator"
    raise ValueError(
        f"Got {reason} in {str(root)!r} but expected folders that can only be "
        "generators; pass layout='label/generator' if they are generators, or "
        "layout='label' if they are classes or parts."
    )


def _label_and_generator(folder: tuple[str, ...], layout: str) -> tuple[set[int], str]:
    """Return every label that the folder names state, and the generator."""
    # In "generator/label" classes may lie above or beneath the label folder.
    candidates = folder[1:] if layout == "generator/label" else folder[:1]
    labels = _labels_in(candidates)
    if layout == "generator/label":
        return labels, folder[0] if folder else ""
    if layout == "label/generator" and len(folder) > 1:
        return labels, folder[1]
    return labels, "fake" if labels == {1} else "real"


def _labels_in(folders: Iterable[str]) -> set[int]:
    return {label for name in folders if (label := folder_label(name)) is not None}


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name) for name in sorted(names)]


def _check_labels(
    names: list[str], labels: list[set[int]], root: Path, layout: str
) -> None:
    conflicting = [name for name, found in zip(names, labels) if len(found) > 1]
    if conflicting:
        raise ValueError(
            f"Got {len(conflicting)} images in {str(root)!r} beneath label folders "
            f"of both kinds ({first_few(_quoted(conflicting))}) but expected one; "
            "rename the folder that is no label, pass another layout, or write a "
            "manifest."
        )
    unlabelled = [name for name, found in zip(names, labels) if not found]
    if unlabelled:
        manifests = sorted(path.name for path in root.glob("*.csv"))
        hint = f" The folder holds {manifests[0]!r}: pass it." if manifests else ""
        raise ValueError(
            f"Got {len(unlabelled)} of {len(names)} images in {str(root)!r} outside of "
            f"any label folder ({first_few(_quoted(unlabelled))}) but expected the "
            f"layout {layout!r} with label folders named as in "
            f"{known_labels(cells=False)}; rename the folders, pass another root or "
            f"layout, or write a manifest with the columns path,label,generator.{hint}"
        )


def _as_bunch(records: list[ImageRecord], layout: str, root: Path) -> Bunch:
    target = np.array([record.label for record in records])  # (n_images,)
    counts = Counter((record.generator, record.label) for record in records)
    lines = [
        f"{name}: {n} {TARGET_NAMES[label]}"
        for (name, label), n in sorted(counts.items())
    ]
    return Bunch(
        # Objects, because one long path would widen every row of a str array.
        data=np.array([record.path for record in records], dtype=object),
        target=target,
        generator=np.array([record.generator for record in records]),
        pair_id=np.array([record.pair_id for record in records]),
        target_names=list(TARGET_NAMES),
        DESCR=(
            f"{len(records)} images ({np.sum(target == 0)} real, "
            f"{np.sum(target == 1)} synthetic) read from {str(root)!r} with the "
            f"layout {layout!r}.\n\n" + "\n".join(lines) + "\n"
        ),
    )
