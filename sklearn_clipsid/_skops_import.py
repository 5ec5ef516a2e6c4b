"""Import skops without the torch that it would import on the way."""

from __future__ import annotations

import sys
import threading
from typing import Any


def import_skops() -> Any:
    """Import skops.io, which looks through all modules of scikit-learn.

    Among them is support for torch, which would be imported for nothing: that takes
    four times as long as all the rest.

    Returns
    -------
    skops.io : module
    """
    finder = _NoTorch()
    sys.meta_path.insert(0, finder)
    try:
        import skops.io
    finally:
        sys.meta_path.remove(finder)
    return skops.io


class _NoTorch:
    """Find no torch in this thread; others may import it meanwhile."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("left out while skops is imported", name=name)
