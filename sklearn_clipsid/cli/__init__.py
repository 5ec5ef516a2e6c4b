"""The command line: score, fit, evaluate, embed, info."""

from sklearn_clipsid.cli._main import main

__all__ = ["main"]
