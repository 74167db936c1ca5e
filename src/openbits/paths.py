"""Where things stand when nobody says otherwise: the directories and sockets of both modes.

Functions of the environment and nothing else: nothing is opened or created here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SOCKET_NAME: Final = "bitsd.sock"
SYSTEM_RUNTIME_DIR: Final = "/run/openbits"
SYSTEM_STATE_DIR: Final = "/var/lib/openbits"
SYSTEM_CONFIG: Final = "/etc/openbits/bitsd.toml"
SYSTEM_SOCKET: Final = f"{SYSTEM_RUNTIME_DIR}/{SOCKET_NAME}"
SYSTEM_SERVER_SOCKET: Final = "/run/bits-server/control.sock"

_CA_FILES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def trust_store(environment: Mapping[str, str] = os.environ) -> str:
    """Whom https servers are believed by: $SSL_CERT_FILE, else the distribution's bundle, never one of a package's.

    A name, too, where there is none: no server is believed then.
    """
    return environment.get("SSL_CERT_FILE") or next(filter(os.path.exists, _CA_FILES), _CA_FILES[0])


def _home(environment: Mapping[str, str]) -> str:
    home = environment.get("HOME", "")
    return home if home.startswith("/") else os.path.expanduser("~")


def _xdg(environment: Mapping[str, str], variable: str, below_home: str) -> str:
    # The XDG specification: a path that is not absolute counts as not set.
    value = environment.get(variable, "")
    return value if value.startswith("/") else os.path.join(_home(environment), below_home)


def user_state_dir(environment: Mapping[str, str] = os.environ) -> str:
    """Where the per-user service keeps its jobs and its log: $XDG_STATE_HOME/openbits."""
    return os.path.join(_xdg(environment, "XDG_STATE_HOME", ".local/state"), "openbits")


def user_runtime_dir(environment: Mapping[str, str] = os.environ) -> str:
    """Where the per-user service has its socket: $XDG_RUNTIME_DIR/openbits.

    Without that variable (su, cron, containers) /run/user/UID is taken where it exists, so that both
    meet in one place; else `run` in the state directory, because /tmp belongs to everybody.
    """
    runtime = _runtime(environment)
    return os.path.join(runtime, "openbits") if runtime else os.path.join(user_state_dir(environment), "run")


def _runtime(environment: Mapping[str, str]) -> str:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return runtime
    runtime = f"/run/user/{os.geteuid()}"
    return runtime if os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid() else ""


def user_server_socket(environment: Mapping[str, str] = os.environ) -> str:
    """The control socket of a person's bits-server, beside that of the service."""
    base = _runtime(environment) or _xdg(environment, "XDG_STATE_HOME", ".local/state")
    return os.path.join(base, "bits-server", "control.sock")


def user_config(environment: Mapping[str, str] = os.environ) -> str:
    """The configuration file of the per-user service: $XDG_CONFIG_HOME/openbits/bitsd.toml."""
    return os.path.join(_xdg(environment, "XDG_CONFIG_HOME", ".config"), "openbits", "bitsd.toml")


def user_socket(environment: Mapping[str, str] = os.environ) -> str:
    """The socket of the per-user service."""
    return os.path.join(user_runtime_dir(environment), SOCKET_NAME)
