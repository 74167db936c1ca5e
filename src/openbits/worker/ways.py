"""By which ways a challenge can be answered, and in which order they are tried (J35, I9, I11).

Pure.  The rule: the strongest scheme that is offered and for which there are credentials comes first, and each way is
tried once: one that is refused, or cannot be gone, gives way to the next.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from openbits.core.challenges import Challenge
from openbits.core.model import AuthScheme, AuthTarget
from openbits.worker.digest import strongest_digest
from openbits.worker.logins import Login, Source


class Way(enum.Enum):
    """How it is proved who asks."""

    TICKETS = "negotiate, with the account's own tickets"
    KERBEROS = "negotiate (kerberos)"
    SPNEGO_NTLM = "negotiate (ntlm)"
    NTLM = "ntlm"
    DIGEST = "digest"
    BASIC = "basic"


SCHEME_OF: Final = {
    Way.TICKETS: AuthScheme.NEGOTIATE,
    Way.KERBEROS: AuthScheme.NEGOTIATE,
    Way.SPNEGO_NTLM: AuthScheme.NEGOTIATE,
    Way.NTLM: AuthScheme.NTLM,
    Way.DIGEST: AuthScheme.DIGEST,
    Way.BASIC: AuthScheme.BASIC,
}
BOUND: Final = frozenset((Way.KERBEROS, Way.SPNEGO_NTLM, Way.NTLM))
"""What is proved once for a connection: nobody else may use that connection then."""
_HANDSHAKES: Final = frozenset((Way.SPNEGO_NTLM, Way.NTLM))
_STRONGEST_FIRST: Final = (AuthScheme.NEGOTIATE, AuthScheme.NTLM, AuthScheme.DIGEST, AuthScheme.BASIC)
_WITH_ANY_LOGIN: Final = frozenset((AuthScheme.NTLM, AuthScheme.DIGEST, AuthScheme.BASIC))
"""The schemes that also work with the name and the password of a URL, or of ~/.netrc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way, and whose credentials go it; the account's own without a login."""

    way: Way
    login: Login | None = field(default=None, repr=False)

    @property
    def is_handshake(self) -> bool:
        """Whether it takes several requests on one connection."""
        return self.way in _HANDSHAKES


def offered_schemes(challenges: Iterable[Challenge]) -> list[str]:
    """The schemes that are offered, strongest first, then those that are not spoken here; for people as well."""
    names = list(dict.fromkeys(challenge.scheme for challenge in challenges))
    known = [scheme.value for scheme in _STRONGEST_FIRST if scheme.value in names]
    return known + [name for name in names if name not in known]


def may_need_netrc(challenges: tuple[Challenge, ...]) -> bool:
    """Whether a name and a password from ~/.netrc could be of use."""
    return any(scheme.value in offered_schemes(challenges) for scheme in _WITH_ANY_LOGIN)


def attempts(
    target: AuthTarget,
    challenges: tuple[Challenge, ...],
    *,
    explicit: Callable[[AuthTarget, AuthScheme], Login | None],
    others: tuple[Login | None, ...],
    allows_tickets: bool,
) -> list[Attempt]:
    """Return what can be tried for these challenges, in order; `others` are logins that are not bound to a scheme."""
    offered = {challenge.scheme for challenge in challenges}
    found: list[Attempt] = []
    for scheme in _STRONGEST_FIRST:
        if scheme.value not in offered:
            continue
        login = explicit(target, scheme)
        if login is None and scheme in _WITH_ANY_LOGIN:
            login = next((other for other in others if other is not None), None)
        match scheme:
            case AuthScheme.NEGOTIATE if login is not None:
                found += [Attempt(way=Way.KERBEROS, login=login), Attempt(way=Way.SPNEGO_NTLM, login=login)]
            case AuthScheme.NEGOTIATE if allows_tickets:
                found.append(Attempt(way=Way.TICKETS))
            case AuthScheme.NTLM if login is not None:
                found.append(Attempt(way=Way.NTLM, login=login))
            case AuthScheme.DIGEST if login is not None and strongest_digest(challenges) is not None:
                found.append(Attempt(way=Way.DIGEST, login=login))
            case AuthScheme.BASIC if login is not None:
                found.append(Attempt(way=Way.BASIC, login=login))
            case _:
                pass
    return found


# --- sentences ----------------------------------------------------------------------------------------


def whose(attempt: Attempt, target: AuthTarget, who: str) -> str:
    """Whose credentials an attempt uses, for people; never a name or a password."""
    match attempt.login.source if attempt.login is not None else None:
        case Source.JOB:
            return f"the user name and password that the job has for {target.value} and {SCHEME_OF[attempt.way].value}"
        case Source.URL:
            return "the user name and password in the file's URL"
        case Source.NETRC:
            return f"the user name and password in ~/.netrc of {who}"
        case None:
            return f"the credentials of {who}"


def advice(attempt: Attempt, target: AuthTarget) -> str:
    """What to do about credentials that are of no use."""
    match attempt.login.source if attempt.login is not None else None:
        case Source.JOB:
            options = f"--target {target.value} --scheme {SCHEME_OF[attempt.way].value}"
            return f"set others with 'bits set-credentials {options}', then resume the job"
        case Source.URL:
            return "correct the URL, then resume the job"
        case Source.NETRC:
            return "correct the file, then resume the job"
        case None:
            return f"ask whoever runs the {target.value}"
