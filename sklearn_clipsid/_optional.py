"""Import a package that only some users need."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(name: str, *, extra: str, caller: str) -> Any:
    """Import a module, or say how to install it.

    Parameters
    ----------
    name : str
        The module, such as "pyarrow.parquet".

    extra : str
        The optional dependencies of this package that bring it.

    caller : str
        What needs it, for the message.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        When the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        # A package that is there but lacks one of its own needs has another remedy.
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(
            f"{caller} needs {package}, which is not installed; type "
            f"`pip install 'sklearn-clipsid[{extra}]'`.",
            name=package,
        ) from error
