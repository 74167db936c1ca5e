"""`bitsd` with the fake service and the fake worker."""

from __future__ import annotations

import os
import sys

from openbits.monitor.main import main

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    sys.exit(
        main(
            service_command=(sys.executable, "-I", os.path.join(HERE, "fake_service.py")),
            zygote_command=(sys.executable, "-I", os.path.join(HERE, "fake_zygote.py")),
        )
    )
