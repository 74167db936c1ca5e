"""Whose proxy settings a job obeys, with the real daemon, real accounts and proxies whose logs are the witness.

Architecture section 4, rule 7; inventory I15, I17, I20, J22, B42, B43.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from openbits.client import calls
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.desktops import give_desktop, manual, needs_dconf
from support.helping import LOCAL_FILE, NETWORK, acting, helped_job
from support.origin import Origin, generate
from support.proxy_server import ProxyServer

pytestmark = needs_root

SIZE = 50_000
ENVIRONMENT_NAMES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, kw_only=True)
class House:
    """Everyone who lives here."""

    daemon: Daemon
    origin: Origin
    trap: ProxyServer
    """What the environment of the daemon names; nobody may ever come."""
    alice: TestAccount
    bob: TestAccount
    carol: TestAccount
    """An administrator."""
    network: TestAccount
    local: TestAccount

    def bits(self, *words: str, account: TestAccount | None = None) -> str:
        return self.daemon.bits(*words, account=account, check=True).stdout

    def refusal(self, *words: str, account: TestAccount | None = None) -> tuple[int, str]:
        done = self.daemon.bits(*words, account=account)
        return done.returncode, done.stderr.split(" ")[1] if done.stderr else ""

    def settings(self, name: str | None = None, account: TestAccount | None = None) -> dict[str, str]:
        more = [] if name is None else ["--account", name]
        found: dict[str, str] = json.loads(self.bits("proxy", "show", "--json", *more, account=account))
        return found

    def begin(self, account: TestAccount | None, target: str, host: str, **properties: str) -> str:
        """Start a job of an account for a host that exists for proxies only; return its id."""
        home = account.home if account is not None else self.daemon.base
        job: str = json.loads(self.bits("create", "--json", target, account=account))["id"]
        self.bits("add", job, f"http://{host}/gen/{SIZE}/1", os.path.join(home, target), account=account)
        if properties:
            self.bits("set", job, *(f"{key}={value}" for key, value in properties.items()), account=account)
        self.bits("set", job, "priority=foreground", account=account)
        self.bits("resume", job, account=account)
        return job

    def end(self, job: str) -> dict[str, object]:
        return self.daemon.wait_state(job, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")

    def used(self, job: str) -> str:
        """What `bits show` says of the proxy."""
        return str(self.daemon.show(job)["proxy_in_use"])


@contextlib.contextmanager
def house(trap: ProxyServer) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        alice, bob, network, local = (
            stack.enter_context(temporary_account(system=system)) for system in (False, False, True, True)
        )
        carol = stack.enter_context(temporary_account(extra_groups=1))
        [group] = set(carol.groups) - {carol.gid}
        origin = stack.enter_context(Origin())
        administrators = grp.getgrgid(group).gr_name
        config = (
            f'[accounts]\nadministrators_group = "{administrators}"\nnetwork_service = ["{network.name}"]\n'
            "[timeouts]\nbreak_patience_s = 1\n"
        )
        environment = dict.fromkeys(ENVIRONMENT_NAMES, f"http://{trap.place}")
        daemon = stack.enter_context(running_daemon("system", config=config, environment=environment))
        yield House(
            daemon=daemon, origin=origin, trap=trap, alice=alice, bob=bob, carol=carol, network=network, local=local
        )


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    """One daemon for all tests; each test sets what it needs and resets it."""
    with ProxyServer() as trap, house(trap) as one:
        yield one
        assert trap.connections == 0, "the environment of the service was read"


@pytest.fixture(autouse=True)
def everything_reset(home: House) -> Iterator[None]:
    yield
    accounts = [home.alice.name, home.bob.name, home.network.name, home.local.name, "NETWORKSERVICE", "LOCALSERVICE"]
    for name in [*accounts, "LOCALSYSTEM"]:
        home.bits("proxy", "reset", "--account", name)
    for account in (home.alice, home.bob):
        shutil.rmtree(os.path.join(account.home, ".config"), ignore_errors=True)


@contextlib.contextmanager
def proxies(home: House, *names: str) -> Iterator[Mapping[str, ProxyServer]]:
    """A proxy for each name, which finds `NAME.test` at the origin."""
    with contextlib.ExitStack() as stack:
        hosts = {f"{name}.test": home.origin.port for name in ("alice", "bob", "root", "network", "local", "any")}
        yield {name: stack.enter_context(ProxyServer(hosts=hosts)) for name in names}


def assert_fetched(home: House, account: TestAccount | None, target: str, job: str) -> None:
    """The job is here, whole; it is completed."""
    ended = home.end(job)
    assert ended["state"] == "TRANSFERRED", ended["error"]
    home.bits("complete", job, account=account)
    directory = account.home if account is not None else home.daemon.base
    with open(os.path.join(directory, target), "rb") as file:
        assert file.read() == generate(SIZE, 1)


# --- rule 7 ----------------------------------------------------------------------------------------


@needs_dconf
def test_rule_7_jobs_of_five_accounts_at_once_each_by_its_own_proxy(home: House) -> None:
    """Alice's desktop, bob's own settings, and those of the three kinds of services; the logs tell who came where."""
    with proxies(home, "desktop", "bob", "root", "network", "local") as by:
        settings = manual("127.0.0.1", by["desktop"].port, ignore_hosts="@as []")
        give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
        home.bits("proxy", "set", "manual_proxy", by["bob"].place, account=home.bob)
        for name in ("root", "network", "local"):
            account = {"root": "LOCALSYSTEM", "network": "NETWORKSERVICE", "local": "LOCALSERVICE"}[name]
            home.bits("proxy", "set", "manual_proxy", by[name].place, "--account", account)
        owners = {"alice": home.alice, "bob": home.bob, "root": None, "network": home.network, "local": home.local}
        jobs = {name: home.begin(owner, f"five-{name}", f"{name}.test") for name, owner in owners.items()}
        for name, job in jobs.items():
            home.end(job)
            way = home.used(job)
            place = by["desktop" if name == "alice" else name].place
            assert way.startswith(f"through the proxy http://{place} (")
            assert_fetched(home, owners[name], f"five-{name}", job)
        asked = {name: proxy.hosts_asked for name, proxy in by.items()}
        assert asked == {
            "desktop": {"alice.test"},
            "bob": {"bob.test"},
            "root": {"root.test"},
            "network": {"network.test"},
            "local": {"local.test"},
        }


def test_i17_a_service_account_has_no_proxy_until_it_is_given_one(home: House) -> None:
    host = f"127.0.0.1:{home.origin.port}"
    with proxies(home, "kind", "own") as by:
        job = home.begin(home.network, "first", host)
        assert_fetched(home, home.network, "first", job)
        assert not by["kind"].requests
        home.bits("proxy", "set", "manual_proxy", by["kind"].place, "--account", "NetworkService", account=home.carol)
        assert_fetched(home, home.network, "second", home.begin(home.network, "second", "network.test"))
        # Its own settings go before those of its kind; its own NO_PROXY too.
        home.bits("proxy", "set", "manual_proxy", by["own"].place, account=home.network)
        assert_fetched(home, home.network, "third", home.begin(home.network, "third", "any.test"))
        home.bits("proxy", "set", "no_proxy", account=home.network)
        assert_fetched(home, home.network, "fourth", home.begin(home.network, "fourth", host))
        assert (by["kind"].hosts_asked, by["own"].hosts_asked) == ({"network.test"}, {"any.test"})
        # And other kinds do not care.
        assert_fetched(home, home.local, "fifth", home.begin(home.local, "fifth", host))


def test_j22_a_job_says_for_itself_what_its_account_does_not(home: House) -> None:
    host = f"127.0.0.1:{home.origin.port}"
    with proxies(home, "account", "job") as by:
        home.bits("proxy", "set", "manual_proxy", by["account"].place, account=home.bob)
        given = {"proxy_usage": "override", "proxy_list": f"http={by['job'].place} https=127.0.0.1:1"}
        assert_fetched(home, home.bob, "override", home.begin(home.bob, "override", "bob.test", **given))
        assert_fetched(home, home.bob, "none", home.begin(home.bob, "none", host, proxy_usage="no_proxy"))
        bypassed = {**given, "proxy_bypass_list": "127.0.0.0/8"}
        assert_fetched(home, home.bob, "bypass", home.begin(home.bob, "bypass", host, **bypassed))
        assert by["job"].hosts_asked == {"bob.test"}
        assert not by["account"].requests


def test_j22_lists_are_judged_when_the_job_runs(home: House) -> None:
    job = home.begin(home.bob, "wrong", "bob.test", proxy_usage="override", proxy_list="p::::1")
    ended = home.end(job)
    error = ended["error"]
    assert isinstance(error, dict)
    assert (ended["state"], error["code"]) == ("ERROR", "BG_E_INVALID_PROXY_INFO")
    assert "the job's own proxy list" in error["message"]
    assert "p::::1" in home.bits("why", job, account=home.bob)
    with proxies(home, "right") as by:
        home.bits("set", job, f"proxy_list={by['right'].place}", account=home.bob)
        home.bits("resume", job, account=home.bob)
        assert_fetched(home, home.bob, "wrong", job)


def test_i20_a_script_that_cannot_be_fetched_is_an_error_and_never_a_direct_connection(home: House) -> None:
    before = len(home.origin.requests)
    home.bits("proxy", "set", "autoscript", "http://127.0.0.1:1/pac", account=home.bob)
    job = home.begin(home.bob, "auto", f"127.0.0.1:{home.origin.port}")
    ended = home.end(job)
    error = ended["error"]
    assert isinstance(error, dict)
    assert (ended["state"], error["code"]) == ("TRANSIENT_ERROR", "BG_E_INVALID_PROXY_INFO")
    assert f"{home.bob.name}'s own proxy settings" in error["message"]
    assert len(home.origin.requests) == before
    home.bits("cancel", job, account=home.bob)


# --- the desktop -----------------------------------------------------------------------------------


@needs_dconf
def test_rule_7_the_desktop_is_read_with_the_accounts_rights_and_by_no_others(home: House) -> None:
    """Alice's home is 0700; her settings are hers, also when bob puts a link to them into his."""
    with proxies(home, "alice") as by:
        settings = manual("127.0.0.1", by["alice"].port)
        path = give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
        assert os.stat(home.alice.home).st_mode & 0o777 == 0o700
        assert_fetched(home, home.alice, "d1", home.begin(home.alice, "d1", "alice.test"))
        os.makedirs(os.path.join(home.bob.home, ".config", "dconf"))
        os.symlink(path, os.path.join(home.bob.home, ".config", "dconf", "user"))
        before = len(home.origin.requests)
        job = home.begin(home.bob, "d2", f"127.0.0.1:{home.origin.port}")
        ended = home.end(job)
        error = ended["error"]
        assert isinstance(error, dict)
        assert (ended["state"], error["code"]) == ("TRANSIENT_ERROR", "BG_E_INVALID_PROXY_INFO")
        assert len(home.origin.requests) == before
        assert by["alice"].hosts_asked == {"alice.test"}
        home.bits("cancel", job, account=home.bob)


