"""Names and passwords that a transfer has, and where each of them came from (J35, J37, I9).

The rule: they live as long as the transfer, are shown nowhere, and each is for one sort of asker only: the
job's for the target and scheme that it was set for, a URL's for the server of that URL, ~/.netrc's for the hosts in it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from urllib.parse import unquote

from openbits.core.model import AuthScheme, AuthTarget
from openbits.frames.worker import TakeCredential


class Source(enum.Enum):
    """Whose words they are."""

    JOB = "job"
    URL = "url"
    NETRC = "netrc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name and a password."""

    source: Source
    user_name: str = field(repr=False)
    password: str = field(repr=False)


class Explicit:
    """The job's own, as SetCredentials left them; a password may come in parts."""

    def __init__(self) -> None:
        self._logins: dict[tuple[AuthTarget, AuthScheme], Login] = {}
        self._parts: dict[tuple[AuthTarget, AuthScheme], list[str]] = {}

    def __repr__(self) -> str:
        names = sorted(f"{target.value}/{scheme.value}" for target, scheme in self._logins)
        return f"<Explicit {' '.join(names)}>"

    def __bool__(self) -> bool:
        return bool(self._logins)

    def take(self, message: TakeCredential) -> None:
        """One part of a credential."""
        key = AuthTarget(message.target), AuthScheme(message.scheme)
        parts = self._parts.setdefault(key, [])
        parts.append(message.password)
        if message.last:
            password = "".join(self._parts.pop(key))
            self._logins[key] = Login(source=Source.JOB, user_name=message.user_name, password=password)

    def get(self, target: AuthTarget, scheme: AuthScheme) -> Login | None:
        """What was set for a target and a scheme."""
        return self._logins.get((target, scheme))

    def schemes(self, target: AuthTarget) -> list[str]:
        """For which schemes something was set, for people."""
        return sorted(scheme.value for to, scheme in self._logins if to is target)

    def clear(self) -> None:
        """Forget everything: the transfer is over."""
        self._logins.clear()
        self._parts.clear()


def login_of_url(userinfo: str) -> Login | None:
    """The user name and password that stood in a URL, percent-encoded, byte for byte; None for a URL without."""
    if not userinfo:
        return None
    name, _, password = userinfo.partition(":")
    user_name, password = (unquote(part, errors="surrogateescape") for part in (name, password))
    return Login(source=Source.URL, user_name=user_name, password=password)
