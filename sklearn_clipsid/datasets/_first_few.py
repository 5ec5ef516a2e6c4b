"""Name the first few of many things in an error message."""

from collections.abc import Sequence

_N_EXAMPLES = 5


def first_few(items: Sequence[str]) -> str:
    """Join the first five items, and say how many more there are.

    Parameters
    ----------
    items : sequence of str
        What to name.

    Returns
    -------
    text : str
        For example "a, b, c, d, e and 3 more".
    """
    more = len(items) - _N_EXAMPLES
    return ", ".join(items[:_N_EXAMPLES]) + (f" and {more} more" if more > 0 else "")
