"""``python -m mixform``."""

import sys

from mixform.cli import main

if __name__ == "__main__":
    sys.exit(main())
