"""Whether certificates have been revoked, by the lists that their authorities publish (H8).

The rule: every certificate of the chain but the one that is trusted is looked up in a list that its issuer has signed,
that covers it, and that is current; where there is no such list, nobody knows, and the job fails with
ERROR_WINHTTP_SECURE_CERT_REV_FAILED.  Lists come by http: what they say is signed, and https would ask for more lists.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from openbits.core.names import check_remote_name
from openbits.errors import BitsError, ErrorContext
from openbits.worker.certificates import UNREADABLE
from openbits.worker.failure import Failure
from openbits.worker.helper import Helper

MOST_BYTES: Final = 16 << 20
"""Of one list: the largest of public authorities have some megabytes."""
FETCH_LIMIT_S: Final = 30.0
_MOST_POINTS: Final = 4
_MOST_KEPT_BYTES: Final = 64 << 20
_KNOWN_EXTENSIONS: Final = frozenset(
    (
        x509.IssuingDistributionPoint.oid,
        x509.AuthorityKeyIdentifier.oid,
        x509.CRLNumber.oid,
        x509.FreshestCRL.oid,
    )
)

Fetched = Callable[[bytes | str], None]
"""Gets the content of a list, or why there is none, as a clause."""


class Crls:
    """The lists that a worker has fetched, each for as long as it is current."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, x509.CertificateRevocationList] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Crls {len(self._kept)}>"

    def get(self, url: str, now: dt.datetime) -> x509.CertificateRevocationList | None:
        """Return a list that is current."""
        crl = self._kept.get(url)
        if crl is not None and not is_current(crl, now):
            self._drop(url)
            return None
        return crl

    def keep(self, url: str, crl: x509.CertificateRevocationList, size_bytes: int) -> None:
        """Keep a list that was current and its issuer's."""
        if url in self._kept:
            self._drop(url)
        self._kept[url] = crl
        self._sizes[url] = size_bytes
        while sum(self._sizes.values()) > _MOST_KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, url: str) -> None:
        del self._kept[url]
        del self._sizes[url]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A certificate to be looked up, and whoever issued it."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    whose: str
    """Whose certificate it is, for sentences."""


class RevocationCheck:
    """Looks certificates up, one after the other, each at its first distribution point that helps."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        *,
        crls: Crls,
        reader: Helper,
        fetch: Callable[[str, Fetched], None],
        done: Callable[[Failure | None], None],
    ) -> None:
        self._subjects = list(subjects)
        self._crls = crls
        self._reader = reader
        self._fetch = fetch
        self._done = done
        self._urls: list[str] = []
        self._reasons: list[str] = []

    def start(self) -> None:
        """Look the first one up."""
        self._next_subject()

    def _next_subject(self) -> None:
        if not self._subjects:
            self._done(None)
            return
        self._urls = points_of(self._subjects[0].certificate)
        self._reasons = [] if self._urls else ["it names no list at an http address"]
        self._next_point()

    def _next_point(self) -> None:
        subject = self._subjects[0]
        if not self._urls:
            self._done(unknown(subject.whose, "; ".join(self._reasons)))
            return
        url = self._urls.pop(0)
        kept = self._crls.get(url, dt.datetime.now(dt.UTC))
        if kept is not None:
            self._judge(url, lambda: kept, 0)
            return

        def fetched(content: bytes | str) -> None:
            if isinstance(content, str):
                self._failed(url, content)
            else:
                self._judge(url, lambda: read_crl(content), len(content))

        self._fetch(url, fetched)

    def _judge(self, url: str, get: Callable[[], x509.CertificateRevocationList], size_bytes: int) -> None:
        subject = self._subjects[0]

        def work() -> tuple[x509.CertificateRevocationList | None, bool, str]:
            try:
                crl = get()
                problem = problem_of(crl, subject, url, dt.datetime.now(dt.UTC))
                if problem:
                    return None, False, problem
                return crl, is_revoked(crl, subject.certificate), ""
            except UNREADABLE as error:
                return None, False, f"it cannot be read ({str(error)[:100]})"

        def judged(result: tuple[x509.CertificateRevocationList | None, bool, str] | OSError) -> None:
            assert not isinstance(result, OSError)
            crl, is_on_it, problem = result
            if crl is None:
                self._failed(url, problem)
                return
            if size_bytes:
                self._crls.keep(url, crl, size_bytes)
            if is_on_it:
                self._done(revoked(subject.whose))
                return
            self._subjects.pop(0)
            self._next_subject()

        self._reader.submit(work, judged)

    def _failed(self, url: str, reason: str) -> None:
        self._reasons.append(f"{url[:200]}: {reason}")
        self._next_point()


def unknown(whose: str, reason: str) -> Failure:
    """Nobody could say whether a certificate has been revoked."""
    return Failure(
        name="ERROR_WINHTTP_SECURE_CERT_REV_FAILED",
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"nobody can say whether the certificate of {whose} has been revoked: {reason}: make the list "
        "available, or leave CRL checks out of security_flags, then resume the job",
        transient=False,
    )


def revoked(whose: str) -> Failure:
    """A certificate has been revoked."""
    return Failure(
        name="ERROR_WINHTTP_SECURE_CERT_REVOKED",
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"the certificate of {whose} has been revoked by the authority that issued it: ask whoever runs it",
        transient=False,
    )


# --- lists -------------------------------------------------------------------------------------------


def points_of(certificate: x509.Certificate) -> list[str]:
    """The http addresses at which the issuer publishes whole lists; never raises, whatever the certificate holds."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    # A list for some reasons only, or of somebody else, does not answer the question.
    names = [
        name.value
        for point in points
        if not point.reasons and not point.crl_issuer
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    ]
    return [name for name in names if _can_be_asked(name)][:_MOST_POINTS]


