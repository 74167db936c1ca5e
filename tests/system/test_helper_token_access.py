"""Who may give whom as a helper, how long that lasts, and what somebody who stole the access gets (I7, T1-T4).

Real accounts, the real daemon and its log; nothing here depends on what a client says of itself.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from openbits import BitsError
from openbits.client import calls
from openbits.client.identity import current_identity
from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account
from support.daemon import Daemon, processes_of, running_daemon, wait_until
from support.fake_logind import FakeLogind, fake_logind, private_bus
from support.helping import LOCAL_FILE, NETWORK, acting, helped_job, options_of
from support.origin import Origin, generate

pytestmark = needs_root

SIZE = 6_000_000
RATE_BPS = 2_000_000
A_SECOND_OR_SO = 1.5
CONFIG = """
[accounts]
administrators_group = "{group}"

[logon]
provider = "{provider}"

[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def system() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def carol() -> Iterator[TestAccount]:
    """An administrator: a member of the group that the configuration names."""
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def daemon(carol: TestAccount) -> Iterator[Daemon]:
    [gid] = set(carol.groups) - {carol.gid}
    with running_daemon(config=CONFIG.format(group=grp.getgrgid(gid).gr_name, provider="always")) as running:
        yield running


def fails(name: str) -> Any:
    return pytest.raises(BitsError, match=name)


def capability_of(options: object) -> str:
    """What the options stand for; a thief reads it out of somebody's memory."""
    capability: str = options._capability  # type: ignore[attr-defined]  # private
    return capability


# --- obtaining the options ----------------------------------------------------------------------------------------


def test_i7_only_the_owner_obtains_the_options_not_even_root(
    daemon: Daemon, alice: TestAccount, mallory: TestAccount, carol: TestAccount
) -> None:
    with helped_job(daemon, owner=alice) as helped:
        for stranger in (None, mallory, carol):
            with acting(stranger), fails("E_ACCESSDENIED"):
                options_for(daemon, helped.job.id)
        with fails("BG_E_NOT_FOUND"):
            options_for(daemon, "00000000-0000-0000-0000-000000000000")
        with acting(alice):
            helped.job.cancel()
            with fails("BG_E_INVALID_STATE"):
                helped.job.token_options()


def options_for(daemon: Daemon, job_id: str) -> str:
    """Ask for a job's options as whoever calls, without going through the job."""
    return daemon.session.perform(calls.token_options(job_id), current_identity())


def test_t4_what_is_shown_is_whose_token_it_is_and_never_more(
    daemon: Daemon, alice: TestAccount, mallory: TestAccount
) -> None:
    with helped_job(daemon, owner=alice) as helped, acting(alice):
        assert (helped.options.get_helper_token_sid(), helped.options.get_helper_token_flags()) == (None, 0)
        helped.help_by(mallory, NETWORK)
        assert helped.options.get_helper_token_sid() == f"uid:{mallory.uid}"
        assert helped.options.get_helper_token_flags() == NETWORK


def test_t3_flags_that_do_not_exist(daemon: Daemon) -> None:
    with helped_job(daemon) as helped:
        for flags in (4, 8, 7, -1, 2**40):
            with fails("E_INVALIDARG"):
                helped.options.set_helper_token_flags(flags)
        assert helped.options.get_helper_token_flags() == 0


# --- who helps ----------------------------------------------------------------------------------------------------


def test_t1_an_administrator_helps_administrators_only(
    daemon: Daemon, alice: TestAccount, carol: TestAccount, system: TestAccount
) -> None:
    with helped_job(daemon, owner=alice) as helped:
        for administrator in (None, carol):
            with fails("E_ACCESSDENIED"):
                helped.help_by(administrator)
        with acting(alice):
            assert helped.options.get_helper_token_sid() is None
        helped.help_by(system)  # a LOCAL_SERVICE account has no rights that could be abused
    for owner in (None, carol):
        with helped_job(daemon, owner=owner) as helped:
            helped.help_by(None if owner else carol)
            with acting(owner):
                assert helped.options.get_helper_token_sid() == f"uid:{0 if owner else carol.uid}"


def test_t1_the_services_own_account_helps_nobody(daemon: Daemon) -> None:
    service = ensure_service_account()
    own = TestAccount(
        name=service.pw_name, uid=service.pw_uid, gid=service.pw_gid, groups=(service.pw_gid,), home=service.pw_dir
    )
    with helped_job(daemon) as helped:
        with fails("E_ACCESSDENIED"):
            helped.help_by(own)
        assert helped.options.get_helper_token_sid() is None


def test_a_stolen_capability_gives_the_thief_nothing_but_himself(
    daemon: Daemon, origin: Origin, alice: TestAccount, mallory: TestAccount
) -> None:
    """He can give his own identity. He cannot name another, see the job, or use what the owner has."""
    path = os.path.join(alice.home, "file")
    with helped_job(daemon, owner=alice) as helped:
        helped.add(origin.url(f"/gen/{SIZE}/1?rate={RATE_BPS}"), path)
        stolen = capability_of(helped.options)
        said = daemon.bits("show", helped.job.id, account=mallory)
        assert "E_ACCESSDENIED" in said.stderr
        for body in ({"sid": f"uid:{alice.uid}"}, {"uid": 0}):
            assert request_as(daemon, mallory, "PUT", f"/v1/token-options/{stolen}/helper", body)["result"] == "S_OK"
            with acting(alice):
                assert helped.options.get_helper_token_sid() == f"uid:{mallory.uid}"
        request_as(daemon, mallory, "PUT", f"/v1/token-options/{stolen}/flags", {"flags": 3})
        helped.resume()
        error = daemon.wait_state(helped.job.id, "ERROR")["error"]
        # With mallory's rights, which do not lead into alice's home.
        assert (error["code"], error["context"]) == ("E_ACCESSDENIED", "LOCAL_FILE")
        assert os.listdir(alice.home) == []


@pytest.mark.parametrize("guess", ["", "x", "A" * 43, "%00", "..", "é" * 10, "a" * 4000])
def test_an_unknown_capability_is_no_capability(daemon: Daemon, mallory: TestAccount, guess: str) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "/helper", None),
        ("DELETE", "/helper", None),
        ("PUT", "/flags", {"flags": 1}),
    ):
        answer = request_as(daemon, mallory, method, f"/v1/token-options/{quote(guess)}{path}", body)
        assert answer["code"] in ("RPC_E_DISCONNECTED", "E_INVALIDARG")
        assert guess == "" or guess not in json.dumps(answer) or len(guess) == 1


