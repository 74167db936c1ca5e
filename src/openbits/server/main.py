"""The running program `bits-server`: opens what it needs, says that it is ready, serves, and ends in good order.

What cannot be used is found before the first client is: a root that is not there, a port that is taken, a key that does
not fit its certificate.  Each is one line that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.server.application import BitsApplication
from openbits.server.configuration import Address, Configuration, default_control_socket
from openbits.server.connection import Served
from openbits.server.control import ControlSocket
from openbits.server.downloads import Downloads
from openbits.server.exchange import Head
from openbits.server.publications import Publications
from openbits.server.shell import HttpServer, listen
from openbits.server.storage import StorageError
from openbits.server.tables import SettingsError
from openbits.server.uploads import Uploads

log = logging.getLogger(__name__)
access = logging.getLogger("openbits.server.access")

_RESERVED_DESCRIPTORS: Final = 256
"""For everything that is no connection: files that are written and read meanwhile among them."""


class CannotStart(Exception):
    """The server cannot run; the message says why and what to do."""


def run(configuration: Configuration, read_again: Callable[[], Configuration]) -> None:
    """Serve until a signal says otherwise; raises CannotStart."""
    if not os.path.isdir(configuration.uploads.root):
        raise CannotStart(f"the root {configuration.uploads.root} is no directory: make it first, or name another one")
    asyncio.run(Program(configuration, read_again).serve())


class Program:
    """Everything that runs."""

    def __init__(self, configuration: Configuration, read_again: Callable[[], Configuration]) -> None:
        """`read_again` is called when the configuration may have changed (SIGHUP)."""
        self._configuration = configuration
        self._read_again = read_again
        self._port = 0
        self._stopped = asyncio.Event()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        configuration = self._configuration
        tls = certificates(configuration)
        listeners = _listen_on_all(configuration.listen)
        self._port = listeners[0].getsockname()[1]
        async with contextlib.AsyncExitStack() as stack:
            for listener in listeners:
                stack.callback(listener.close)
            uploads = _open_uploads(configuration, self._own_address)
            publications = Publications(names_users=configuration.proxies.names_users)
            stack.callback(publications.close)
            uploads.start()
            stack.push_async_callback(uploads.close)
            downloads = Downloads(uploads.storage) if configuration.downloads else None
            server = HttpServer(
                BitsApplication(uploads=uploads, downloads=downloads, publications=publications),
                replace(configuration.limits, max_connections=_connections(configuration.limits.max_connections)),
                complete=self._complete,
                on_served=self._log_access,
                tls=tls,
            )
            stack.push_async_callback(server.stop)
            control = _open_control(configuration, publications, lambda: self._configuration.publish_group)
            if control is not None:
                stack.push_async_callback(control.close)
            self._catch_signals(server)
            server.start(listeners)
            _announce(configuration, listeners)
            await self._stopped.wait()
            notify("STOPPING=1")
            log.info("stopping: what is under way may take %g s", configuration.limits.stop_timeout_s)

    def _complete(self, head: Head) -> Head:
        # Not the proxies' own method: another configuration may hold by then.
        return self._configuration.proxies.complete(head)

    def _own_address(self) -> tuple[str, int] | None:
        """Where an application that is named relatively is reached: this server."""
        host = self._configuration.listen[0].host
        return ("127.0.0.1" if host in ("", "0.0.0.0") else "::1" if host == "::" else host, self._port)  # noqa: S104

    def _catch_signals(self, server: HttpServer) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, server)

    def _reload(self, server: HttpServer) -> None:
        """Take what can change while clients are here: certificates, proxies, the access log, the publish group."""
        try:
            found = self._read_again()
            tls = certificates(found)
        except (SettingsError, CannotStart) as error:
            log.error("reload refused, what was set before holds: %s", error)
            return
        if (tls is None) != (self._configuration.tls_certificate == ""):
            log.warning("reload: TLS is switched on or off by a restart only")
        elif tls is not None:
            server.use_certificates(tls)
        fixed = replace(
            found,
            proxies=self._configuration.proxies,
            access_log=self._configuration.access_log,
            publish_group=self._configuration.publish_group,
            tls_certificate=self._configuration.tls_certificate,
            tls_key=self._configuration.tls_key,
        )
        if fixed != self._configuration:
            log.warning("reload: only certificates, [proxy], access_log and the publish group change without a restart")
        self._configuration = replace(
            self._configuration,
            proxies=found.proxies,
            access_log=found.access_log,
            publish_group=found.publish_group,
        )
        log.info("reloaded")

    def _log_access(self, what: Served) -> None:
        if self._configuration.access_log:
            head = what.head
            access.info(
                "%s %s %s %s %d %d %.3f",
                head.client.host or "-",
                head.user or "-",
                head.method,
                head.target.decode("ascii", "backslashreplace"),
                what.status,
                what.sent_bytes,
                what.took_s,
            )


def certificates(configuration: Configuration) -> ssl.SSLContext | None:
    """Load what is shown to clients; None without TLS; raises CannotStart."""
    if not configuration.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key with a password would make OpenSSL ask at the terminal.
        context.load_cert_chain(configuration.tls_certificate, configuration.tls_key, password=lambda: "")
    except ssl.SSLError as error:
        raise CannotStart(
            f"the certificate {configuration.tls_certificate} and the key {configuration.tls_key} cannot be used"
            f" ({error.reason or error}): both in PEM, the key its own and without a password"
        ) from None
    except OSError as error:
        raise CannotStart(
            f"the certificate {configuration.tls_certificate} or the key {configuration.tls_key} cannot be read:"
            f" {error.strerror or error}"
        ) from None
    return context


def _listen_on_all(addresses: tuple[Address, ...]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets += listen(address.host, address.port)
        except OSError as error:
            for sock in sockets:
                sock.close()
            advice = {
                errno.EADDRINUSE: "another program listens there; end that one, or choose another port with --listen",
                errno.EACCES: "ports below 1024 need a right that this account lacks; choose a higher one",
                errno.EADDRNOTAVAIL: "this machine has no such address",
            }.get(error.errno or 0, error.strerror or str(error))
            raise CannotStart(f"cannot listen on {address}: {advice}") from None
    return sockets


def _open_uploads(configuration: Configuration, own_address: Callable[[], tuple[str, int] | None]) -> Uploads:
    try:
        return Uploads(configuration.uploads, own_address=own_address)
    except StorageError as error:
        raise CannotStart(str(error)) from None


def _open_control(
    configuration: Configuration, publications: Publications, group: Callable[[], str]
) -> ControlSocket | None:
    """Publishing is a convenience: without it the server serves all the same."""
    path = configuration.control_socket
    if path is None:
        path = default_control_socket()
    if not path:
        return None
    control = ControlSocket(path, publications, group=group)
    try:
        control.start()
    except OSError as error:
        log.warning("nothing can be published, %s cannot be listened on: %s", path, error.strerror or error)
        return None
    return control


def _connections(wanted: int) -> int:
    """Have as many descriptors as are allowed, and no more connections than those are good for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Whoever is served has a file open beside the connection.
    possible = max(16, (hard - _RESERVED_DESCRIPTORS) // 2) if hard != resource.RLIM_INFINITY else wanted
    if possible < wanted:
        log.info("%d connections at most, since the limit of open files is %d", possible, hard)
    return min(wanted, possible)


def _announce(configuration: Configuration, listeners: list[socket.socket]) -> None:
    scheme = "https" if configuration.tls_certificate else "http"
    for listener in listeners:
        host, port = listener.getsockname()[:2]
        print(
            f"bits-server: listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}",
            file=sys.stderr,
            flush=True,
        )
    log.info("serving %s", configuration.uploads.root)
    notify("READY=1")


def notify(state: str) -> None:
    """Tell systemd, where it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode("ascii"))
