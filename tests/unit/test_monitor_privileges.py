"""Giving up rights: in a child each, because there is no way back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openbits.privileges import Identity
from support.accounts import needs_root


def run(code: str) -> subprocess.CompletedProcess[str]:
    prologue = "import os\nfrom openbits import privileges\nfrom openbits.title import set_title\n"
    return subprocess.run(
        [sys.executable, "-c", prologue + code], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "identity", [Identity(0, 0, ()), Identity(1000, 100, (5, 20)), Identity(2**32 - 2, 7, tuple(range(500)))]
)
def test_identity_travels_on_a_command_line(identity: Identity) -> None:
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:3:4", "a:b:", "1:2:x"])
def test_identity_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - argparse shows its own message for it
        Identity.parse(text)


@needs_root
@pytest.mark.parametrize("identity", [(12345, 12346, (5, 12346)), (12345, 0, ()), (0, 0, (0,)), (0, 5, ())])
def test_become(identity: tuple[int, int, tuple[int, ...]]) -> None:
    done = run(
        f"privileges.become(*{identity})\n"
        "print(os.getresuid(), os.getresgid(), sorted(os.getgroups()), privileges.capabilities())"
    )
    uid, gid, groups = identity
    assert done.stdout.strip() == f"{(uid,) * 3} {(gid,) * 3} {list(groups)} frozenset()"


def test_becoming_oneself_needs_no_rights() -> None:
    """`bitsd --user`."""
    code = "who = privileges.current_identity()\nprivileges.become(*who)\nprivileges.become(*who)\nprint('fine')"
    assert run(code).stdout == "fine\n"


@needs_root
def test_no_way_back_is_found_by_asking_the_kernel() -> None:
    """A process that could regain its rights ends at once, whatever its code would do then."""
    done = run(
        "os.setresuid = lambda *ids: None\n"
        "try:\n    privileges.become(12345, 12345, ())\nfinally:\n    print('went on')"
    )
    assert done.returncode == 77
    assert "cannot become uid 12345" in done.stderr
    assert done.stdout == ""


@needs_root
def test_capability_that_stays_is_noticed() -> None:
    done = run("privileges._set_capabilities = lambda kept: None\nprivileges.become(0, 0, ())")
    assert done.returncode == 77


@needs_root
def test_limited_capabilities_stay_limited_over_an_execve() -> None:
    """Without no_new_privs, the kernel gives uid 0 its bounding set at every execve."""
    done = run(
        "kept = frozenset({privileges.Capability.SETUID})\n"
        "privileges.limit_capabilities(kept)\n"
        "os.execv('/bin/grep', ['grep', '-E', 'Cap(Prm|Eff|Bnd)', '/proc/self/status'])"
    )
    assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [1 << 7] * 3


@needs_root
def test_acting_as_another_account_ends_with_the_block() -> None:
    done = run(
        "with privileges.acting_as(privileges.Identity(12345, 12346, (7,))):\n"
        "    print(os.geteuid(), os.getegid(), os.getgroups())\n"
        "    print(os.access('/etc/shadow', os.R_OK, effective_ids=True))\n"
        "print(os.getresuid(), os.getresgid(), 7 in os.getgroups(), os.access('/etc/shadow', os.R_OK))"
    )
    assert done.stdout.splitlines() == ["12345 12346 [7]", "False", "(0, 0, 0) (0, 0, 0) False True"]


def test_death_of_the_parent() -> None:
    """The signal survives the change of identity, at which the kernel forgets it."""
    code = """
import signal, time
reader, writer = os.pipe()
parent = os.fork()
if parent == 0:
    me = os.getpid()
    if os.fork() == 0:
        privileges.die_with_parent(me)
        identity = (12345, 12345, ()) if os.getuid() == 0 else privileges.current_identity()
        privileges.become(*identity)
        os.write(writer, b"x")
        os.close(writer)
        signal.pause()
    os.close(writer)
    signal.pause()
os.close(writer)
assert os.read(reader, 1) == b"x"
os.kill(parent, signal.SIGKILL)
os.wait()
"""
    # The pipe to this test stays open for as long as the grandchild lives.
    assert run(code + "print('done')").stdout == "done\n"


@pytest.mark.parametrize(
    ("title", "shown"), [("bitsd-test: é", "bitsd-test: é"), ("x" * 4000, "x" * 50), ("two\0parts", "two parts")]
)
def test_title(title: str, shown: str) -> None:
    code = f"set_title('bitsd-test', {title!r})\nprint(open('/proc/self/comm').read())\n"
    done = run(code + "print(open('/proc/self/cmdline', 'rb').read().rstrip(b'\\0').decode())" + " " * 100)
    comm, _, command_line = done.stdout.splitlines()
    assert comm == "bitsd-test"
    assert command_line.startswith(shown)


def test_title_that_cannot_be_set_stops_nothing() -> None:
    done = run("import openbits.title\nopenbits.title.prctl = None\nset_title('\\udcff' * 99)\nprint('fine')")
    assert done.stdout == "fine\n"
