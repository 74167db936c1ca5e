"""docs/from-windows.md names every switch, cmdlet and policy (inventory 8 to 10), and only what exists here."""

from __future__ import annotations

import pathlib
import re

import click
import pytest

import openbits
from openbits.cli import properties
from openbits.cli.bitsadmin.switches import all_switches
from openbits.cli.main import bits
from openbits.core.policy import KEYS

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "from-windows.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`]+)`", PAGE)
COMMANDS = sorted({code for code in CODE if code.startswith("bits ")})
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
CMDLETS = ("Start", "Add", "Get", "Set", "Resume", "Suspend", "Complete", "Remove")
PARAMETERS = """Source Destination Asynchronous Suspended TransferType DisplayName Description Priority
TransferPolicy Dynamic HttpMethod CustomHeaders CustomHeadersWriteOnly Credential Authentication
UseStoredCredential ProxyUsage ProxyList ProxyBypass ProxyCredential ProxyAuthentication
RetryInterval RetryTimeout MaxDownloadTime ACLFlags SecurityFlags NotifyFlags NotifyCmdLine
CertStoreLocation CertStoreName CertHash SetOwnerToCurrentUser Name JobId AllUsers BitsJob WhatIf
Confirm"""
POLICIES = """MaxInternetBandwidth JobInactivityTimeout MaxDownloadTime MaxJobsPerMachine MaxJobsPerUser MaxFilesPerJob
MaxRangesPerFile DisableBranchCache EnableMaintenanceLimits EnableBandwidthLimits
BITS_SetTransferPolicyOnCostedNetwork EnablePeercaching
DisablePeerCachingClient DisablePeerCachingServer MaxBandwidthServed MaxCacheSize MaxContentAge UseLMCompat"""


def test_every_switch_has_a_row() -> None:
    assert [
        one.full_name for one in all_switches() if f"`{one.full_name}" not in SECTIONS["Switches of bitsadmin"]
    ] == []


def test_every_switch_that_is_named_exists() -> None:
    first_cells = re.findall(r"^\| (`/.*?) \|", SECTIONS["Switches of bitsadmin"], re.MULTILINE)
    assert len(first_cells) > 50
    options = {option for one in all_switches() for option in one.options}
    known = {one.full_name for one in all_switches()} | {"/help", "/?"} | options
    for cell in first_cells:
        for code in re.findall(r"`([^`]+)`", cell):
            words = code.split()
            assert code in known or words[0] in known and set(words[1:]) <= options, code  # noqa: RUF021 - as it reads


@pytest.mark.parametrize("text", COMMANDS)
def test_every_command_and_option_exists(text: str) -> None:
    words = text.split()
    if words[1].startswith("-"):
        return
    context = click.Context(bits)
    command = bits.get_command(context, words[1])
    assert command is not None, text
    rest = words[2:]
    if isinstance(command, click.Group):
        inner = command.get_command(context, rest[0])
        assert inner is not None, text
        command, rest = inner, rest[1:]
    before_dashes = rest[: rest.index("--")] if "--" in rest else rest
    known = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in before_dashes if word.startswith("-") and word not in known] == []
    if words[1] == "set":
        keys = [word.partition("=")[0] for word in rest if "=" in word and word != "KEY=VALUE"]
        assert [key for key in keys if key not in properties.NAMES] == []


def test_every_python_name_exists() -> None:
    classes = {"job": openbits.Job, "file": openbits.File, "manager": openbits.Manager}
    names = re.findall(r"`(job|file|manager)\.(\w+)\(", PAGE)
    assert len(names) > 60
    assert [f"{kind}.{name}" for kind, name in names if not hasattr(classes[kind], name)] == []


@pytest.mark.parametrize("verb", CMDLETS)
def test_every_cmdlet_has_a_row(verb: str) -> None:
    noun = "BitsFile" if verb == "Add" else "BitsTransfer"
    assert f"| `{verb}-{noun}` |" in PAGE


@pytest.mark.parametrize("name", PARAMETERS.split())
def test_every_parameter_has_a_row(name: str) -> None:
    table = SECTIONS["Cmdlets of the BitsTransfer module"].partition("| Parameter |")[2]
    assert re.search(rf"^\|[^|]*`-{name}`", table, re.MULTILINE)


def test_every_policy_has_a_row_and_every_key_exists() -> None:
    section = SECTIONS["Group Policy and the registry"]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", section, re.MULTILINE)
    named = {code for value, _ in rows for code in re.findall(r"`([^`]+)`", value)}
    assert set(POLICIES.split()) <= named
    keys = {code for _, key in rows for code in re.findall(r"`([^`]+)`", key) if not code.startswith("bits ")}
    assert keys == set(KEYS)
