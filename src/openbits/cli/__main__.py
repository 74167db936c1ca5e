"""`python -m openbits.cli` is `bits`."""

from __future__ import annotations

import sys

from openbits.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
