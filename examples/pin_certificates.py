#!/usr/bin/env python3
"""Certificate pinning: a program that lets a job speak only to servers whose certificates it knows.

The system checks every certificate as always. Then, before anything is sent, the service asks this program, which
accepts what one of its pins fits: the SHA-256 of a server's certificate, as this prints it (with SERVER:PORT):

    openssl s_client -connect SERVER:PORT </dev/null | openssl x509 -noout -fingerprint -sha256

    python examples/pin_certificates.py --pin AA:BB:CC... https://server/file /path/to/file

A job outlives the program that made it, and without the program nobody may say that a certificate will do: when one is
to be judged then, the job goes to ERROR with BG_E_SERVER_CERT_VALIDATION_INTERFACE_REQUIRED. So whoever starts such a
program again begins with the jobs that it has left, as --job does here:

    python examples/pin_certificates.py --pin AA:BB:CC... --job ID

It prints the id of the job, each certificate that it was asked about, and the state in which the job ends.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Collection

import openbits


def normal_pin(text: str) -> str:
    """Return a fingerprint as 64 hexadecimal digits, however it was written."""
    digits = text.lower().removeprefix("sha256:").replace(":", "").strip()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256: 64 hexadecimal digits")
    return digits


class Pins:
    """What is accepted; an object with a method, as anything that can be called will do."""

    def __init__(self, fingerprints: Collection[str]) -> None:
        self._fingerprints = frozenset(fingerprints)

    def __call__(self, job: openbits.Job, file: openbits.File, certificate: bytes, _chain: list[bytes]) -> None:
        """Return to accept the certificate (DER); raise to refuse it."""
        fingerprint = hashlib.sha256(certificate).hexdigest()
        is_known = fingerprint in self._fingerprints
        print(f"{'accepted' if is_known else 'refused'} {fingerprint} for {file.get_remote_name()}", flush=True)
        if not is_known:
            raise openbits.BitsError(
                "TRUST_E_EXPLICIT_DISTRUST", f"no pin of job {job.id} fits {fingerprint}: somebody else may answer"
            )


def main() -> int:
    """Run the job to its end."""
    parser = argparse.ArgumentParser(description="Download by a job that knows its servers' certificates.")
    parser.add_argument("--pin", action="append", type=normal_pin, default=[], metavar="SHA256", required=True)
    parser.add_argument("--job", metavar="ID", help="go on with a job that an earlier run has left")
    parser.add_argument("--timeout", type=float, metavar="S", help="give up waiting after so many seconds")
    parser.add_argument("url", nargs="?")
    parser.add_argument("path", nargs="?")
    options = parser.parse_args()

    manager = openbits.Manager()
    if options.job:
        job = manager.get_job(options.job)
        # Only a job that stands still can be told who judges.
        job.suspend()
    elif options.url and options.path:
        job = manager.create_job("pinned")
        job.add_file(options.url, options.path)
    else:
        parser.error("give a URL and a path, or --job ID")
    print(job.id, flush=True)
    job.set_server_certificate_validation_interface(Pins(options.pin))
    job.resume()

    # A refusal is a TRANSIENT_ERROR: the job would ask again with its next attempt. This program does not wait for it.
    states = (openbits.JobState.TRANSFERRED, openbits.JobState.ERROR, openbits.JobState.TRANSIENT_ERROR)
    state = job.wait(states, timeout=options.timeout)
    if state is openbits.JobState.TRANSFERRED:
        job.complete()
    print(state.name, flush=True)
    if state in (openbits.JobState.ERROR, openbits.JobState.TRANSIENT_ERROR):
        print(job.get_error(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
