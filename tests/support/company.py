"""The company of docs/networks.md: a machine with network, accounts and /etc of its own, and the servers around it.

Only inside `unshare --mount --net`: names and ports are those of the page, and what its commands change in /etc, /home
and /var/lib is gone afterwards.  `with Company() as company:` and then `company.run(block, "alice")`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ca import CLIENT, Authority
from support.daemon import BIN, Daemon
from support.wpad_world import DNS, WPAD, DnsServer

REALM = "EXAMPLE.ORG"
PASSWORD = "open sesame"
HOSTS = ("files.example.org", "proxy.example.org", "kdc.example.org", "client.example.org")
START_S = 20.0
RUN_S = 120.0

_KRB5_CONF = f"""
[libdefaults]
    default_realm = {REALM}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
[realms]
    {REALM} = {{
        kdc = kdc.example.org
    }}
[domain_realm]
    .example.org = {REALM}
"""

_KDC_CONF = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:88
    kdc_tcp_listen = 127.0.0.1:88
[realms]
    {realm} = {{
        database_name = {base}/principal
        key_stash_file = {base}/stash
        acl_file = {base}/acl
        supported_enctypes = aes256-cts-hmac-sha1-96:normal
    }}
[logging]
    kdc = FILE:{base}/kdc.log
"""

_SQUID_CONF = """
http_port 127.0.0.1:3128
pid_filename none
cache deny all
cache_log {base}/squid.log
coredump_dir {base}
cache_effective_user proxy
logformat requests %>Hs %un %rm %ru
access_log stdio:{base}/passed requests
shutdown_lifetime 0 seconds
visible_hostname proxy.example.org
"""

_NGINX_CONF = """
daemon off;
user root;
pid {base}/nginx.pid;
error_log {base}/nginx.errors;
events {{ }}
http {{
    log_format asked '$ssl_protocol $status $request_method $uri user=$remote_user cert=$ssl_client_verify '
        'department=$http_x_department authorization=$http_authorization';
    access_log {base}/asked asked;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    server {{
        listen 127.0.0.1:80;
        listen {wpad}:80;
        root {base}/plain;
    }}
    server {{
        listen 127.0.0.1:443 ssl http2;
        root {base}/secure;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {authority};
        ssl_verify_client optional;
        location /basic/ {{
            auth_basic "a password";
            auth_basic_user_file {base}/htpasswd;
        }}
        location /members/ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403; }}
        }}
    }}
}}
"""


