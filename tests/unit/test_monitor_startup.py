"""What a service manager hands over and hears: sd_listen_fds(3), sd_notify(3)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from openbits.monitor.log import StartError
from openbits.monitor.startup import Notifier, take_listener


@pytest.mark.parametrize("abstract", [True, False])
def test_notification(tmp_path: Path, abstract: bool) -> None:
    name = f"obt-notify-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(5)
        environment = {"NOTIFY_SOCKET": "@" + name if abstract else name}
        notifier = Notifier(environment)
        assert environment == {}, "no other process shall notify"
        notifier.tell_once("READY=1")
        notifier.tell_once("READY=1")
        notifier.tell_once("STOPPING=1")
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_whoever_starts_the_daemon_may_listen_at_a_long_path(tmp_path: Path) -> None:
    """XDG_RUNTIME_DIR is the account's to choose; an address of a socket holds 107 bytes."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    fd = os.open(directory, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"/proc/self/fd/{fd}/notify")
            manager.settimeout(5)
            Notifier({"NOTIFY_SOCKET": str(directory / "notify")}).tell_once("READY=1")
            assert manager.recv(100) == b"READY=1"
    finally:
        os.close(fd)


def test_nobody_to_notify(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Notifier({}).tell_once("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell_once("READY=1")
    assert "cannot be told READY=1" in capfd.readouterr().err


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x", "LISTEN_FDNAMES": "y"},
    ],
)
def test_no_listener_for_this_process(environment: dict[str, str]) -> None:
    assert take_listener(environment) is None
    assert environment == {}


def test_listener_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    inheritable: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "set_inheritable", lambda fd, value: inheritable.append((fd, value)))
    with pytest.raises(StartError, match="only one"):
        take_listener({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
    assert inheritable == [(3, False), (4, False)]
