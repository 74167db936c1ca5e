"""Uploads with the real daemon: `bits put`, kill -9 between any two packets, Cancel, changed sources, replies.

The server is one of the tests' own: every packet is written down, and each can be held for as long as a test wants
(J6, J7, J31–J34, M7, U40–U46, R6; issue parts 2 and 3).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

import openbits
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import BIN, Daemon, is_alive, running_daemon, wait_until
from support.upload_server import Action, Talk, UploadServer, refuse, wait

pytestmark = needs_root

SIZE = 6_000_000
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


def content_of(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def submit(daemon: Daemon, account: TestAccount, path: str, url: str, *more: str) -> str:
    arguments = ("put", "--async", path, url, "--protocol", "bits", *more)
    return daemon.bits(*arguments, account=account, check=True).stdout.strip()


def complete(daemon: Daemon, account: TestAccount, job: str) -> None:
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=account, check=True)


# --- bits put -----------------------------------------------------------------------------------------


def test_put_sends_a_file_of_any_name_and_says_where_it_went(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    content = content_of()
    path = file_of(alice, content, os.fsdecode(b"a \xff#.bin"))
    before = os.stat(path)
    done = daemon.bits("put", path, server.url("/in/"), account=alice, check=True)
    assert done.stdout == server.url("/in/a%20%FF%23.bin") + "\n"
    assert f"the file goes to {server.url('/in/a%20%FF%23.bin')}" in done.stderr
    assert list(server.files.values()) == [content]
    assert server.kinds()[-1] == "Close-Session"
    after = os.stat(path)
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert os.listdir(alice.home) == [os.path.basename(path)], "nothing is made beside the source"
    os.unlink(path)


def test_put_of_a_relative_path_as_json(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    path = file_of(alice, b"content")
    done = subprocess.run(
        [os.path.join(BIN, "bits"), "put", "source.bin", server.url("/in/report"), "--json", "-q"],
        env={**os.environ, "BITS_SOCKET": daemon.socket},
        cwd=alice.home,
        user=alice.uid,
        group=alice.gid,
        extra_groups=list(alice.groups),
        capture_output=True,
        timeout=60,
        check=True,
    )
    shown = json.loads(done.stdout)
    assert (shown["type"], shown["state"], shown["result"]) == ("upload", "ACKNOWLEDGED", "S_OK")
    assert (shown["bytes_transferred"], shown["bytes_total"], shown["reply"]) == (7, 7, None)
    assert shown["files"] == [{"remote_name": server.url("/in/report"), "local_name": path}]
    assert server.files == {"/in/report": b"content"}


def test_an_empty_file_arrives(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    done = daemon.bits("put", file_of(alice, b""), server.url("/in/empty"), account=alice)
    assert done.returncode == 0, done.stderr
    assert server.files == {"/in/empty": b""}


def test_what_cannot_be_read_is_refused_before_there_is_a_job(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    """J1: with the account's own rights, and in one sentence that names the file."""
    jobs = len(daemon.history())
    roots = os.path.join(daemon.base, "roots")
    with open(roots, "wb") as file:
        file.write(b"secret")
    os.chmod(roots, 0o600)
    missing = os.path.join(alice.home, "missing")
    for path, name in (
        (roots, "E_ACCESSDENIED"),
        (missing, "ERROR_FILE_NOT_FOUND"),
        (alice.home, "E_"),
        ("/dev/zero", "E_"),
    ):
        done = daemon.bits("put", path, server.url("/in/x"), account=alice)
        assert done.returncode != 0
        assert done.stderr.startswith(f"bits: {name}"), done.stderr
        assert path in done.stderr
    assert len(daemon.history()) == jobs
    assert server.packets == []


