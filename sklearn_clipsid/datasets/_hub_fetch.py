"""Hold the parameters that all fetchers from a hub share, and their description."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from sklearn.datasets import get_data_home
from sklearn.utils._param_validation import Interval, StrOptions

_Function = TypeVar("_Function", bound=Callable[..., Any])

FETCH_CONSTRAINTS: dict[str, list[Any]] = {
    "data_home": [str, os.PathLike, None],
    "split": [StrOptions({"train", "validation", "test"}), None],
    "download_if_missing": ["boolean"],
    "revision": [str],
    "n_retries": [Interval(Integral, 0, None, closed="left")],
    "delay": [Interval(Real, 0, None, closed="left")],
    "endpoint": [str, None],
}

_PARAMETERS_AND_RETURNS = """\
Parameters
----------
data_home : str or PathLike, default=None
    Folder for the images, of which the data set takes a part under `clipsid`. By
    default scikit-learn's, see :func:`sklearn.datasets.get_data_home`.

split : {"train", "validation", "test"}, default=None
    Part to fetch, all by default.

download_if_missing : bool, default=True
    Whether to download what is not there, instead of raising an error.

revision : str, default="main"
    Branch, tag or commit of the repository. The first call writes down which
    commit a branch stands for, and later calls keep to it.

n_retries : int, default=3
    Number of further tries for each file.

delay : float, default=1.0
    Seconds between tries.

endpoint : str, default=None
    Address of the hub. None stands for that of huggingface_hub, which the
    environment variable `HF_ENDPOINT` sets.

Returns
-------
images : :class:`~sklearn.utils.Bunch`
    Dictionary-like object, with the following attributes.

    data : ndarray of shape (n_images,), dtype=object
        Paths of the images, as str.
    target : ndarray of shape (n_images,), dtype=int
        1 for synthetic images, 0 for photographs.
    generator : ndarray of shape (n_images,), dtype=str
        Column `source`: generator of a synthetic image, source of a photograph.
        Pass it as `groups` to the splitters.
    pair_id : ndarray of shape (n_images,), dtype=str
        Column `image_id`, which is **not unique**: a photograph shares it with the
        synthetic images of its motif. Keep the images of one together in splits.
    split : ndarray of shape (n_images,), dtype=str
        Part that the image belongs to.
    target_names : list of str
        `["real", "synthetic"]`.
    DESCR : str
        What the images are, and what to mind.

Raises
------
OSError
    If a file cannot be had, or is not what the hub declares.
ValueError
    If columns, labels or the sizes of the parts are not the published ones."""

_NOTES = """\
Notes
-----
Needs the extra `datasets`. A download that was interrupted goes on with the next
call, in the middle of a file. Images are written once, byte by byte as they are
stored, and named by their sha256. What was downloaded is then removed.

On a machine without access, an error names the folder to which the parquet files of
the repository can be copied by hand. With `download_if_missing=False` these copies
are read and kept."""


class HubDataset(NamedTuple):
    """What is known about a data set before it is fetched."""

    name: str  # of its folder, its description and its fetcher
    repo_id: str
    split_sizes: dict[str, tuple[int, ...]]  # numbers of images that are published


@dataclass(frozen=True, kw_only=True)
class HubFetch:
    """One call of a fetcher, with its parameters."""

    dataset: HubDataset
    data_home: str | os.PathLike[str] | None
    split: str | None
    download_if_missing: bool
    revision: str
    n_retries: int
    delay: float
    endpoint: str | None

    @property
    def caller(self) -> str:
        """The function that the user called."""
        return f"fetch_{self.dataset.name}"

    @property
    def folder(self) -> Path:
        """Where everything of the data set lies."""
        return Path(get_data_home(self.data_home), "clipsid", self.dataset.name)

    @property
    def images(self) -> Path:
        """Where the images of all revisions lie, named for their contents."""
        return self.folder / "images"

    @property
    def version(self) -> Path:
        """Where the list of files and the tables of this revision lie."""
        return self.folder / quote(self.revision, safe="")

    @property
    def parquet(self) -> Path:
        """Where parquet files lie until their images are written out."""
        return self.version / "parquet"


def document_fetch(fetcher: _Function) -> _Function:
    """Fill in what the docstrings of all fetchers have in common.

    Parameters
    ----------
    fetcher : callable
        Its docstring has the places `{parameters_and_returns}` and `{notes}`.

    Returns
    -------
    fetcher : callable
        The same.
    """
    # Only newer Pythons strip the indentation of docstrings themselves.
    text = inspect.cleandoc(fetcher.__doc__ or "").format(
        parameters_and_returns=_PARAMETERS_AND_RETURNS, notes=_NOTES
    )
    fetcher.__doc__ = f"{text}\n"
    return fetcher
