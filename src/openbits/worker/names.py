"""Names and addresses for scripts that find proxies: asked of the system's resolver, in a thread, for a limited time.

The rule: a resolver may take its time or hang; that costs a thread and never the loop, and an answer that comes too
late finds nobody.
"""

from __future__ import annotations

import contextlib
import enum
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from openbits.core.pac import is_resolvable_name
from openbits.core.wpad import hosts_to_ask, search_list
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop

_SOMEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation: no packet is sent there, the kernel only says by which address of ours it would."""
_NO_SUCH_NAME: Final = frozenset(
    (socket.EAI_NONAME, socket.EAI_NODATA, getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME))
)
RESOLV_CONF: Final = "/etc/resolv.conf"

_T = TypeVar("_T")


class Unknown(enum.Enum):
    """Why there are no addresses."""

    NO_SUCH_NAME = "no such name"
    NO_ANSWER = "no answer"


class Resolver:
    """One question at a time; `close` forgets the one that is under way."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._helper: Helper | None = None

    def __repr__(self) -> str:
        return f"<Resolver {'used' if self._helper is not None else 'unused'}>"

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._helper is not None:
            self._helper.let_go()
            self._helper = None

    def resolve(self, name: str, *, any_version: bool, done: Callable[[tuple[str, ...]], None]) -> None:
        """Tell `done` the addresses of a host, of this machine for an empty name; none where there are none."""

        def work() -> tuple[str, ...]:
            if not name:
                return own_addresses(any_version=any_version)
            found = addresses_of(name, any_version=any_version) if is_resolvable_name(name) else Unknown.NO_SUCH_NAME
            return () if isinstance(found, Unknown) else found

        self._submit(work, done)

    def find_wpad(self, done: Callable[[tuple[str, ...] | Unknown], None]) -> None:
        """Tell `done` which hosts of this machine's domains are called wpad, or that the resolver gave no answer."""
        self._submit(wpad_hosts, done)

    def _submit(self, work: Callable[[], _T], done: Callable[[_T], None]) -> None:
        if self._helper is None:
            self._helper = Helper(self._loop, "names")

        def told(result: _T | OSError) -> None:
            assert not isinstance(result, OSError), "what a resolver says is no exception here"
            done(result)

        self._helper.submit(work, told)


def addresses_of(name: str, *, any_version: bool) -> tuple[str, ...] | Unknown:
    """Return the addresses of a host, in the resolver's order."""
    family = socket.AF_UNSPEC if any_version else socket.AF_INET
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        return Unknown.NO_SUCH_NAME if error.errno in _NO_SUCH_NAME else Unknown.NO_ANSWER
    except (OSError, UnicodeError):
        return Unknown.NO_ANSWER
    return tuple(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


def own_addresses(*, any_version: bool) -> tuple[str, ...]:
    """Return the addresses by which this machine would speak to the world."""
    found = []
    for family, somewhere in _SOMEWHERE if any_version else _SOMEWHERE[:1]:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((somewhere, 53))
            found.append(str(sock.getsockname()[0]))
    return tuple(found)


def wpad_hosts() -> tuple[str, ...] | Unknown:
    """Return those hosts that may be asked for the proxies of this network and exist, without the dot at the end."""
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            search = search_list(file.read(65_536))
    except OSError:
        search = ()
    exist = []
    for host in hosts_to_ask(_full_name(), search):
        match addresses_of(host, any_version=True):
            case Unknown.NO_ANSWER:
                # It may be there: to go on without it would be a guess.
                return Unknown.NO_ANSWER
            case Unknown.NO_SUCH_NAME:
                continue
            case _:
                exist.append(host.removesuffix("."))
    return tuple(exist)


def _full_name() -> str:
    """This machine's name with its domain, as far as it has one (`hostname --fqdn`)."""
    name = socket.gethostname()
    if "." in name or not name:
        return name
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)
        full = next((str(entry[3]) for entry in found if entry[3]), "")
        if full.lower().startswith(f"{name.lower()}."):
            return full
    return name
