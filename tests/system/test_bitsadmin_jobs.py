"""`bitsadmin` against the real service, one recorded session a switch: inventory B1 to B21 and section 9's rules."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Iterator

import pytest

from openbits.cli.bitsadmin.job_switches import JOB_SWITCHES
from openbits.client import calls
from support.accounts import TestAccount, needs_root, temporary_account
from support.bitsadmin import GOLDEN, Console, fresh
from support.daemon import Daemon, running_daemon
from support.origin import Origin, generate

pytestmark = needs_root

SIZE = 150_000
FILE = f"/gen/{SIZE}/7"


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


def places(daemon: Daemon, origin: Origin, account: TestAccount) -> dict[str, str]:
    host = socket.gethostname().partition(".")[0]
    return {
        origin.url("/gen"): "http://origin/gen",
        origin.url("/status"): "http://origin/status",
        origin.url("").partition("://")[2].strip("/"): "origin",
        account.home: "/home/alice",
        f"{host}\\{account.name}": "HOST\\alice",
        f"{host}\\root": "HOST\\root",
        account.name: "alice",
        daemon.base: "/base",
    }


@pytest.fixture
def console(daemon: Daemon, origin: Origin, alice: TestAccount) -> Iterator[Console]:
    yield from fresh(Console(daemon=daemon, account=alice, places=places(daemon, origin, alice)))


@pytest.fixture
def root(daemon: Daemon, origin: Origin, alice: TestAccount, console: Console) -> Console:
    """Root's console; the queue is emptied by alice's."""
    del console
    return Console(daemon=daemon, places=places(daemon, origin, alice))


def path(account: TestAccount, name: str = "a.bin") -> str:
    return os.path.join(account.home, name)


def content(account: TestAccount, name: str = "a.bin") -> bytes:
    return pathlib.Path(path(account, name)).read_bytes()


def transferred(console: Console, origin: Origin, alice: TestAccount, name: str = "job") -> str:
    """A job that is TRANSFERRED; returns its id."""
    job_id = console.job(name)
    console.good("/addfile", name, origin.url(FILE), path(alice, f"{name}.bin"))
    console.good("/resume", name)
    console.daemon.wait_state(job_id, "TRANSFERRED")
    return job_id


def failed(console: Console, origin: Origin, alice: TestAccount, name: str = "job") -> str:
    """A job in ERROR, since its file does not exist; returns its id."""
    job_id = console.job(name)
    console.good("/addfile", name, origin.url("/status/404"), path(alice))
    console.good("/resume", name)
    console.daemon.wait_state(job_id, "ERROR")
    return job_id


def test_help(console: Console) -> None:
    for words in (("/help",), ("/?",), ("/ADDFILE", "/?"), ("/nonsense",), (), ("list",), ("-list",)):
        console(*words)
    text = console.text
    assert all(f"\n{switch.name.upper()}" in text for switch in JOB_SWITCHES)
    assert text.count("Invalid command\n") == 4
    for group in ("/util", "/peercaching", "/cache", "/peers"):
        assert console.good(group, "/?") == console.good(group.upper(), "/help")
        assert console.good(group, "/?").startswith("USAGE: BITSADMIN")


def test_list(console: Console, origin: Origin, alice: TestAccount) -> None:
    console("/list")
    console.job("job1")
    transferred(console, origin, alice, "job 2")
    failed(console, origin, alice, "job3")
    console("/list")
    console("/LIST", "/VERBOSE")
    console("/list", "/allusers")
    console("/list", "everything")
    console.check("list")


def test_list_allusers(console: Console, root: Console) -> None:
    console.job("hers")
    root.job("mine")
    root("/list")
    root("/list", "/allusers")
    root.check("list_allusers")


def test_monitor_without_a_console_shows_the_jobs_once(console: Console) -> None:
    console("/monitor")
    console.job("job1")
    console("/monitor", "/refresh", "60")
    console("/monitor", "/allusers")
    console("/monitor", "/refresh", "soon")
    console("/monitor", "/refresh", "0")
    console("/monitor", "/refresh")
    console.check("monitor")


def test_reset(console: Console) -> None:
    console("/reset")
    console.job("job1")
    console.job("job2")
    console("/reset")
    console("/list")
    console("/reset", "/allusers")
    console.check("reset")


def test_reset_allusers_is_for_administrators_and_reaches_every_account(console: Console, root: Console) -> None:
    console.job("hers")
    root("/reset")
    root.job("mine")
    root("/reset", "/allusers")
    root("/list", "/allusers")
    root.check("reset_allusers")


def test_transfer(console: Console, origin: Origin, alice: TestAccount) -> None:
    console("/transfer", "download", origin.url(FILE), path(alice))
    assert content(alice) == generate(SIZE, 7)
    more = ("/download", "/priority", "HIGH")
    console("/TRANSFER", "two", *more, origin.url(FILE), path(alice, "b"), origin.url("/gen/5/1"), path(alice, "c"))
    assert content(alice, "c") == generate(5, 1)
    console("/transfer", "missing", origin.url("/status/404"), path(alice, "missing"))
    assert not os.path.exists(path(alice, "missing"))
    console("/list")
    console.check("transfer")


def test_transfer_creates_nothing_when_the_arguments_are_wrong(
    console: Console, origin: Origin, alice: TestAccount
) -> None:
    url, here = origin.url(FILE), path(alice)
    before = len(console.daemon.history())
    console("/transfer")
    console("/transfer", "job", url)
    console("/transfer", "job", url, here, url)
    console("/transfer", "job", "/priority", "urgent", url, here)
    console("/transfer", "job", "/priority")
    console("/transfer", "job", "/aclflags", "OX", url, here)
    console("/transfer", "job", "/upload", url, here, url, here)
    console("/transfer", "job", "/upload", "/download", url, here)
    console("/transfer", "job", url, "a.bin")
    console("/transfer", "job", "gopher://host/a", here)
    console("/transfer", "job", url, "/etc/a.bin")
    console("/transfer", "job", url, path(alice, "d"), "nothing", path(alice, "e"))
    console("/transfer", "x" * 257, url, here)
    assert len(console.daemon.history()) == before
    console.check("transfer_wrong")


def test_create(console: Console) -> None:
    console("/create", "job")
    console("/CREATE", "/DOWNLOAD", "two words")
    console("/create", "/upload", "up")
    console("/create", "/upload-reply", "reply")
    console("/rawreturn", "/create", "raw")
    console("/list")
    console("/create")
    console("/create", "job", "/upload")
    console("/create", "/upload", "/download", "job")
    console("/create", "")
    console("/rawreturn", "/create", "")
    console.check("create")


def test_info(console: Console, origin: Origin, alice: TestAccount) -> None:
    transferred(console, origin, alice)
    console("/info", "job")
    console("/info", "job", "/verbose")
    failed(console, origin, alice, "bad")
    console("/info", "bad", "/VERBOSE")
    console("/info")
    console("/info", "none")
    console.check("info")


def test_info_of_a_property_of_each_kind(console: Console, alice: TestAccount) -> None:
    job_id = console.job()
    settings = {
        "description": "monthly report",
        "priority": "low",
        "minimum_retry_delay": 60,
        "no_progress_timeout": 120,
        "notify_flags": 1,
        "proxy_usage": "override",
        "proxy_list": "proxy1:80",
        "proxy_bypass_list": "<local>",
        "acl_flags": 5,
        "peer_caching_flags": 3,
    }
    console.daemon.session.perform(calls.change_settings(job_id, settings))
    headers = "custom_headers=X-One: 1\r\nX-Two: 2\r\n"
    console.daemon.bits("set", job_id, headers, account=alice, check=True)
    command = ("/usr/bin/bits", "complete", job_id)
    console.daemon.bits("notify", job_id, "--", *command, account=alice, check=True)
    console.places = {**console.places, job_id: "GUID"}
    console("/info", "job", "/verbose")
    console.check("info_properties")


def test_addfile(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job()
    console("/addfile", "job", origin.url(FILE), path(alice))
    console("/addfile", "job", "file:///etc/hostname", path(alice, "hostname"))
    console("/listfiles", "job")
    console("/addfile", "job", origin.url(FILE), "a.bin")
    console("/addfile", "job", "nothing", path(alice))
    console("/addfile", "job", "\\\\server\\share\\a.bin", path(alice))
    console("/addfile", "job", origin.url(FILE), "/etc/a.bin")
    console("/addfile", "job", origin.url(FILE))
    console("/addfile", "none", origin.url(FILE), path(alice))
    console.check("addfile")


def test_addfileset(console: Console, origin: Origin, alice: TestAccount) -> None:
    url = origin.url(FILE)
    good, marked, half, empty = (pathlib.Path(path(alice, name)) for name in ("good", "marked", "half", "empty"))
    good.write_text(f"# two files\n{url} {path(alice)}\n\n{url}   {path(alice, 'two words.bin')}\r\n", encoding="utf-8")
    marked.write_bytes(b"\xff\xfe" + f"{url} {path(alice, 'ü.bin')}\r\n".encode("utf-16-le"))
    half.write_text(f"{url} {path(alice, 'c')}\n{url}\n", encoding="utf-8")
    empty.write_text("# nothing\n", encoding="utf-8")
    bad = pathlib.Path(path(alice, "bad"))
    bad.write_text(f"{url} {path(alice, 'd')}\n{url} relative\n", encoding="utf-8")
    console.job()
    for name in (good, marked, half, empty, bad, pathlib.Path(path(alice, "none"))):
        console("/addfileset", "job", str(name))
    console("/listfiles", "job")
    console.check("addfileset")


def test_addfilewithranges(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = console.job()
    console("/addfilewithranges", "job", origin.url(FILE), path(alice), "0:100,2000:100,149000:eof")
    console("/resume", "job")
    console.daemon.wait_state(job_id, "TRANSFERRED")
    console("/info", "job")
    console("/complete", "job")
    whole = generate(SIZE, 7)
    assert content(alice) == whole[:100] + whole[2000:2100] + whole[149000:]
    console.job("wrong")
    for ranges in ("", "0", "0:1,", "-1:5", "5:-1", "0:100,50:100", "100:0,100:5"):
        console("/addfilewithranges", "wrong", origin.url(FILE), path(alice), ranges)
    console("/listfiles", "wrong")
    console.check("addfilewithranges")


def test_replaceremoteprefix(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job()
    console("/addfile", "job", origin.url("/status/404"), path(alice))
    console("/replaceremoteprefix", "job", origin.url("/status/404"), origin.url(FILE))
    console("/listfiles", "job")
    console("/replaceremoteprefix", "job", "http://elsewhere/", "http://nowhere/")
    console("/replaceremoteprefix", "job", "http://elsewhere/")
    console.check("replaceremoteprefix")


def test_listfiles(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = transferred(console, origin, alice)
    console("/listfiles", "job")
    console("/addfile", "job", origin.url("/gen/5/1"), path(alice, "later"))
    console("/listfiles", "job")
    console("/complete", "job")
    console("/listfiles", "{" + job_id.upper() + "}")
    console.check("listfiles")


def test_suspend_resume_cancel_complete(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = console.job()
    console("/resume", "job")
    console("/addfile", "job", origin.url(FILE), path(alice))
    console("/resume", "job")
    console.daemon.wait_state(job_id, "TRANSFERRED")
    console("/suspend", "job")
    console("/complete", "job")
    assert content(alice) == generate(SIZE, 7)
    console("/complete", "job")
    console("/complete", "{" + job_id + "}")
    console.job("other")
    console("/suspend", "other")
    console("/cancel", "other")
    console("/cancel", "other")
    console("/suspend")
    console.job("partial")
    console("/addfile", "partial", origin.url(FILE), path(alice, "never"))
    console("/complete", "partial")
    console.check("suspend_resume_cancel_complete")


@pytest.mark.parametrize("name", ["acl", "progress", "times", "state", "error", "owner", "type"])
def test_values(name: str, console: Console, origin: Origin, alice: TestAccount) -> None:
    VALUES[name](console, origin, alice)
    console.check(f"get_{name}")


def both(console: Console, switch: str, job: str) -> None:
    console(switch, job)
    console("/rawreturn", switch, job)


def acl(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job()
    both(console, "/getaclflags", "job")
    console("/setaclflags", "job", "DGO")
    both(console, "/getaclflags", "job")
    console("/SetACLFlag", "job", "ogds")
    both(console, "/GetACLFlags", "job")
    console("/setaclflags", "job", "OWNER")
    console("/setaclflags", "job", "")
    console.job("up", "/upload")
    console("/setaclflags", "up", "O")


def progress(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job("new")
    console.good("/addfile", "new", origin.url(FILE), path(alice, "b"))
    transferred(console, origin, alice)
    for switch in ("/getbytestotal", "/getbytestransferred", "/getfilestotal", "/getfilestransferred"):
        for job in ("new", "job"):
            both(console, switch, job)


def times(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job("new")
    transferred(console, origin, alice)
    for switch in ("/getcreationtime", "/getmodificationtime", "/getcompletiontime"):
        for job in ("new", "job"):
            both(console, switch, job)


def state(console: Console, origin: Origin, alice: TestAccount) -> None:
    job_id = console.job()
    both(console, "/getstate", "job")
    console.good("/cancel", "job")
    both(console, "/getstate", "{" + job_id + "}")
    transferred(console, origin, alice)
    both(console, "/getstate", "job")
    console.job("twice")
    console.job("twice")
    both(console, "/getstate", "twice")
    both(console, "/getstate", "none")
    console("/getstate", "{00000000-0000-0000-0000-000000000000}")


def error(console: Console, origin: Origin, alice: TestAccount) -> None:
    failed(console, origin, alice)
    both(console, "/geterror", "job")
    both(console, "/geterrorcount", "job")
    console.job("good")
    both(console, "/geterror", "good")
    both(console, "/geterrorcount", "good")


def owner(console: Console, origin: Origin, alice: TestAccount) -> None:
    console.job()
    both(console, "/getowner", "job")


def job_type(console: Console, origin: Origin, alice: TestAccount) -> None:
    for option in ("/download", "/upload", "/upload-reply"):
        console.job(option[1:], option)
        both(console, "/gettype", option[1:])


VALUES = {
    "acl": acl,
    "progress": progress,
    "times": times,
    "state": state,
    "error": error,
    "owner": owner,
    "type": job_type,
}


def test_each_switch_has_a_recorded_session() -> None:
    sessions = "\n".join(path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt")).lower()
    assert [switch.name for switch in JOB_SWITCHES if f"$ bitsadmin {switch.name}" not in sessions] == []