@needs_dconf
def test_rule_7_own_settings_go_before_the_desktops_and_reset_brings_those_back(home: House) -> None:
    with proxies(home, "desktop", "own") as by:
        settings = manual("127.0.0.1", by["desktop"].port)
        give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
        home.bits("proxy", "set", "manual_proxy", by["own"].place, account=home.alice)
        assert_fetched(home, home.alice, "o1", home.begin(home.alice, "o1", "alice.test"))
        assert (len(by["own"].requests), len(by["desktop"].requests)) == (1, 0)
        home.bits("proxy", "reset", account=home.alice)
        assert_fetched(home, home.alice, "o2", home.begin(home.alice, "o2", "alice.test"))
        assert (len(by["own"].requests), len(by["desktop"].requests)) == (1, 1)


def test_a_hostile_desktop_costs_its_account_the_transfer_and_nobody_else_anything(home: House) -> None:
    directory = os.path.join(home.alice.home, ".config", "dconf")
    os.makedirs(directory)
    with open(os.path.join(directory, "user"), "wb") as file:
        file.write(b"GVariant" + bytes(range(256)) * 40)
    host = f"127.0.0.1:{home.origin.port}"
    job = home.begin(home.alice, "h1", host)
    ended = home.end(job)
    error = ended["error"]
    assert isinstance(error, dict)
    assert (ended["state"], error["code"]) == ("ERROR", "BG_E_INVALID_PROXY_INFO")
    assert_fetched(home, home.bob, "h2", home.begin(home.bob, "h2", host))
    home.bits("cancel", job, account=home.alice)


