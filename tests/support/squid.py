"""A real Squid that lets through whom Kerberos proves, and writes down who that was."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.kdc import REALM, Realm
from support.nginx import free_port

HELPER = "/usr/lib/squid/negotiate_kerberos_auth"
START_S = 20.0

needs_squid = pytest.mark.skipif(
    shutil.which("squid") is None or not os.path.exists(HELPER), reason="squid-openssl is not installed"
)

_CONFIGURATION = """
http_port 127.0.0.1:{port}
pid_filename none
cache deny all
cache_log {base}/said
coredump_dir {base}
cache_effective_user {user}
logformat requests %>Hs %un %rm %ru
access_log stdio:{base}/requests requests
shutdown_lifetime 0 seconds
workers 1
auth_param negotiate program {helper} -k {keytab} -s HTTP/{name}@{realm}
auth_param negotiate children 2 startup=1 idle=1
auth_param negotiate keep_alive on
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
visible_hostname {name}
"""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A request as Squid wrote it down."""

    status: int
    user: str
    """The principal, or "-"."""
    method: str
    address: str


@dataclass(kw_only=True)
class Squid:
    """A running proxy."""

    base: str
    port: int
    realm: Realm
    name: str = "localhost"
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """How proxy settings name it."""
        return f"{self.name}:{self.port}"

    def passed(self) -> list[Passed]:
        """All requests that have ended."""
        with open(os.path.join(self.base, "requests"), encoding="utf-8") as file:
            rows = [line.split() for line in file]
        return [Passed(status=int(row[0]), user=row[1], method=row[2], address=row[3]) for row in rows]

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        user = "proxy"
        keytab = self.realm.keytab(f"squid-{self.port}.keytab", f"HTTP/{self.name}")
        uid = pwd.getpwnam(user).pw_uid
        os.chown(keytab, uid, -1)
        os.chown(self.base, uid, -1)
        configuration = os.path.join(self.base, "squid.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(
                _CONFIGURATION.format(
                    port=self.port, base=self.base, user=user, helper=HELPER, keytab=keytab, name=self.name, realm=REALM
                )
            )
        with open(os.path.join(self.base, "output"), "wb") as output:
            self.process = subprocess.Popen(
                ["squid", "-N", "-f", configuration],
                env={**os.environ, **self.realm.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"Squid is not there after {START_S} s: {self.said()}"
            time.sleep(0.02)

    def said(self) -> str:
        """What Squid complained of."""
        text = ""
        for name in ("output", "said"):
            with contextlib.suppress(FileNotFoundError), open(os.path.join(self.base, name), errors="replace") as file:
                text += file.read()
        return text

    def stop(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None


@contextlib.contextmanager
def running_squid(realm: Realm) -> Iterator[Squid]:
    """Run Squid for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-squid-")
    os.chmod(base, 0o755)
    server = Squid(base=base, port=free_port(), realm=realm)
    realm.ensure(f"HTTP/{server.name}")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
