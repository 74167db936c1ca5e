"""A real Apache that asks for names and passwords by every scheme it knows, and writes down who came with what.

`/basic/`, `/digest/` (MD5), `/negotiate/` (Kerberos), `/spnego/` (Negotiate with NTLM inside), `/ntlm/` (bare NTLM) and
`/several/` (Digest and Basic) ask; everything else is open. All of it stands at a plain and at a TLS port; under
`/SCHEME/up/`, a server for uploads stands behind it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.apache import MODULES, START_S
from support.kdc import REALM, Realm
from support.nginx import free_port

USER = "carol"
PASSWORD = "pass word: Grüße"
"""With a blank, a colon, and what is no ASCII."""
DOMAIN = "OBT"
NTLM_USER = rf"{DOMAIN}\dave"
"""No principal of the realm: Kerberos has nothing for it."""
NTLM_PASSWORD = "pass word"
"""gss-ntlmssp reads a file in which a colon ends the password."""
_NAME = "a realm"
_PLUGIN = "/usr/lib/x86_64-linux-gnu/gssntlmssp/gssntlmssp.so"
_NEEDED = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest", "auth_gssapi"),
    *("setenvif", "ssl", "proxy", "proxy_http", "env", "headers"),
)

needs_asking_apache = pytest.mark.skipif(
    shutil.which("apache2") is None
    or not os.path.exists(f"{MODULES}/mod_auth_gssapi.so")
    or not os.path.exists(_PLUGIN),
    reason="apache2, libapache2-mod-auth-gssapi and gss-ntlmssp are not installed",
)

_CONFIGURATION = """
ServerRoot {base}
ServerName localhost
PidFile {base}/pid
DefaultRuntimeDir {base}
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port}
{modules}
User www-data
Group www-data
StartServers 1
ThreadsPerChild 25
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
ErrorLog {base}/errors
LogFormat "%>s\\t%u\\t%m\\t%U\\t%{{proof}}e\\t%I\\t%{{remote}}p\\t%{{Proxy-Authorization}}i" requests
CustomLog {base}/requests requests
SetEnvIf Authorization "^([A-Za-z]+)" proof=$1
DocumentRoot {base}/root
<Directory {base}/root>
    Require all granted
</Directory>
<Location /basic>
    AuthType Basic
    AuthName "{name}"
    AuthUserFile {base}/basic
    Require valid-user
</Location>
<Location /digest>
    AuthType Digest
    AuthName "{name}"
    AuthDigestProvider file
    AuthUserFile {base}/digest
    Require valid-user
</Location>
<Location /negotiate>
    AuthType GSSAPI
    AuthName "{name}"
    GssapiCredStore keytab:{keytab}
    GssapiLocalName Off
    GssapiAllowedMech krb5
    Require valid-user
</Location>
<Location /spnego>
    AuthType GSSAPI
    AuthName "{name}"
    GssapiAllowedMech ntlmssp
    GssapiConnectionBound On
    Require valid-user
</Location>
{uploads}
<VirtualHost *:{tls_port}>
    SSLEngine on
    SSLCertificateFile {certificate}
    SSLCertificateKeyFile {key}
    CustomLog {base}/requests requests
</VirtualHost>
"""

_UPLOADS = """
ProxyPass "/basic/up/" "{url}/"
ProxyPass "/digest/up/" "{url}/"
ProxyPass "/spnego/up/" "{url}/"
"""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A request as the server wrote it down at its end."""

    status: int
    user: str
    method: str
    path: str
    proof: str
    """The scheme of the request's Authorization; "-" without one."""
    received_bytes: int
    client_port: int
    leaked: str
    """What was meant for a proxy, and came here; "-" for nothing."""


