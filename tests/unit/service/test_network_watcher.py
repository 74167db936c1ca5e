"""The watcher where the kernel does not answer, and the hosts file."""

import asyncio
import os
from pathlib import Path

import pytest

from openbits.service import netlink
from openbits.service.network import HostsFile, NetworkWatcher, loopback_names


def refuse() -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("refused", ["open_watch", "links"])
def test_where_the_kernel_cannot_be_asked_a_network_is_taken_to_be_there(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(netlink, refused, refuse)

    async def main() -> NetworkWatcher:
        watcher = NetworkWatcher(asyncio.get_running_loop(), lambda has: None)
        watcher.start()
        return watcher

    watcher = asyncio.run(main())
    assert watcher.has_network
    assert "Operation not permitted" in watcher.problem
    assert "closed" in repr(watcher)
    watcher.close()


def test_loopback_names_follow_the_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(str(path))
    assert hosts.loopback_names() == frozenset()
    path.write_text("127.0.0.1 one\n", encoding="utf-8")
    assert hosts.loopback_names() == {"one"}
    status = path.stat()
    path.write_text("127.0.0.1 two\n", encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert hosts.loopback_names() == {"two"}
    path.unlink()
    assert hosts.loopback_names() == frozenset()


def test_every_machine_calls_itself_localhost_or_nothing() -> None:
    assert loopback_names("/nonexistent") == frozenset()
    assert all(name == name.lower() for name in loopback_names())
