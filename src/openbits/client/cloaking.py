"""Cloaking: whose identity a call carries.

The rules:

- The kernel tells the service who calls, by the connection. Nothing that a request says can change that; a blanket
  only chooses the connection.
- A blanket belongs to one object.  What the object hands out (jobs of a manager, files of a job, errors, token
  options, enumerators and what is in them) has the process's default, never the object's own.
- The process's default is set once, before the first object exists.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeVar, assert_never

from openbits.client.identity import Identity, base_identity, current_identity
from openbits.errors import BitsError


class Cloaking(enum.Enum):
    """Whose identity the calls of an object carry; the values are COM's (EOAC_NONE, …)."""

    NONE = 0x00
    """That of the process: of the calling thread as it is outside of all `impersonate` blocks."""
    STATIC = 0x20
    """That of the thread that set the blanket, as it was then."""
    DYNAMIC = 0x40
    """That of the calling thread, at each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blanket:
    """How an object is cloaked; `identity` is the one that STATIC keeps."""

    cloaking: Cloaking
    identity: Identity | None = None

    @classmethod
    def of_this_moment(cls, cloaking: Cloaking) -> Blanket:
        """Return a blanket of this kind, with the calling thread's identity where it is STATIC. Raises E_INVALIDARG."""
        try:
            kind = Cloaking(cloaking)
        except ValueError:
            raise BitsError("E_INVALIDARG", f"{cloaking!r} is no Cloaking: take NONE, STATIC or DYNAMIC") from None
        return cls(cloaking=kind, identity=current_identity() if kind is Cloaking.STATIC else None)

    def call_identity(self) -> Identity:
        """Return whose identity a call carries that the calling thread makes now."""
        match self.cloaking:
            case Cloaking.NONE:
                return base_identity()
            case Cloaking.STATIC:
                assert self.identity is not None
                return self.identity
            case Cloaking.DYNAMIC:
                return current_identity()
            case _:
                assert_never(self.cloaking)


_NONE: Final = Blanket(cloaking=Cloaking.NONE)
_process: Final[dict[str, Blanket]] = {}
"""The process's default, once it stands. (A dictionary, because its setdefault is one step: no lock to be forked.)"""


class Proxy:
    """Base of everything that carries calls to the service, or hands out what does."""

    _blanket: Blanket | None = None
    """None: the process's default."""

    def _call_identity(self) -> Identity:
        return (self._blanket or _default()).call_identity()


ProxyT = TypeVar("ProxyT", bound=Proxy)


def _default() -> Blanket:
    return _process.get("default", _NONE)


def settle_security() -> None:
    """The first object is being made: from now on the default stands."""
    _process.setdefault("default", _NONE)


def initialize_security(cloaking: Cloaking = Cloaking.NONE) -> None:
    """Set the cloaking of every object of this process that gets no blanket of its own, as CoInitializeSecurity does.

    Once, and before the first Manager is made. STATIC keeps the calling thread's identity of this moment. Raises
    RPC_E_TOO_LATE, E_INVALIDARG.
    """
    blanket = Blanket.of_this_moment(cloaking)
    if _process.setdefault("default", blanket) is not blanket:
        raise BitsError("RPC_E_TOO_LATE")


def set_proxy_blanket(obj: object, cloaking: Cloaking) -> None:
    """Cloak this object, and no other (CoSetProxyBlanket): Manager, Job, File, JobError, TokenOptions, Enumerator.

    STATIC keeps the calling thread's identity of this moment. Calls that are under way are not concerned.
    Raises E_NOINTERFACE (no object of the client), E_INVALIDARG.
    """
    _proxy(obj)._blanket = Blanket.of_this_moment(cloaking)


def query_proxy_blanket(obj: object) -> Blanket:
    """Return how this object is cloaked: by its own blanket or by the process's (CoQueryProxyBlanket).

    Raises E_NOINTERFACE.
    """
    return _proxy(obj)._blanket or _default()


def copy_proxy(obj: ProxyT) -> ProxyT:
    """Return a private copy of this object, for a blanket of its own; it begins with the process's default.

    As IClientSecurity::CopyProxy: two threads can cloak one job in two ways. Raises E_NOINTERFACE.
    """
    proxy = _proxy(obj)
    twin = object.__new__(type(proxy))
    twin.__dict__.update(proxy.__dict__)
    twin._blanket = None
    return twin  # type: ignore[return-value]  # it is of the type of `obj`


def _proxy(obj: object) -> Proxy:
    if not isinstance(obj, Proxy):
        raise BitsError("E_NOINTERFACE", f"{type(obj).__name__} carries no calls: only the objects of the client do")
    return obj
