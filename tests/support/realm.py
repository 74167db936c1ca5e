"""A machine in a Kerberos realm: KDC, Apache, the machine's keytab, and a `bitsd` that speaks for it.

What a job may send is tried by jobs of real accounts; as whom they came is what the server's log says.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openbits
from openbits.client import calls
from openbits.client.discovery import Endpoint
from openbits.client.identity import current_identity
from openbits.client.session import Session
from support.accounts import TestAccount, temporary_account
from support.apache import Apache
from support.daemon import Daemon, running_daemon
from support.kdc import Realm

MACHINE = "host/client.test"
PASSWORD = "open sesame"


def machine_keytab(realm: Realm) -> str:
    """The machine's keytab, which only root can read."""
    realm.ensure(MACHINE)
    path = os.path.join(realm.base, "machine.keytab")
    return path if os.path.exists(path) else realm.keytab("machine.keytab", MACHINE)


def configuration(keytab: str, *, network_service: TestAccount | None = None, more: str = "") -> str:
    """A configuration whose machine has this keytab; `more` goes into [credentials]."""
    listed = f'["{network_service.name}"]' if network_service is not None else "[]"
    return (
        f'[accounts]\nnetwork_service = {listed}\n[logon]\nprovider = "always"\n'
        f'[credentials]\nmachine_keytab = "{keytab}"\n{more}'
    )


@contextlib.contextmanager
def machine_in_realm(realm: Realm, config: str) -> Iterator[Daemon]:
    """A daemon whose workers find the realm."""
    with running_daemon("system", config=config, environment=realm.environment) as daemon:
        yield daemon


@contextlib.contextmanager
def person_with_ticket(realm: Realm) -> Iterator[TestAccount]:
    """A person's account with a ticket where libkrb5 looks for it when nobody says anything else."""
    with temporary_account() as account:
        cache = f"/tmp/krb5cc_{account.uid}"
        realm.add(account.name, password=PASSWORD)
        realm.kinit(account.name, PASSWORD, path=cache, account=account)
        try:
            yield account
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(cache)


@contextlib.contextmanager
def public_directory() -> Iterator[str]:
    """A directory that every account may write to."""
    path = tempfile.mkdtemp(prefix="obt-kerberos-")
    os.chmod(path, 0o1777)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def file_for(apache: Apache, test: str) -> str:
    """A file of a test's own that only principals of the realm get; its path on the server."""
    name = f"private/{re.sub('[^a-z0-9]', '-', test)}"
    apache.add(name, 100_000)
    return name


def assert_refused(job: dict[str, Any], *words: str, code: str = "BG_E_HTTP_ERROR_401") -> None:
    """The job has failed for good because of what the server said, and its message has these words."""
    assert job["state"] == "ERROR"
    assert (job["error"]["code"], job["error"]["context"]) == (code, "REMOTE_FILE")
    for word in words:
        assert word in job["error"]["message"], job["error"]["message"]


@dataclass(kw_only=True)
class Person:
    """An account as a caller of a daemon, without the cost of a program for each call."""

    account: TestAccount | None
    daemon: Daemon

    def perform(self, *work: Any) -> Any:
        """Carry out calls as this account; return the result of the last."""
        session = Session(Endpoint(self.daemon.socket))
        with contextlib.closing(session), contextlib.ExitStack() as stack:
            if self.account is not None:
                stack.enter_context(openbits.impersonate(self.account.name))
            identity = current_identity()
            result = None
            for call in work:
                result = session.perform(call, identity)
            return result

    def job(self, *files: tuple[str, str], allow: tuple[str, ...] = (), **settings: Any) -> str:
        """Make a job of (address, local name) pairs, allow its account's own credentials for `allow`, resume it."""
        specs = [calls.file_in(remote, local) for remote, local in files]
        job_id = self.perform(calls.create_job({"name": "a job", "settings": settings, "files": specs}))
        allowing = [calls.set_credentials(job_id, target, "negotiate", None, None) for target in allow]
        self.perform(*allowing, calls.resume(job_id))
        return str(job_id)

    def fetch(
        self, server: Apache, path: str, directory: str, *, allow: tuple[str, ...] = (), **settings: Any
    ) -> dict[str, Any]:
        """Fetch a file of the server's and return the job as it is in the end."""
        settings = {"priority": "foreground", **settings}
        local = os.path.join(directory, f"{len(server.asked())}-{os.path.basename(path)}")
        job_id = self.job((server.url(path), local), allow=allow, **settings)
        return self.daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
