"""Whether the certificate of a server is in order for a job that overlooks something (H7).

The rule: each bit of the security flags overlooks exactly its own thing, and what is not overlooked is checked as for
any other job.  What OpenSSL can judge is judged by OpenSSL; the rest goes by what it would say.  The name is not looked
at here: libcurl compares it for every job, unless the job overlooks that.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from openbits.worker.failure import Failure
from openbits.worker.tlserrors import UNKNOWN_CA, certificate_failure, unreadable_store

CHECK_CRL: Final = 0x01
IGNORE_NAME: Final = 0x02
IGNORE_DATE: Final = 0x04
IGNORE_UNKNOWN_CA: Final = 0x08
IGNORE_WRONG_USAGE: Final = 0x10
JUDGED_HERE: Final = IGNORE_DATE | IGNORE_UNKNOWN_CA | IGNORE_WRONG_USAGE

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which pyOpenSSL has no name."""
_MOST_CERTIFICATES: Final = 32
"""More than any chain needs; a server may send as many as it likes."""
_LEAST_RSA_BITS: Final = 2048
_LEAST_EC_BITS: Final = 224
_WRONG_USAGE: Final = 26
_KEY_TOO_WEAK: Final = 66
_METHOD_TOO_WEAK: Final = 68
_BAD: Final = 1_000
"""No number of OpenSSL's: the certificate cannot even be read."""
UNREADABLE: Final = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for what a hostile server has made: some of it is read only when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A certificate that is in order."""

    path: tuple[x509.Certificate, ...]
    """From the server's own to the one that is trusted."""
    is_known: bool
    """Whether the machine trusts whoever stands at the end of it."""
    shown: tuple[x509.Certificate, ...]
    """What the server sent, its own first."""

    @property
    def is_rooted(self) -> bool:
        """Whether the chain goes as far as it can: it may end, trusted by overlooking it, before a root."""
        return self.is_known or self.path[-1].issuer == self.path[-1].subject

    @property
    def key(self) -> str:
        """The hash of the server's key, as RFC 7469 writes it."""
        return key_of(self.path[0])


def key_of(certificate: x509.Certificate) -> str:
    """Return the hash of a certificate's key."""
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")


def judge(chain: Sequence[str], flags: int, whose: str, ca_file: str) -> Judged | Failure:
    """Judge what a server has shown, its own certificate first, in PEM. It takes milliseconds: not for the loop."""
    try:
        shown = tuple(x509.load_pem_x509_certificate(each.encode("ascii")) for each in chain[:_MOST_CERTIFICATES])
        if not shown:
            return certificate_failure(_BAD, whose, "the server shows none")
        path, is_known = _path(shown, flags, ca_file)
        problem = path if isinstance(path, int) else _problem(path, flags)
    except OSError as error:
        return unreadable_store(f"{ca_file}: {error.strerror}")
    except (*UNREADABLE, crypto.Error) as error:
        return certificate_failure(_BAD, whose, f"it cannot be read ({_first_line(error)})")
    if isinstance(path, int) or problem:
        return certificate_failure(problem, whose)
    return Judged(path=path, is_known=is_known, shown=shown)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


# --- the chain ---------------------------------------------------------------------------------------


def _path(
    shown: tuple[x509.Certificate, ...], flags: int, ca_file: str
) -> tuple[tuple[x509.Certificate, ...] | int, bool]:
    """The chain that OpenSSL builds, or its number for why there is none; and whether its end is known."""
    found = _verify(shown, _system_store(ca_file, ignores_date=bool(flags & IGNORE_DATE)))
    if isinstance(found, int) and found in UNKNOWN_CA and flags & IGNORE_UNKNOWN_CA:
        # Whoever stands at the end of what the server shows counts as known; the rest of the chain must still hold.
        store = _new_store(ignores_date=bool(flags & IGNORE_DATE))
        store.add_cert(crypto.X509.from_cryptography(top_of(shown)))
        return _verify(shown, store), False
    return found, True


def _verify(shown: tuple[x509.Certificate, ...], store: crypto.X509Store) -> tuple[x509.Certificate, ...] | int:
    own, *others = (crypto.X509.from_cryptography(each) for each in shown)
    try:
        chain = crypto.X509StoreContext(store, own, others).get_verified_chain()
    except crypto.X509StoreContextError as error:
        return int(error.errors[0])
    return tuple(each.to_cryptography() for each in chain)


def _system_store(ca_file: str, *, ignores_date: bool) -> crypto.X509Store:
    """Whom the machine trusts. Raises OSError."""
    status = os.stat(ca_file)
    return _read_store(ca_file, (status.st_ino, status.st_size, status.st_mtime_ns), ignores_date=ignores_date)


@functools.lru_cache(maxsize=2)
def _read_store(ca_file: str, _version: tuple[int, int, int], *, ignores_date: bool) -> crypto.X509Store:
    """Read it, which takes some ten milliseconds, once for each version."""
    store = _new_store(ignores_date=ignores_date)
    try:
        store.load_locations(ca_file)
    except crypto.Error as error:
        raise OSError(errno.EINVAL, f"nothing in it can be read ({_first_line(error)})", ca_file) from None
    return store


def _new_store(*, ignores_date: bool) -> crypto.X509Store:
    store = crypto.X509Store()
    # libcurl, too, takes an authority in the trust store for trusted that is no root.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | (_NO_CHECK_TIME if ignores_date else 0))
    return store


def top_of(shown: Sequence[x509.Certificate]) -> x509.Certificate:
    """The end of the chain that a server shows, as far as one certificate signs the other."""
    top, left = shown[0], list(shown[1:])
    while top.issuer != top.subject:
        above = next((each for each in left if each.subject == top.issuer and _has_signed(each, top)), None)
        if above is None:
            break
        left.remove(above)
        top = above
    return top


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except UNREADABLE:
        return False
    return True


# --- what pyOpenSSL does not ask about ---------------------------------------------------------------


def _problem(path: tuple[x509.Certificate, ...], flags: int) -> int:
    """OpenSSL's number for what is wrong with a chain that is one; 0 for nothing."""
    if not flags & IGNORE_WRONG_USAGE and not all(map(_is_for_servers, path)):
        return _WRONG_USAGE
    if not flags & IGNORE_WRONG_USAGE and not _may_shake_hands(path[0]):
        return _WRONG_USAGE
    if any(map(_is_weak, path)):
        return _KEY_TOO_WEAK
    # What is trusted is trusted whoever signed it.
    if any(isinstance(each.signature_hash_algorithm, hashes.MD5 | hashes.SHA1) for each in path[:-1]):
        return _METHOD_TOO_WEAK
    return 0


def _is_for_servers(certificate: x509.Certificate) -> bool:
    """Whether the extended usage allows servers: of an authority it limits what it may issue."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usages


def _may_shake_hands(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_encipherment or usage.key_agreement


def _is_weak(certificate: x509.Certificate) -> bool:
    """As OpenSSL's security level 2, which libcurl has for every job."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        return key.key_size < _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _LEAST_EC_BITS
