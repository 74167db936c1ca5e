"""A machine in a Kerberos realm: KDC, Apache, the machine's keytab, and a `bitsd` that speaks for it.

What a job may send is tried by jobs of real accounts; as whom they came is what the server's log says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openbits
from openbits.client import calls
from openbits.client.discovery import Endpoint
from openbits.client.identity import current_identity
from openbits.client.session import Session
from support.accounts import TestAccount
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
