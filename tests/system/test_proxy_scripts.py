"""PAC with the real daemon, real accounts, a real nginx that has the script, and real proxies.

J22, J23, I15, I17, I18, I20.  Which proxy is used and why can be seen; evaluators are processes of the account that
speaks to the network, have no rights, and end with their run; a bomb costs one job its run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, Process, is_alive, processes_of, running_daemon, wait_until
from support.dante import needs_dante, running_dante
from support.desktops import give_desktop, needs_dconf
from support.helping import NETWORK, acting, helped_job
from support.nginx import Nginx, running_nginx
from support.open_squid import OpenSquid, running_open_squid
from support.squid import needs_squid

pytestmark = [needs_root, needs_squid]

SIZE = 60_000
PAC = "function FindProxyForURL(url, host) {%s}"


@dataclass(frozen=True, kw_only=True)
class House:
    """Everyone who lives here."""

    daemon: Daemon
    nginx: Nginx
    squid: OpenSquid
    alice: TestAccount
    bob: TestAccount

    def script(self, name: str, body: str) -> str:
        """Let nginx have a script; return its address."""
        with open(os.path.join(self.nginx.root, name), "w", encoding="utf-8") as file:
            file.write(PAC % body)
        return self.nginx.url(name)

    def own(self, account: TestAccount, url: str) -> None:
        """Let an account's own settings be a script."""
        self.daemon.bits("proxy", "set", "autoscript", url, account=account, check=True)

    def begin(self, account: TestAccount, name: str, url: str) -> str:
        job: str = json.loads(self.daemon.bits("create", "--json", name, account=account, check=True).stdout)["id"]
        self.daemon.bits("add", job, url, os.path.join(account.home, name), account=account, check=True)
        self.daemon.bits("set", job, "priority=foreground", account=account, check=True)
        self.daemon.bits("resume", job, account=account, check=True)
        return job

    def end(self, job: str) -> dict[str, Any]:
        return self.daemon.wait_state(job, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")

    def evaluators(self, account: TestAccount) -> list[Process]:
        return [process for process in processes_of(account.uid) if process.name == "bitsd-pac"]

    def used(self, job: str) -> str:
        return str(self.daemon.show(job)["proxy_in_use"])


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        alice, bob = (stack.enter_context(temporary_account()) for _ in range(2))
        nginx = stack.enter_context(running_nginx())
        nginx.add("content", SIZE)
        nginx.add("large", 30_000_000)
        squid = stack.enter_context(running_open_squid())
        daemon = stack.enter_context(running_daemon("system", config="[timeouts]\nbreak_patience_s = 1\n"))
        yield House(daemon=daemon, nginx=nginx, squid=squid, alice=alice, bob=bob)


@pytest.fixture(autouse=True)
def everything_reset(home: House) -> Iterator[None]:
    yield
    for account in (home.alice, home.bob):
        home.daemon.bits("proxy", "reset", account=account, check=True)
        shutil.rmtree(os.path.join(account.home, ".config"), ignore_errors=True)
    wait_until(lambda: not any(map(home.evaluators, (home.alice, home.bob))), "the evaluators to end")


def test_i20_an_accounts_script_leads_through_the_proxy_and_show_and_why_say_so(home: House) -> None:
    url = home.script("own.pac", f"return 'PROXY {home.squid.place}'")
    home.own(home.alice, url)
    job = home.begin(home.alice, "own", home.nginx.url("content"))
    assert home.end(job)["state"] == "TRANSFERRED"
    way = f"through the proxy http://{home.squid.place} ({home.alice.name}'s own proxy settings: PAC {url})"
    assert home.used(job) == way
    assert way in home.daemon.bits("show", job, account=home.alice, check=True).stdout
    assert f"200 GET {home.nginx.url('content')}" in home.squid.passed()
    # The script itself was fetched without it.
    assert not [line for line in home.squid.passed() if "own.pac" in line]


@needs_dconf
def test_i15_the_desktops_script_is_followed(home: House) -> None:
    url = home.script("desktop.pac", f"return 'PROXY {home.squid.place}'")
    settings = {"system/proxy/mode": "'auto'", "system/proxy/autoconfig-url": f"'{url}'"}
    give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
    job = home.begin(home.alice, "desktop", home.nginx.url("content"))
    assert home.end(job)["state"] == "TRANSFERRED"
    assert home.used(job) == (
        f"through the proxy http://{home.squid.place} (the desktop settings of {home.alice.name}: PAC {url})"
    )


@needs_dconf
def test_i15_i18_with_a_network_helper_the_helpers_worker_does_all_of_it(home: House) -> None:
    url = home.script("helper.pac", f"return 'PROXY {home.squid.place}'")
    settings = {"system/proxy/mode": "'auto'", "system/proxy/autoconfig-url": f"'{url}'"}
    give_desktop(home.alice.home, settings, uid=home.alice.uid, gid=home.alice.gid)
    with helped_job(home.daemon, home.bob, priority="foreground") as helped:
        helped.help_by(home.alice, NETWORK)
        helped.add(home.nginx.url("large", rate_bps=200_000), os.path.join(home.bob.home, "helped"))
        helped.resume()
        wait_until(lambda: home.evaluators(home.alice), "the helper's evaluator")
        assert home.evaluators(home.bob) == []
        with acting(home.bob):
            job = helped.job.id
        wait_until(lambda: home.used(job) != "None", "the first answer")
        assert f"the desktop settings of {home.alice.name}: PAC {url}" in home.used(job)
        with acting(home.bob):
            helped.job.cancel()


def test_an_evaluator_has_nothing_of_the_account_and_ends_with_the_run(home: House) -> None:
    home.own(home.alice, home.script("rights.pac", f"return 'PROXY {home.squid.place}'"))
    job = home.begin(home.alice, "rights", home.nginx.url("large", rate_bps=200_000))
    try:
        wait_until(lambda: home.evaluators(home.alice), "the evaluator")
        [evaluator] = home.evaluators(home.alice)
        # Before its first answer it is still giving things up.
        wait_until(lambda: home.used(job) != "None", "the first answer")
        with open(f"/proc/{evaluator.pid}/status", encoding="utf-8") as file:
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
        assert {int(value) for value in status["Uid"].split()} == {home.alice.uid}
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        assert os.listdir(f"/proc/{evaluator.pid}/fd") == ["0"]
        why = home.daemon.bits("why", job, account=home.alice, check=True).stdout
        assert (
            f"it goes through the proxy http://{home.squid.place} ({home.alice.name}'s own proxy settings: PAC " in why
        )
        # Beside it the account has one worker, as ever.
        assert [process.name for process in processes_of(home.alice.uid)].count("bitsd-worker") == 1
        home.daemon.bits("suspend", job, account=home.alice, check=True)
        wait_until(lambda: not is_alive(evaluator), "the evaluator to end")
    finally:
        home.daemon.bits("cancel", job, account=home.alice)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("while (1);", "limits"),
        ("var s = 'a'; while (1) s += s", "too long"),
        ("function f() { f() } f()", "stack"),
        ("return /(a+)+$/.test('a'.repeat(40) + 'b')", "limits"),
        ("for (var i = 0; i < 1e9; i++) dnsResolve('no-such-' + i + '.invalid')", "100 names"),
        ("return 'x'.repeat(1 << 29)", "out of memory"),
        ("return 'PROXY'", "one host:port"),
        ("return 'DIRECTLY'", "DIRECTLY"),
    ],
)
def test_a_bomb_costs_its_job_the_run_and_nobody_else_anything(home: House, body: str, words: str) -> None:
    home.own(home.alice, home.script("bomb.pac", body))
    before = len(home.nginx.asked("large"))
    bomb = home.begin(home.alice, "bomb", home.nginx.url("large"))
    other = home.begin(home.bob, "other", home.nginx.url("content"))
    assert home.end(other)["state"] == "TRANSFERRED"
    ended = home.end(bomb)
    assert (ended["state"], ended["error"]["code"]) == ("ERROR", "BG_E_INVALID_PROXY_INFO")
    for word in (words, f"{home.alice.name}'s own proxy settings", "bomb.pac"):
        assert word in ended["error"]["message"]
    assert len(home.nginx.asked("large")) == before
    wait_until(lambda: not home.evaluators(home.alice), "the evaluator to end")
    # The worker was neither killed nor taken for broken: the next job is its.
    home.daemon.bits("proxy", "set", "no_proxy", account=home.alice, check=True)
    home.daemon.bits("resume", bomb, account=home.alice, check=True)
    assert home.end(bomb)["state"] == "TRANSFERRED"
    for job, account in ((bomb, home.alice), (other, home.bob)):
        home.daemon.bits("cancel", job, account=account, check=True)
    assert home.daemon.log is not None
    assert "worker-misspoke" not in home.daemon.log.text


