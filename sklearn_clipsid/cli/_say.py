"""Tell the user on standard error what goes on."""

import sys
import time
from contextlib import nullcontext

SECONDS_BETWEEN_LINES = 10
# In a name, line ends and tabs would forge lines, and others would steer a terminal.
CONTROL_CHARACTERS = (*range(32), *range(127, 160), 0x2028, 0x2029)
ESCAPES = {code: repr(chr(code))[1:-1] for code in CONTROL_CHARACTERS}


def on_one_line(text):
    r"""Write control characters as Python does, such as ``\n``.

    Parameters
    ----------
    text : str
        A name from a file or a folder.

    Returns
    -------
    text : str
        What can be printed.
    """
    return text.translate(ESCAPES)


def say(text):
    """Write one message under the name of the command.

    Parameters
    ----------
    text : str
        The message.
    """
    print(f"clipsid: {text}", file=sys.stderr, flush=True)


def say_unreadable(path, reason):
    """Name a file that could not be read.

    Parameters
    ----------
    path, reason : str
        The file, and why.
    """
    say(f"could not read {path!r}: {reason}")


class ImageProgress:
    """Count images: by a bar on a terminal, in lines elsewhere.

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
