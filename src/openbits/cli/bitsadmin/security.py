"""The switches for what a job proves to whom: credentials, headers, certificates, helper tokens (B31 to B35, B39)."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure, number
from openbits.cli.bitsadmin.jobs import say_remark
from openbits.cli.bitsadmin.lines import or_null
from openbits.cli.bitsadmin.output import NULL, note
from openbits.cli.bitsadmin.properties import or_none
from openbits.cli.text import safe
from openbits.client.certificates import CertificateStoreLocation, SecurityFlags
from openbits.client.network_identity import AuthScheme, AuthTarget
from openbits.errors import BitsError

WARNING: Final = (
    "bitsadmin: WARNING: a password on a command line can be read by every account of this machine while the command "
    "runs, and stays in the shell's history: leave it out, and the terminal is asked; "
    "scripts use 'bits set-credentials --password-file'"
)
_LOCATIONS: Final = tuple(CertificateStoreLocation)
"""In their order; the tool counts them from 1 where the interface counts from 0 (section 16, 3)."""
_CHECKS: Final = (
    ("Look up whether certificates are revoked", SecurityFlags.BG_SSL_ENABLE_CRL_CHECK),
    ("Ignore a wrong name in a server's certificate", SecurityFlags.BG_SSL_IGNORE_CERT_CN_INVALID),
    ("Ignore a wrong date in a server's certificate", SecurityFlags.BG_SSL_IGNORE_CERT_DATE_INVALID),
    ("Ignore an unknown certificate authority", SecurityFlags.BG_SSL_IGNORE_UNKNOWN_CA),
    ("Ignore a wrong usage of a certificate", SecurityFlags.BG_SSL_IGNORE_CERT_WRONG_USAGE),
)
_REDIRECTS: Final = {0x0000: "follow", 0x0100: "follow and report", 0x0200: "fail"}


# --- credentials (B31) ----------------------------------------------------------------------------


def set_credentials(call: Invocation) -> None:
    """Give the job credentials: a password from the command line, with a warning, or from the terminal."""
    given = call.arguments[3:]
    has_password = len(given) == 2 and given[1].lower() != "null"
    if has_password:
        # Before anything is looked at: it can be seen, whatever else is wrong.
        _hide(call, 4)
    target, scheme = _target(call.arguments[1]), _scheme(call.arguments[2])
    user = or_none(given[0]) if given else None
    if user is None:
        if has_password:
            raise UsageFailure("a password needs a user name")
        password = None
    else:
        # An empty password is one; NULL is none, of which the service has its own opinion.
        password = _asked(user) if len(given) == 1 else given[1] if has_password else None
    say_remark(call.job.set_credentials(target, scheme, user, password))
    whose = "the account's own credentials" if user is None else f"the credentials of '{safe(user)}'"
    call.output.line(f"{target.name} {scheme.name}: {whose} set.")


def remove_credentials(call: Invocation) -> None:
    """Take credentials back."""
    target, scheme = _target(call.arguments[1]), _scheme(call.arguments[2])
    say_remark(call.job.remove_credentials(target, scheme))
    call.output.line(f"{target.name} {scheme.name}: credentials removed.")


def _target(text: str) -> AuthTarget:
    found = AuthTarget.__members__.get(text.upper())
    if found is None:
        raise BitsError("BG_E_INVALID_AUTH_TARGET", f"{safe(text)!r} is no target: write SERVER or PROXY")
    return found


def _scheme(text: str) -> AuthScheme:
    found = AuthScheme.__members__.get(text.upper())
    if found is None:
        names = ", ".join(AuthScheme.__members__)
        raise BitsError("BG_E_INVALID_AUTH_SCHEME", f"{safe(text)!r} is no scheme: write one of {names}")
    return found


def _hide(call: Invocation, index: int) -> None:
    """Take the password out of the process list as soon as it is ours to take, and warn."""
    from openbits.title import set_title  # noqa: PLC0415 - for the switches that have a password

    set_title("bitsadmin", " ".join(["bitsadmin", call.switch.name, *call.arguments[:index], "***"]))
    note(WARNING)


def _asked(user: str) -> str:
    import click  # noqa: PLC0415 - what reads passwords needs it

    from openbits.cli.passwords import PasswordSource  # noqa: PLC0415

    source = PasswordSource(password_file=None, password_fd=None, password_stdin=False)
    try:
        return source.read(f"Password for {safe(user)}: ")
    except click.UsageError:
        raise UsageFailure("there is no password, and no terminal to ask for it") from None
    except click.Abort:
        raise KeyboardInterrupt from None


# --- headers and methods (B32, B33) ---------------------------------------------------------------


def get_custom_headers(call: Invocation) -> None:
    """Print the custom headers, one a line; NULL for none."""
    headers = call.job.get_custom_headers()
    call.output.value("\n".join(safe(line) for line in headers.splitlines() if line) if headers else NULL)


def set_custom_headers(call: Invocation) -> None:
    """Replace the custom headers by those that are given."""
    headers = call.arguments[1:]
    if len(headers) == 1 and or_none(headers[0]) is None:
        say_remark(call.job.set_custom_headers(None))
        call.output.line("Custom headers removed.")
        return
    say_remark(call.job.set_custom_headers("".join(f"{header}\r\n" for header in headers)))
    # Not what they are: a header may be a key, and a console's contents are kept.
    call.output.line(f"{len(headers)} custom header(s) set.")


def hide_custom_headers(call: Invocation) -> None:
    """Let nobody read the custom headers any more."""
    say_remark(call.job.make_custom_headers_write_only())
    call.output.line("Custom headers are write-only now.")


def get_http_method(call: Invocation) -> None:
    """Print the HTTP method."""
    call.output.value(safe(call.job.get_http_method()))


def set_http_method(call: Invocation) -> None:
    """Set the HTTP method."""
    say_remark(call.job.set_http_method(call.arguments[1]))
    call.output.line(f"HTTP method set to {safe(call.arguments[1])}.")


# --- certificates and redirects (B34, B35) --------------------------------------------------------


def get_client_certificate(call: Invocation) -> None:
    """Print which client certificate is presented."""
    found = call.job.get_client_certificate()
    digits = found.sha1.hex().upper() if found.sha1 is not None else NULL
    lines = (
        f"STORE LOCATION: {_LOCATIONS.index(found.location) + 1} ({found.location.name})",
        f"STORE NAME: {safe(found.store)}",
        f"CERTIFICATE HASH: {digits}",
        f"SUBJECT NAME: {or_null(found.subject)}",
    )
    call.output.value("\n".join(lines))


def set_client_certificate_by_id(call: Invocation) -> None:
    """Choose a client certificate by its hash."""
    _, location, store, digits = call.arguments
    digits = "".join(digits.replace(":", " ").split()).removeprefix("0x")
    say_remark(call.job.set_client_certificate_by_id(_location(location), store, digits))
    call.output.line("Client certificate set.")


def set_client_certificate_by_name(call: Invocation) -> None:
    """Choose a client certificate by its subject."""
    _, location, store, subject = call.arguments
    say_remark(call.job.set_client_certificate_by_name(_location(location), store, subject))
    call.output.line("Client certificate set.")


def remove_client_certificate(call: Invocation) -> None:
    """Present no client certificate."""
    say_remark(call.job.remove_client_certificate())
    call.output.line("Client certificate removed.")


def _location(text: str) -> CertificateStoreLocation:
    """Read a store's location: 1 to 8, or its name, which the Windows tool's manual writes in an example."""
    named = CertificateStoreLocation.__members__.get(text.upper().removeprefix("BG_CERT_STORE_LOCATION_"))
    if named is not None:
        return named
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= len(_LOCATIONS):
        raise UsageFailure(f"<store_location> is 1 to {len(_LOCATIONS)}, not {safe(text)!r}")
    return _LOCATIONS[int(text) - 1]


def set_security_flags(call: Invocation) -> None:
    """Set how servers' certificates are checked, and where redirects may lead."""
    flags = number(call.arguments[1], "<value>")
    say_remark(call.job.set_security_flags(flags))
    call.output.line(f"Security flags set to {flags:#06x}.")


