"""Run the command line as ``python -m sklearn_clipsid.cli``."""

import sys

from sklearn_clipsid.cli._main import main

if __name__ == "__main__":
    sys.exit(main())
