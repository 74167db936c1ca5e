"""`bitsadmin` and the real service, a recorded session a switch: /util, /peercaching, /cache, /peers (B40 to B47)."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterator

import pytest

from openbits.cli.bitsadmin.group_switches import GROUP_SWITCHES
from openbits.client.eventlog import event_log
from openbits.version import __version__
from support.accounts import SERVICE_ACCOUNT, TestAccount, needs_root, temporary_account
from support.bitsadmin import GOLDEN, SCRIPT, Console, fresh
from support.daemon import Daemon, running_daemon
from support.origin import Origin, generate
from support.proxy_server import ProxyServer

pytestmark = needs_root

SIZE = 50_000
RECORD = "{6511FB02-E195-40A2-B595-E8E2F8F47702}"
ACCOUNTS = ("LOCALSYSTEM", "NETWORKSERVICE", "LOCALSERVICE")


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A machine of its own for each test: these switches are about the machine."""
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def root(daemon: Daemon, alice: TestAccount) -> Iterator[Console]:
    places = {
        daemon.base: "/base",
        alice.home: "/home/alice",
        f"uid {alice.uid} ({alice.name})": "uid 1000 (alice)",
        __version__: "VERSION",
        f"owner uid {pwd.getpwnam(SERVICE_ACCOUNT).pw_uid}": "owner uid 999",
    }
    yield from fresh(Console(daemon=daemon, places=places))


@pytest.fixture
def console(root: Console, alice: TestAccount) -> Console:
    return Console(daemon=root.daemon, account=alice, places=root.places)


# --- versions and repair (B40, B41) ---------------------------------------------------------------


def test_b40_version(console: Console) -> None:
    console("/util", "/version")
    console("/UTIL", "/Version", "/VERBOSE")
    text = console.text
    assert re.search(r"^10\.3$", text, re.MULTILINE)
    assert re.search(r"^ok    version: OpenBITS VERSION \(system mode\), client VERSION$", text, re.MULTILINE)
    console.session.clear()
    console("/util", "/version")
    console("/util", "/version", "now")
    console.check("util_version")


def test_b41_a_service_in_order_needs_no_repair(root: Console, console: Console) -> None:
    assert root.good("/util", "/repairservice").endswith("Nothing to repair.\n")
    assert console.good("/util", "/repairservice").endswith("Nothing to repair.\n")
    pid = root.daemon.pid
    done = root.run("/util", "/repairservice", "/force")
    assert (done.returncode, "systemd is not in charge" in done.stderr) == (1, True), "it is not systemd's to restart"
    assert root.daemon.pid == pid


def test_b41_a_service_that_does_not_run(root: Console, console: Console) -> None:
    root.daemon.kill()
    root("/util", "/repairservice")
    root("/util", "/version", "/verbose")
    root("/list")
    root.check("util_repairservice_dead")
    assert console.run("/util", "/repairservice").returncode == 5
    root.daemon.start()
    assert root.good("/util", "/repairservice").endswith("Nothing to repair.\n")


# --- proxies of service accounts (B42, B43, I20) --------------------------------------------------


def test_b42_b43_proxies_of_service_accounts(root: Console) -> None:
    root("/util", "/getieproxy", "LOCALSYSTEM")
    root("/util", "/setieproxy", "localsystem", "MANUAL_PROXY", "proxy1,proxy2,proxy3", "NULL")
    root("/util", "/setieproxy", "LocalSystem", "manual_proxy", "proxy1:80", "*.example.org <local>")
    root("/util", "/setieproxy", "LOCALSYSTEM", "AUTOSCRIPT", "http://server/proxy.js")
    root("/util", "/getieproxy", "LOCALSYSTEM")
    root("/util", "/setieproxy", "LOCALSYSTEM", "AUTODETECT")
    root("/util", "/setieproxy", "LOCALSYSTEM", "NO_PROXY", "/conn", "work")
    root("/util", "/getieproxy", "LOCALSYSTEM", "/conn", "work")
    root("/util", "/setieproxy", "LOCALSYSTEM", "MANUAL_PROXY")
    root("/util", "/setieproxy", "LOCALSYSTEM", "RESET")
    root("/util", "/getieproxy", "LOCALSYSTEM")
    root("/util", "/setieproxy", "NETWORKSERVICE", "AUTODETECT")
    root("/util", "/getieproxy", "NETWORKSERVICE")
    root("/util", "/getieproxy", "LOCALSERVICE")
    root.check("util_ieproxy")


