"""`python -m fourfold`."""

import sys

from fourfold.pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
