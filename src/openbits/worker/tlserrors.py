"""Why a secure connection was not made, as errors of the table (I13, section 2.6 of the inventory).

By OpenSSL's number for what is wrong with a certificate wherever there is one; a text is read only for alerts, of
which libcurl tells nothing else.  All of these are fatal: waiting changes neither a certificate nor whom one trusts.
"""

from __future__ import annotations

import re
from typing import Final

from openbits.errors import ErrorContext
from openbits.worker.failure import Failure

UNKNOWN_CA: Final = frozenset((2, 18, 19, 20, 21, 27))
"""Nobody who is trusted here issued it, or issued whoever issued it."""
DATES: Final = frozenset((9, 10))
_REVOKED: Final = 23
_WRONG_USAGE: Final = frozenset((26, 28))
_HOST_MISMATCH: Final = 62
_NAMES: Final = frozenset((_HOST_MISMATCH, 63, 64))
_OF_NAMES: Final = "subject name"
"""What libcurl says when the certificate is for another name; it compares names itself."""
_NO_REASON: Final = frozenset((0, 1))
"""What OpenSSL says when it has nothing to say against the chain."""

_CA_CERTIFICATE_BAD: Final = 77
_PEER_FAILED_VERIFICATION: Final = 60
_OTHER_KEY: Final = 90
ALERT: Final = re.compile(r"\balert (?:number )?([a-z ]+?)(?:,|$)", re.IGNORECASE)
_ABOUT_OUR_CERTIFICATE: Final = frozenset(
    (
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
        "access denied",
        "handshake failure",
        "decrypt error",
    )
)
_WANTS_CERTIFICATE: Final = "certificate required"


def certificate_failure(verify_result: int, whose: str, detail: str = "") -> Failure:
    """What is wrong with a certificate, by OpenSSL's X509_V_ERR number; `whose` is the server or the proxy."""
    match verify_result:
        case 9:
            name, what = "DATE_INVALID", "is not valid yet: check this machine's clock, or ask whoever runs it"
        case 10:
            name, what = "DATE_INVALID", "has expired: it has to be renewed, unless this machine's clock is wrong"
        case _ if verify_result in UNKNOWN_CA:
            return _fatal(
                "ERROR_WINHTTP_SECURE_INVALID_CA",
                f"nobody whom this machine trusts issued the certificate of {whose} ({_reason(verify_result)}): "
                "if that is right, add the authority to the system's trust store",
            )
        case _ if verify_result == _REVOKED:
            return _fatal("ERROR_WINHTTP_SECURE_CERT_REVOKED", f"the certificate of {whose} has been revoked")
        case _ if verify_result in _WRONG_USAGE:
            name, what = "WRONG_USAGE", "was not issued for servers: ask whoever runs it"
        case _ if verify_result in _NAMES:
            name, what = "CN_INVALID", "is for another name: check the address, or ask whoever runs it"
        case _:
            reason = detail or _reason(verify_result)
            return _fatal(
                "ERROR_WINHTTP_SECURE_INVALID_CERT",
                f"the certificate of {whose} cannot be accepted: {reason}: ask whoever runs it",
            )
    return _fatal(f"ERROR_WINHTTP_SECURE_CERT_{name}", f"the certificate of {whose} {what}")


def secure_failure(code: int, detail: str, verify_result: int, whose: str, *, shown: str = "") -> Failure:
    """What it means that libcurl made no secure connection; `shown` names the client certificate that was presented."""
    failure = alert_failure(detail, whose, shown=shown)
    if failure is not None:
        return failure
    match code:
        case _ if code == _PEER_FAILED_VERIFICATION and verify_result not in _NO_REASON:
            return certificate_failure(verify_result, whose)
        case _ if code == _PEER_FAILED_VERIFICATION and _OF_NAMES in detail:
            return certificate_failure(_HOST_MISMATCH, whose)
        case _ if code == _PEER_FAILED_VERIFICATION and shown:
            # Nothing is said against the server: it is the server that failed us, by an alert of TLS 1.2.
            return _not_accepted(whose, shown, "it has expired, or is not trusted there")
        case _ if code == _PEER_FAILED_VERIFICATION:
            return certificate_failure(verify_result, whose, detail)
        case _ if code == _OTHER_KEY:
            return Failure(
                name="ERROR_WINHTTP_SECURE_CHANNEL_ERROR",
                context=ErrorContext.GENERAL_TRANSPORT,
                message=f"{whose} shows another certificate than the one that was checked: it is tried again",
                transient=True,
                has_other_key=True,
            )
        case _ if code == _CA_CERTIFICATE_BAD:
            return unreadable_store(detail)
        case _:
            return _fatal(
                "ERROR_WINHTTP_SECURE_CHANNEL_ERROR",
                f"no secure connection to {whose} could be set up: {detail}: check that it speaks TLS 1.2 or later",
            )


def unreadable_store(detail: str) -> Failure:
    """Nobody is trusted, because it cannot be read who is."""
    return _fatal(
        "ERROR_WINHTTP_SECURE_FAILURE",
        "the system's trust store cannot be read, so that nobody is trusted: install the distribution's "
        f"ca-certificates ({detail})",
    )


def alert_failure(detail: str, whose: str, *, shown: str = "") -> Failure | None:
    """What an alert of the other side says of a client certificate, which may come as late as an answer."""
    found = ALERT.search(detail)
    if found is None:
        return None
    alert = found[1].strip().lower()
    if alert == _WANTS_CERTIFICATE and not shown:
        return certificate_needed(whose)
    if shown and (alert in _ABOUT_OUR_CERTIFICATE or alert == _WANTS_CERTIFICATE):
        return _not_accepted(whose, shown, alert)
    return None


def _not_accepted(whose: str, shown: str, why: str) -> Failure:
    return _fatal(
        "BG_E_HTTP_ERROR_403",
        f"{whose} does not accept the client certificate {shown} ({why}): present one that it accepts",
    )


def certificate_needed(whose: str) -> Failure:
    """The server asks for a client certificate, and the job has none for it."""
    return _fatal(
        "ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED",
        f"{whose} asks for a client certificate: give the job one, then resume it",
    )


_REASONS: Final = {
    2: "the certificate of who issued it is missing",
    18: "it vouches for itself",
    19: "the authority at the end of its chain is unknown",
    20: "who issued it is unknown, or its server leaves out a certificate in between",
    21: "who issued it is unknown, or its server leaves out a certificate in between",
    7: "its signature is wrong",
    8: "the signature of a CRL is wrong",
    22: "its chain is too long",
    24: "a certificate that may issue none has issued it",
    25: "its chain is longer than one of the authorities allows",
    66: "its key is too weak",
    67: "the key of one of the authorities is too weak",
    68: "it is signed by a method that is too weak",
    79: "a certificate that may issue none has issued it",
}


def _reason(verify_result: int) -> str:
    return _REASONS.get(verify_result, f"OpenSSL's reason {verify_result}")


def _fatal(name: str, message: str) -> Failure:
    return Failure(name=name, context=ErrorContext.GENERAL_TRANSPORT, message=message, transient=False)