def test_b42_what_is_wrong_sets_nothing(root: Console, console: Console) -> None:
    root("/util", "/setieproxy", "LOCALSYSTEM", "SOMETIMES")
    root("/util", "/setieproxy", "SYSTEM", "NO_PROXY")
    root("/util", "/setieproxy", "LOCALSYSTEM", "NO_PROXY", "proxy1:80")
    root("/util", "/setieproxy", "LOCALSYSTEM", "AUTOSCRIPT")
    root("/util", "/setieproxy", "LOCALSYSTEM", "AUTOSCRIPT", "nothing")
    root("/util", "/setieproxy", "LOCALSYSTEM", "MANUAL_PROXY", "ftp://proxy1", "NULL")
    root("/util", "/setieproxy", "LOCALSYSTEM", "/conn")
    root.check("util_setieproxy_wrong")
    for account in ACCOUNTS:
        for words in (("/getieproxy", account), ("/setieproxy", account, "NO_PROXY")):
            done = console.run("/util", *words)
            assert (done.returncode, "0x80070005" in done.stdout) == (4, True), words
        assert "Proxy usage:  NO_PROXY\n" in root.good("/util", "/getieproxy", account)


def test_b43_parsers_of_others_find_the_usage_where_they_look(root: Console) -> None:
    """By its label, and by the numbers of its lines: the account's is the sixth and the usage the ninth."""
    root.good("/util", "/setieproxy", "NETWORKSERVICE", "AUTODETECT")
    lines = root.run("/util", "/getieproxy", "NETWORKSERVICE").stdout.split("\n")
    assert "NetworkService" in lines[5]
    assert "autodetect" in lines[8].lower()
    [usage] = [line.replace("Proxy usage:  ", "") for line in lines if "Proxy usage" in line]
    assert usage == "AUTODETECT"


def test_b42_the_systems_jobs_go_by_the_proxy_that_was_set(root: Console) -> None:
    with Origin() as origin, ProxyServer(hosts={"origin.test": origin.port}) as proxy:
        root.good("/util", "/setieproxy", "LOCALSYSTEM", "MANUAL_PROXY", f"127.0.0.1:{proxy.port}", "NULL")
        target = os.path.join(root.daemon.base, "file")
        root.good("/transfer", "by proxy", f"http://origin.test/gen/{SIZE}/1", target)
        with open(target, "rb") as file:
            assert file.read() == generate(SIZE, 1)
        assert any("origin.test" in request.target for request in proxy.requests)


# --- the analytic channel (B44) -------------------------------------------------------------------


def test_b44_the_analytic_channel(root: Console, console: Console) -> None:
    root("/util", "/enableanalyticchannel", "TRUE")
    root("/util", "/enableanalyticchannel", "perhaps")
    assert root.daemon.session.perform(event_log())["analytic"] is True
    root.daemon.kill()
    root.daemon.start()
    assert root.daemon.session.perform(event_log())["analytic"] is True, "it survives a crash"
    root("/util", "/EnableAnalyticChannel", "false")
    assert root.daemon.session.perform(event_log())["analytic"] is False
    root.check("util_enableanalyticchannel")
    console("/util", "/enableanalyticchannel", "TRUE")
    console.check("util_enableanalyticchannel_refused")


# --- peer caching (B45 to B47) --------------------------------------------------------------------


def test_b45_configuration_flags(root: Console) -> None:
    root("/peercaching", "/getconfigurationflags")
    root("/peercaching", "/setconfigurationflags", "3")
    root("/peercaching", "/getconfigurationflags", "myDownloadJob")
    root("/rawreturn", "/peercaching", "/getconfigurationflags")
    root("/peercaching", "/setconfigurationflags", "myDownloadJob", "1")
    root("/rawreturn", "/peercaching", "/getconfigurationflags")
    root("/peercaching", "/setconfigurationflags", "8")
    root("/peercaching", "/setconfigurationflags", "on")
    root.check("peercaching")


