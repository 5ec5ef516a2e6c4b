"""Check pairs of antonyms, from a file or from memory, and write their prompts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_clipsid._first_few import first_few

TEMPLATE = "A photograph with {}"
# Names of the column with the names: the published file's, a user's, our Bunch's.
_NAME_COLUMNS = ("attribute_name", "name", "names")
_POLES = ("positive", "negative")
_PROMPTS = ("positive_prompt", "negative_prompt")
_NOTES = ("category", "explanation")


def check_antonyms(
    columns: Mapping[str, Sequence[Any]],
    places: Sequence[str],
    source: str,
    template: str = TEMPLATE,
) -> dict[str, np.ndarray]:
    """Return complete antonyms, or name the rows that are wrong.

    Parameters
    ----------
    columns : mapping of str to sequence
        Columns of one length, chosen by `antonym_columns`.

    places : sequence of str of shape (n_antonyms,)
        Where each row stands, such as "line 7".

    source : str
        What holds the rows, for the messages.

    template : str, default="A photograph with {}"
        Makes prompts of the poles where `columns` has none.

    Returns
    -------
    antonyms : dict of str to ndarray of shape (n_antonyms,)
        Strings without surrounding blanks: names, positive, negative,
        positive_prompt, negative_prompt, category and explanation ("" where unknown).
    """
    check_template(template)
    if not places:
        raise ValueError(
            f"Got no antonyms in {source} but expected one row for each; add them."
        )
    asked = {key: [_as_text(cell) for cell in cells] for key, cells in columns.items()}
    for key, pole in zip(_PROMPTS, _POLES):
        if key not in asked:
            asked[key] = [template.replace("{}", text) for text in asked[pole]]
    for key in _NOTES:
        asked.setdefault(key, [""] * len(places))
    _check_filled(asked, places, source)
    _check_distinct_names(asked["names"], places, source)
    _check_distinct_poles(asked, places, source)
    order = ("names", *_POLES, *_PROMPTS, *_NOTES)
    return {key: np.array(asked[key], dtype=str) for key in order}


def check_template(template: str) -> None:
    """Raise unless a template has one place for a pole.

    Parameters
    ----------
    template : str
        To be filled in.
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ValueError(
            f"Got template={template!r} but expected a string with one {{}}, which "
            f"stands for the pole, such as {TEMPLATE!r}."
        )


def antonym_columns(available: Iterable[str], source: str) -> dict[str, str]:
    """Tell which of the columns there are hold what.

    Parameters
    ----------
    available : iterable of str
        Names of columns, of which others are ignored.

    source : str
        What has these columns, for the messages.

    Returns
    -------
    columns : dict of str to str
        The column for each of our keys that there is a column for.
    """
    available = list(available)
    wanted = (*_POLES, *_PROMPTS, *_NOTES)
    repeated = [name for name in (*_NAME_COLUMNS, *wanted) if available.count(name) > 1]
    found = [name for name in _NAME_COLUMNS if name in available]
    if repeated or len(found) > 1:
        raise ValueError(
            f"Got the columns {repeated or found} in {source}, which hold the same "
            "thing, but expected each thing once; rename or remove the others."
        )
    missing = [] if found else [_NAME_COLUMNS[0]]
    missing += [name for name in _POLES if name not in available]
    without_prompt = [name for name in _PROMPTS if name not in available]
    if len(without_prompt) == 1:
        missing += without_prompt
    if missing:
        raise ValueError(
            f"Got the columns {available} in {source} but expected attribute_name (or "
            "name), positive and negative, and both positive_prompt and "
            f"negative_prompt or neither; add {missing}."
        )
    return {"names": found[0]} | {name: name for name in wanted if name in available}


def _as_text(cell: Any) -> str:
    # A frame reads an empty cell as NaN, None or NA: nothing that is a text.
    return str(cell).strip() if isinstance(cell, str) else ""


def _check_filled(
    asked: Mapping[str, Sequence[str]], places: Sequence[str], source: str
) -> None:
    empty = [
        f"{key.removesuffix('s')} of {name!r} ({place})"
        for key in ("names", *_POLES, *_PROMPTS)
        for name, place, text in zip(asked["names"], places, asked[key])
        if not text
    ]
    if empty:
        raise ValueError(
            f"Got antonyms in {source} of which something is missing, but expected a "
            "name and both poles of each, as texts, and both prompts if there are "
            f"prompts; fill in or remove: {first_few(empty)}."
        )


def _check_distinct_names(
    names: Sequence[str], places: Sequence[str], source: str
) -> None:
    first: dict[str, str] = {}
    repeats = []
    for name, place in zip(names, places):
        if name in first:
            repeats.append(f"{name!r} ({first[name]} and {place})")
        else:
            first[name] = place
    if repeats:
        raise ValueError(
            f"Got repeated names in {source} but expected distinct ones; rename or "
            f"remove: {first_few(repeats)}."
        )


def _check_distinct_poles(
    asked: Mapping[str, Sequence[str]], places: Sequence[str], source: str
) -> None:
    def same(first: str, second: str) -> bool:
        return first.casefold().split() == second.casefold().split()

    texts = (asked[key] for key in (*_POLES, *_PROMPTS))
    equal = [
        f"{name!r} ({place})"
        for name, place, *pairs in zip(asked["names"], places, *texts)
        if same(*pairs[:2]) or same(*pairs[2:])
    ]
    if equal:
        raise ValueError(
            f"Got antonyms in {source} whose two poles or prompts are equal, but "
            f"expected opposites; correct or remove: {first_few(equal)}."
        )
