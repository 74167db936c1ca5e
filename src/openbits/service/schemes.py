"""By which schemes workers can prove who asks on this machine, for `bits doctor` (J35).

Nothing of it is done here: it is looked whether what a worker needs is there, and whether this machine's rules for
cryptography (FIPS) let it be used.  A worker that finds out otherwise says so in the error of its job.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os

_GSSAPI = "libgssapi_krb5.so.2"


def scheme_health() -> tuple[bool, str]:
    """Whether all schemes can be spoken, and which cannot, and why."""
    lacks = []
    if not _has_kerberos():
        lacks.append(f"negotiate with Kerberos (there is no {_GSSAPI}: install libgssapi-krb5-2, or krb5-libs)")
    why = _why_no_ntlm()
    if why:
        lacks.append(f"ntlm, and negotiate with NTLM ({why})")
    if not _has("md5"):
        lacks.append("digest with MD5 (the rules of this machine forbid MD5)")
    if not lacks:
        return True, "basic, digest, ntlm and negotiate can be answered"
    return False, f"servers and proxies cannot be answered by {'; '.join(lacks)}"


def _has_kerberos() -> bool:
    try:
        ctypes.CDLL(_GSSAPI)
    except OSError:
        # libcurl's package may have brought one along.
        found = importlib.util.find_spec("pycurl")
        if found is None or found.origin is None:
            return False
        beside = os.path.join(os.path.dirname(found.origin), "pycurl.libs")
        return os.path.isdir(beside) and any(name.startswith("libgssapi") for name in os.listdir(beside))
    return True


def _why_no_ntlm() -> str:
    if importlib.util.find_spec("spnego") is None:
        return "the package pyspnego is missing"
    return "" if _has("md5") and _has_rc4() else "the rules of this machine forbid MD5 or RC4"


def _has(algorithm: str) -> bool:
    try:
        hashlib.new(algorithm)
    except ValueError:
        return False
    return True


def _has_rc4() -> bool:
    try:
        from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4  # noqa: PLC0415 - looked for when asked
        from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415

        Cipher(ARC4(b"0123456789abcdef"), mode=None).encryptor()
    except Exception:  # noqa: BLE001 - whatever it is, NTLM cannot be spoken
        return False
    return True
