"""Import optional dependencies with an error that says what to install."""

import importlib


def import_optional(name, *, extra, caller):
    """Import module `name`, or say which extra of this package installs it.

    Parameters
    ----------
    name : str
        Dotted name of the module.

    extra : str
        The extra of sklearn_clipsid that brings the module.

    caller : str
        What needs the module, for the message.

    Returns
    -------
    module : module
        The imported module.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{caller} needs {name.partition('.')[0]!r}, which could not be imported "
            f"({error}); run `pip install 'sklearn-clipsid[{extra}]'`."
        ) from error
