"""publish, unpublish, list: files under chosen URLs without a web root, and who may do that (U50, U51)."""

from __future__ import annotations

import grp
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.bits_server import PROGRAM, BitsServer, running_bits_server
from support.raw_client import RawAnswer, RawClient

CONTENT = b"a driver" * 1000


@pytest.fixture
def server() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        yield running


@pytest.fixture
def files() -> Iterator[pathlib.Path]:
    # Not below pytest's own directory, which other accounts cannot enter.
    with tempfile.TemporaryDirectory(prefix="publish-") as name:
        base = pathlib.Path(name)
        base.chmod(0o755)
        (base / "driver.bin").write_bytes(CONTENT)
        (base / "tree" / "inner").mkdir(parents=True)
        (base / "tree" / "inner" / "deep").write_bytes(CONTENT)
        (base / "tree" / ".hidden").write_bytes(b"hidden")
        (base / "tree" / "escape").symlink_to("/etc/passwd")
        yield base


def get(server: BitsServer, path: str, *headers: str) -> RawAnswer:
    with RawClient(server.port) as client:
        return client.ask("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())


def test_a_file_is_handed_out_under_a_chosen_url(server: BitsServer, files: pathlib.Path) -> None:
    assert get(server, "/drivers/one").status == 404
    assert server.command_of("publish", "/drivers/one", str(files / "driver.bin")).returncode == 0
    assert get(server, "/drivers/one").body == CONTENT
    assert get(server, "/drivers/one", "Range: bytes=0-3").body == CONTENT[:4]
    for path in ["/drivers/one/", "/drivers/one/x", "/drivers", "/drivers/onex"]:
        assert get(server, path).status == 404
    (listed,) = json.loads(server.command_of("list", "--json").stdout)
    assert (listed["prefix"], listed["path"], listed["size"]) == (
        "/drivers/one",
        str(files / "driver.bin"),
        len(CONTENT),
    )
    assert listed["hand_outs"] == 2
    assert "/drivers/one" in server.command_of("list").stdout
    assert server.command_of("unpublish", "/drivers/one").returncode == 0
    assert get(server, "/drivers/one").status == 404


def test_a_directory_with_what_is_below_it(server: BitsServer, files: pathlib.Path) -> None:
    assert server.command_of("publish", "/tree", str(files / "tree")).returncode == 0
    assert get(server, "/tree/inner/deep").body == CONTENT
    for path in ["/tree", "/tree/", "/tree/.hidden", "/tree/escape", "/tree/inner"]:
        assert get(server, path).status == 404
    assert get(server, "/tree/../driver.bin").status == 400
    assert get(server, "/tree/%2e%2e/driver.bin").status == 400


def test_it_is_lost_with_the_server(server: BitsServer, files: pathlib.Path) -> None:
    server.command_of("publish", "/x", str(files / "driver.bin"))
    server.kill()
    server.start()
    assert json.loads(server.command_of("list", "--json").stdout) == []
    assert get(server, "/x").status == 404


def test_it_expires(server: BitsServer, files: pathlib.Path) -> None:
    assert server.command_of("publish", "/soon", str(files / "driver.bin"), "--expires", "1h").returncode == 0
    (listed,) = json.loads(server.command_of("list", "--json").stdout)
    assert listed["expires_at"].endswith("Z")
    late = server.command_of("publish", "/late", str(files / "driver.bin"), "--expires", "2001-01-01T00:00")
    assert (late.returncode, "over already" in late.stderr) == (1, True)
    wrong = server.command_of("publish", "/late", str(files / "driver.bin"), "--expires", "soon")
    assert (wrong.returncode, "12h" in wrong.stderr) == (2, True)


def test_refusals_say_what_to_do(server: BitsServer, files: pathlib.Path) -> None:
    file = str(files / "driver.bin")
    server.command_of("publish", "/taken", file)
    for arguments, said in [
        (("publish", "/taken", file), "unpublish it first"),
        (("publish", "/", file), "whole server"),
        (("publish", "relative", file), "http://HOST:PORT"),
        (("publish", "/a/../b", file), "cannot be part of an address"),
        (("publish", "/new", str(files / "none")), "cannot be opened"),
        (("publish", "/new", "/dev/null"), "only regular files"),
        (("publish", "/new", file, "--allow", "root"), "trusted proxy"),
        (("unpublish", "/none"), "is not published"),
    ]:
        found = server.command_of(*arguments)
        assert (found.returncode, said in found.stderr) == (1, True), found.stderr
        assert found.stderr.count("\n") == 1


def test_a_host_in_the_prefix_is_a_condition(server: BitsServer, files: pathlib.Path) -> None:
    file = str(files / "driver.bin")
    assert server.command_of("publish", f"http://files.example:{server.port}/h", file).returncode == 0
    with RawClient(server.port) as client:
        assert client.ask(f"GET /h HTTP/1.1\r\nHost: files.example:{server.port}\r\n\r\n".encode()).body == CONTENT
        assert client.ask(b"GET /h HTTP/1.1\r\nHost: other.example\r\n\r\n").status == 404


def test_without_a_server_the_command_says_so(tmp_path: pathlib.Path) -> None:
    command = [*PROGRAM, "list", "--socket", str(tmp_path / "none")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (found.returncode, "no server answers" in found.stderr) == (1, True)


@needs_root
def test_allow_lets_in_members_whom_a_trusted_proxy_names(files: pathlib.Path) -> None:
    config = '[proxy]\ntrusted = ["127.0.0.1"]\nuser_header = "X-Remote-User"\n'
    with temporary_account() as member, running_bits_server(config=config) as server:
        group = grp.getgrgid(member.gid).gr_name
        assert server.command_of("publish", "/for-some", str(files / "driver.bin"), "--allow", group).returncode == 0
        assert get(server, "/for-some").status == 403
        assert get(server, "/for-some", "X-Remote-User: root").status == 403
        assert get(server, "/for-some", "X-Remote-User: nobody-at-all").status == 403
        assert get(server, "/for-some", f"X-Remote-User: {member.name}").body == CONTENT


@needs_root
def test_members_of_the_publish_group_publish_files_that_they_can_read(files: pathlib.Path) -> None:
    with temporary_account() as publisher, temporary_account() as stranger:
        group = grp.getgrgid(publisher.gid).gr_name
        with running_bits_server(config=f'[publish]\ngroup = "{group}"\n') as server:
            os.chmod(server.base, 0o755)
            private = files / "private"
            private.write_text("secret")
            private.chmod(0o600)

            def as_account(account: TestAccount, *arguments: str) -> subprocess.CompletedProcess[str]:
                uid, gid = account.uid, account.gid
                command = [*PROGRAM, *arguments, "--socket", server.control_socket]
                return subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=20,
                    check=False,
                    user=uid,
                    group=gid,
                    extra_groups=[],
                    cwd="/",
                )

            file = str(files / "driver.bin")
            assert as_account(publisher, "publish", "/mine", file).returncode == 0
            assert get(server, "/mine").body == CONTENT
            refused = as_account(publisher, "publish", "/private", str(private))
            assert (refused.returncode, "cannot be opened" in refused.stderr) == (1, True)
            refused = as_account(publisher, "publish", "/tree", str(files / "tree"))
            assert (refused.returncode, "publish directories" in refused.stderr) == (1, True)
            refused = as_account(stranger, "publish", "/theirs", file)
            assert (refused.returncode, "only root" in refused.stderr) == (1, True)
            assert as_account(stranger, "list").returncode == 1
            server.command_of("publish", "/roots", file)
            refused = as_account(publisher, "unpublish", "/roots")
            assert (refused.returncode, "was published by uid 0" in refused.stderr) == (1, True)
            assert as_account(publisher, "unpublish", "/mine").returncode == 0
            server.command_of("publish", "/all", str(files))
            for taken in ("/roots", "/all/driver.bin", "/all/new", f"http://127.0.0.1:{server.port}/roots"):
                refused = as_account(publisher, "publish", taken, file)
                assert (refused.returncode, "lies in" in refused.stderr) == (1, True), taken
                refused = as_account(publisher, "unpublish", taken)
                assert refused.returncode == 1
            assert as_account(publisher, "publish", "/mine", file).returncode == 0
            assert server.command_of("publish", f"http://127.0.0.1:{server.port}/mine", file).returncode == 0


@needs_root
def test_a_persons_own_server_is_found_without_a_runtime_directory(files: pathlib.Path) -> None:
    """As after su, or in cron: server and command meet in the state directory."""
    with temporary_account() as alice:
        environment = {"HOME": alice.home, "PATH": os.environ["PATH"]}
        rights: dict[str, Any] = {
            "user": alice.uid,
            "group": alice.gid,
            "extra_groups": list(alice.groups),
            "env": environment,
        }
        command = [*PROGRAM, "--root", alice.home, "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/", **rights) as server:
            try:
                assert server.stderr is not None
                assert any("listening on" in line for line in server.stderr)
                assert _as(rights, "publish", "/drivers/one", str(files / "driver.bin")) == ""
                listed = json.loads(_as(rights, "list", "--json"))
                assert [each["prefix"] for each in listed] == ["/drivers/one"]
            finally:
                server.terminate()
                # To its last line: a server that cannot write it does not end in order.
                server.communicate(timeout=10)
    assert server.returncode == 0


def _as(rights: dict[str, Any], *arguments: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=20, check=False, cwd="/", **rights
    )
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)
