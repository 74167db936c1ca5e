"""Machines for the tests in this directory: one is installed for a whole run, each module boots a copy of it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import nspawn_root
from support.nspawn import Machine, booted, booted_copy, sweep
from support.nspawn_install import install, prepare
from support.nspawn_jobs import Jobs

_UNMET = nspawn_root.unmet_need()
_HERE = Path(__file__).parent

CONFIGURATION = """
[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
"""
"""Checkpoints so close together that a test need not wait for one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say why nothing can be booted here, where nothing can."""
    if _UNMET:
        for item in items:
            if item.path.is_relative_to(_HERE):
                item.add_marker(pytest.mark.skip(reason=_UNMET))


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory for the machines of this run."""
    with nspawn_root.scratch_directory() as directory:
        sweep()
        yield directory


@pytest.fixture(scope="session")
def installed_root(scratch: Path) -> Path:
    """A Debian system with OpenBITS, as the install script left it in a running machine; for copies."""
    root = scratch / "installed"
    root.mkdir()
    prepare(root)
    with booted(root, scratch) as machine:
        install(machine)
        machine.path("/etc/openbits/bitsd.toml").write_text(CONFIGURATION, encoding="utf-8")
        machine.power_off()
    return root


@pytest.fixture(scope="module")
def machine(scratch: Path, installed_root: Path) -> Iterator[Machine]:
    """A machine with OpenBITS that the tests of a module share."""
    with booted_copy(installed_root, scratch) as running:
        yield running


@pytest.fixture(scope="module")
def jobs(machine: Machine) -> Iterator[Jobs]:
    """OpenBITS in that machine."""
    shared = Jobs(machine)
    try:
        yield shared
    finally:
        shared.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Put what the machine said beside a failure."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Machine):
        lines = os.environ.get("OPENBITS_TEST_JOURNAL_LINES", "150")
        report.sections.append(("journal of the machine", machine.journal("--lines", lines)))
    return report
