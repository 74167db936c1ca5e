"""/util /repairservice where systemd is in charge: a systemctl in its place writes down what it is asked (B41)."""

from __future__ import annotations

import os
import pathlib

import pytest

from openbits.cli import doctor
from openbits.cli.bitsadmin import main, util
from openbits.client import discovery
from openbits.version import __version__
from support.fake_api import FakeApi, Reply

ANSWERS = {
    "GET /v1/version": Reply(json={"program": "OpenBITS", "version": __version__, "mode": "system"}),
    "GET /v1/whoami": Reply(
        json={"uid": 0, "name": "root", "kind": "LOCAL_SYSTEM", "kind_reason": "of uid 0", "is_administrator": True}
    ),
    "GET /v1/doctor": Reply(json={"checks": [{"name": "disk", "ok": True, "message": "there is room"}]}),
}


@pytest.fixture
def systemd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A machine with systemd and no service; returns where the socket of the service would be."""
    place = tmp_path / "bitsd.sock"
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n. {tmp_path}/then\n')
    program.chmod(0o755)
    (tmp_path / "then").write_text("")
    monkeypatch.delenv("BITS_SOCKET", raising=False)
    monkeypatch.setattr(util, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(util, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    only = (discovery.Candidate(path=str(place), source="system"),)
    # In both, for whoever imports the second for the first time now would keep what is patched in the first.
    for module in (discovery, doctor):
        monkeypatch.setattr(module, "candidates", lambda _named: only)
    return place


def repair(*words: str) -> int:
    return main.run(["/util", "/repairservice", *words])


def asked(place: pathlib.Path) -> list[str]:
    path = place.with_name("asked")
    return path.read_text().splitlines() if path.exists() else []


def test_b41_what_does_not_run_is_started(systemd: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeApi(ANSWERS) as api:
        systemd.with_name("then").write_text(f"ln -sf {api.path} {systemd}\n")
        assert repair() == 0
    assert asked(systemd) == ["reset-failed openbits.service", "restart openbits.service"]
    out = capsys.readouterr().out
    assert "Service started.\n" in out
    assert out.endswith("Nothing to repair.\n")


def test_b41_what_runs_is_left_alone_and_restarted_by_force(
    systemd: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeApi(ANSWERS) as api:
        systemd.symlink_to(api.path)
        assert repair() == 0
        assert asked(systemd) == []
        assert "Service" not in capsys.readouterr().out.replace("Service (B", "")
        assert repair("/FORCE") == 0
    assert asked(systemd)[-1] == "restart openbits.service"
    assert "Service restarted.\n" in capsys.readouterr().out


def test_b41_what_cannot_be_started_says_why(systemd: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    systemd.with_name("then").write_text("echo 'Job failed\x1b[2J: no such program' >&2; exit 1\n")
    assert repair() == 5
    out = capsys.readouterr().out
    assert "Unable to repair the service - 0x80070426\n" in out
    assert "no such program: see 'journalctl -u openbits.service'" in out
    assert "\x1b" not in out


def test_b41_what_was_started_and_does_not_answer(systemd: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repair() == 5
    assert asked(systemd)
    out = capsys.readouterr().out
    assert "Service started." not in out
    assert "FAIL" in out


def test_b41_only_root_starts_the_systems_service(
    systemd: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert repair() == 4
    assert asked(systemd) == []
    assert "E_ACCESSDENIED" in capsys.readouterr().out


def test_b41_a_service_that_bits_socket_names_is_not_systemds(
    systemd: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BITS_SOCKET", str(systemd))
    assert repair() == 5
    assert asked(systemd) == []
    assert "systemd is not in charge" in capsys.readouterr().err