def test_capabilities_are_long_different_and_in_no_log(daemon: Daemon, alice: TestAccount) -> None:
    with helped_job(daemon, owner=alice) as helped, acting(alice):
        known = {capability_of(helped.job.token_options()) for _ in range(5)}
        helped.options.set_helper_token()
    assert len(known) == 5
    assert all(len(one) == 43 for one in known)
    assert daemon.log is not None
    assert not any(one in daemon.log.text for one in known)
    for name in os.listdir(daemon.state_dir):
        with open(os.path.join(daemon.state_dir, name), "rb") as file, contextlib.suppress(IsADirectoryError):
            stored = file.read()
            assert not any(one.encode() in stored for one in known)


def test_a_job_remembers_its_last_sixteen_options(daemon: Daemon) -> None:
    with helped_job(daemon) as helped:
        others = [options_of(helped.job) for _ in range(16)]
        with fails("RPC_E_DISCONNECTED"):
            helped.options.get_helper_token_sid()
        for options in others:
            options.set_helper_token()


def test_options_end_with_the_job(daemon: Daemon, alice: TestAccount) -> None:
    with helped_job(daemon, owner=alice) as helped:
        helped.help_by(alice, LOCAL_FILE)
        with acting(alice):
            helped.job.cancel()
            for call in (
                helped.options.get_helper_token_sid,
                helped.options.set_helper_token,
                helped.options.clear_helper_token,
                lambda: helped.options.set_helper_token_flags(0),
            ):
                with fails("RPC_E_DISCONNECTED"):
                    call()


# --- log-off ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def with_logind() -> Iterator[tuple[Daemon, FakeLogind]]:
    with (
        private_bus() as bus,
        fake_logind(bus) as logind,
        running_daemon(
            config=CONFIG.format(group="root", provider="logind"),
            environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        ) as daemon,
    ):
        yield daemon, logind


@pytest.fixture(scope="module")
def logged() -> Iterator[tuple[Daemon, FakeLogind]]:
    with with_logind() as both:
        yield both


@pytest.fixture(scope="module")
def hanna() -> Iterator[TestAccount]:
    """Somebody for whom no other daemon works: what runs of hers is what this one has started."""
    with temporary_account() as account:
        yield account