def test_a_script_that_cannot_be_fetched_is_tried_again_later(home: House) -> None:
    home.own(home.alice, "http://no-such-host.invalid/proxy.pac")
    job = home.begin(home.alice, "unfetched", home.nginx.url("content"))
    ended = home.end(job)
    assert (ended["state"], ended["error"]["code"]) == ("TRANSIENT_ERROR", "BG_E_INVALID_PROXY_INFO")
    home.own(home.alice, home.script("fetched.pac", "return 'DIRECT'"))
    home.daemon.bits("resume", job, account=home.alice, check=True)
    assert home.end(job)["state"] == "TRANSFERRED"
    assert home.used(job).startswith("without a proxy (")


def test_j22_an_uploads_requests_are_asked_for_too(home: House) -> None:
    home.own(home.alice, home.script("upload.pac", f"return 'PROXY {home.squid.place}'"))
    source = os.path.join(home.alice.home, "source")
    with open(source, "wb") as file:
        file.write(b"x" * 100_000)
    os.chown(source, home.alice.uid, home.alice.gid)
    url = home.nginx.url("uploaded")
    done = home.daemon.bits("put", source, url, "--protocol", "put", account=home.alice)
    assert done.returncode == 0, done.stderr
    assert any(f"PUT {url}" in line for line in home.squid.passed())


