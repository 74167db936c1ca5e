"""One process that acts for many: a service with an account of its own, which impersonates two users at once.

Issue 3, "Shown by tests"; architecture, section 4, rules 1 and 2.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

import openbits
from openbits.client.pool import MAX_IDLE
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, processes_of, running_daemon
from support.impersonating import as_service, run_python

pytestmark = needs_root

ROUNDS = 1_000
# A service is exempt from quotas; those whom it impersonates are not.
QUOTAS = "[quotas]\nmax_jobs_per_user = 100_000\nmax_jobs_per_machine = 100_000\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=QUOTAS) as running:
        yield running


@pytest.fixture(scope="module")
def service() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def bert() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


CREATE = """
path, rounds, *users = sys.argv[1:]
rounds = int(rounds)
manager = openbits.Manager(path)
cloaked = openbits.copy_proxy(manager)
openbits.set_proxy_blanket(cloaked, openbits.Cloaking.DYNAMIC)
start = threading.Barrier(len(users) + 1, timeout=60)
failures = []
def act(user):
    try:
        start.wait()
        for number in range(rounds):
            with openbits.impersonate(user):
                job = cloaked.create_job(f"for {user}")
                if number % 10 == 0:
                    # Without cloaking it is the service itself who asks, whoever the thread is.
                    manager.create_job("for service")
                if number % 10 == 5:
                    openbits.set_proxy_blanket(job, openbits.Cloaking.DYNAMIC)
                    job.cancel()
    except BaseException as error:
        failures.append(repr(error))
        raise
def act_as_itself():
    start.wait()
    for _ in range(rounds // 10):
        cloaked.create_job("for service")
threads = [threading.Thread(target=act, args=(user,)) for user in users] + [threading.Thread(target=act_as_itself)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({"failures": failures, "pool": manager._session.pool.statistics()}))
manager.close()
"""


def test_two_users_in_two_threads_and_not_one_job_with_a_wrong_owner(
    daemon: Daemon, service: TestAccount, alice: TestAccount, bert: TestAccount
) -> None:
    names = {"service": service, alice.name: alice, bert.name: bert}
    arguments = (daemon.socket, str(ROUNDS), alice.name, bert.name)
    done = run_python(CREATE, *arguments, prefix=as_service(service), timeout_s=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["failures"] == []
    assert said["pool"]["identities"] == 3
    # A few connections carried it all: none of them was exchanged for each call.
    assert said["pool"]["opened"] <= 12
    with openbits.Manager(daemon.socket) as manager:
        jobs = manager.enum_job_infos(all_users=True, history=True)
    found = Counter((job.name.removeprefix("for "), job.owner.uid) for job in jobs)
    assert found == {
        ("service", service.uid): 3 * ROUNDS // 10,
        (alice.name, alice.uid): ROUNDS,
        (bert.name, bert.uid): ROUNDS,
    }
    kinds = {job.owner.kind for job in jobs if names[job.name.removeprefix("for ")] is not service}
    assert kinds == {"USER"}
    assert {job.owner.kind for job in jobs if job.owner.uid == service.uid} == {"LOCAL_SERVICE"}
    assert processes_of(service.uid) == processes_of(alice.uid) == processes_of(bert.uid) == []


IDENTITIES = """
path, user, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
manager = openbits.Manager(path)
openbits.set_proxy_blanket(manager, openbits.Cloaking.DYNAMIC)
most = 0
for turn in range(2):
    for number in range(count):
        with openbits.impersonate(user, groups=[100_000 + number]):
            assert manager.whoami()["groups"] == [100_000 + number]
        most = max(most, len(os.listdir("/proc/self/fd")))
statistics = manager._session.pool.statistics()
manager.close()
print(json.dumps({"most": most, "left": len(os.listdir("/proc/self/fd")), **statistics}))
"""


def test_thousands_of_identities_do_not_take_thousands_of_connections(
    daemon: Daemon, service: TestAccount, alice: TestAccount
) -> None:
    """The connections of those that were acted for last are kept; each still carries one identity only."""
    count = 3 * MAX_IDLE
    done = run_python(IDENTITIES, daemon.socket, alice.name, str(count), prefix=as_service(service))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["idle"] == said["identities"] == MAX_IDLE
    assert said["most"] <= MAX_IDLE + said["left"] + 1
    assert said["opened"] == 2 * count


def test_the_last_identities_are_those_whose_connections_are_kept(
    daemon: Daemon, service: TestAccount, alice: TestAccount
) -> None:
    said = json.loads(
        run_python(IDENTITIES, daemon.socket, alice.name, str(MAX_IDLE), prefix=as_service(service)).stdout
    )
    assert said["opened"] == said["idle"] == MAX_IDLE