def test_b45_b46_a_policy_goes_first(root: Console) -> None:
    directory = os.path.join(root.daemon.base, "policy.d")
    root.daemon.stop()
    os.mkdir(directory)
    with open(os.path.join(directory, "peers.toml"), "w", encoding="utf-8") as file:
        file.write("[peer_caching]\nenable = false\nmax_cache_size_percent = 7\n")
    root.daemon.start()
    root("/peercaching", "/setconfigurationflags", "3")
    root("/rawreturn", "/peercaching", "/getconfigurationflags")
    root("/cache", "/setlimit", "10")
    root("/cache", "/getlimit")
    root.check("peercaching_policy")


def test_b46_the_cache(root: Console) -> None:
    root("/cache", "/list")
    root("/cache", "/list", "/verbose")
    root("/cache", "/clear")
    root.good("/peercaching", "/setconfigurationflags", "3")
    root("/cache", "/info", RECORD)
    root("/cache", "/info", RECORD, "/verbose")
    root("/cache", "/delete", RECORD)
    root("/cache", "/delete", "6511FB02")
    root("/cache", "/deleteurl", "http://origin/file")
    root("/cache", "/clear")
    root("/cache", "/getlimit")
    root("/cache", "/setlimit", "50")
    root("/rawreturn", "/cache", "/getlimit")
    root("/cache", "/setlimit", "81")
    root("/cache", "/getexpirationtime")
    root("/cache", "/setexpirationtime", "86400")
    root("/rawreturn", "/cache", "/getexpirationtime")
    root("/cache", "/setexpirationtime", "60")
    root.check("cache")


def test_b47_the_peers(root: Console) -> None:
    root("/peers", "/list")
    root("/peers", "/discover")
    root("/peers", "/clear")
    root.good("/peercaching", "/setconfigurationflags", "1")
    root("/peers", "/discover")
    root("/peers", "/clear")
    root.check("peers")


def test_c6_who_is_no_administrator_reads_and_changes_nothing(console: Console) -> None:
    console("/peercaching", "/getconfigurationflags")
    console("/cache", "/getlimit")
    console("/peers", "/list")
    for words in (
        ("/peercaching", "/setconfigurationflags", "3"),
        ("/cache", "/setlimit", "5"),
        ("/cache", "/setexpirationtime", "86400"),
        ("/cache", "/clear"),
        ("/cache", "/delete", RECORD),
        ("/cache", "/deleteurl", "http://origin/file"),
        ("/peers", "/discover"),
        ("/peers", "/clear"),
    ):
        done = console.run(*words)
        assert (done.returncode, "0x80070005" in done.stdout) == (4, True), words
    console.check("peercaching_user")


def test_b45_in_a_service_of_ones_own_one_is_at_home() -> None:
    with running_daemon("user") as own:
        console = Console(daemon=own)
        console.good("/peercaching", "/setconfigurationflags", "1")
        assert console.raw("/peercaching", "/getconfigurationflags") == "1"


# --- the table ------------------------------------------------------------------------------------


def test_every_switch_of_a_group_has_a_recorded_session_and_help(root: Console) -> None:
    recorded = "\n".join(path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()).lower()
    missing = [switch.full_name for switch in GROUP_SWITCHES if f"{switch.full_name}" not in recorded]
    assert missing == []
    for group in ("/util", "/peercaching", "/cache", "/peers"):
        root(group, "/?")
        done = root.run(group, "/nonsense")
        assert (done.returncode, "Invalid command\n" in done.stdout) == (2, True)
    root.check("help_of_groups")


def test_a_shell_script_as_people_write_them(root: Console) -> None:
    """Exit statuses and captured values, in sh."""
    script = f"""
        set -eu
        b={SCRIPT}
        test "$($b /rawreturn /peercaching /getconfigurationflags)" = 0
        $b /peercaching /setconfigurationflags 3 >/dev/null 2>&1
        test "$($b /RAWRETURN /peercaching /getconfigurationflags)" -eq 3
        if $b /cache /setlimit 0 >/dev/null; then exit 9; fi
        $b /util /version | grep -qx '10.3'
        $b /util /setieproxy LOCALSERVICE MANUAL_PROXY p1,p2 '' >/dev/null
        $b /util /getieproxy LOCALSERVICE 2>/dev/null | sed -n 's/^Proxy list:  //p'
    """
    done = subprocess.run(
        ["sh", "-c", script], env=root.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "p1 p2\n"), done
