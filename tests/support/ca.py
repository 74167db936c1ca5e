"""A certification authority of a test's own: certificates with any fault that is asked for, CRLs and OCSP answers."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_DAY: Final = dt.timedelta(days=1)
_SERVER_NAMES: Final = ("127.0.0.1", "localhost", "origin.test")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A certificate, its key, and the certificates that are sent along."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate and those that are sent along."""
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (self.certificate, *self.chain))

    @property
    def key_pem(self) -> bytes:
        """The key, as PKCS#8."""
        return self.encoded_key(serialization.NoEncryption())

    def encoded_key(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        """The key, as PKCS#8."""
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @property
    def sha1(self) -> str:
        """The hash by which BITS knows a client certificate."""
        return hashlib.sha1(
            self.certificate.public_bytes(serialization.Encoding.DER), usedforsecurity=False
        ).hexdigest()

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.pem and NAME.key."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.touch(0o600)
        key.write_bytes(self.key_pem)
        return certificate, key

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.write(directory, f"{self.certificate.serial_number:x}"))
        return context


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key of which making costs nothing."""
    return ec.generate_private_key(ec.SECP256R1())


def make_name(*values: str) -> x509.Name:
    """A subject: the common name last, organisational units before it."""
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, value) for value in values[:-1]]
    return x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, values[-1])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """A CA; `issuer` is the one above it, None for a root."""

    def __init__(
        self,
        name: str,
        *,
        issuer: Authority | None = None,
        crl_urls: Sequence[str] = (),
        usages: Sequence[x509.ObjectIdentifier] = (),
        is_ca: bool = True,
        not_after: dt.datetime | None = None,
    ) -> None:
        self.name = make_name(name)
        self.key = new_key()
        self.issuer = issuer
        above = issuer or self
        builder = _builder(self.name, above.name, self.key, not_after=not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        builder = _add_points(builder, crl_urls)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        self.certificate = builder.sign(above.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """This certificate and those above it, without the root."""
        return () if self.issuer is None else (self.certificate, *self.issuer.chain)

    def issue(
        self,
        *names: str,
        subject: Sequence[str] = ("server",),
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        usages: Sequence[x509.ObjectIdentifier] | None = (SERVER,),
        crl_urls: Sequence[str] = (),
        key: Key | None = None,
    ) -> Certified:
        """Make a certificate for these hosts; by default for those that stand for this machine."""
        key = key or new_key()
        builder = _builder(make_name(*subject), self.name, key, not_before=not_before, not_after=not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names or _SERVER_NAMES]), critical=False
        )
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = _add_points(builder, crl_urls)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Certified(certificate=certificate, key=key, chain=self.chain)

    def crl(
        self,
        *revoked: x509.Certificate,
        next_update: dt.datetime | None = None,
        signed_by: Key | None = None,
        size_rows: int = 0,
    ) -> bytes:
        """A CRL in DER; `signed_by` forges one, `size_rows` pads it with others that were revoked."""
        now = dt.datetime.now(dt.UTC)
        end = next_update or now + _DAY
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(min(now, end) - _DAY).next_update(end)
        for serial in (*(each.serial_number for each in revoked), *range(1, size_rows + 1)):
            row = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _DAY)
            builder = builder.add_revoked_certificate(row.build())
        return builder.sign(signed_by or self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def ocsp(
        self, certificate: x509.Certificate, *, is_revoked: bool = False, next_update: dt.datetime | None = None
    ) -> bytes:
        """An OCSP answer in DER, to be stapled."""
        now = dt.datetime.now(dt.UTC)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=self.certificate,
            algorithm=hashes.SHA1(),
            cert_status=ocsp.OCSPCertStatus.REVOKED if is_revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=now - _DAY,
            next_update=next_update or now + _DAY,
            revocation_time=now - _DAY if is_revoked else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def self_signed(
    *names: str,
    not_after: dt.datetime | None = None,
    subject: str = "alone",
    extensions: Iterable[x509.ExtensionType] = (),
) -> Certified:
    """A certificate that vouches for itself."""
    key = new_key()
    name = make_name(subject)
    builder = _builder(name, name, key, not_after=not_after)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_alternative(each) for each in names or _SERVER_NAMES]), critical=False
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Certified(certificate=builder.sign(key, hashes.SHA256()), key=key)


def bundle(path: Path, *authorities: Authority) -> str:
    """Write the trust store of a machine that knows these; return its path for SSL_CERT_FILE."""
    path.write_bytes(b"".join(each.pem for each in authorities))
    return str(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    *,
    not_before: dt.datetime | None = None,
    not_after: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    end = not_after or now + 30 * _DAY
    start = not_before or min(now, end) - _DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _add_points(builder: x509.CertificateBuilder, urls: Iterable[str]) -> x509.CertificateBuilder:
    points = [
        x509.DistributionPoint(
            full_name=[x509.UniformResourceIdentifier(url)], relative_name=None, reasons=None, crl_issuer=None
        )
        for url in urls
    ]
    return builder.add_extension(x509.CRLDistributionPoints(points), critical=False) if points else builder
