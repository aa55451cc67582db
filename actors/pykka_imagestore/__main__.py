"""``python -m pykka_imagestore`` is ``imagestore``."""

import sys

from pykka_imagestore.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
