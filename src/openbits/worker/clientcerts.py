"""The client certificate that a job presents: found in a store with the rights of the account (H1, H2).

The rule: only the account's own files and root's are taken, a private key that others can read is none any more, and
nothing is ever looked for outside of the store's directory.  A store holds, for each certificate, NAME.pem (or .crt,
.cer) with the certificate and those that go along with it, and its key in the same file or in NAME.key.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from openbits.core.certificates import is_named, store_directory
from openbits.errors import ErrorContext
from openbits.frames.network import CertificateSpec
from openbits.frames.operations import FileResult
from openbits.worker.asking import Identity
from openbits.worker.certificates import UNREADABLE
from openbits.worker.failure import Failure, TransferError, account_name, shown
from openbits.worker.paths import ForeignLink, open_directory

_ENDINGS: Final = (".pem", ".crt", ".cer")
_KEY_ENDING: Final = ".key"
TOKEN_ENDING: Final = ".pkcs11"  # noqa: S105 -- the end of a file's name
_MOST_NAMES: Final = 4096
_MOST_BYTES: Final = 1 << 20
_MARK: Final = b"-----BEGIN "
_KEY_MARK: Final = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A certificate of a store."""

    name: str
    """Without its ending."""
    file_name: str
    chain: tuple[x509.Certificate, ...]
    pem: bytes
    """The whole file."""


def load_identity(spec: CertificateSpec, *, root: str = "/etc/openbits") -> Identity:
    """Find the certificate and its key. Raises TransferError."""
    account = pwd.getpwuid(os.geteuid())
    path = store_directory(spec.location, spec.store, home=account.pw_dir, account=account.pw_name, root=root)
    store = _Store(path, f"the certificate store {spec.store} of {spec.location} ({shown(path)})")
    try:
        found = store.find(spec)
        return Identity(
            name=found.chain[0].subject.rfc4514_string() or found.name,
            certificate=b"".join(each.public_bytes(Encoding.PEM) for each in found.chain),
            key=store.key_of(found),
        )
    finally:
        store.close()


def look_for(spec: CertificateSpec) -> list[FileResult]:
    """Say what would keep a job from presenting this certificate, if anything would."""
    try:
        load_identity(spec)
    except TransferError as error:
        return [FileResult(index=0, error=error.failure.name, message=error.failure.message)]
    return []