@needs_dante
def test_j23_a_job_goes_through_a_real_socks_server(home: House) -> None:
    with running_dante() as dante:
        url = home.nginx.url("content").replace("127.0.0.1", "localhost")
        created = home.daemon.bits("create", "--json", "socks", account=home.alice, check=True).stdout
        job: str = json.loads(created)["id"]
        home.daemon.bits("add", job, url, os.path.join(home.alice.home, "socks"), account=home.alice, check=True)
        settings = ("proxy_usage=override", f"proxy_list=socks5://{dante.place}")
        home.daemon.bits("set", job, *settings, account=home.alice, check=True)
        home.daemon.bits("resume", job, account=home.alice, check=True)
        ended = home.end(job)
        assert ended["state"] == "TRANSFERRED", ended["error"]
        assert home.used(job) == f"through the proxy socks5://{dante.place} (the job's own proxy list)"
        wait_until(lambda: f" 127.0.0.1.{home.nginx.port}\n" in dante.said(), "Dante to write its log")


def test_the_doctor_says_whether_scripts_can_be_evaluated(home: House) -> None:
    [check] = [check for check in home.daemon.doctor() if check["name"] == "proxy scripts"]
    assert check["ok"]
    assert "quickjs-ng" in check["message"]
    assert "seccomp" in check["message"]


def test_a_service_that_stops_waits_for_no_script() -> None:
    with temporary_account() as account, running_nginx() as nginx, running_daemon("system") as daemon:
        with open(os.path.join(nginx.root, "p.pac"), "w", encoding="utf-8") as file:
            file.write(PAC % "while (1);")
        daemon.bits("proxy", "set", "autoscript", nginx.url("p.pac"), account=account, check=True)
        job: str = json.loads(daemon.bits("create", "--json", "stopped", account=account, check=True).stdout)["id"]
        target = os.path.join(account.home, "stopped")
        daemon.bits("add", job, nginx.url("content"), target, account=account, check=True)
        daemon.bits("set", job, "priority=foreground", account=account, check=True)
        daemon.bits("resume", job, account=account, check=True)

        def spinning() -> list[Process]:
            return [process for process in processes_of(account.uid) if process.name == "bitsd-pac"]

        wait_until(spinning, "the evaluator")
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 10
        assert spinning() == []
