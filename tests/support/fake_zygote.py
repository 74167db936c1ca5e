"""The real zygote with a worker that evaluates what it is asked, instead of transferring files."""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading

from openbits.worker import zygote

MODULES = {module.__name__: module for module in (mmap, os, resource, signal, socket, sys, threading)}


def run(sock: socket.socket) -> int:
    while expression := sock.recv(4096).decode():
        try:
            answer = eval(expression, dict(MODULES))
        except (OSError, MemoryError, ImportError) as error:
            answer = error.__class__.__name__
        sock.send(json.dumps(answer, default=str).encode())
    return 0


if __name__ == "__main__":
    sys.exit(zygote.main(run))