class _Store:
    """An open directory; `title` is what it is called in sentences."""

    def __init__(self, path: str, title: str) -> None:
        self._path = path
        self._title = title
        try:
            way = open_directory(path)
            try:
                self._fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way)
            finally:
                os.close(way)
        except (FileNotFoundError, NotADirectoryError):
            raise _error("ERROR_FILE_NOT_FOUND", f"{title} does not exist: make the directory") from None
        except ForeignLink as link:
            raise _error("E_ACCESSDENIED", f"{title}: {shown(link.filename)} is a link of another account") from None
        except OSError as error:
            raise _error("E_ACCESSDENIED", f"{account_name()} may not read {title}: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._fd)

    # --- finding -----------------------------------------------------------------------------

    def find(self, spec: CertificateSpec) -> _Found:
        """The certificate that is meant: of several, the first by name of its file."""
        now = dt.datetime.now(dt.UTC)
        unfit = ""
        for found in self._certificates():
            own = found.chain[0]
            if spec.sha1:
                if _sha1(own) == spec.sha1:
                    return found
                continue
            if not is_named(_values(own), spec.subject):
                continue
            unfit = _why_unfit(own, now)
            if not unfit:
                return found
        what = f"with the SHA-1 {spec.sha1}" if spec.sha1 else f"of {spec.subject!r}"
        why = f": the one of this name {unfit}" if unfit else ""
        raise _error("CRYPT_E_NOT_FOUND", f"{self._title} has no certificate {what} for clients{why}")

    def _certificates(self) -> Iterator[_Found]:
        with os.scandir(self._fd) as entries:
            names = sorted(entry.name for _, entry in zip(range(_MOST_NAMES), entries, strict=False))
        for file_name in names:
            name, ending = os.path.splitext(file_name)
            if ending not in _ENDINGS or name.startswith("."):
                continue
            try:
                pem, _ = self._read(file_name)
                chain = _chain(pem)
            except (OSError, *UNREADABLE):
                continue  # somebody else's, or no certificate: the one that is meant may be another
            if chain:
                yield _Found(name=name, file_name=file_name, chain=chain, pem=pem)

    # --- the key -----------------------------------------------------------------------------

    def key_of(self, found: _Found) -> bytes:
        """The key of a certificate, in PEM, once it is known to be its own and nobody else's."""
        file_name, pem = found.file_name, found.pem
        if _KEY_MARK not in pem:
            file_name = f"{found.name}{_KEY_ENDING}"
            pem = self._read_key(found, file_name)
        else:
            _, status = self._read(file_name)
            self._check_privacy(file_name, status)
        where = f"{shown(self._path)}/{shown(file_name)}"
        try:
            key = load_pem_private_key(_only_key(pem), password=None)
        except TypeError:
            raise _key_error(
                f"the key in {where} is encrypted, and nobody is there to be asked for the password: "
                "decrypt it ('openssl pkey') and let only its owner read it"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise _error(
                "ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY", f"{where} holds no private key in PEM that can be used"
            ) from None
        info = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*info) != found.chain[0].public_key().public_bytes(*info):
            raise _error(
                "ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY",
                f"the key in {where} belongs to another certificate than {shown(found.file_name)}",
            )
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _read_key(self, found: _Found, file_name: str) -> bytes:
        where = f"{shown(self._path)}/{shown(file_name)}"
        try:
            pem, status = self._read(file_name)
        except FileNotFoundError:
            if self._has(f"{found.name}{TOKEN_ENDING}"):
                raise _key_error(
                    f"the key of {shown(found.file_name)} is in a token ({shown(found.name)}{TOKEN_ENDING}), and the "
                    "TLS library of this service cannot use tokens: keep the key in a file"
                ) from None
            raise _error(
                "ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY",
                f"{shown(found.file_name)} has no private key: put it there, or into {where}",
            ) from None
        except PermissionError:
            raise _key_error(f"{account_name()} may not read the private key {where}") from None
        except OSError as error:
            raise _key_error(f"the private key {where} cannot be read: {error.strerror}") from None
        self._check_privacy(file_name, status)
        return pem

    def _check_privacy(self, file_name: str, status: os.stat_result) -> None:
        where = f"{shown(self._path)}/{shown(file_name)}"
        if status.st_uid not in (0, os.geteuid()):
            raise _key_error(f"the private key {where} belongs to another account than {account_name()} and root")
        if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise _key_error(f"others may use the private key {where}: take it from them with 'chmod o-rwx,g-w'")

    # --- files -------------------------------------------------------------------------------

    def _has(self, file_name: str) -> bool:
        try:
            os.stat(file_name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def _read(self, file_name: str) -> tuple[bytes, os.stat_result]:
        """A file of the store, and what it is like: no link, nothing that could block, nothing of others."""
        # O_NONBLOCK: a FIFO or a device of that name must not hold the worker up.
        fd = os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                raise OSError(errno.EINVAL, "it is no file, or far too large", file_name)
            content = b""
            while piece := os.read(fd, _MOST_BYTES + 1 - len(content)):
                content += piece
            return content, status
        finally:
            os.close(fd)


def _chain(content: bytes) -> tuple[x509.Certificate, ...]:
    if _MARK in content:
        return tuple(x509.load_pem_x509_certificates(content))
    return (x509.load_der_x509_certificate(content),)


def _only_key(pem: bytes) -> bytes:
    """The part of a file that is its key: what else stands there is not for a parser of keys."""
    for part in pem.split(_MARK)[1:]:
        if _KEY_MARK in part.splitlines()[0]:
            return _MARK + part
    return pem


def _sha1(certificate: x509.Certificate) -> str:
    # It names the certificate, as on Windows, and protects nothing.
    return hashlib.sha1(certificate.public_bytes(Encoding.DER), usedforsecurity=False).hexdigest()


def _values(certificate: x509.Certificate) -> tuple[str, ...]:
    values = (attribute.value for attribute in certificate.subject)
    return tuple(value if isinstance(value, str) else value.decode("latin-1") for value in values)


def _why_unfit(certificate: x509.Certificate, now: dt.datetime) -> str:
    """Why a certificate that is chosen by its subject is passed over (H2); empty when it is not."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return "is not valid at this time"
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    except UNREADABLE:
        return "cannot be read"
    fit = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
    return "" if any(usage in usages for usage in fit) else "was not issued for clients"


def _error(name: str, message: str) -> TransferError:
    return TransferError(Failure(name=name, context=ErrorContext.GENERAL_TRANSPORT, message=message, transient=False))


def _key_error(message: str) -> TransferError:
    return _error("ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY", message)