# --- setting them ------------------------------------------------------------------------------------


def test_i20_a_usage_that_is_switched_off_keeps_its_parameters_until_reset(home: House) -> None:
    home.bits("proxy", "set", "manual_proxy", "p:1,q:2", "<local>", "--account", "localservice")
    home.bits("proxy", "set", "autoscript", "http://w/pac", "--account", "LOCALSERVICE")
    home.bits("proxy", "set", "no_proxy", "--account", "LocalService")
    found = home.settings("LOCALSERVICE")
    assert (found["usage"], found["proxy_list"], found["bypass_list"]) == ("no_proxy", "p:1 q:2", "<local>")
    assert found["script_url"] == "http://w/pac"
    home.bits("proxy", "set", "manual_proxy", "--account", "LOCALSERVICE")
    assert home.settings("LOCALSERVICE")["usage"] == "manual_proxy"
    home.bits("proxy", "reset", "--account", "LOCALSERVICE")
    found = home.settings("LOCALSERVICE")
    assert [found[name] for name in ("usage", "proxy_list", "bypass_list", "script_url")] == ["no_proxy", "", "", ""]
    home.bits("proxy", "set", "no_proxy", account=home.bob)
    home.bits("proxy", "reset", account=home.bob)
    assert home.settings(account=home.bob)["usage"] is None
    assert "desktop" in home.settings(account=home.bob)["applies_to"]