def _can_be_asked(url: str) -> bool:
    """Whether an address that somebody has written into a certificate is one, as strictly as for a remote name."""
    if not url.lower().startswith("http://") or not (url.isprintable() and url.isascii()):
        return False
    try:
        check_remote_name(url)
    except BitsError:
        return False
    return True


def read_crl(content: bytes) -> x509.CertificateRevocationList:
    """Read a list in DER, or in PEM. Raises ValueError."""
    if content.lstrip()[:11] == b"-----BEGIN ":
        return x509.load_pem_x509_crl(content)
    return x509.load_der_x509_crl(content)


def is_current(crl: x509.CertificateRevocationList, now: dt.datetime) -> bool:
    """Whether a list holds now; one that names no end holds never."""
    end = crl.next_update_utc
    return end is not None and crl.last_update_utc <= now < end


def problem_of(crl: x509.CertificateRevocationList, subject: Subject, url: str, now: dt.datetime) -> str:
    """Why a list says nothing of a certificate, as a clause; empty when it does."""
    if crl.issuer != subject.certificate.issuer:
        return "the list is of another authority"
    if not is_current(crl, now):
        return "the list has expired, or is not valid yet"
    if not _may_sign_lists(subject.issuer) or not _is_signed_by(crl, subject.issuer):
        return "the list is not signed by the authority"
    for extension in crl.extensions:
        if extension.critical and extension.oid not in _KNOWN_EXTENSIONS:
            return "the list has a form that is not known here"
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            return "it is only a part of a list"
        if isinstance(extension.value, x509.IssuingDistributionPoint) and not _covers(
            extension.value, subject.certificate, url
        ):
            return "the list is about other certificates"
    return ""


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return crl.is_signature_valid(key)  # type: ignore[arg-type]  # a key of another sort raises TypeError


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _covers(scope: x509.IssuingDistributionPoint, certificate: x509.Certificate, url: str) -> bool:
    if scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs:
        return False
    if scope.only_contains_ca_certs if not _is_authority(certificate) else scope.only_contains_user_certs:
        return False
    names = [name.value for name in scope.full_name or () if isinstance(name, x509.UniformResourceIdentifier)]
    if scope.relative_name is not None:
        return False
    return not scope.full_name or any(point in names for point in (url, *points_of(certificate)))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_revoked(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Whether a certificate stands on a list."""
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
