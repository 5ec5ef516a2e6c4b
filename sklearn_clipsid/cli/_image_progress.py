"""Say how many images are done: a bar on a terminal, lines elsewhere."""

import sys
import time
from contextlib import nullcontext

from sklearn_clipsid.cli._say import say

SECONDS_BETWEEN_LINES = 10


class ImageProgress:
    """Count images on standard error.

    Parameters
    ----------
    total : int
        Images in all.

    Attributes
    ----------
    n_done : int
        Images that are done.
    """

    def __init__(self, total):
        self.total = total
        self.n_done = 0
        self._said = time.monotonic()
        self._bar = None

    def __enter__(self):
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, unit="image", leave=False)
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def aside(self):
        """Return a context in which lines can be written without hitting the bar."""
        return nullcontext() if self._bar is None else self._bar.external_write_mode()

    def advance(self, n_images):
        """Count images as done.

        Parameters
        ----------
        n_images : int
            How many more.
        """
        self.n_done += n_images
        if self._bar is not None:
            self._bar.update(n_images)
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(f"{self.n_done} of {self.total} images are done.")