def test_a4_who_may_see_and_set_whose_settings(home: House) -> None:
    built_in = ("LOCALSYSTEM", "NETWORKSERVICE", "LOCALSERVICE")
    denied = (4, "E_ACCESSDENIED")
    for account in (home.alice, home.network):
        for name in (*built_in, home.bob.name, "root", "no-such-account"):
            assert home.refusal("proxy", "show", "--account", name, account=account) == denied
            assert home.refusal("proxy", "set", "no_proxy", "--account", name, account=account) == denied
            assert home.refusal("proxy", "reset", "--account", name, account=account) == denied
        assert home.settings(account.name, account=account)["account"] == account.name
    for name in (*built_in, "root", home.alice.name):
        home.settings(name, account=home.carol)
    for name in ("NETWORKSERVICE", "LOCALSERVICE", home.alice.name, str(home.alice.uid)):
        home.bits("proxy", "set", "no_proxy", "--account", name, account=home.carol)
    assert home.settings(account=home.alice)["usage"] == "no_proxy"
    for name in ("LOCALSYSTEM", "root", "0"):
        assert home.refusal("proxy", "set", "no_proxy", "--account", name, account=home.carol) == denied
        assert home.refusal("proxy", "reset", "--account", name, account=home.carol) == denied
    home.bits("proxy", "set", "autodetect")
    assert home.settings("LOCALSYSTEM")["usage"] == home.settings("root")["usage"] == "autodetect"
    assert home.refusal("proxy", "show", "--account", "no-such-account") == (2, "E_INVALIDARG")


def test_settings_outlive_a_restart_and_a_kill(home: House) -> None:
    with proxies(home, "kept") as by:
        home.bits("proxy", "set", "manual_proxy", by["kept"].place, account=home.bob)
        home.daemon.kill()
        home.daemon.start()
        assert home.settings(account=home.bob)["proxy_list"] == by["kept"].place
        assert_fetched(home, home.bob, "k1", home.begin(home.bob, "k1", "bob.test"))
        home.bits("proxy", "set", "autodetect", account=home.bob)
        home.daemon.stop()
        home.daemon.start()
        found = home.settings(account=home.bob)
        assert (found["usage"], found["proxy_list"]) == ("autodetect", by["kept"].place)


# --- what is said, and what the environment does -------------------------------------------------------


