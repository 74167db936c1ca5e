"""Programs of ours whose output goes nowhere: a closed stream is no error, and a full disk is one, said in a line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BIN = os.path.dirname(sys.executable)
TIMEOUT_S = 60
PROGRAMS = pytest.mark.parametrize("command", [("bits", "--help"), ("bits", "version"), ("bitsadmin", "/help")])


def run_redirected(command: tuple[str, ...], redirection: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", os.path.join(BIN, command[0]), *command[1:]],
        env={**os.environ, "BITS_SOCKET": "/nonexistent/openbits.sock"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@PROGRAMS
def test_closed_output_is_no_traceback(command: tuple[str, ...]) -> None:
    done = run_redirected(command, ">&-")
    assert "Traceback" not in done.stderr
    assert "NoneType" not in done.stderr
    assert done.returncode in (0, 5)


def test_closed_output_is_no_error_of_bitsadmin() -> None:
    done = run_redirected(("bitsadmin", "/help"), ">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", [("bits", "--help"), ("bitsadmin", "/help")])
def test_full_disk_is_said_in_one_line(program: tuple[str, ...]) -> None:
    done = run_redirected(program, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == f"{program[0]}: the output could not be written: No space left on device\n"
