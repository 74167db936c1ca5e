"""worker.revocation: which lists say something of a certificate, and what they say (H8)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from openbits.worker import revocation
from openbits.worker.failure import Failure
from openbits.worker.revocation import Crls, Fetched, RevocationCheck, Subject, points_of, problem_of, read_crl
from support.ca import Authority, self_signed

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
URL = "http://lists.example/a.crl"
CA = Authority("authority")
SERVER = CA.issue(crl_urls=[URL]).certificate
SUBJECT = Subject(certificate=SERVER, issuer=CA.certificate, whose="h.example")


def crl(*extensions: tuple[x509.ExtensionType, bool]) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.name)
    builder = builder.last_update(NOW - DAY).next_update(NOW + DAY)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(CA.key, hashes.SHA256())


def scope(
    *,
    url: str = "",
    users: bool = False,
    authorities: bool = False,
    indirect: bool = False,
    reasons: frozenset[x509.ReasonFlags] | None = None,
) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url)] if url else None,
        relative_name=None,
        only_contains_user_certs=users,
        only_contains_ca_certs=authorities,
        only_some_reasons=reasons,
        indirect_crl=indirect,
        only_contains_attribute_certs=False,
    )


@pytest.mark.parametrize(
    ("extensions", "counts"),
    [
        ((), True),
        (((x509.CRLNumber(7), False),), True),
        (((scope(url=URL), True),), True),
        (((scope(url="http://lists.example/other.crl"), True),), False),
        (((scope(users=True), True),), True),
        (((scope(authorities=True), True),), False),
        (((scope(url=URL, indirect=True), True),), False),
        (((scope(reasons=frozenset({x509.ReasonFlags.key_compromise})), True),), False),
        (((x509.DeltaCRLIndicator(6), True),), False),
        (((x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),), False),
        (((x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),), True),
    ],
)
def test_h8_a_list_counts_for_the_certificates_that_it_covers(
    extensions: tuple[tuple[x509.ExtensionType, bool], ...], counts: bool
) -> None:
    assert (problem_of(crl(*extensions), SUBJECT, URL, NOW) == "") is counts


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_h8_a_list_in_either_encoding(encoding: Encoding) -> None:
    assert problem_of(read_crl(crl().public_bytes(encoding)), SUBJECT, URL, NOW) == ""


def test_h8_a_list_holds_from_its_date_to_the_next() -> None:
    found = crl()
    assert problem_of(found, SUBJECT, URL, NOW - 2 * DAY)
    assert problem_of(found, SUBJECT, URL, NOW + 2 * DAY)


def test_h8_a_list_of_an_authority_of_the_same_name_is_not_its_own() -> None:
    forger = Authority("authority")
    assert "signed" in problem_of(read_crl(forger.crl()), SUBJECT, URL, NOW)
    assert "another authority" in problem_of(read_crl(Authority("other").crl()), SUBJECT, URL, NOW)


def test_h8_an_authority_that_may_not_sign_lists_signs_none() -> None:
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
            "crl_sign",
        ),
        False,
    )
    builder = x509.CertificateBuilder().subject_name(CA.name).issuer_name(CA.name).public_key(CA.key.public_key())
    builder = builder.serial_number(5).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True), critical=True)
    issuer = builder.sign(CA.key, hashes.SHA256())
    subject = Subject(certificate=SERVER, issuer=issuer, whose="h")
    assert "signed" in problem_of(crl(), subject, URL, NOW)


def test_h8_only_http_addresses_of_whole_lists_are_asked() -> None:
    server = CA.issue(
        crl_urls=["ldap://d.example/x", "https://s.example/x", "HTTP://u.example/x", *[URL] * 9]
    ).certificate
    assert points_of(server) == ["HTTP://u.example/x", URL, URL, URL]
    assert points_of(CA.certificate) == []


@pytest.mark.parametrize(
    "address", ["[::1/x", "[]/x", "1.2.3.4]/x", "127.0.0.1:99999/x", "127.0.0.1:x/x", "127.0.0.1:-1/", "/x", "a b/x"]
)
def test_h8_what_is_no_address_is_not_asked(address: str) -> None:
    assert points_of(CA.issue(crl_urls=[f"http://{address}", URL]).certificate) == [URL]


def twice(der: bytes) -> bytes:
    """The same, with the extension 1.2.3.4 in the place of 1.2.3.5."""
    assert b"\x06\x03\x2a\x03\x05" in der
    return der.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04", 1)


ODD = [x509.UnrecognizedExtension(ObjectIdentifier(each), b"\x05\x00") for each in ("1.2.3.4", "1.2.3.5")]


def test_h8_a_certificate_that_cannot_be_read_names_no_list() -> None:
    der = twice(self_signed(extensions=ODD).certificate.public_bytes(Encoding.DER))
    assert points_of(x509.load_der_x509_certificate(der)) == []


def test_h8_lists_that_cannot_be_read_are_no_help() -> None:
    """They come by http, so that anybody on the way may have made them."""
    no_version = crl().public_bytes(Encoding.DER).replace(b"\x02\x01\x01", b"\x02\x01\x07", 1)
    # Signed like this by an authority that knows no better.
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.name).last_update(NOW - DAY).next_update(NOW + DAY)
    for each in ODD:
        builder = builder.add_extension(each, critical=False)
    body = twice(builder.sign(CA.key, hashes.SHA256()).tbs_certlist_bytes)
    for content in (no_version, signed(body)):
        failure, _ = check({URL: content}, Crls(), SUBJECT)
        assert failure is not None
        assert failure.name == "ERROR_WINHTTP_SECURE_CERT_REV_FAILED"
        assert "cannot be read" in failure.message


def signed(body: bytes) -> bytes:
    """A list in DER, with the authority's signature."""
    signature = b"\x00" + CA.key.sign(body, ec.ECDSA(hashes.SHA256()))
    content = body + bytes.fromhex("300a06082a8648ce3d040302") + b"\x03" + bytes([len(signature)]) + signature
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


