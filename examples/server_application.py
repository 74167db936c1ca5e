"""A server application behind `bits-server`: it takes every upload and replies with a receipt.

`bits-server` makes a POST when the last byte of an upload has come in (inventory U30–U32), in one of two ways:

by reference   the request has no body.  BITS-Request-DataFile-Name is the path of the upload, and what is written to
               the path in BITS-Response-DataFile-Name is the reply.  Both are files of bits-server's own account, so
               the application has to run under that account too.
by value       the body is the upload, and the body of the answer is the reply.

In both, BITS-Original-Request-URL is the URL that the client uploads to.  An answer may ask for two more things:

BITS-Copy-File-To-Destination: yes     also put the upload where its URL says
BITS-Static-Response-URL: http://...   the reply is there already; do not send one

2xx takes the upload; 403 refuses it for good; after anything else the same upload comes again, perhaps much later.
It can also come again although it was taken, when the answer did not arrive: so doing it twice must do no harm.
Here that holds by itself, because a receipt depends on nothing but the upload.

Try it:

    python examples/server_application.py --port 9000 &
    bits-server --root /srv/in --notify-type value --notify-url http://127.0.0.1:9000/receipts
    bits put --reply receipt.json report.pdf http://127.0.0.1:8080/report.pdf

As it is plain WSGI, any WSGI server can run `application` as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socketserver
from collections.abc import Callable, Iterable
from typing import IO, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer, make_server

BLOCK_BYTES = 1024 * 1024
Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one notification."""
    url = environ.get("HTTP_BITS_ORIGINAL_REQUEST_URL")
    if environ["REQUEST_METHOD"] != "POST" or url is None:
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"this is for bits-server\n"]

    path = environ.get("HTTP_BITS_REQUEST_DATAFILE_NAME")
    if path is not None:
        with open(path, "rb") as upload:
            receipt = make_receipt(url, upload, size=None)
    else:
        receipt = make_receipt(url, environ["wsgi.input"], size=int(environ["CONTENT_LENGTH"]))

    headers = [("Content-Type", "application/json")]
    # The query of the upload's URL is handed on: /report.pdf?keep=yes asks us to keep the file.
    if parse_qs(environ.get("QUERY_STRING", "")).get("keep") == ["yes"]:
        headers.append(("BITS-Copy-File-To-Destination", "yes"))

    if path is not None:
        with open(environ["HTTP_BITS_RESPONSE_DATAFILE_NAME"], "wb") as reply:
            reply.write(receipt)
        receipt = b""
    start_response("200 OK", [*headers, ("Content-Length", str(len(receipt)))])
    return [receipt]


def make_receipt(url: str, upload: IO[bytes], *, size: int | None) -> bytes:
    """Read an upload, of `size` bytes where that is known, and say what it was."""
    digest = hashlib.sha256()
    count = 0
    while size is None or count < size:
        block = upload.read(BLOCK_BYTES if size is None else min(BLOCK_BYTES, size - count))
        if not block:
            break
        digest.update(block)
        count += len(block)
    return json.dumps({"url": url, "bytes": count, "sha256": digest.hexdigest()}).encode()


class ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    """One thread for each notification: a large upload does not hold up a small one."""

    daemon_threads = True


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Take uploads from bits-server and reply with receipts.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    arguments = parser.parse_args()
    with make_server(arguments.host, arguments.port, application, server_class=ThreadingServer) as server:
        print(f"listening at http://{arguments.host}:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
