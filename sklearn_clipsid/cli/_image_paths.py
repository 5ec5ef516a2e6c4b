"""Turn the files, folders and lists of a command line into paths of images."""

import os
import sys
from pathlib import Path

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid.cli._say import say


def add_images(parser):
    """Let a parser take images.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.
    """
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files; folders, with all that is below; - for paths on standard input, "
        "one a line",
    )


def list_images(names):
    """Return the paths of all images that are named.

    Parameters
    ----------
    names : list of str
        Files, folders and "-".

    Returns
    -------
    paths : list of str
        In the order of the names; those of a folder are sorted. Files are not opened,
        and some need not be there.
    """
    paths = []
    for name in names:
        if name == "-":
            paths += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        elif os.path.isdir(name):
            paths += _images_below(name)
        else:
            paths.append(name)
    if paths and not any(map(os.path.lexists, paths)):
        raise FileNotFoundError(
            f"Got {first_few(list(map(repr, paths)))} but there is no such file or "
            f"folder below {os.getcwd()!r}; check the names."
        )
    if names == ["-"] and not paths:
        raise ValueError(
            "Got nothing on standard input but expected paths of images, one a line; "
            "check the command before the pipe."
        )
    if not paths:
        raise ValueError(
            f"Got no images in {' '.join(map(repr, names))} but expected at least one; "
            "name a file, or a folder that holds some."
        )
    return paths


def _images_below(folder):
    from sklearn_clipsid.datasets._image_files import list_image_files

    images, unknown = list_image_files(Path(folder))
    if unknown:
        say(
            f"left out {len(unknown)} files of {folder!r} that are not known as images "
            f"({first_few([repr(name) for name in unknown])}); name them one by one to "
            "have them read."
        )
    return [os.path.join(folder, *name.split("/")) for name in images]
