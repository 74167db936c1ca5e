"""Servers and proxies that ask who is there, a worker, and the schemes by which it is asked."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec, TakeCredential, TransferEnded, TransferFiles
from support.accounts import needs_root
from support.apache import needs_apache
from support.asking_apache import (
    NTLM_PASSWORD,
    NTLM_USER,
    PASSWORD,
    REALM,
    USER,
    AskingApache,
    needs_asking_apache,
    running_asking_apache,
)
from support.asking_squid import AskingSquid, running_asking_squid
from support.bits_server import BitsServer
from support.ca import Authority, bundle
from support.daemon import wait_until
from support.kdc import Realm, needs_kdc, running_kdc
from support.squid import needs_squid
from support.worker_process import WorkerProcess, settings

TICKET_OF = "teller"
numbers = itertools.count(1)
"""Of transfers: each world has one worker."""
CASES = ("right", "wrong", "missing")
needs_world = (needs_root, needs_kdc, needs_apache, needs_asking_apache, needs_squid)


@dataclass(frozen=True, kw_only=True)
class World:
    """All the servers, and a worker."""

    apache: AskingApache
    squid: AskingSquid
    squid_ntlm: AskingSquid
    worker: WorkerProcess
    uploads: BitsServer
    environment: dict[str, str]
    """Of workers."""


@contextlib.contextmanager
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run all the servers for the length of a `with` block."""
    base = tmp_path_factory.mktemp("certificates")
    os.chmod(base, 0o755)
    authority = Authority("a CA")
    certificate, key = authority.issue().write(base, "server")
    trusted = bundle(base / "trusted.pem", authority)
    upload_base = tmp_path_factory.mktemp("uploads")
    uploads = BitsServer(base=str(upload_base), arguments=("--allow-overwrites",))
    uploads.start()
    try:
        with (
            running_kdc() as realm,
            running_asking_apache(realm, certificate, key, upload_url=uploads.url) as apache,
            running_asking_squid(realm) as squid,
            running_asking_squid(realm, has_ntlm_in_spnego=True) as squid_ntlm,
        ):
            realm.add(USER, password=PASSWORD)
            environment = _environment(realm, trusted)
            with WorkerProcess(env=environment) as worker:
                yield World(
                    apache=apache,
                    squid=squid,
                    squid_ntlm=squid_ntlm,
                    worker=worker,
                    uploads=uploads,
                    environment=environment,
                )
    finally:
        uploads.stop()


