"""A real Apache that lets in whom Kerberos proves (mod_auth_gssapi), and writes down who came with what.

`/` is open to everyone, `/private/` to every principal of the realm, `/only/NAME/` to one, `/forbidden` to nobody, and
`/basic/` asks for a password.  As whom somebody came is what the server's own log says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.kdc import REALM, Realm
from support.nginx import free_port

MODULES = "/usr/lib/apache2/modules"
_NEEDED = (
    "mpm_event",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "auth_gssapi",
    "alias",
    "env",
    "headers",
    "ratelimit",
    "rewrite",
    "setenvif",
)
START_S = 10.0
NOBODY = "-"

needs_apache = pytest.mark.skipif(
    shutil.which("apache2") is None or not os.path.exists(f"{MODULES}/mod_auth_gssapi.so"),
    reason="apache2 and libapache2-mod-auth-gssapi are not installed",
)

_CONFIGURATION = """
ServerRoot {base}
ServerName localhost
PidFile {base}/pid
DefaultRuntimeDir {base}
Listen 127.0.0.1:{port}
{modules}
User {user}
Group {user}
StartServers 1
ThreadsPerChild 25
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
ErrorLog {base}/errors
LogFormat "%{{%s}}t\\t%p\\t%>s\\t%u\\t%m\\t%U\\t%{{Range}}i\\t%{{has-proof}}e\\t%{{remote}}p" requests
CustomLog {base}/requests requests
SetEnvIf Authorization "^Negotiate" has-proof=proof
SetEnvIf Authorization "^(?!Negotiate)." has-proof=other
DocumentRoot {base}/root
FileETag MTime Size
<Directory {base}/root>
    Require all granted
</Directory>
<Location /private>
    AuthType GSSAPI
    AuthName "the realm"
    GssapiCredStore keytab:{keytab}
    GssapiLocalName Off
    Require valid-user
</Location>
{only}
<Location /basic>
    AuthType Basic
    AuthName "a password"
    AuthUserFile /dev/null
    Require valid-user
</Location>
<Location /forbidden>
    Require all denied
</Location>
<LocationMatch "/slow/">
    SetOutputFilter RATE_LIMIT
    SetEnv rate-limit {slow_kibps}
</LocationMatch>
Alias /private/slow {base}/root/private
{redirects}
"""

_ONLY = """
<Location /only/{name}>
    AuthType GSSAPI
    AuthName "the realm"
    GssapiCredStore keytab:{keytab}
    Require user {principal}
</Location>
"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as Apache wrote it down at its end."""

    status: int
    user: str
    """The principal, or NOBODY."""
    method: str
    path: str
    range: str
    proof: str
    """What the request carried: `proof` (a Negotiate token), `other` (another Authorization), or `-`."""
    client_port: int
    """The client's end of the connection."""


@dataclass(kw_only=True)
class Apache:
    """A running server; `root` is the directory that it serves."""

    base: str
    port: int
    realm: Realm
    name: str = "localhost"
    """The name that its keytab is for."""
    redirects: tuple[tuple[str, str], ...] = ()
    """Paths, and the addresses that they redirect to."""
    only: tuple[tuple[str, str], ...] = ()
    slow_kibps: int = 1024
    process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        """The directory that it serves."""
        return os.path.join(self.base, "root")

    def add(self, path: str, size_bytes: int, *, seed: int = 0) -> str:
        """Make a file of random bytes; return its SHA-256."""
        content = random.Random(f"{path} {seed}").randbytes(size_bytes)
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://{self.name}:{self.port}/{path}"

    def asked(self, path: str | None = None) -> list[Asked]:
        """All requests that have ended, in the order of their ends."""
        with open(os.path.join(self.base, "requests"), encoding="utf-8") as file:
            found = [_asked(line) for line in file]
        return [asked for asked in found if path is None or asked.path == f"/{path}"]

    def users(self, path: str) -> set[str]:
        """As whom a file was given away."""
        return {asked.user for asked in self.asked(path) if asked.status in (200, 206)}

    def start(self) -> None:
        """Start it and wait until it listens."""
        user = "www-data"
        keytab = self.realm.keytab(f"http-{self.port}.keytab", f"HTTP/{self.name}")
        os.chown(keytab, pwd.getpwnam(user).pw_uid, -1)
        only = "".join(_ONLY.format(name=name, keytab=keytab, principal=principal) for name, principal in self.only)
        configuration = os.path.join(self.base, "httpd.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(
                _CONFIGURATION.format(
                    base=self.base,
                    port=self.port,
                    user=user,
                    keytab=keytab,
                    realm=REALM,
                    only=only,
                    slow_kibps=self.slow_kibps,
                    modules="\n".join(
                        f"LoadModule {name}_module {MODULES}/mod_{name}.so"
                        for name in _NEEDED
                        if os.path.exists(f"{MODULES}/mod_{name}.so")
                    ),
                    redirects="\n".join(f"Redirect 302 /{path} {target}" for path, target in self.redirects),
                )
            )
        with open(os.path.join(self.base, "said"), "wb") as said:
            self.process = subprocess.Popen(
                ["apache2", "-d", self.base, "-f", configuration, "-D", "FOREGROUND"],
                env={**os.environ, **self.realm.environment},
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


def _asked(line: str) -> Asked:
    _, _, status, user, method, path, byte_range, proof, port = line.rstrip("\n").split("\t")
    return Asked(
        status=int(status), user=user, method=method, path=path, range=byte_range, proof=proof, client_port=int(port)
    )


@contextlib.contextmanager
def running_apache(realm: Realm, **options: object) -> Iterator[Apache]:
    """Run Apache for the length of a `with` block; `HTTP/localhost` is made in the realm where it is missing."""
    base = tempfile.mkdtemp(prefix="obt-apache-")
    os.chmod(base, 0o755)
    server = Apache(base=base, port=free_port(), realm=realm, **options)  # type: ignore[arg-type] # by name, from tests
    os.mkdir(server.root)
    realm.ensure(f"HTTP/{server.name}")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
