"""worker.certificates: each security flag overlooks exactly its own thing (H7)."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from openbits.worker.certificates import Judged, judge, key_of, top_of
from openbits.worker.failure import Failure
from support.ca import CLIENT, SERVER, Authority, Certified, bundle, self_signed

NOW = dt.datetime.now(dt.UTC)
PAST = NOW - dt.timedelta(days=2)
FUTURE = NOW + dt.timedelta(days=2)
DATE = "ERROR_WINHTTP_SECURE_CERT_DATE_INVALID"
CA = "ERROR_WINHTTP_SECURE_INVALID_CA"
USAGE = "ERROR_WINHTTP_SECURE_CERT_WRONG_USAGE"
INVALID = "ERROR_WINHTTP_SECURE_INVALID_CERT"
ALL = 0x1C


@dataclass
class World:
    root: Authority
    inter: Authority
    stranger: Authority
    ca_file: str

    def judge(self, *shown: x509.Certificate, flags: int) -> Judged | Failure:
        pem = [each.public_bytes(Encoding.PEM).decode() for each in shown]
        return judge(pem, flags, "h.example", self.ca_file)

    def error(self, shown: Certified | Sequence[x509.Certificate], flags: int) -> str:
        chain = (shown.certificate, *shown.chain) if isinstance(shown, Certified) else shown
        found = self.judge(*chain, flags=flags)
        return found.name if isinstance(found, Failure) else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = Authority("root")
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    return World(
        root=root, inter=Authority("inter", issuer=root), stranger=Authority("stranger"), ca_file=bundle(path, root)
    )


def test_h7_a_good_certificate_is_good_under_every_flag(world: World) -> None:
    good = world.inter.issue()
    for flags in range(0x20):
        found = world.judge(good.certificate, *good.chain, flags=flags)
        assert isinstance(found, Judged)
        assert found.path == (good.certificate, world.inter.certificate, world.root.certificate)
        assert found.key == key_of(good.certificate)


@pytest.mark.parametrize("flags", range(0x20))
def test_h7_each_flag_overlooks_its_own_thing_and_nothing_else(world: World, flags: int) -> None:
    rows = [
        (world.inter.issue(not_after=PAST), 0x4, DATE),
        (world.inter.issue(not_before=FUTURE), 0x4, DATE),
        (self_signed(), 0x8, CA),
        (world.stranger.issue(), 0x8, CA),
        (Authority("lower", issuer=world.stranger).issue(), 0x8, CA),
        (world.inter.issue(usages=(CLIENT,)), 0x10, USAGE),
        (Authority("mail", issuer=world.root, usages=(CLIENT,)).issue(), 0x10, USAGE),
        (Authority("old", issuer=world.root, not_after=PAST).issue(), 0x4, DATE),
    ]
    for certified, flag, name in rows:
        assert world.error(certified, flags) == ("" if flags & flag else name)


def test_h7_what_is_wrong_twice_needs_both(world: World) -> None:
    worst = world.stranger.issue(not_after=PAST, usages=(CLIENT,))
    for flags in range(0x20):
        assert bool(world.error(worst, flags)) is (flags & ALL != ALL)


def test_h7_an_unknown_authority_excuses_no_forgery(world: World) -> None:
    """Every flag is set; the chain is still to be one."""
    forger = Authority("root")
    assert world.error(forger.issue(), ALL) in ("", INVALID)  # nobody can tell it from an unknown root of that name
    no_ca = Authority("no ca", issuer=world.root, is_ca=False)
    assert world.error(no_ca.issue(), ALL) == INVALID
    assert world.error(no_ca.issue(), 0) == INVALID
    stranger = Authority("no ca", issuer=world.stranger, is_ca=False)
    assert world.error(stranger.issue(), ALL) == INVALID


def test_h7_a_wrong_signature_under_a_known_authority_is_never_overlooked(world: World) -> None:
    forger = Authority("inter")
    forged = forger.issue()
    found = world.judge(forged.certificate, world.inter.certificate, flags=ALL & ~0x8)
    assert isinstance(found, Failure)


def test_weak_keys_are_never_overlooked(world: World) -> None:
    weak = world.inter.issue(key=rsa.generate_private_key(public_exponent=65537, key_size=1024))
    for flags in (0x4, 0x8, 0x10, ALL):
        assert world.error(weak, flags) == INVALID


def test_the_top_is_the_end_of_what_signs(world: World) -> None:
    good = world.inter.issue()
    others = (world.stranger.certificate, world.root.certificate, world.inter.certificate)
    assert top_of((good.certificate, *others)) == world.root.certificate
    assert top_of((good.certificate, world.stranger.certificate)) == good.certificate
    assert top_of((good.certificate, Authority("inter").certificate)) == good.certificate
    alone = self_signed()
    assert top_of((alone.certificate, world.root.certificate)) == alone.certificate


def test_chains_that_are_none(world: World) -> None:
    assert world.error((), ALL) == INVALID
    found = judge(["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"], ALL, "h", world.ca_file)
    assert isinstance(found, Failure)
    assert (found.name, found.transient) == (INVALID, False)


def test_a_huge_chain_is_judged_by_its_beginning(world: World) -> None:
    good = world.inter.issue()
    crowd = tuple(self_signed(subject=f"n{number}").certificate for number in range(60))
    assert world.error((good.certificate, world.inter.certificate, *crowd), 0x4) == ""
    assert world.error((good.certificate, *crowd, world.inter.certificate), 0x4) == CA


def test_usage_of_servers_and_more_is_usage_of_servers(world: World) -> None:
    assert world.error(world.inter.issue(usages=(CLIENT, SERVER)), 0x4) == ""
    assert world.error(world.inter.issue(usages=None), 0x4) == ""


def test_a_trust_store_may_hold_an_authority_that_is_no_root(world: World, tmp_path: Path) -> None:
    good = world.inter.issue()
    pem = [good.certificate.public_bytes(Encoding.PEM).decode()]
    assert isinstance(judge(pem, 0x4, "h", bundle(tmp_path / "inter.pem", world.inter)), Judged)


def test_an_authority_that_is_taken_out_of_the_trust_store_is_gone(world: World, tmp_path: Path) -> None:
    good = world.inter.issue()
    pem = [each.public_bytes(Encoding.PEM).decode() for each in (good.certificate, *good.chain)]
    path = bundle(tmp_path / "ca.pem", world.root)
    assert isinstance(judge(pem, 0, "h", path), Judged)
    bundle(tmp_path / "ca.pem", world.stranger)
    found = judge(pem, 0, "h", path)
    assert isinstance(found, Failure)
    assert found.name == CA


@pytest.mark.parametrize("content", [None, b"", b"nobody"])
def test_a_trust_store_that_cannot_be_read_is_said_to_be_that(
    world: World, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    found = judge([world.inter.issue().pem.decode()], ALL, "h", str(path))
    assert isinstance(found, Failure)
    assert (found.name, found.transient) == ("ERROR_WINHTTP_SECURE_FAILURE", False)
    assert str(path) in found.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04", id="two extensions of one sort"),
        pytest.param(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", id="a version that does not exist"),
    ],
)
def test_h7_what_cannot_be_read_is_refused_under_every_flag(world: World, old: bytes, new: bytes) -> None:
    """Nobody checks the signature of what is trusted as it stands: such a certificate gets as far as being read."""
    odd = [x509.UnrecognizedExtension(x509.ObjectIdentifier(each), b"\x05\x00") for each in ("1.2.3.4", "1.2.3.5")]
    der = self_signed(extensions=odd).certificate.public_bytes(Encoding.DER)
    assert old in der
    pem = ssl.DER_cert_to_PEM_cert(der.replace(old, new, 1))
    for flags in range(0x10):
        found = judge([pem], flags, "h.example", world.ca_file)
        assert isinstance(found, Failure)
        assert found.name in ((INVALID,) if flags & 0x08 else (INVALID, CA))
