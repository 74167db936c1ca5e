"""worker.clientcerts: which certificate of a store is presented, and whose key is believed (H1, H2)."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding

from openbits.errors import ErrorContext
from openbits.frames.network import CertificateSpec
from openbits.worker.asking import Identity
from openbits.worker.clientcerts import load_identity
from openbits.worker.failure import TransferError
from support.accounts import needs_root
from support.ca import CLIENT, SERVER, Authority, Certified, self_signed

AUTHORITY = Authority("people")
NO_ACCESS = "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY"
NO_KEY = "ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY"


def person(*subject: str, not_after: dt.datetime | None = None, server: bool = False) -> Certified:
    return AUTHORITY.issue("a.example", subject=subject, usages=(SERVER if server else CLIENT,), not_after=not_after)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "certificates" / "MY"
    path.mkdir(parents=True)
    return path


def load(store: Path, *, sha1: str = "", subject: str = "", name: str = "MY") -> Identity:
    spec = CertificateSpec(location="local_machine", store=name, sha1=sha1, subject=subject)
    return load_identity(spec, root=str(store.parent.parent))


def refused(store: Path, *, sha1: str = "", subject: str = "", name: str = "MY") -> tuple[str, str]:
    with pytest.raises(TransferError) as caught:
        load(store, sha1=sha1, subject=subject, name=name)
    failure = caught.value.failure
    assert (failure.context, failure.transient) == (ErrorContext.GENERAL_TRANSPORT, False)
    return failure.name, failure.message


def test_h1_a_certificate_is_found_by_its_hash_among_others(store: Path) -> None:
    one, two = person("one"), person("two")
    one.write(store, "a")
    two.write(store, "b")
    (store / "c.pem").write_text("this is no certificate")
    (store / "notes.txt").write_text("nor is this")
    identity = load(store, sha1=two.sha1)
    assert identity.name == "CN=two"
    assert identity.certificate == two.pem
    assert "PRIVATE" not in repr(identity)


def test_h1_key_and_chain_may_stand_in_the_certificates_file(store: Path) -> None:
    lower = Authority("lower", issuer=AUTHORITY)
    one = lower.issue("a.example", subject=("one",), usages=(CLIENT,))
    path = store / "all.pem"
    path.touch(0o600)
    path.write_bytes(one.key_pem + one.pem)
    identity = load(store, sha1=one.sha1)
    assert identity.certificate.count(b"BEGIN CERTIFICATE") == 2
    assert identity.key == one.key_pem


def test_h1_a_certificate_in_der(store: Path) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    (store / "a.pem").unlink()
    (store / "a.cer").write_bytes(one.certificate.public_bytes(Encoding.DER))
    assert key.exists()
    assert load(store, sha1=one.sha1).name == "CN=one"


def test_h2_the_first_that_is_fit_for_clients_and_valid_is_taken(store: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    person("Sales", "Alice", not_after=past).write(store, "a")
    person("Sales", "Alice", server=True).write(store, "b")
    right = person("Sales", "Alice")
    right.write(store, "c")
    person("Sales", "Alice").write(store, "d")
    assert load(store, subject="sales, ali").certificate == right.pem
    assert refused(store, subject="Alice, Sales")[0] == "CRYPT_E_NOT_FOUND"


def test_h2_why_the_only_one_of_that_name_is_passed_over(store: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    old = person("old", not_after=past)
    old.write(store, "a")
    name, message = refused(store, subject="old")
    assert name == "CRYPT_E_NOT_FOUND"
    assert "not valid at this time" in message
    # By its hash it is what was asked for: the server says what it thinks of it.
    assert load(store, sha1=old.sha1).name == "CN=old"


def test_h1_errors_of_stores_and_certificates(store: Path) -> None:
    assert refused(store, sha1="0" * 40)[0] == "CRYPT_E_NOT_FOUND"
    assert refused(store, sha1="0" * 40, name="OTHER")[0] == "ERROR_FILE_NOT_FOUND"
    (store.parent / "FILE").write_text("")
    assert refused(store, sha1="0" * 40, name="FILE")[0] == "ERROR_FILE_NOT_FOUND"


def test_a_key_that_is_missing_encrypted_broken_or_of_another(store: Path) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    key.unlink()
    assert refused(store, sha1=one.sha1)[0] == NO_KEY
    key.touch(0o600)
    key.write_bytes(one.encoded_key(BestAvailableEncryption(b"x")))
    name, message = refused(store, sha1=one.sha1)
    assert name == NO_ACCESS
    assert "encrypted" in message
    key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert refused(store, sha1=one.sha1)[0] == NO_KEY
    key.write_bytes(person("two").key_pem)
    name, message = refused(store, sha1=one.sha1)
    assert name == NO_KEY
    assert "another certificate" in message


@pytest.mark.parametrize("mode", [0o604, 0o666, 0o602, 0o620, 0o601])
def test_a_key_that_others_can_use_is_none(store: Path, mode: int) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    key.chmod(mode)
    name, message = refused(store, sha1=one.sha1)
    assert name == NO_ACCESS
    assert "chmod" in message


def test_a_group_may_read_a_key(store: Path) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    key.chmod(0o640)
    assert load(store, sha1=one.sha1).key == one.key_pem


@needs_root
def test_a_key_of_another_account_is_not_used(store: Path) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    os.chown(key, 12345, 12345)
    name, message = refused(store, sha1=one.sha1)
    assert name == NO_ACCESS
    assert "another account" in message


def test_links_and_things_that_block_are_not_followed(store: Path, tmp_path: Path) -> None:
    one = person("one")
    certificate, key = one.write(tmp_path, "elsewhere")
    (store / "a.pem").symlink_to(certificate)
    os.mkfifo(store / "b.pem")
    assert refused(store, sha1=one.sha1)[0] == "CRYPT_E_NOT_FOUND"
    (store / "c.pem").write_bytes(one.pem)
    (store / "c.key").symlink_to(key)
    assert refused(store, sha1=one.sha1)[0] == NO_ACCESS
    (store / "c.key").unlink()
    os.mkfifo(store / "c.key")
    assert refused(store, sha1=one.sha1)[0] == NO_ACCESS


def test_a_key_in_a_token_is_refused_and_says_so(store: Path) -> None:
    one = person("one")
    _, key = one.write(store, "a")
    key.unlink()
    (store / "a.pkcs11").write_text("pkcs11:token=t;object=a;type=private\n")
    name, message = refused(store, sha1=one.sha1)
    assert name == NO_ACCESS
    assert "token" in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04", id="two extensions of one sort"),
        pytest.param(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", id="a version that does not exist"),
    ],
)
def test_h2_what_cannot_be_read_is_passed_over(store: Path, old: bytes, new: bytes) -> None:
    odd = [x509.UnrecognizedExtension(x509.ObjectIdentifier(each), b"\x05\x00") for each in ("1.2.3.4", "1.2.3.5")]
    der = self_signed(subject="one", extensions=odd).certificate.public_bytes(Encoding.DER)
    (store / "a.cer").write_bytes(der.replace(old, new, 1))
    assert refused(store, subject="one")[0] == "CRYPT_E_NOT_FOUND"
    good = person("one")
    good.write(store, "b")
    assert load(store, subject="one").certificate == good.pem