def _environment(realm: Realm, trusted: str) -> dict[str, str]:
    realm.ensure(TICKET_OF)
    keytab = realm.keytab("teller.keytab", TICKET_OF)
    cache = os.path.join(realm.base, "teller.cache")
    realm.kinit_by_keytab(TICKET_OF, keytab, path=cache)
    return {**realm.environment, "SSL_CERT_FILE": trusted, "KRB5CCNAME": f"FILE:{cache}"}


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How somebody asks, and what has an answer."""

    place: str
    """The directory of the server that asks so, and the port of the proxy."""
    scheme: str
    """For which scheme credentials are set."""
    user: str
    password: str
    known_as: str
    """What the log calls the user."""
    proof: str
    """What is sent."""
    requests_right: int = 2
    """How many requests it takes, the one that is challenged first included."""
    requests_wrong: int = 2


SCHEMES = {
    "basic": Scheme(place="basic", scheme="basic", user=USER, password=PASSWORD, known_as=USER, proof="Basic"),
    "digest": Scheme(place="digest", scheme="digest", user=USER, password=PASSWORD, known_as=USER, proof="Digest"),
    "kerberos": Scheme(
        place="negotiate",
        scheme="negotiate",
        user=USER,
        password=PASSWORD,
        known_as=f"{USER}@{REALM}",
        proof="Negotiate",
        # The KDC says no already, and no server hears of it.
        requests_wrong=1,
    ),
    "kerberos with a domain": Scheme(
        place="negotiate",
        scheme="negotiate",
        user=rf"obt\{USER}",
        password=PASSWORD,
        known_as=f"{USER}@{REALM}",
        proof="Negotiate",
        requests_wrong=1,
    ),
    "ntlm": Scheme(
        place="ntlm",
        scheme="ntlm",
        user=NTLM_USER,
        password=NTLM_PASSWORD,
        known_as=NTLM_USER,
        proof="NTLM",
        requests_right=3,
        requests_wrong=3,
    ),
    "negotiate with ntlm": Scheme(
        place="spnego",
        scheme="negotiate",
        user=NTLM_USER,
        password=NTLM_PASSWORD,
        known_as=NTLM_USER,
        proof="Negotiate",
        requests_right=3,
        requests_wrong=3,
    ),
}


@dataclass(kw_only=True)
class Fetching:
    """One file, fetched on the terms of a row."""

    world: World
    directory: Path
    target: str
    place: str

    def __post_init__(self) -> None:
        self.number = next(numbers)
        # NTLM and Negotiate with NTLM inside are two ways into one directory of the server.
        where = {"ntlm": "spnego"}.get(self.place, self.place) if self.is_server else "open"
        self.path = self.world.apache.add(f"{where}/{self.number}")
        self.url = self.world.apache.url(self.path, tls=self.target in ("server by TLS", "tunnel"))
        self.squid = self.world.squid_ntlm if self.place == "spnego" else self.world.squid
        self.port = {"spnego": "negotiate"}.get(self.place, self.place)

    @property
    def is_server(self) -> bool:
        """Whether it is the server that asks."""
        return self.target.startswith("server")

    @property
    def asker(self) -> str:
        """Whose credentials are asked for."""
        return "server" if self.is_server else "proxy"

    def run(
        self, *credentials: tuple[str, str, str, str], worker: WorkerProcess | None = None, **changes: Any
    ) -> TransferEnded:
        """Fetch it with these (target, scheme, name, password)."""
        if not self.is_server:
            changes["proxy"] = ProxySpec(usage="manual", proxies=self.squid.address(self.port), source="the job's")
        return fetch(worker or self.world.worker, self.url, self.directory, *credentials, number=self.number, **changes)

    def seen(self, count: int) -> list[tuple[int, str, str]]:
        """Status, user and proof of the requests that the asker saw, once it has written down so many."""
        if self.is_server:
            wait_until(lambda: len(self.world.apache.heard(self.path)) >= count, "Apache to write")
            return [
                (one.status, one.user.replace("\\\\", "\\"), one.proof) for one in self.world.apache.heard(self.path)
            ]
        address = self.url if self.target == "proxy" else f"localhost:{self.world.apache.tls_port}"
        before = self._before
        wait_until(lambda: len(self.squid.passed(self.port, address)) >= before + count, "Squid to write")
        return [(one.status, one.user, one.proof) for one in self.squid.passed(self.port, address)[before:]]

    _before: int = 0

    def mark(self) -> None:
        """All tunnels lead to one place: what was passed on before does not belong to this row."""
        if self.target == "tunnel":
            self._before = len(self.squid.passed(self.port, f"localhost:{self.world.apache.tls_port}"))

    @property
    def is_here(self) -> bool:
        """Whether the file has come."""
        return (self.directory / f"t{self.number}").exists()


def fetch(
    worker: WorkerProcess,
    url: str,
    directory: Path,
    *credentials: tuple[str, str, str, str],
    number: int = 0,
    userinfo: str = "",
    **changes: Any,
) -> TransferEnded:
    """Have the worker fetch one file."""
    number = number or next(numbers)
    worker.send(settings(number, **changes))
    for target, scheme, user, password in credentials:
        half = len(password) // 2
        # In two parts, as passwords that are too long for one frame come.
        for part, last in ((password[:half], False), (password[half:], True)):
            worker.send(
                TakeCredential(transfer=number, target=target, scheme=scheme, user_name=user, password=part, last=last)
            )
    spec = FileSpec(
        index=0,
        remote_name=url,
        local_name=str(directory / f"f{number}"),
        temporary_name=str(directory / f"t{number}"),
        userinfo=userinfo,
    )
    worker.send(TransferFiles(transfer=number, files=(spec,), last=True))
    return worker.wait_for(TransferEnded, lambda ended: ended.transfer == number)


def is_of(number: int, ended: TransferEnded) -> bool:
    """Whether a transfer with this number has ended."""
    return ended.transfer == number


def has_heard(world: World, count: int) -> bool:
    """Whether Apache has written down so many requests."""
    return len(world.apache.heard()) >= count
