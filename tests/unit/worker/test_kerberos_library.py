"""libkrb5 and GSS-API by ctypes: found before rights are dropped, and clear about what is missing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

import pytest

from openbits.worker import gss, kerberos


def keytab(path: Path, *principals: str) -> str:
    """A keytab of version 2 with keys that fit nowhere."""
    content = b"\x05\x02"
    for principal in principals:
        name, _, realm = principal.partition("@")
        parts = name.split("/")
        entry = struct.pack(">HH", len(parts), len(realm)) + realm.encode()
        for part in parts:
            entry += struct.pack(">H", len(part)) + part.encode()
        entry += struct.pack(">IIBHH", 1, 0, 1, 18, 32) + bytes(32)
        content += struct.pack(">i", len(entry)) + entry
    path.write_bytes(content)
    return str(path)


@pytest.fixture(autouse=True)
def realm_without_kdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "krb5.conf"
    configuration.write_text(
        "[libdefaults]\ndefault_realm = A.TEST\ndns_lookup_kdc = false\ndns_canonicalize_hostname = false\n"
        "[realms]\nA.TEST = {\n kdc = 127.0.0.1:1\n}\n"
    )
    monkeypatch.setenv("KRB5_CONFIG", str(configuration))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")


needs_library = pytest.mark.skipif(kerberos._LIBRARY is None, reason="there is no libkrb5")


@needs_library
def test_systems_library_comes_first_and_libcurls_will_do() -> None:
    for name, prototypes in (("krb5", kerberos._PROTOTYPES), ("gssapi_krb5", gss._PROTOTYPES)):
        library = kerberos.load_library(name, prototypes)
        assert library is not None
        with contextlib.suppress(OSError):
            ctypes.CDLL(kerberos._SYSTEM[name])
            assert library._name == kerberos._SYSTEM[name]
        for path in kerberos._brought_along(name):
            assert os.path.isabs(path)
            own = ctypes.CDLL(path)
            assert all(hasattr(own, function) for function in prototypes)
        assert kerberos.load_library(name, {"no_such_function": ()}) is None


def test_keytab_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(kerberos.NoTickets, match="does not exist"):
        kerberos.obtain_machine_tickets(str(tmp_path / "missing"), "")
    with pytest.raises(kerberos.NoTickets):
        kerberos.obtain_machine_tickets(str(tmp_path), "")


@needs_library
@pytest.mark.parametrize(
    ("principals", "words"),
    [
        ((), "holds no key of a host principal"),
        (("alice@A.TEST", "HTTP/here.test@A.TEST"), "holds no key of a host principal"),
        (("HERE$@A.TEST",), r"^HERE\$@A.TEST: Cannot contact any KDC"),
        (("HTTP/x@A.TEST", "host/one.test@A.TEST", "host/two.test@A.TEST"), "^host/one.test@A.TEST: Cannot contact"),
    ],
)
def test_first_host_principal_of_the_keytab(tmp_path: Path, principals: tuple[str, ...], words: str) -> None:
    with pytest.raises(kerberos.NoTickets, match=words):
        kerberos.obtain_machine_tickets(keytab(tmp_path / "keytab", *principals), "")


@needs_library
def test_keytab_full_of_nonsense(tmp_path: Path) -> None:
    for content in (b"", b"\x05\x02\x7f\xff\xff\xff", b"nonsense" * 100, b"\x05\x02" + os.urandom(500)):
        (tmp_path / "keytab").write_bytes(content)
        with pytest.raises(kerberos.NoTickets):
            kerberos.obtain_machine_tickets(str(tmp_path / "keytab"), "")


def test_token_without_a_ticket() -> None:
    with pytest.raises(gss.NoToken) as caught:
        gss.make_token("a.test", None)
    assert caught.value.trouble is gss.Trouble.NO_TICKET
    with pytest.raises(gss.NoToken):
        gss.make_token("", None)
    with pytest.raises(gss.NoToken):
        gss.make_token("a.test", "FILE:/nonexistent/cache")
    with pytest.raises(gss.NoToken):
        gss.make_token("a.test", "UNKNOWN:x")


def test_length_of_a_principal_in_a_cache() -> None:
    principal = struct.pack(">II", 1, 2) + b"".join(struct.pack(">I", len(x)) + x for x in (b"A.TEST", b"host", b"x"))
    assert kerberos._length_of_principal(principal + b"more") == len(principal)