class Reader:
    """Does at once what a helper would do in its thread."""

    def submit(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        done(work())


def check(contents: dict[str, bytes | str], crls: Crls, *subjects: Subject) -> tuple[Failure | None, list[str]]:
    fetched: list[str] = []
    ended: list[Failure | None] = []

    def fetch(url: str, done: Fetched) -> None:
        fetched.append(url)
        done(contents.get(url, "there is none"))

    RevocationCheck(
        subjects,
        crls=crls,
        reader=Reader(),  # type: ignore[arg-type]  # what of it is used
        fetch=fetch,
        done=ended.append,
    ).start()
    assert len(ended) == 1
    return ended[0], fetched


def test_h8_the_next_point_is_asked_where_one_does_not_help_and_good_lists_are_kept() -> None:
    other = "http://lists.example/b.crl"
    server = CA.issue(crl_urls=[other, URL]).certificate
    subject = Subject(certificate=server, issuer=CA.certificate, whose="h")
    crls = Crls()
    for expected in ([other, URL], [other]):
        failure, fetched = check({other: b"rubbish", URL: CA.crl()}, crls, subject)
        assert failure is None
        assert fetched == expected
    failure, _ = check({other: b"rubbish", URL: CA.crl(next_update=NOW - DAY)}, Crls(), subject)
    assert failure is not None
    assert failure.name == "ERROR_WINHTTP_SECURE_CERT_REV_FAILED"
    assert other in failure.message
    assert "expired" in failure.message


def test_h8_the_first_certificate_that_is_revoked_ends_it() -> None:
    second = Subject(certificate=CA.issue(crl_urls=[URL]).certificate, issuer=CA.certificate, whose="second")
    failure, fetched = check({URL: CA.crl(second.certificate)}, Crls(), SUBJECT, second, SUBJECT)
    assert failure is not None
    assert failure.name == "ERROR_WINHTTP_SECURE_CERT_REVOKED"
    assert "second" in failure.message
    assert fetched == [URL]


def test_lists_that_are_kept_take_so_much_room_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "_MOST_KEPT_BYTES", 100)
    crls, one = Crls(), crl()
    for number in range(5):
        crls.keep(f"http://h/{number}", one, 40)
    assert [crls.get(f"http://h/{number}", NOW) is not None for number in range(5)] == [False, False, False, True, True]
    assert crls.get("http://h/4", NOW + 2 * DAY) is None
    assert crls.get("http://h/4", NOW) is None
