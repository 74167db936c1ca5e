"""`bitsd` with the real service, and a worker that says when something is imported after it gave up its rights."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from types import ModuleType

from openbits.monitor.main import main
from openbits.worker import zygote
from openbits.worker.main import run


class Reporter:
    """Finds no module, but tells that one was looked for."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> None:
        os.write(2, f"late import of {name}\n".encode())


def run_strictly(sock: socket.socket) -> int:
    sys.meta_path.insert(0, Reporter)
    return run(sock)


if __name__ == "__main__":
    if "--channel" in sys.argv:
        sys.exit(zygote.main(run_strictly))
    sys.exit(main(zygote_command=(sys.executable, "-I", os.path.abspath(__file__))))
