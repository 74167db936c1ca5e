"""A real Squid that asks by a scheme of its own at each of its ports, and writes down who came by which.

Basic and Digest are Squid's own helpers, Negotiate its helper for Kerberos; NTLM, bare and inside SPNEGO, is done by a
small program made with the server's side of pyspnego.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.asking_apache import DOMAIN, NTLM_PASSWORD, PASSWORD, USER
from support.kdc import REALM, Realm
from support.nginx import free_port
from support.squid import HELPER, START_S

SCHEMES = ("open", "basic", "digest", "ntlm", "negotiate")
_NAME = "a proxy"

_NTLM_HELPER = """
import base64, sys
import spnego

protocol = sys.argv[1]
option = spnego.NegotiateOptions.use_ntlm if protocol == "ntlm" else spnego.NegotiateOptions.use_negotiate
context = None
for line in sys.stdin:
    verb, _, said = line.strip().partition(" ")
    try:
        if verb == "YR":
            context = spnego.server(protocol=protocol, options=option)
        token = context.step(base64.b64decode(said)) or b""
        answer = base64.b64encode(token).decode()
        if context.complete:
            user = context.client_principal
            print(f"AF {answer or '='} {user}" if protocol == "negotiate" else f"AF {user}", flush=True)
        else:
            print(f"TT {answer}", flush=True)
    except Exception as error:
        print("NA = refused" if protocol == "negotiate" else "NA refused", flush=True)
"""

_CONFIGURATION = """
pid_filename none
cache deny all
cache_log {base}/said
coredump_dir {base}
cache_effective_user proxy
logformat requests %>Hs %lp %un %rm %ru %>p %{{Proxy-Authorization}}>h
access_log stdio:{base}/requests requests
shutdown_lifetime 0 seconds
workers 1
visible_hostname localhost
auth_param basic program /usr/lib/squid/basic_ncsa_auth {base}/basic
auth_param basic children 1 startup=1 idle=1
auth_param basic realm {name}
auth_param digest program /usr/lib/squid/digest_file_auth -c {base}/digest
auth_param digest children 1 startup=1 idle=1
auth_param digest realm {name}
auth_param ntlm program /bin/sh {base}/helper.sh ntlm
auth_param ntlm children 2 startup=1 idle=1
auth_param ntlm keep_alive on
{negotiate}
auth_param negotiate children 2 startup=1 idle=1
auth_param negotiate keep_alive on
{ports}
acl known proxy_auth REQUIRED
http_access allow at_open
http_access allow known
http_access deny all
"""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A request as Squid wrote it down."""

    status: int
    port: int
    user: str
    method: str
    address: str
    client_port: int
    proof: str
    """The scheme of its Proxy-Authorization; "-" without one."""


@dataclass(kw_only=True)
class AskingSquid:
    """A running proxy."""

    base: str
    realm: Realm
    has_ntlm_in_spnego: bool
    ports: dict[str, int] = field(default_factory=lambda: {scheme: free_port() for scheme in SCHEMES})
    process: subprocess.Popen[bytes] | None = None

    def address(self, scheme: str) -> str:
        """How proxy settings name the port that asks by a scheme."""
        return f"localhost:{self.ports[scheme]}"

    def passed(self, scheme: str, address: str) -> list[Passed]:
        """All requests for an address at a scheme's port that have ended."""
        found = []
        with open(os.path.join(self.base, "requests"), encoding="utf-8") as file:
            for line in file:
                if " NONE " in line or "error:" in line:
                    continue  # somebody connected, and asked for nothing
                if not line.endswith("\n"):
                    break  # Squid is writing it
                status, port, user, method, target, client, proof = line.rstrip("\n").split(" ", 6)
                found.append(
                    Passed(
                        status=int(status),
                        port=int(port),
                        user=user,
                        method=method,
                        address=target,
                        client_port=int(client),
                        proof=proof.replace("%20", " ").partition(" ")[0],
                    )
                )
        return [passed for passed in found if (passed.port, passed.address) == (self.ports[scheme], address)]

    def _configuration(self, keytab: str) -> str:
        lines = []
        for scheme, port in self.ports.items():
            lines += [f"http_port 127.0.0.1:{port} name={scheme}", f"acl at_{scheme} myportname {scheme}"]
        lines += [f"auth_schemes {scheme} at_{scheme}" for scheme in self.ports if scheme != "open"]
        helper = f"/bin/sh {self.base}/helper.sh negotiate"
        if not self.has_ntlm_in_spnego:
            helper = f"{HELPER} -k {keytab} -s HTTP/localhost@{REALM}"
        return _CONFIGURATION.format(
            base=self.base,
            name=_NAME,
            negotiate=f"auth_param negotiate program {helper}",
            ports="\n".join(lines),
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        uid = pwd.getpwnam("proxy").pw_uid
        keytab = self.realm.keytab(f"squid-{self.ports['open']}.keytab", "HTTP/localhost")
        os.chown(keytab, uid, -1)
        os.chown(self.base, uid, -1)
        plain = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
        secret = hashlib.md5(f"{USER}:{_NAME}:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
        for name, text in (
            ("basic", f"{USER}:{plain}\n"),
            ("digest", f"{USER}:{_NAME}:{secret}\n"),
            ("ntlm", f"{DOMAIN}:dave:{NTLM_PASSWORD}\n"),
            ("helper.py", _NTLM_HELPER),
            # Squid gives its helpers another name, by which Python would not find its packages.
            ("helper.sh", f'exec {sys.executable} {self.base}/helper.py "$1"\n'),
            ("squid.conf", self._configuration(keytab)),
        ):
            path = os.path.join(self.base, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o644)
        environment = {**os.environ, **self.realm.environment, "NTLM_USER_FILE": os.path.join(self.base, "ntlm")}
        with open(os.path.join(self.base, "output"), "wb") as output:
            self.process = subprocess.Popen(
                ["squid", "-N", "-f", os.path.join(self.base, "squid.conf")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_S
        waiting = list(self.ports.values())
        while waiting:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", waiting[0])) == 0:
                    del waiting[0]
                    continue
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
        """End it, and with it its helpers, which end with their input."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None


@contextlib.contextmanager
def running_asking_squid(realm: Realm, *, has_ntlm_in_spnego: bool = False) -> Iterator[AskingSquid]:
    """Run Squid for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-squid-")
    os.chmod(base, 0o755)
    proxy = AskingSquid(base=base, realm=realm, has_ntlm_in_spnego=has_ntlm_in_spnego)
    realm.ensure("HTTP/localhost")
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.stop()
        shutil.rmtree(base, ignore_errors=True)
