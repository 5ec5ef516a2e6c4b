"""Name the first few of many things in an error message."""

from collections.abc import Sequence


def first_few(items: Sequence[str], limit: int = 5) -> str:
    """Join the first items, and say how many more there are.

    Parameters
    ----------
    items : sequence of str
        What to name.

    limit : int, default=5
        At most so many are written out.

    Returns
    -------
    text : str
        For example "a, b, c, d, e and 3 more".
    """
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")
