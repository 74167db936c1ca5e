"""`bitsd` with the fake service and, unless the environment says otherwise, the fake worker."""

from __future__ import annotations

import os
import sys

from openbits.monitor.main import ZYGOTE_COMMAND, main

HERE = os.path.dirname(os.path.abspath(__file__))
FAKE_ZYGOTE = (sys.executable, "-I", os.path.join(HERE, "fake_zygote.py"))
ZYGOTE_VARIABLE = "OBT_ZYGOTE"
"""Where it says `real`, workers are what they are."""

if __name__ == "__main__":
    sys.exit(
        main(
            service_command=(sys.executable, "-I", os.path.join(HERE, "fake_service.py")),
            zygote_command=ZYGOTE_COMMAND if os.environ.get(ZYGOTE_VARIABLE) == "real" else FAKE_ZYGOTE,
        )
    )