@dataclass(kw_only=True)
class AskingApache:
    """A running server; `root` is the directory that it serves."""

    base: str
    port: int
    tls_port: int
    realm: Realm
    certificate: Path
    key: Path
    upload_url: str = ""
    process: subprocess.Popen[bytes] | None = None
    _sizes: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The directory that it serves."""
        return os.path.join(self.base, "root")

    def add(self, path: str, size_bytes: int = 20_000) -> str:
        """Make a file; return its path."""
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(path.encode().ljust(size_bytes, b"."))
        return path

    def url(self, path: str, *, tls: bool = False) -> str:
        """The address of a file."""
        return f"https://localhost:{self.tls_port}/{path}" if tls else f"http://localhost:{self.port}/{path}"

    def heard(self, path: str | None = None) -> list[Heard]:
        """All requests that have ended."""
        found = []
        with open(os.path.join(self.base, "requests"), encoding="utf-8", errors="replace") as file:
            for line in file:
                status, user, method, at, proof, received, port, leaked = line.rstrip("\n").split("\t")
                found.append(
                    Heard(
                        status=int(status),
                        user=user,
                        method=method,
                        path=at,
                        proof=proof,
                        received_bytes=int(received) if received.isdigit() else 0,
                        client_port=int(port),
                        leaked=leaked,
                    )
                )
        return [heard for heard in found if path is None or heard.path == f"/{path}"]

    def _write_users(self) -> None:
        digest = hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()
        self._write("basic", f"{USER}:{{SHA}}{base64.b64encode(digest).decode()}\n")
        secret = hashlib.md5(f"{USER}:{_NAME}:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
        self._write("digest", f"{USER}:{_NAME}:{secret}\n")
        self._write("ntlm", f"{DOMAIN}:dave:{NTLM_PASSWORD}\n")

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self.base, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._write_users()
        keytab = self.realm.keytab(f"asking-{self.port}.keytab", "HTTP/localhost")
        os.chown(keytab, pwd.getpwnam("www-data").pw_uid, -1)
        self._write(
            "httpd.conf",
            _CONFIGURATION.format(
                base=self.base,
                port=self.port,
                tls_port=self.tls_port,
                keytab=keytab,
                name=_NAME,
                certificate=self.certificate,
                key=self.key,
                uploads=_UPLOADS.format(url=self.upload_url) if self.upload_url else "",
                modules="\n".join(
                    f"LoadModule {name}_module {MODULES}/mod_{name}.so"
                    for name in _NEEDED
                    if os.path.exists(f"{MODULES}/mod_{name}.so")
                ),
            ),
        )
        environment = {**os.environ, **self.realm.environment, "NTLM_USER_FILE": os.path.join(self.base, "ntlm")}
        with open(os.path.join(self.base, "said"), "wb") as said:
            self.process = subprocess.Popen(
                ["apache2", "-d", self.base, "-f", os.path.join(self.base, "httpd.conf"), "-D", "FOREGROUND"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        # Apache writes its pid when it listens.
        deadline = time.monotonic() + START_S
        while not os.path.exists(os.path.join(self.base, "pid")):
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, f"Apache is not there after {START_S} s: {self.errors()}"
            time.sleep(0.01)

    def errors(self) -> str:
        """What Apache complained of."""
        text = ""
        for name in ("said", "errors"):
            with contextlib.suppress(FileNotFoundError), open(os.path.join(self.base, name), errors="replace") as file:
                text += file.read()
        return text

    def stop(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=10)
            self.process = None


@contextlib.contextmanager
def running_asking_apache(
    realm: Realm, certificate: Path, key: Path, *, upload_url: str = ""
) -> Iterator[AskingApache]:
    """Run it for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-asking-")
    os.chmod(base, 0o755)
    server = AskingApache(
        base=base,
        port=free_port(),
        tls_port=free_port(),
        realm=realm,
        certificate=certificate,
        key=key,
        upload_url=upload_url,
    )
    os.mkdir(server.root)
    realm.ensure("HTTP/localhost")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


__all__ = [
    "DOMAIN",
    "NTLM_PASSWORD",
    "NTLM_USER",
    "PASSWORD",
    "REALM",
    "USER",
    "AskingApache",
    "Heard",
    "needs_asking_apache",
    "running_asking_apache",
]