def test_show_and_why_say_which_proxy_is_used_and_whose_settings(home: House) -> None:
    with proxies(home, "slow") as by:
        home.bits("proxy", "set", "manual_proxy", by["slow"].place, account=home.bob)
        job: str = json.loads(home.bits("create", "--json", "slow", account=home.bob))["id"]
        home.bits("add", job, "http://bob.test/gen/9000000/1?rate=200000", f"{home.bob.home}/slow", account=home.bob)
        home.bits("resume", job, account=home.bob)
        home.daemon.wait_state(job, "TRANSFERRING")
        way = f"through the proxy http://{by['slow'].place} ({home.bob.name}'s own proxy settings)"
        assert way in home.bits("why", job, account=home.bob)
        assert way in home.bits("show", job, account=home.bob)
        home.bits("cancel", job, account=home.bob)


def test_the_environment_of_the_service_is_never_read(home: House) -> None:
    """The daemon runs with all variables set to a trap; every kind of account has just fetched something without it."""
    host = f"127.0.0.1:{home.origin.port}"
    for name, owner in (("root", None), ("bob", home.bob), ("network", home.network), ("local", home.local)):
        assert_fetched(home, owner, f"env-{name}", home.begin(owner, f"env-{name}", host))
        assert home.trap.connections == 0
    pid = home.daemon.process_named("bitsd").pid
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert b"http_proxy=http://127.0.0.1" in file.read()


def test_rule_7_bits_get_carries_the_shells_proxies_into_the_job_and_says_so(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxies(home, "shell") as by:
        monkeypatch.setenv("http_proxy", f"http://user:secret@{by['shell'].place}")
        target = os.path.join(home.bob.home, "shell")
        done = home.daemon.bits(
            "get", f"http://bob.test/gen/{SIZE}/1", "-o", target, "-q", account=home.bob, check=True
        )
        assert done.stderr.count("\n") == 1
        assert by["shell"].place in done.stderr
        assert "secret" not in done.stderr
        assert by["shell"].hosts_asked == {"bob.test"}
        assert "proxy-authorization" not in by["shell"].requests[0].headers
        host = f"127.0.0.1:{home.origin.port}"
        words = ["get", f"http://{host}/gen/{SIZE}/1", "-o", f"{target}2", "-q", "--no-proxy-env"]
        assert home.daemon.bits(*words, account=home.bob, check=True).stderr == ""
        assert len(by["shell"].requests) == 1


def test_settings_of_a_job_are_in_its_api_and_nothing_names_the_trap(home: House) -> None:
    job = home.begin(home.bob, "api", "bob.test", proxy_usage="override", proxy_list="127.0.0.1:1")
    home.end(job)
    detail = home.daemon.session.perform(calls.job(job))
    assert (detail["settings"]["proxy_usage"], detail["settings"]["proxy_list"]) == ("override", "127.0.0.1:1")
    assert detail["settings"]["proxy_bypass_list"] is None
    assert str(home.trap.port) not in json.dumps(detail)
    home.bits("cancel", job, account=home.bob)


# --- helpers (I15, T3) ---------------------------------------------------------------------------------


@needs_dconf
def test_i15_a_network_helper_lends_its_proxy_settings_and_a_helper_for_files_does_not(home: House) -> None:
    """A job of NETWORK_SERVICE: by the proxy of its kind, then by alice's desktop's, which only she can read."""
    with proxies(home, "kind", "desktop") as by:
        home.bits("proxy", "set", "manual_proxy", by["kind"].place, "--account", "NETWORKSERVICE")
        settings = manual("127.0.0.1", by["desktop"].port)
        give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
        for flags, account in ((LOCAL_FILE, home.alice), (NETWORK, home.network)):
            with helped_job(home.daemon, home.network, priority="foreground") as helped:
                helped.help_by(home.alice, flags)
                helped.add(
                    f"http://any.test/gen/{SIZE}/{int(flags)}", os.path.join(account.home, f"helped{int(flags)}")
                )
                helped.resume()
                with acting(home.network):
                    job = helped.job.id
                assert home.end(job)["state"] == "TRANSFERRED"
                whose = "NETWORKSERVICE" if flags is LOCAL_FILE else f"the desktop settings of {home.alice.name}"
                assert whose in home.used(job)
                helped.complete()
        assert [target.rpartition("/")[2] for target in by["kind"].targets] == [str(int(LOCAL_FILE))]
        assert [target.rpartition("/")[2] for target in by["desktop"].targets] == [str(int(NETWORK))]
