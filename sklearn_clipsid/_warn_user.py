"""Warn at the line of the user's code that asked."""

import sys
import warnings

# Between the user's line and ours lie wrappers, pipelines and searches.
_PASSED_OVER = ("sklearn_clipsid", "sklearn", "joblib", "contextlib")


def warn_user(message, category=UserWarning):
    """Warn at the nearest line outside this package and scikit-learn.

    Parameters
    ----------
    message : str
        What is wrong and what to do.

    category : type of Warning, default=UserWarning
        Its class.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_passed_over(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_passed_over(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_OVER
