"""Tell the user something on standard error."""

import sys


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
