"""How a bits-server is set up: its part of the configuration file, and what the command line says besides.

The command line wins over the file, and what neither says has a default that lets nobody in by mistake: only this
machine can connect until `listen` says otherwise, and nobody is believed to be somebody.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from openbits.paths import SYSTEM_SERVER_SOCKET, user_server_socket
from openbits.server.forwarded import TrustedProxies
from openbits.server.settings import Settings, parse_settings, with_root_properties
from openbits.server.shell import Limits
from openbits.server.tables import (
    Check,
    SettingsError,
    Unsuitable,
    boolean,
    full_path,
    perhaps,
    read_document,
    read_table,
    whole,
)

DEFAULT_LISTEN: Final = "127.0.0.1:8080"
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_TOKEN: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen."""

    host: str
    """A name or an address; empty for all of the machine's."""
    port: int
    """0: any free one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that is set."""

    uploads: Settings
    listen: tuple[Address, ...]
    tls_certificate: str = ""
    tls_key: str = ""
    downloads: bool = True
    """Whether what lies below the root is handed out."""
    access_log: bool = False
    control_socket: str | None = None
    """Where publish, unpublish and list reach the server; None: where the system has such things; empty: nowhere."""
    publish_group: str = ""
    """Whose members may publish files, besides root and the server's account."""
    limits: Limits = field(default_factory=Limits)
    proxies: TrustedProxies = field(default_factory=TrustedProxies)


def parse_listen(text: str) -> Address:
    """Read HOST:PORT; raises Unsuitable."""
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"]) > 65_535:
        raise Unsuitable("HOST:PORT, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080")
    return Address(host=found["six"] or found["host"] or "", port=int(found["port"]))


def read_configuration(
    path: str | None, *, top: Mapping[str, Any], root_properties: Mapping[str, Any]
) -> Configuration:
    """Read the file, if there is one, and put on top what the command line says.  Raises SettingsError.

    `top` are keys of the file's top level, `root_properties` properties of the root as an upload directory.
    """
    document = {} if path is None else read_document(path)
    if not document.get("directory"):
        # A server of which nothing else is said takes uploads: that is what it was started for.
        root_properties = {"upload_enabled": True, **root_properties}
    publish = document.get("publish")
    if isinstance(publish, Mapping) and "publish" in top:
        top = {**top, "publish": {**publish, **top["publish"]}}
    document = with_root_properties({**document, **top}, root_properties)
    source = "the command line" if path is None else path
    unknown = next((key for key in document if key not in _TOP and key not in _UPLOADS), None)
    if unknown is not None:
        raise SettingsError(f"{source}: there is no key {unknown}{perhaps(unknown, {**_TOP, **_UPLOADS})}")
    ours = {key: document.pop(key) for key in tuple(document) if key in _TOP}
    values = read_table(ours, _TOP, source=source, table="")
    for table in ("limits", "proxy", "publish"):
        values[table] = read_table(values.get(table, {}), _TABLES[table], source=source, table=table)
    if ("tls_certificate" in values) != ("tls_key" in values):
        raise SettingsError(f"{source}: tls_certificate and tls_key belong together: set both, or neither")
    publishing = values.pop("publish")
    listen = values.pop("listen", None) or (parse_listen(DEFAULT_LISTEN),)
    return Configuration(
        uploads=parse_settings(document, source=source),
        listen=listen,
        control_socket=publishing.get("socket"),
        publish_group=publishing.get("group", ""),
        limits=Limits(**values.pop("limits")),
        proxies=_proxies(values.pop("proxy")),
        **values,
    )


def default_control_socket() -> str:
    """Return where a server's control socket is unless it is set: /run for a system's service, else the user's."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if directory:
        return os.path.join(directory, "control.sock")
    return user_server_socket() if os.geteuid() != 0 else SYSTEM_SERVER_SOCKET


def _proxies(values: Mapping[str, Any]) -> TrustedProxies:
    return TrustedProxies(networks=values.get("trusted", ()), user_header=values.get("user_header", ""))


# --- keys --------------------------------------------------------------------------------------


def _listen(value: Any) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Unsuitable("HOST:PORT, or a list of such")
    return tuple(parse_listen(text) for text in texts)


def _networks(value: Any) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    wanted = 'a list of addresses and networks, such as ["127.0.0.1", "10.0.0.0/8"]'
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Unsuitable(wanted)
    try:
        return tuple(ipaddress.ip_network(text) for text in value)
    except ValueError:
        raise Unsuitable(wanted) from None


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Unsuitable("the name of a header, such as X-Remote-User")
    return value.lower()


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise Unsuitable("a name")
    return value


def _path_or_nothing(value: Any) -> str:
    return "" if value == "" else str(full_path(value))


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unsuitable("a table")
    return value


def _seconds(value: Any) -> float:
    return float(whole(1, 86_400)(value))


_TOP: Final[Mapping[str, Check]] = {
    "listen": _listen,
    "tls_certificate": full_path,
    "tls_key": full_path,
    "downloads": boolean,
    "access_log": boolean,
    "limits": _table,
    "proxy": _table,
    "publish": _table,
}
_UPLOADS: Final = dict.fromkeys(("root", "working_directory", "maximum_open_sessions", "directory"))
"""What is read by `settings`."""
_TABLES: Final[Mapping[str, Mapping[str, Check]]] = {
    "limits": {
        "max_connections": whole(1, 1_000_000),
        "head_timeout_s": _seconds,
        "idle_timeout_s": _seconds,
        "stall_timeout_s": _seconds,
        "stop_timeout_s": _seconds,
        "body_threads": whole(1, 256),
    },
    "proxy": {"trusted": _networks, "user_header": _header_name},
    "publish": {"socket": _path_or_nothing, "group": _word},
}

if _TABLES["limits"].keys() != {each.name for each in fields(Limits)}:
    raise AssertionError("the limits and their checks differ")