def wait_moving(daemon: Daemon, job: str) -> None:
    daemon.wait_state(job, "TRANSFERRING")
    wait_until(lambda: daemon.stored_files(job)[0].durable_bytes > 0, "a checkpoint")


@pytest.mark.parametrize("flags", [LOCAL_FILE, NETWORK, LOCAL_FILE | NETWORK])
def test_i7_the_helpers_log_off_ends_the_run_and_every_process_of_hers(
    logged: tuple[Daemon, FakeLogind], origin: Origin, hanna: TestAccount, tmp_path_factory: Any, flags: Any
) -> None:
    daemon, logind = logged
    logind.log_on(hanna.uid)
    where = hanna.home if flags & LOCAL_FILE else str(tmp_path_factory.mktemp("roots"))
    path = os.path.join(where, f"logoff{int(flags)}")
    seed = 50 + int(flags)
    with helped_job(daemon) as helped:
        helped.help_by(hanna, flags)
        helped.add(origin.url(f"/gen/{SIZE}/{seed}?rate={RATE_BPS}"), path)
        helped.resume()
        wait_moving(daemon, helped.job.id)
        began = time.monotonic()
        logind.log_off(hanna.uid)
        error = daemon.wait_state(helped.job.id, "ERROR")["error"]
        wait_until(lambda: not processes_of(hanna.uid), "her processes to end")
        assert time.monotonic() - began < A_SECOND_OR_SO
        assert (error["code"], error["context"]) == ("BG_E_TOKEN_REQUIRED", "GENERAL_QUEUE_MANAGER")
        assert f"{hanna.name} has logged off" in error["message"]
        assert helped.options.get_helper_token_sid() is None
        # The owner's options are still good: she logs on, gives herself again, and it goes on.
        logind.log_on(hanna.uid)
        helped.help_by(hanna)
        helped.resume()
        daemon.wait_state(helped.job.id, "TRANSFERRED")
        helped.complete()
        with open(path, "rb") as file:
            assert file.read() == generate(SIZE, seed)
        assert len(origin.requests_of(f"/gen/{SIZE}/{seed}")) == 2
        assert origin.requests_of(f"/gen/{SIZE}/{seed}")[1].range is not None
    logind.log_off(hanna.uid)


def test_i7_the_owners_log_off_takes_token_and_options(
    logged: tuple[Daemon, FakeLogind], origin: Origin, hanna: TestAccount, system: TestAccount
) -> None:
    daemon, logind = logged
    logind.log_on(hanna.uid)
    with helped_job(daemon, owner=hanna) as helped:
        helped.add(origin.url(f"/gen/{SIZE}/80?rate={RATE_BPS}"), os.path.join(hanna.home, "owned"))
        helped.help_by(system, NETWORK)
        helped.resume()
        wait_moving(daemon, helped.job.id)
        logind.log_off(hanna.uid)
        error = daemon.wait_state(helped.job.id, "ERROR")["error"]
        assert error["code"] == "BG_E_TOKEN_REQUIRED"
        assert daemon.show(helped.job.id)["helper_token"] is None
        with acting(system), fails("RPC_E_DISCONNECTED"):
            helped.options.set_helper_token()
        wait_until(lambda: not processes_of(hanna.uid), "her processes to end")


def test_i7_log_off_of_a_helper_that_is_not_used_ends_nothing(
    logged: tuple[Daemon, FakeLogind], origin: Origin, hanna: TestAccount, tmp_path_factory: Any
) -> None:
    daemon, logind = logged
    logind.log_on(hanna.uid)
    path = str(tmp_path_factory.mktemp("mine") / "file")
    with helped_job(daemon) as helped:
        helped.help_by(hanna)
        helped.add(origin.url(f"/gen/{SIZE}/81?rate={RATE_BPS}"), path)
        helped.resume()
        wait_moving(daemon, helped.job.id)
        logind.log_off(hanna.uid)
        daemon.wait_state(helped.job.id, "TRANSFERRED")
        assert len(origin.requests_of(f"/gen/{SIZE}/81")) == 1


def request_as(daemon: Daemon, account: TestAccount, method: str, target: str, body: Any) -> dict[str, Any]:
    """Speak HTTP to the service as an account: a thief does not use our client."""
    payload = b"" if body is None else json.dumps(body).encode("ascii")
    with acting(account), contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20)
        sock.connect(daemon.socket)
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode("latin-1") + payload)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document