def sh(*command: str, text: str = "", timeout_s: float = 60.0) -> str:
    """Run a command of the test's own; it must succeed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Company:
    """A context manager: the servers run until it ends."""

    def __init__(self) -> None:
        self.base = tempfile.mkdtemp(prefix="obt-company-")
        os.chmod(self.base, 0o755)
        self.authority = Authority("Example Company CA", crl_urls=())
        self.daemon = Daemon(mode="system", base=os.path.join(self.base, "daemon"))
        os.mkdir(self.daemon.base, 0o755)
        self._stack = contextlib.ExitStack()
        self._squid: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make_machine()
            self._make_realm()
            self._make_server()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.daemon.is_started:
            self.daemon.stop()
        self._stack.close()

    # --- the machine ---------------------------------------------------------------------------

    def _make_machine(self) -> None:
        self._stack.callback(shutil.rmtree, self.base, ignore_errors=True)
        sh("mount", "--make-rprivate", "/")
        sh("ip", "link", "set", "lo", "up")
        for address in (DNS, WPAD):
            sh("ip", "address", "add", f"{address}/32", "dev", "lo")
        self._stack.enter_context(DnsServer({"wpad.example.org": WPAD}))
        layers = os.path.join(self.base, "layers")
        os.mkdir(layers)
        sh("mount", "-t", "tmpfs", "layers", layers)
        self._stack.callback(sh, "umount", "-l", layers)
        for place in ("/etc", "/var/lib", "/usr/local", "/home"):
            upper, work = (os.path.join(layers, f"{kind}{place.replace('/', '-')}") for kind in ("upper", "work"))
            os.mkdir(upper)
            os.mkdir(work)
            sh("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}", place)
            self._stack.callback(sh, "umount", "-l", place)
        Path("/etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(HOSTS)}\n", encoding="ascii")
        Path("/etc/resolv.conf").write_text(f"search example.org\nnameserver {DNS}\n", encoding="ascii")
        sh("useradd", "--create-home", "--uid", "59321", "alice")
        sh("useradd", "--create-home", "--system", "updater")
        shutil.rmtree("/etc/openbits", ignore_errors=True)
        os.mkdir("/etc/openbits", 0o755)
        self._stack.callback(Path(f"/tmp/krb5cc_{pwd.getpwnam('alice').pw_uid}").unlink, missing_ok=True)

    def home(self, account: str) -> Path:
        """An account's home."""
        return Path(pwd.getpwnam(account).pw_dir)

    def give(self, account: str, name: str, content: bytes) -> None:
        """Put a file that only the account may read into its home."""
        path, entry = self.home(account) / name, pwd.getpwnam(account)
        path.touch(0o600)
        path.write_bytes(content)
        os.chown(path, entry.pw_uid, entry.pw_gid)

    def run(
        self, block: str, account: str = "root", *, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a block of shell commands as an account, in its home; the first that fails ends it."""
        entry = pwd.getpwnam(account)
        done = subprocess.run(
            ["sh", "-e", "-c", block],
            env={
                "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": entry.pw_dir,
                "LANG": "C.UTF-8",
                "BITS_SOCKET": self.daemon.socket,
                "KRB5_KDC_PROFILE": os.path.join(self.base, "kdc.conf"),
            },
            cwd=self.base if account == "root" else entry.pw_dir,
            input=text,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
        )
        if check:
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done

    # --- what stands around it -----------------------------------------------------------------

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with open(os.path.join(self.base, f"{os.path.basename(command[0])}.out"), "wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _wait_port(self, port: int, process: subprocess.Popen[bytes], said: Callable[[], str]) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert process.poll() is None, said()
            assert time.monotonic() < deadline, said()
            time.sleep(0.02)

    def read(self, name: str) -> str:
        """A log of a server."""
        with contextlib.suppress(FileNotFoundError):
            return Path(self.base, name).read_text(encoding="utf-8", errors="replace")
        return ""

    def _make_realm(self) -> None:
        Path("/etc/krb5.conf").write_text(_KRB5_CONF, encoding="ascii")
        Path(self.base, "kdc.conf").write_text(_KDC_CONF.format(realm=REALM, base=self.base), encoding="ascii")
        os.environ["KRB5_KDC_PROFILE"] = os.path.join(self.base, "kdc.conf")
        self._stack.callback(os.environ.pop, "KRB5_KDC_PROFILE")
        sh("/usr/sbin/kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
        sh("/usr/sbin/kadmin.local", "-q", f'addprinc -pw "{PASSWORD}" alice')
        self._wait_port(88, self._start("/usr/sbin/krb5kdc", "-n"), lambda: self.read("krb5kdc.out"))

    def _make_server(self) -> None:
        for name in ("plain", "secure/public", "secure/basic", "secure/members"):
            os.makedirs(os.path.join(self.base, name))
        Path(self.base, "htpasswd").write_text("alice:{PLAIN}opensesame\n", encoding="ascii")
        for name in ("public/report", "public/update", "basic/report", "members/report"):
            Path(self.base, "secure", name).write_bytes(self.content(name))
        certified = self.authority.issue(
            "files.example.org", crl_urls=("http://files.example.org/company.crl",), subject=("files",)
        )
        certificate, key = certified.write(Path(self.base), "server")
        Path(self.base, "company-ca.crt").write_bytes(self.authority.pem)
        Path(self.base, "plain", "company.crl").write_bytes(self.authority.crl())
        Path(self.base, "nginx.conf").write_text(
            _NGINX_CONF.format(
                base=self.base,
                wpad=WPAD,
                certificate=certificate,
                key=key,
                authority=os.path.join(self.base, "company-ca.crt"),
            ),
            encoding="ascii",
        )
        nginx = self._start("nginx", "-p", self.base, "-c", os.path.join(self.base, "nginx.conf"))
        self._wait_port(443, nginx, lambda: self.read("nginx.errors"))
        alice = self.authority.issue("alice", subject=("alice",), usages=(CLIENT,))
        self.give("alice", "alice.pem", alice.pem)
        self.give("alice", "alice.key", alice.key_pem)

    @staticmethod
    def content(name: str) -> bytes:
        """What a file of the server has in it."""
        return f"{name}\n".encode() * 5_000

    def start_squid(self, block: str) -> None:
        """Start the proxy with a part of its configuration."""
        Path("/etc/squid/passwords").write_text(sh("openssl", "passwd", "-apr1", PASSWORD).join(("updater:", "")))
        shutil.chown("/etc/squid/passwords", "proxy")
        shutil.chown(self.base, "proxy")
        Path("/etc/squid/squid.conf").write_text(_SQUID_CONF.format(base=self.base) + block, encoding="ascii")
        squid = self._start("squid", "-N", "-f", "/etc/squid/squid.conf")
        self._wait_port(3128, squid, lambda: self.read("squid.out") + self.read("squid.log"))

    def passed(self) -> list[str]:
        """Who came to the proxy for what: `STATUS USER METHOD ADDRESS`."""
        return self.read("passed").splitlines()

    def asked(self) -> list[str]:
        """What the server was asked."""
        return self.read("asked").splitlines()
