"""Read many image files in threads, and name those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.utils.parallel import Parallel, delayed

from sklearn_clipsid._first_few import first_few
from sklearn_clipsid._progress import slow_bar


def for_each_file(
    function: Callable[..., Any],
    paths: list[str],
    *arguments: Any,
    description: str,
    n_jobs: int | None,
) -> list[Any]:
    """Call a function with each file, and show a bar after five seconds.

    Parameters
    ----------
    function : callable
        Called with the index and the path of a file and with `arguments`. It raises
        UnreadableImageError where the file is at fault.

    paths : list of str
        The files.

    *arguments : objects
        What else it is called with.

    description : str
        What the bar says.

    n_jobs : int or None
        Number of threads.

    Returns
    -------
    results : list
        In the order of the files.

    Raises
    ------
    ValueError
        Naming the files that cannot be read, after all others are done.
    """
    done = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(_attempt)(function, index, path, arguments)
        for index, path in enumerate(paths)
    )
    bar = slow_bar(done, description, len(paths), unit="image")
    results, reasons = zip(*bar)
    bad = [
        f"{path!r} at index {index} ({reason})"
        for index, (path, reason) in enumerate(zip(paths, reasons))
        if reason is not None
    ]
    if bad:
        raise ValueError(
            f"Got {len(bad)} of {len(paths)} files that cannot be read as images but "
            f"expected images alone: {first_few(bad)}; repair them or leave them out."
        )
    return list(results)


def _attempt(
    function: Callable[..., Any], index: int, path: str, arguments: tuple[Any, ...]
) -> tuple[Any, str | None]:
    """Return the result, or why the file cannot be read."""
    from sklearn_clipsid._clip import UnreadableImageError

    try:
        return function(index, path, *arguments), None
    except UnreadableImageError as error:
        return None, str(error)
