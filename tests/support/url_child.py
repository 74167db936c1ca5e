"""Fetch URLs in a network namespace of one's own, and print what each server was sent, as JSON.

`unshare --net python -m support.url_child DIRECTORY`: with a link of its own, so that there are link-local addresses,
and on the ports that URLs need not name.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

from openbits.frames.worker import FileSpec
from support.ca import Authority, bundle
from support.recorder import Recorder
from support.worker_process import WorkerProcess

ADDRESS = "fe80::1234"
LINK = "link-0.1"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


def main(directory: Path) -> None:
    """Print a list of [url, error, head, names]."""
    ip("link", "set", "lo", "up")
    ip("link", "add", LINK, "type", "veth", "peer", "name", "other")
    ip("link", "set", "other", "up")
    ip("link", "set", LINK, "up")
    ip("address", "add", f"{ADDRESS}/64", "dev", LINK, "nodad")
    authority = Authority("url child")
    names = ("localhost", "127.0.0.1", "::1", ADDRESS, "xn--bcher-kva.localhost")
    context = authority.issue(*names).server_context(directory)
    with contextlib.ExitStack() as stack:
        any_address = "::"
        plain = stack.enter_context(Recorder(address=any_address, port=80))
        secure = stack.enter_context(Recorder(address=any_address, port=443, tls=context))
        other = stack.enter_context(Recorder(address=any_address, port=8080))
        worker = stack.enter_context(WorkerProcess(env={"SSL_CERT_FILE": bundle(directory / "ca.pem", authority)}))
        results = []
        for number, url in enumerate(json.load(sys.stdin)):
            for recorder in (plain, secure, other):
                recorder.heads.clear()
                recorder.names.clear()
            temporary = str(directory / f".BIT{number}.tmp")
            file = FileSpec(index=0, remote_name=url, local_name=str(directory / "x"), temporary_name=temporary)
            ended = worker.fetch(file, transfer=number + 1, break_patience_s=3.0)
            heads = [head.decode("latin-1") for each in (plain, secure, other) for head in each.heads]
            results.append([url, ended.error, heads, secure.names.copy()])
        json.dump(results, sys.stdout)


if __name__ == "__main__":
    assert socket.has_ipv6
    main(Path(sys.argv[1]))
