"""When an account's own credentials may answer a challenge, and what to say when they did not (I4, I10, I11, J35–J37).

The rule: nothing is sent that the policy, the job and the sort of account do not all allow; an anonymous account
sends nothing, whatever is allowed; and no server gets an answer to another server's challenge.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from openbits.core.events import ChangeCredentials
from openbits.core.http import is_same_origin
from openbits.core.model import AccountKind, AuthScheme, AuthTarget, CredentialSlot, Job, SealedCredential
from openbits.core.ownership import IMPLICIT_SCHEMES, allows_implicit
from openbits.errors import BitsError

USER_NAME_LIMIT: Final = 300
PASSWORD_LIMIT: Final = 65_536
"""J35's page of the structure; the error's own text says one less."""
_NOT_FOR_CREDENTIALS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
ALWAYS: Final = frozenset({0, 1})
"""Values of use_lm_compat under which no job needs to allow anything (I11)."""


class SpeaksAs(enum.Enum):
    """Whose credentials an account has for the network (architecture, section 4)."""

    ITSELF = "itself"
    COMPUTER = "computer"
    NOBODY = "nobody"


SPEAKS_AS: Final = {
    AccountKind.LOCAL_SYSTEM: SpeaksAs.COMPUTER,
    AccountKind.NETWORK_SERVICE: SpeaksAs.COMPUTER,
    AccountKind.LOCAL_SERVICE: SpeaksAs.NOBODY,
    AccountKind.USER: SpeaksAs.ITSELF,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitTerms:
    """Where implicit credentials may answer, and whose they are."""

    server: bool
    proxy: bool
    speaks_as: SpeaksAs


def implicit_terms(
    slots: frozenset[CredentialSlot], kind: AccountKind, *, use_lm_compat: int, stored_for: str = ""
) -> ImplicitTerms:
    """Decide for a job that allows `slots` and whose network side is an account of this kind (I4, I10, I11).

    Only Negotiate is spoken here; a job that allows NTLM allows the account's credentials, and Negotiate is how
    this system proves them. `stored_for` is the target for which the job allows them besides (J65): that alone.
    """
    speaks_as = SPEAKS_AS[kind]
    if speaks_as is SpeaksAs.NOBODY:
        return ImplicitTerms(server=False, proxy=False, speaks_as=speaks_as)
    is_free = use_lm_compat in ALWAYS
    return ImplicitTerms(
        server=is_free or allows_implicit(slots, AuthTarget.SERVER.value),
        proxy=is_free or stored_for == AuthTarget.PROXY.value or allows_implicit(slots, AuthTarget.PROXY.value),
        speaks_as=speaks_as,
    )


# --- SetCredentials ----------------------------------------------------------------------------------


def slot_of(target: str, scheme: str) -> CredentialSlot:
    """Return the pair that a call is about. Raises BG_E_INVALID_AUTH_TARGET, BG_E_INVALID_AUTH_SCHEME (J35)."""
    if target not in {each.value for each in AuthTarget}:
        raise BitsError("BG_E_INVALID_AUTH_TARGET", "the target of credentials is server or proxy")
    if scheme not in {each.value for each in AuthScheme}:
        schemes = ", ".join(each.value for each in AuthScheme)
        raise BitsError("BG_E_INVALID_AUTH_SCHEME", f"the scheme of credentials is one of {schemes}")
    return CredentialSlot(target, scheme)


def check_credentials(target: str, scheme: str, user_name: str | None, password: str | None) -> CredentialSlot:
    """Return the pair that SetCredentials is called for (J35); neither name nor password: the account's own.

    Nothing of a name or a password stands in any error. Raises BG_E_INVALID_AUTH_TARGET, BG_E_INVALID_AUTH_SCHEME,
    E_NOTIMPL for passport, BG_E_USERNAME_TOO_LARGE, BG_E_PASSWORD_TOO_LARGE, E_INVALIDARG.
    """
    slot = slot_of(target, scheme)
    if scheme == AuthScheme.PASSPORT.value:
        raise BitsError(
            "E_NOTIMPL",
            "nobody offers passport any more: use basic, digest, ntlm or negotiate, whichever the server asks for",
        )
    if user_name is not None and len(user_name) > USER_NAME_LIMIT:
        raise BitsError("BG_E_USERNAME_TOO_LARGE", f"a user name has at most {USER_NAME_LIMIT} characters")
    if password is not None and len(password) > PASSWORD_LIMIT:
        raise BitsError("BG_E_PASSWORD_TOO_LARGE", f"a password has at most {PASSWORD_LIMIT:,} characters")
    if user_name is None and password is None:
        if AuthScheme(scheme) not in IMPLICIT_SCHEMES:
            raise BitsError(
                "E_INVALIDARG",
                f"{scheme} needs a user name and a password: only ntlm and negotiate work with the account's own",
            )
        return slot
    if user_name is None or password is None:
        raise BitsError(
            "E_INVALIDARG", "give both a user name and a password, or neither for the account's own credentials"
        )
    _check_name_and_password(scheme, user_name, password)
    return slot


def _check_name_and_password(scheme: str, user_name: str, password: str) -> None:
    for what, text in (("user name", user_name), ("password", password)):
        if _NOT_FOR_CREDENTIALS.search(text) is not None:
            # No scheme has a way to say such a thing (RFC 7617, RFC 7616); most often it is the end of a line.
            raise BitsError("E_INVALIDARG", f"the {what} has control characters, such as the end of a line, in it")
    if scheme == AuthScheme.BASIC.value and ":" in user_name:
        raise BitsError("E_INVALIDARG", "a user name for basic cannot have a colon in it: the password begins there")
    if scheme != AuthScheme.BASIC.value and not user_name:
        raise BitsError("E_INVALIDARG", f"{scheme} needs a user name: only the password may be empty")


def change_credentials(
    job: Job, slot: CredentialSlot, *, implicit: bool = False, sealed: str = ""
) -> ChangeCredentials:
    """What a pair becomes: the account's own, what is sealed, or nothing at all; one of them, whatever it was (J35)."""
    explicit = tuple(each for each in job.explicit_credentials if each.slot != slot)
    if sealed:
        explicit += (SealedCredential(slot=slot, sealed=sealed),)
    others = job.implicit_credentials - {slot}
    return ChangeCredentials(implicit=others | {slot} if implicit else others, explicit=explicit)


