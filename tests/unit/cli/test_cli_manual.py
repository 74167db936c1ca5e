"""The manual pages say what the programs do, all of it, and roff understands them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import click
import pytest

from openbits.cli.bitsadmin.switches import all_switches
from openbits.cli.main import COMMANDS, bits
from openbits.errors import ExitCode
from openbits.monitor import main as bitsd
from openbits.server.cli import bits_server

ROOT = pathlib.Path(__file__).resolve().parents[3]
MANUALS = ROOT / "docs" / "man"


def plain(name: str) -> str:
    return (MANUALS / name).read_text(encoding="utf-8").replace("\\-", "-")


def test_the_page_is_what_the_program_says() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "generate_manual.py", "--check"], check=True, timeout=60)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_and_option_is_described(name: str) -> None:
    page = plain("bits.1")
    context = click.Context(bits)
    command = bits.get_command(context, name)
    assert command is not None
    assert command.help
    section = page.partition(f'.SS "bits {name} ')[2].partition(".SS")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"bits {name} {parameter.name} has no help"
            assert all(option in section for option in parameter.opts)
        else:
            assert str(parameter.metavar).strip(".") in section


def test_each_command_and_option_of_bits_server_is_described() -> None:
    page = plain("bits-server.1")
    for command in [bits_server, *bits_server.commands.values()]:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.name} has no help"
                assert all(option in page for option in parameter.opts)


def test_each_exit_status_is_described() -> None:
    assert all(f"\n.B {status.value}\n" in plain("bits.1") for status in ExitCode)


def test_each_option_of_bitsd_is_described() -> None:
    page = plain("bitsd.8")
    options = [option for action in bitsd._parser()._actions for option in action.option_strings]
    assert "--state-dir" in options
    assert [option for option in options if option not in page] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", ["bits.1", "bitsadmin.1", "bits-server.1", "bitsd.8"])
def test_roff_has_nothing_to_say(name: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-b", str(MANUALS / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert "(1)" in done.stdout


def test_each_switch_of_bitsadmin_is_described() -> None:
    page = plain("bitsadmin.1")
    assert [one.full_name for one in all_switches() if f"\n.B {one.full_name}" not in page] == []
    assert all(f"{status.value} " in page.partition(".SH EXIT STATUS")[2] for status in ExitCode)