def get_security_flags(call: Invocation) -> None:
    """Print the security flags, with what they mean; with /rawreturn as a decimal number."""
    flags = call.job.get_security_flags()
    policy = _REDIRECTS[int(flags) & SecurityFlags.BG_HTTP_REDIRECT_POLICY_MASK]
    is_open = bool(flags & SecurityFlags.BG_HTTP_REDIRECT_POLICY_ALLOW_HTTPS_TO_HTTP)
    lines = [f"Security flags: {int(flags):#06x}"]
    lines += [f"{meaning:<46}: {_yes(bool(flags & flag))}" for meaning, flag in _CHECKS]
    lines.append(f"{'Redirects':<46}: {policy}")
    lines.append(f"{'Redirects from HTTPS to HTTP':<46}: {_yes(is_open)}")
    call.output.value(int(flags), sentence="\n".join(lines))


def _yes(value: bool) -> str:
    return "TRUE" if value else "FALSE"


# --- helper tokens (B39) --------------------------------------------------------------------------


def set_helper_token(call: Invocation) -> None:
    """Make the account of this console the helper: the kernel tells the service who that is (T1)."""
    if len(call.arguments) > 1:
        if len(call.arguments) == 3:
            _hide(call, 2)
        raise BitsError(
            "E_NOTIMPL",
            "nobody is logged on by a name and a password here: without them, the job's owner who runs the command "
            "is its helper; a program makes another account the helper while it impersonates it, see docs/networks.md",
        )
    say_remark(call.job.token_options().set_helper_token())
    call.output.line("Helper token set.")


def get_helper_token_sid(call: Invocation) -> None:
    """Print whose helper token there is, as `uid:N`; NULL for none."""
    helper = call.detail()["helper_token"]
    name = f" ({safe(helper['name'])})" if helper is not None else ""
    sid = NULL if helper is None else f"uid:{helper['uid']}"
    call.output.value(sid, sentence=sid + name)


def set_helper_token_flags(call: Invocation) -> None:
    """Set for what the helper token is used."""
    flags = number(call.arguments[1], "<flags>")
    if flags > 3:
        raise UsageFailure("<flags> is 1, 2 or 3; 0 for nothing")
    say_remark(call.job.token_options().set_helper_token_flags(flags))
    call.output.line(f"Helper token flags set to {flags}.")
    if flags and call.detail()["helper_token"] is None:
        note("bitsadmin: there is no helper token yet, so that the flags mean nothing: see /sethelpertoken")


def get_helper_token_flags(call: Invocation) -> None:
    """Print for what the helper token is used."""
    call.output.value(int(call.detail()["helper_token_flags"]))
