"""What `bits doctor` says of whom servers are believed by (I13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbits.paths import trust_store
from openbits.service.truststore import trust_health
from support.ca import Authority, bundle


def test_the_store_that_workers_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle(tmp_path / "ca.pem", Authority("one"), Authority("two"))
    monkeypatch.setenv("SSL_CERT_FILE", path)
    is_well, text = trust_health()
    assert is_well
    assert text.startswith(f"2 authorities in {path}")
    assert "PKCS#11" in text


@pytest.mark.parametrize("content", [None, b"nobody"])
def test_no_store_is_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    is_well, text = trust_health()
    assert not is_well
    assert str(path) in text


def test_without_a_word_of_the_environment_it_is_the_distributions() -> None:
    assert trust_store({}).startswith("/etc/")
