"""Choose the colours of figures, and write names and numbers to fit into them."""

import numpy as np

# Blue and orange stay apart in all common forms of colour blindness.
REAL_COLOUR, SYNTHETIC_COLOUR = "#0072B2", "#E69F00"
MAX_LABEL = 40  # characters
MAX_WORD = 20  # of the name of a class


def class_words(classes):
    """Return what to call two classes."""
    if np.array_equal(classes, [0, 1]):
        return ("real", "synthetic")
    return tuple(short_name(label, MAX_WORD) for label in classes)


def sign_colour(value):
    """Return the colour of what moves the logit up, or of what moves it down."""
    return SYNTHETIC_COLOUR if value > 0 else REAL_COLOUR


def short_name(name, limit=MAX_LABEL):
    """Return one line for a figure, with an ellipsis where it was cut."""
    name = " ".join(str(name).split())
    if len(name) > limit:
        name = name[: limit - 1].rstrip() + "…"
    return name.replace("$", r"\$")  # two of them would begin and end a formula


def true_minus(text):
    """Return the text of a number with the sign that axes have."""
    return text.replace("-", "\N{MINUS SIGN}")


def signed(values):
    """Write numbers with sign, a true minus, and the digits that the largest needs."""
    values = np.asarray(values, dtype=float)
    largest = np.abs(values).max()
    magnitude = int(np.floor(np.log10(largest))) if largest > 0 else 0
    decimals = max(2 - magnitude, 0)
    texts = [f"{value:+.{decimals}f}" for value in values]
    zero = f"{0:.{decimals}f}"
    return [zero if text[1:] == zero else true_minus(text) for text in texts]


def percent(share):
    """Return a share as a whole percentage."""
    return true_minus(f"{round(100 * share):d}%")
