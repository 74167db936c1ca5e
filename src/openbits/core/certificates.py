"""Where client certificates lie, and how jobs name them (H1, H2).

The rule: a store of Windows is a directory here, found by its location and its name alone.  Nobody's environment is
asked, and no name of a store leads anywhere but below its location:

| location | directory |
|---|---|
| `current_user` | `~/.config/openbits/certificates/STORE`, of the job's owner |
| `local_machine` | `/etc/openbits/certificates/STORE` |
| `current_service` | `/etc/openbits/services/ACCOUNT/certificates/STORE`, ACCOUNT being the job's owner |
| `services` | the same of any account; the store is called `ACCOUNT\\STORE` |
| `users` | `/etc/openbits/users/ACCOUNT/certificates/STORE`; the store is called `ACCOUNT\\STORE` |
| `current_user_group_policy` | `/etc/openbits/policy/users/ACCOUNT/certificates/STORE`, ACCOUNT being the job's owner |
| `local_machine_group_policy` | `/etc/openbits/policy/certificates/STORE` |
| `local_machine_enterprise` | `/etc/openbits/enterprise/certificates/STORE` |

STORE is MY, CA, ROOT, SPC (in any case) or a name of one's own.  Read with the owner's rights.
"""

from __future__ import annotations

import re
from typing import Final

from openbits.core.model import ClientCertificate
from openbits.errors import BitsError

LOCATIONS: Final = (
    "current_user",
    "local_machine",
    "current_service",
    "services",
    "users",
    "current_user_group_policy",
    "local_machine_group_policy",
    "local_machine_enterprise",
)
"""In the order of BG_CERT_STORE_LOCATION."""
OF_THE_OWNER: Final = frozenset(("current_user", "current_service", "current_user_group_policy"))
"""Locations that are other places for every account."""
_OF_NAMED_ACCOUNTS: Final = frozenset(("services", "users"))
_KNOWN_STORES: Final = frozenset(("MY", "CA", "ROOT", "SPC"))
_STORE_LIMIT: Final = 255
_SUBJECT_LIMIT: Final = 255
"""256 with the NUL that ends a text on Windows."""
_ROOT: Final = "/etc/openbits"
_SHA1_SEPARATORS: Final = str.maketrans("", "", ": ")
_SHA1: Final = re.compile(r"[0-9a-f]{40}")


def check_by_id(location: str | int | None, store: str | None, sha1_hex: str | None) -> ClientCertificate:
    """Return what SetClientCertificateByID names (H1).

    The hash is 40 hexadecimal digits; colons and blanks between them are allowed.
    Raises E_NOTIMPL, RPC_X_NULL_REF_POINTER, RPC_X_BAD_STUB_DATA, BG_E_STRING_TOO_LONG, E_INVALIDARG.
    """
    where = _location(location)
    name = _store(store, where)
    if sha1_hex is None:
        raise BitsError("RPC_X_NULL_REF_POINTER", "the SHA-1 hash of the certificate is missing")
    digits = sha1_hex.translate(_SHA1_SEPARATORS).lower()
    if not _SHA1.fullmatch(digits):
        raise BitsError(
            "RPC_X_BAD_STUB_DATA",
            "the hash of a certificate is a SHA-1 of 20 bytes: 40 hexadecimal digits, as 'openssl x509 -noout "
            "-fingerprint -sha1' prints them",
        )
    return ClientCertificate(location=where, store=name, sha1=digits)


def check_by_name(location: str | int | None, store: str | None, subject: str | None) -> ClientCertificate:
    """Return what SetClientCertificateByName names (H2).

    Raises E_NOTIMPL, RPC_X_NULL_REF_POINTER, BG_E_STRING_TOO_LONG, E_INVALIDARG.
    """
    where = _location(location)
    name = _store(store, where)
    if subject is None:
        raise BitsError("RPC_X_NULL_REF_POINTER", "the subject of the certificate is missing")
    if len(subject) > _SUBJECT_LIMIT:
        raise BitsError("BG_E_STRING_TOO_LONG", f"the subject of a certificate has at most {_SUBJECT_LIMIT} characters")
    if not subject.strip() or not subject.isprintable():
        raise BitsError("E_INVALIDARG", "the subject of a certificate is empty, or holds characters that are no text")
    return ClientCertificate(location=where, store=name, subject=subject)


def _location(location: str | int | None) -> str:
    if location is None:
        raise BitsError("RPC_X_NULL_REF_POINTER", "the location of the certificate store is missing")
    name = str(location).strip().lower()
    if name.isascii() and name.isdigit() and len(name) == 1 and int(name) < len(LOCATIONS):
        return LOCATIONS[int(name)]
    if name not in LOCATIONS:
        raise BitsError(
            "E_NOTIMPL", f"there is no certificate store location {name[:40]!r}: use {', '.join(LOCATIONS)}"
        )
    return name


def _store(store: str | None, location: str) -> str:
    if store is None:
        raise BitsError("RPC_X_NULL_REF_POINTER", "the name of the certificate store is missing")
    if len(store) > _STORE_LIMIT:
        raise BitsError(
            "BG_E_STRING_TOO_LONG", f"the name of a certificate store has at most {_STORE_LIMIT} characters"
        )
    account, mark, name = store.rpartition("\\")
    if bool(mark) is not (location in _OF_NAMED_ACCOUNTS):
        form = "ACCOUNT\\STORE" if location in _OF_NAMED_ACCOUNTS else "STORE"
        raise BitsError("E_INVALIDARG", f"the name of a certificate store of {location} has the form {form}")
    if not _is_plain(name) or (mark and not _is_plain(account)):
        raise BitsError(
            "E_INVALIDARG",
            "the name of a certificate store is MY, CA, ROOT, SPC or a name of one's own, "
            "without slashes and control characters, and does not begin with a dot",
        )
    known = name.upper() if name.upper() in _KNOWN_STORES else name
    return f"{account}{mark}{known}"


def _is_plain(name: str) -> bool:
    return bool(name) and name.isprintable() and not name.startswith(".") and not set("/\\") & set(name)


def store_directory(location: str, store: str, *, home: str, account: str, root: str = _ROOT) -> str:
    """Return the directory of a store for a job of `account`, whose home is `home`; both names have been checked."""
    of, _, name = store.rpartition("\\")
    match location:
        case "current_user":
            return f"{home}/.config/openbits/certificates/{name}"
        case "local_machine":
            return f"{root}/certificates/{name}"
        case "current_service":
            return f"{root}/services/{account}/certificates/{name}"
        case "services" | "users":
            return f"{root}/{location}/{of}/certificates/{name}"
        case "current_user_group_policy":
            return f"{root}/policy/users/{account}/certificates/{name}"
        case "local_machine_group_policy":
            return f"{root}/policy/certificates/{name}"
        case "local_machine_enterprise":
            return f"{root}/enterprise/certificates/{name}"
        case _:
            raise AssertionError(f"{location!r} was to be checked")


def is_named(values: tuple[str, ...], subject: str) -> bool:
    """Whether a subject with these values, in the order of its encoding, is one that `subject` means (H2).

    The order of the encoding is the reverse of how names are displayed, with the common name first.
    """
    return _folded(subject) in _folded(",".join(values))


def _folded(text: str) -> str:
    return ",".join(" ".join(part.split()) for part in text.split(",")).casefold()
