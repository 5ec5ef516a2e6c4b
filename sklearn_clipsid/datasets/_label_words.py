"""Map the words that data sets use for real and synthetic onto 0 and 1."""

TARGET_NAMES = ("real", "synthetic")

# Folder names are matched at any depth, so only words that hardly ever name a class
# of content are in this table ("photo" is a domain of PACS, "0" and "1" are class
# numbers). "ai" and "nature" are GenImage's words.
_FOLDER_LABELS = {
    "real": 0,
    "0_real": 0,
    "nature": 0,
    "fake": 1,
    "1_fake": 1,
    "synthetic": 1,
    "ai": 1,
}

_CELL_LABELS = _FOLDER_LABELS | {
    "0": 0,
    "0.0": 0,  # what pandas writes for a column that once held a missing value
    "authentic": 0,
    "genuine": 0,
    "natural": 0,
    "photo": 0,
    "photograph": 0,
    "1": 1,
    "1.0": 1,
    "ai_generated": 1,
    "artificial": 1,
    "deepfake": 1,
    "generated": 1,
}


def folder_label(name: str) -> int | None:
    """Return 0 for a folder of photographs, 1 for synthetic images, else None.

    Parameters
    ----------
    name : str
        Name of one folder, in any case.

    Returns
    -------
    label : {0, 1} or None
        The label, or None where the name says nothing about it.
    """
    return _FOLDER_LABELS.get(_normalised(name))


def cell_label(text: str) -> int | None:
    """Return the label that a cell of a manifest states, None if unknown.

    Parameters
    ----------
    text : str
        Content of the cell, in any case.

    Returns
    -------
    label : {0, 1} or None
        The label, or None where the word is not known.
    """
    return _CELL_LABELS.get(_normalised(text))


def known_labels(*, cells: bool) -> str:
    """List the words that are understood, for an error message.

    Parameters
    ----------
    cells : bool
        Whether to list the words for cells of a manifest, not for folder names.

    Returns
    -------
    words : str
        The words for real, then those for synthetic.
    """
    table = _CELL_LABELS if cells else _FOLDER_LABELS
    return "; ".join(
        f"{name}: " + ", ".join(word for word, code in table.items() if code == label)
        for label, name in enumerate(TARGET_NAMES)
    )


def _normalised(text: str) -> str:
    return text.strip().casefold().replace("-", "_").replace(" ", "_")
