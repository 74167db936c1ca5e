"""A command is there at once: it loads what it needs and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("asyncio", "ssl", "http", "email", "urllib", "rich", "subprocess", "msgspec", "aiohttp", "logging", "sqlite3")
PROGRAM = """
import sys
from openbits.cli.main import run
run(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["list"], ["get", "--help"], ["events"], ["show", "x"]])
def test_no_command_loads_what_it_does_not_need(arguments: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, "--socket", "/nonexistent", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "openbits.cli.main" in loaded
    # The table of errors takes the phrases of HTTP statuses from `http`, which is one small module.
    assert {name for name in HEAVY if name in loaded} <= {"http"}
    assert "http.client" not in loaded


def test_the_package_alone_loads_nothing() -> None:
    program = "import sys, openbits; print(*(name for name in sys.modules if name.startswith('openbits')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) == {"openbits", "openbits.version"}
