"""Read the command line, run one command, and end as a shell expects."""

import argparse
import os
import sys
import warnings

from sklearn_clipsid import __version__
from sklearn_clipsid.cli import _embed, _evaluate, _fit, _info, _score
from sklearn_clipsid.cli._say import say

# What the shell says of a program that Ctrl-C or a closed pipe has stopped.
INTERRUPTED, PIPE_CLOSED = 130, 141
EPILOG = """exit status:
  0    all images were read
  1    some images could not be read: they are listed, and the rest is done
  2    wrong arguments, or a detector, encoder or folder that cannot be used
  130  stopped by Ctrl-C
  141  whoever read the output has stopped, as `head` does

A score is not proof. It is about a whole image, and about generators and photo sources
like those of the training images; `clipsid evaluate` tells how well.
"""


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; those of the process by default.

    Returns
    -------
    status : int
        The exit status.
    """
    options = _parser().parse_args(argv)
    _prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        try:
            status = options.run(options)
            sys.stdout.flush()  # or a closed pipe would be found out later
        except BrokenPipeError:
            _forget_standard_output()
            return PIPE_CLOSED
        except KeyboardInterrupt as stop:
            say(f"stopped. {_notes(stop)}".rstrip())
            return INTERRUPTED
        # Messages of this package say what to do; a traceback would hide them.
        except (OSError, ValueError, TypeError, ImportError) as error:
            say(f"error: {_in_words(error)} {_notes(error)}".rstrip())
            return 2
    return status


def _parser():
    parser = argparse.ArgumentParser(
        prog="clipsid",
        description="Tell AI-generated images from photographs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (_score, _fit, _evaluate, _embed, _info):
        module.add_command(commands)
    return parser


def _prepare_streams():
    """Let file names pass byte for byte, and do without streams that are closed."""
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                encoding=sys.getfilesystemencoding(),
                errors=sys.getfilesystemencodeerrors(),
            )


def _say_warning(message, category, filename, lineno, file=None, line=None):
    say(f"warning: {message}")


def _forget_standard_output():
    """Let nobody write to the closed pipe when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _notes(error):
    return " ".join(getattr(error, "__notes__", []))


def _in_words(error):
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename!r}."
    # Messages are written for Python.
    options = {
        "pretrained=": "--pretrained PATH",
        "model_name": "--model-name NAME",
        "overwrite=True": "--overwrite",
    }
    here = [option for name, option in options.items() if name in str(error)]
    return f"{error}" + f" Here that is {' and '.join(here)}." * bool(here)