# --- challenges --------------------------------------------------------------------------------------


def may_answer(first_url: str, url: str) -> bool:
    """Whether a challenge from `url` may be answered in a transfer of `first_url`: never another server's.

    A redirect from http to https on one server, both on their usual ports, stays with the server.
    """
    if is_same_origin(first_url, url):
        return True
    first, now = urlsplit(first_url), urlsplit(url)
    return (
        (first.scheme, now.scheme) == ("http", "https")
        and (first.port or 80, now.port or 443) == (80, 443)
        and (first.hostname or "").lower() == (now.hostname or "").lower()
    )


# --- why not -----------------------------------------------------------------------------------------


def anonymous(account: str) -> str:
    """Why nothing was sent for a LOCAL_SERVICE account (I4)."""
    return (
        f"the account {account} is anonymous on the network: "
        "use an account that is listed in accounts.network_service, or a helper token"
    )


def not_allowed(target: AuthTarget, account: str) -> str:
    """Why nothing was sent for a job that does not allow it (I10)."""
    return (
        f"the job does not allow the credentials of {account}: "
        f"call SetCredentials for {target.value} and negotiate without a user name, then resume the job"
    )


def rejected(account: str) -> str:
    """Why the answer to a challenge did not help."""
    return f"it does not let {account} in: ask whoever runs the server"


def not_for_others(account: str) -> str:
    """Why nothing was sent to where a redirect led."""
    return f"it was reached by a redirect, and another server does not get the credentials of {account}"


def no_other_scheme(account: str) -> str:
    """Why nothing was sent although it was allowed."""
    return f"it does not offer Negotiate, by which the credentials of {account} could be proved"
