"""bash offers the switches of `bitsadmin`, those of a group behind it, and files elsewhere."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from openbits.cli.bitsadmin.completion import bitsadmin_completion
from openbits.cli.bitsadmin.switches import all_switches


def offered(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = "\n".join(
        [
            bitsadmin_completion("bash"),
            f"COMP_WORDS=({shlex.join(['bitsadmin', *words])})",
            f"COMP_CWORD={len(words)}",
            "COMPREPLY=()",
            "_bitsadmin_completion",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_switches() -> None:
    assert {one.name for one in all_switches() if not one.group} < set(offered(""))
    assert offered("/ADDFILES") == ["/addfileset"]
    assert offered("/rawreturn", "/NoWrap", "/getsta") == ["/getstate"]
    assert offered("/util", "/v") == ["/version"]
    assert set(offered("/CACHE", "/")) == {"/help", *(one.name for one in all_switches() if one.group == "/cache")}
    assert offered("/addfile", "/") == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_understands_its_script() -> None:
    subprocess.run(["zsh", "-n"], input=bitsadmin_completion("zsh"), text=True, timeout=60, check=True)


def test_the_zsh_script_names_every_switch() -> None:
    words = bitsadmin_completion("zsh").split()
    assert {one.name for one in all_switches()} <= set(words)
