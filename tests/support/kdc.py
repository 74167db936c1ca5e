"""A real MIT Kerberos realm on the loopback address: KDC, principals, keytabs, and a krb5.conf that leads there.

    with running_kdc() as realm:
        realm.add("alice", password="…")
        realm.keytab("host.keytab", "host/client.test")

Programs find it by `realm.environment`.  Setting it up takes about a second.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.nginx import free_port

REALM = "OBT.TEST"
_SBIN = "/usr/sbin"
_PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")
START_S = 10.0

_KRB5_CONF = """
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
{more}
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    .test = {realm}
    localhost = {realm}
"""

_KDC_CONF = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {base}/principal
        key_stash_file = {base}/stash
        acl_file = {base}/acl
        max_life = 10h
        max_renewable_life = 7d
        supported_enctypes = aes256-cts-hmac-sha1-96:normal
    }}
[logging]
    kdc = FILE:{base}/kdc.log
"""


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


needs_kdc = pytest.mark.skipif(
    any(_found(program) is None for program in _PROGRAMS),
    reason="krb5-kdc, krb5-admin-server and krb5-user are not installed",
)


@dataclass(kw_only=True)
class Realm:
    """A running realm; its files are in `base`, which everyone may enter."""

    base: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    _made: set[str] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        """What programs need in their environment to find the realm."""
        return {"KRB5_CONFIG": os.path.join(self.base, "krb5.conf")}

    def configure(self, *, port: int | None = None, more: str = "") -> None:
        """Write krb5.conf; another port than the KDC's leads nowhere."""
        with open(os.path.join(self.base, "krb5.conf"), "w", encoding="ascii") as file:
            file.write(_KRB5_CONF.format(realm=REALM, port=port or self.port, more=more))

    def add(self, principal: str, *, password: str | None = None, max_life_s: int | None = None) -> None:
        """Make a principal; without a password its key is random and can be had in a keytab only."""
        self._made.add(principal)
        key = f'-pw "{password}"' if password is not None else "-randkey"
        life = f'-maxlife "{max_life_s} seconds"' if max_life_s is not None else ""
        self._kadmin(f"addprinc {key} {life} {principal}")

    def ensure(self, principal: str) -> None:
        """Make a principal with a random key, unless it was made already."""
        if principal not in self._made:
            self.add(principal)

    def remove(self, principal: str) -> None:
        """Make the KDC forget a principal."""
        self._made.discard(principal)
        self._kadmin(f"delprinc -force {principal}")

    def set_password(self, principal: str, password: str) -> None:
        """Give a principal another password."""
        self._kadmin(f'cpw -pw "{password}" {principal}')

    def keytab(self, name: str, *principals: str) -> str:
        """Write the keys of principals to a file that only root can read; return its path."""
        path = os.path.join(self.base, name)
        for principal in principals:
            self._kadmin(f"ktadd -norandkey -k {path} {principal}")
        os.chmod(path, 0o600)
        return path

    def kinit(
        self, principal: str, password: str, *, path: str, account: Any = None, life_s: int | None = None
    ) -> None:
        """Get a ticket as a user would, into a cache at `path`, which is then the account's."""
        life = ["-l", f"{life_s}s"] if life_s is not None else []
        self._run("kinit", *life, "-c", f"FILE:{path}", principal, text=password + "\n")
        self._give(path, account)

    def kinit_by_keytab(self, principal: str, keytab: str, *, path: str, account: Any = None) -> None:
        """The same with a key instead of a password."""
        self._run("kinit", "-k", "-t", keytab, "-c", f"FILE:{path}", principal)
        self._give(path, account)

    def kinit_as(self, account: Any, password: str, *, cache: str) -> bool:
        """Get a ticket as the account itself; return whether its libkrb5 could keep it in such a cache."""
        done = self._as(account, "kinit", "-c", cache, account.name, text=password + "\n")
        return done.returncode == 0

    def kdestroy_as(self, account: Any, *, cache: str) -> None:
        """Throw the account's tickets away."""
        assert self._as(account, "kdestroy", "-c", cache).returncode == 0

    def _as(self, account: Any, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self._environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            user=account.uid,
            group=account.gid,
            extra_groups=list(account.groups),
        )

    @staticmethod
    def _give(path: str, account: Any) -> None:
        # Made by root and given away: not every machine's /tmp lets everybody make files.
        if account is not None:
            os.chown(path, account.uid, account.gid)

    def log(self) -> str:
        """What the KDC wrote down."""
        with open(os.path.join(self.base, "kdc.log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def tickets_issued(self, client: str, server: str) -> int:
        """How many tickets the KDC has issued to `client` for `server`."""
        return sum(
            f", {client}@{REALM} for {server}@{REALM}" in line for line in self.log().splitlines() if "ISSUE" in line
        )

    def start(self) -> None:
        """Start the KDC and wait until it takes connections."""
        program = _found("krb5kdc")
        assert program is not None
        self.process = subprocess.Popen(
            [program, "-n"], env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "the KDC has ended"
            assert time.monotonic() < deadline, f"the KDC is not there after {START_S} s"
            time.sleep(0.01)

    def stop(self) -> None:
        """End the KDC."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "KRB5_KDC_PROFILE": os.path.join(self.base, "kdc.conf")}

    def _kadmin(self, query: str) -> None:
        self._run("kadmin.local", "-r", REALM, "-q", query)

    def _run(self, program: str, *arguments: str, text: str | None = None, **more: Any) -> None:
        path = _found(program)
        assert path is not None
        done = subprocess.run(
            [path, *arguments],
            env=self._environment(),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd="/",
            **more,
        )
        failed = done.returncode != 0 or (program == "kadmin.local" and " while " in done.stderr)
        assert not failed, f"{program} {arguments}: {done.stderr}"

    def create(self) -> None:
        """Make the database."""
        self.configure()
        with open(os.path.join(self.base, "kdc.conf"), "w", encoding="ascii") as file:
            file.write(_KDC_CONF.format(realm=REALM, port=self.port, base=self.base))
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "of no interest")


@contextlib.contextmanager
def running_kdc() -> Iterator[Realm]:
    """Run a realm for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-kdc-")
    os.chmod(base, 0o755)
    realm = Realm(base=base, port=free_port())
    try:
        realm.create()
        realm.start()
        yield realm
    finally:
        realm.stop()
        shutil.rmtree(base, ignore_errors=True)