def test_who_interrupts_put_is_told_how_to_follow(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    held = threading.Event()
    server.on("Fragment", wait(held))
    content = content_of()
    path = file_of(alice, content)
    with subprocess.Popen(
        [os.path.join(BIN, "bits"), "put", path, server.url("/in/x")],
        env={**os.environ, "BITS_SOCKET": daemon.socket},
        user=alice.uid,
        group=alice.gid,
        extra_groups=list(alice.groups),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        server.wait_for(lambda: bool(server.of_kind("Fragment")))
        program.send_signal(signal.SIGINT)
        _, words = program.communicate(timeout=30)
        assert program.returncode == 130
    assert "bits wait" in words
    job = words.partition("bits wait ")[2].partition(" ")[0]
    held.set()
    done = daemon.bits("wait", job, "--complete", account=alice, check=True)
    assert done.stdout == server.url("/in/x") + "\n"
    assert server.files == {"/in/x": content}


def test_create_add_and_resume_are_put_in_parts(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    path = file_of(alice, b"in parts")
    job = daemon.bits("create", "parts", "--type", "upload", account=alice, check=True).stdout.strip()
    daemon.bits("add", job, server.url("/in/parts"), path, account=alice, check=True)
    second = daemon.bits("add", job, server.url("/in/more"), path, account=alice)
    assert second.returncode == 2
    assert "BG_E_TOO_MANY_FILES" in second.stderr
    early = daemon.bits("complete", job, account=alice)
    assert (early.returncode, early.stderr[:24]) == (6, "bits: BG_E_INVALID_STATE")
    daemon.bits("resume", job, account=alice, check=True)
    complete(daemon, alice, job)
    assert server.files == {"/in/parts": b"in parts"}


# --- kill -9 between two packets ----------------------------------------------------------------------


def strike(daemon: Daemon, who: str) -> None:
    """Kill, and see that it is gone; after everything has died, the machine starts again."""
    if who == "everything":
        daemon.kill()
        daemon.start()
        return
    if who == "worker":
        [victim] = daemon.workers()
    else:
        victim = daemon.process_named("bitsd-service")
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(victim), f"{who} to end")


@pytest.mark.parametrize("who", ["worker", "service", "everything"])
@pytest.mark.parametrize("skip", [0, 2])
def test_m7_the_same_session_and_the_same_offset_after_a_kill(
    daemon: Daemon, alice: TestAccount, server: UploadServer, who: str, skip: int
) -> None:
    """Whoever dies while a fragment is on its way: what was acknowledged is not sent again."""
    held = threading.Event()
    server.on("Fragment", wait(held), skip=skip)
    content = content_of()
    job = submit(daemon, alice, file_of(alice, content), server.url("/in/x"))
    server.wait_for(lambda: len(server.of_kind("Fragment")) > skip)
    offset = server.of_kind("Fragment")[skip].range[0]
    assert (offset > 0) == (skip > 0)
    wait_until(lambda: daemon.stored_files(job)[0].durable_bytes == offset, "the acknowledged bytes to be written down")
    strike(daemon, who)
    server.wait_for(lambda: len(server.of_kind("Fragment")) > skip + 1)
    again = server.of_kind("Fragment")[skip + 1]
    assert again.range[0] == offset
    assert again.session == server.of_kind("Fragment")[0].session
    held.set()
    complete(daemon, alice, job)
    assert server.files == {"/in/x": content}
    assert server.kinds().count("Create-Session") == 1
    assert "Ping" in server.kinds(), "U46: a Ping before it goes on"


@pytest.mark.parametrize("who", ["worker", "service", "everything"])
def test_u46_a_kill_before_the_last_answer_sends_nothing_twice(
    daemon: Daemon, alice: TestAccount, server: UploadServer, who: str
) -> None:
    """Close-Session is on its way: the server has the file, and one that is unknown is one that is closed."""
    held = threading.Event()
    server.on("Close-Session", wait(held))
    content = content_of(MEBIBYTE)
    job = submit(daemon, alice, file_of(alice, content), server.url("/in/x"))
    server.wait_for(lambda: bool(server.of_kind("Close-Session")))
    fragments = len(server.of_kind("Fragment"))
    strike(daemon, who)
    held.set()
    complete(daemon, alice, job)
    assert server.kinds().count("Create-Session") == 1
    assert len(server.of_kind("Fragment")) == fragments
    assert server.files == {"/in/x": content}
    assert server.sessions == {}


@pytest.mark.parametrize("who", ["worker", "service", "everything"])
def test_a_kill_before_the_session_is_known_begins_another_one(
    daemon: Daemon, alice: TestAccount, server: UploadServer, who: str
) -> None:
    held = threading.Event()
    server.on("Create-Session", wait(held))
    content = content_of(MEBIBYTE)
    job = submit(daemon, alice, file_of(alice, content), server.url("/in/x"))
    server.wait_for(lambda: bool(server.of_kind("Create-Session")))
    strike(daemon, who)
    held.set()
    complete(daemon, alice, job)
    assert server.files == {"/in/x": content}
    assert server.kinds().count("Create-Session") == 2


def test_suspend_and_resume_go_on_in_the_same_session(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    held = threading.Event()
    server.on("Fragment", wait(held), skip=1)
    content = content_of()
    job = submit(daemon, alice, file_of(alice, content), server.url("/in/x"))
    server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
    daemon.bits("suspend", job, account=alice, check=True)
    shown = daemon.show(job)
    assert shown["state"] == "SUSPENDED"
    assert shown["bytes_transferred"] == server.of_kind("Fragment")[1].range[0]
    held.set()
    daemon.bits("resume", job, account=alice, check=True)
    complete(daemon, alice, job)
    assert server.kinds().count("Create-Session") == 1
    assert server.files == {"/in/x": content}


# --- Cancel, and sources that change ------------------------------------------------------------------


def test_j6_cancel_returns_at_once_and_the_server_is_told_when_it_answers(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    """R6: also after a restart of everything in between."""
    held = threading.Event()
    server.on("Fragment", wait(held), skip=1)
    server.on("Cancel-Session", refuse(503))
    job = submit(daemon, alice, file_of(alice, content_of()), server.url("/in/x"), "--retry-delay", "3600")
    server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
    daemon.bits("cancel", job, account=alice, check=True)
    held.set()
    assert daemon.show(job)["state"] == "CANCELLED"
    assert job not in daemon.bits("list", account=alice, check=True).stdout, "gone from its owner's view"
    server.wait_for(lambda: bool(server.of_kind("Cancel-Session")))
    assert "has not been told yet" in daemon.why(job)["sentence"]
    daemon.kill()
    daemon.start()
    server.wait_for(lambda: len(server.of_kind("Cancel-Session")) == 2)
    wait_until(lambda: "told" not in daemon.why(job)["sentence"], "the farewell to be written down")
    assert server.sessions == {}
    assert server.files == {}
    assert "the server has been told" in daemon.events()[-1]["text"]


def test_u46_a_source_that_changes_is_an_error_and_resume_sends_the_new_one(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    held = threading.Event()
    server.on("Fragment", wait(held), skip=1)
    path = file_of(alice, content_of())
    job = submit(daemon, alice, path, server.url("/in/x"))
    server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
    changed = content_of(2 * MEBIBYTE, seed=2)
    file_of(alice, changed)
    held.set()
    error = daemon.wait_state(job, "ERROR")["error"]
    assert (error["code"], error["context"]) == ("BG_E_LOCAL_FILE_CHANGED", "LOCAL_FILE")
    assert path in error["message"]
    assert server.files == {}
    daemon.bits("resume", job, account=alice, check=True)
    complete(daemon, alice, job)
    assert server.files == {"/in/x": changed}


# --- replies ------------------------------------------------------------------------------------------


def replying(server: UploadServer, content: bytes) -> None:
    """The server replies, under an address as IIS gives it."""
    server.reply_url = "BITS-Sessions\\Replies\\{1}\\response.bin"
    server.content["/in/BITS-Sessions/Replies/{1}/response.bin"] = content


def hold_reply(event: threading.Event, content: bytes) -> Action:
    """Give the reply, but not before the event."""

    def act(talk: Talk) -> None:
        event.wait(30)
        talk.answer(200, ("ETag", '"reply"'), body=content)

    return act


def test_put_with_a_reply_prints_where_it_is(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    replying(server, b"receipt")
    path = file_of(alice, b"order")
    reply = os.path.join(alice.home, "receipt")
    done = daemon.bits("put", path, server.url("/in/order"), "--reply", reply, account=alice, check=True)
    assert done.stdout == reply + "\n"
    with open(reply, "rb") as file:
        assert file.read() == b"receipt"
    assert os.stat(reply).st_uid == alice.uid
    kinds = server.kinds()
    assert kinds.index("GET") < kinds.index("Close-Session"), "U46: the reply is fetched first"
    [job] = [one for one in daemon.history() if one["reply"] and one["reply"]["local_name"] == reply]
    assert daemon.bits("reply", job["id"], account=alice, check=True).stdout == "receipt"
    shown = daemon.bits("show", job["id"], account=alice, check=True).stdout
    assert ["reply", "file", "name:", reply] in [line.split() for line in shown.splitlines()]
    os.unlink(reply)


def test_j31_to_j34_a_reply_as_programs_see_it(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    replying(server, b"receipt")
    path = file_of(alice, b"order")
    held = threading.Event()
    server.on("GET", hold_reply(held, b"receipt"))
    with openbits.impersonate(alice.name), openbits.Manager(daemon.socket) as manager:
        openbits.set_proxy_blanket(manager, openbits.Cloaking.DYNAMIC)
        job = manager.create_job("order", openbits.JobType.UPLOAD_REPLY)
        openbits.set_proxy_blanket(job, openbits.Cloaking.DYNAMIC)
        assert job.get_reply_file_name() is None
        job.add_file(server.url("/in/order"), path)
        job.set_property("upload_protocol", "bits")
        with pytest.raises(openbits.BitsError, match="BG_E_INVALID_STATE"):
            job.get_reply_data()
        job.resume()
        name = job.get_reply_file_name()
        assert name == os.path.join(alice.home, f"BITS-reply-{job.id}")
        server.wait_for(lambda: bool(server.of_kind("GET")))
        assert job.get_reply_progress().bytes_total is None
        held.set()
        assert job.wait(timeout=30) is openbits.JobState.TRANSFERRED
        assert job.get_reply_progress() == openbits.ReplyProgress(bytes_total=7, bytes_transferred=7)
        assert job.get_progress().bytes_total == len(b"order"), "J9: the upload only"
        assert job.get_reply_data() == b"receipt"
        assert not os.path.exists(name)
        with pytest.raises(openbits.BitsError, match="BG_E_INVALID_STATE"):
            job.set_reply_file_name(os.path.join(alice.home, "other"))
        job.complete()
        assert job.get_reply_data() == b"receipt"
    with open(name, "rb") as file:
        assert file.read() == b"receipt"
    os.unlink(name)


def test_j32_a_large_reply_is_a_file_only_and_an_empty_one_is_none(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    path = file_of(alice, b"order")
    for size in (MEBIBYTE, MEBIBYTE + 1, 0):
        content = content_of(size)
        replying(server, content)
        reply = os.path.join(alice.home, f"reply{size}")
        job = submit(daemon, alice, path, server.url(f"/in/{size}"), "--reply", reply)
        daemon.wait_state(job, "TRANSFERRED")
        with openbits.Manager(daemon.socket) as manager:
            if size > MEBIBYTE:
                with pytest.raises(openbits.BitsError, match=f"BG_E_TOO_LARGE.*{size}"):
                    manager.get_job(job).get_reply_data()
                assert manager.get_job(job).get_reply_progress().bytes_total == size
            else:
                assert manager.get_job(job).get_reply_data() == (content or None)
        complete(daemon, alice, job)
        with open(reply, "rb") as file:
            assert file.read() == content, "J34: after Complete it is a file, also an empty one"
        os.unlink(reply)


def test_j33_where_the_reply_cannot_be_written_is_told_at_once(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    path = file_of(alice, b"order")
    for reply, name in (
        ("/root/reply", "E_ACCESSDENIED"),
        (f"{alice.home}/none/reply", "ERROR_PATH_NOT_FOUND"),
        (path, "E_INVALIDARG"),
        (alice.home, "E_INVALIDARG"),
    ):
        done = daemon.bits("put", path, server.url("/in/x"), "--reply", reply, account=alice)
        assert done.returncode != 0
        assert done.stderr.startswith(f"bits: {name}"), done.stderr
    assert server.packets == []
    job = daemon.bits("create", "named", "--type", "upload-reply", account=alice, check=True).stdout.strip()
    assert daemon.bits("set", job, "reply_file_name=/root/reply", account=alice).returncode == 4
    daemon.bits("set", job, f"reply_file_name={alice.home}/named", account=alice, check=True)
    assert daemon.show(job)["reply"]["local_name"] == f"{alice.home}/named"
    daemon.bits("set", job, "reply_file_name=none", account=alice, check=True)
    assert daemon.show(job)["reply"] is None
    daemon.bits("cancel", job, account=alice, check=True)


@pytest.mark.parametrize("who", ["worker", "everything"])
def test_a_kill_while_the_reply_comes_sends_nothing_again(
    daemon: Daemon, alice: TestAccount, server: UploadServer, who: str
) -> None:
    replying(server, b"receipt")
    held = threading.Event()
    server.on("GET", hold_reply(held, b"receipt"))
    reply = os.path.join(alice.home, f"reply-{who}")
    job = submit(daemon, alice, file_of(alice, content_of(MEBIBYTE)), server.url("/in/x"), "--reply", reply)
    server.wait_for(lambda: bool(server.of_kind("GET")))
    fragments = len(server.of_kind("Fragment"))
    strike(daemon, who)
    held.set()
    complete(daemon, alice, job)
    with open(reply, "rb") as file:
        assert file.read() == b"receipt"
    assert server.kinds().count("Create-Session") == 1
    assert len(server.of_kind("Fragment")) == fragments
    os.unlink(reply)


def test_e6_a_reply_that_is_not_there_is_the_replys_error(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    replying(server, b"receipt")
    server.content.clear()
    reply = os.path.join(alice.home, "never")
    job = submit(daemon, alice, file_of(alice, b"order"), server.url("/in/x"), "--reply", reply)
    shown = daemon.wait_state(job, "ERROR")
    assert (shown["error"]["code"], shown["error"]["context"]) == ("BG_E_HTTP_ERROR_404", "REMOTE_FILE")
    assert (shown["error"]["file"], shown["error"]["local_name"]) == (None, reply)
    assert shown["reply"]["bytes_total"] is not None
    replying(server, b"late receipt")
    daemon.bits("resume", job, account=alice, check=True)
    complete(daemon, alice, job)
    with open(reply, "rb") as file:
        assert file.read() == b"late receipt"
    assert server.kinds().count("Create-Session") == 1
    os.unlink(reply)


def test_e6_an_upload_that_is_refused_is_the_uploads_error(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    server.on("Create-Session", refuse(403, ("BITS-Error-Code", "0x80070005"), ("BITS-Error-Context", "0x5")))
    done = daemon.bits(
        "put", file_of(alice, b"order"), server.url("/in/x"), "--reply", f"{alice.home}/r", "--json", account=alice
    )
    assert done.returncode == 1
    shown = json.loads(done.stdout)
    assert shown["error"]["context"] == "REMOTE_FILE"
    assert shown["error"]["remote_name"] == server.url("/in/x")
    assert shown["reply"]["bytes_total"] is None
