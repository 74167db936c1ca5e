"""Jobs in on-demand mode through the real service, with real accounts (J67, F5, F11–F13, S10, J7, I8)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import openbits
from openbits import BitsError, JobState, Range, Result
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.helping import LOCAL_FILE, helped_job
from support.nginx import Nginx, running_nginx
from support.origin import Origin, generate

pytestmark = needs_root

SIZE = 4_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def directory(tmp_path: Any) -> str:
    """Root's own."""
    return str(tmp_path)


def a_job(daemon: Daemon, url: str, local_name: str, *urls: str, **settings: Any) -> openbits.Job:
    """Root's job in on-demand mode."""
    job = openbits.Manager(daemon.socket).create_job("pieces", settings={"on_demand_mode": True, **settings})
    job.add_file(url, local_name)
    for number, more in enumerate(urls):
        job.add_file(more, f"{local_name}-{number}")
    return job


def settled(job: openbits.Job, *states: JobState) -> JobState:
    return job.wait(states or (JobState.SUSPENDED, JobState.TRANSFERRED, JobState.ERROR), timeout=60)


def read(path: str, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), length, offset)


# --- the life of such a job ------------------------------------------------------------------


def test_pieces_then_the_rest(daemon: Daemon, nginx: Nginx, directory: str) -> None:
    """S10, F12, F13: SUSPENDED with the pieces, TRANSFERRED with the whole file, which Complete puts in its place."""
    nginx.add("whole.bin", SIZE)
    content = read(os.path.join(nginx.root, "whole.bin"), 0, SIZE)
    local_name = os.path.join(directory, "whole.bin")
    job = a_job(daemon, nginx.url("whole.bin"), local_name)
    [file] = list(job.enum_files())
    assert file.request_file_ranges([(1000, 500), Range(SIZE - 10)]) is Result.S_OK
    assert job.get_state() is JobState.SUSPENDED
    assert file.get_filled_file_ranges() == ()
    assert len(file.get_requested_file_ranges()) == 2
    job.resume()
    assert settled(job, JobState.SUSPENDED, JobState.TRANSFERRED, JobState.ERROR) is JobState.SUSPENDED
    assert file.get_filled_file_ranges() == (Range(1000, 500), Range(SIZE - 10, 10))
    assert file.get_requested_file_ranges() == ()
    progress = job.get_progress()
    assert (progress.bytes_total, progress.bytes_transferred, progress.files_transferred) == (SIZE, 510, 0)
    assert read(file.get_temporary_name(), 1000, 500) == content[1000:1500]
    assert not os.path.exists(local_name)

    file.request_file_ranges([(0, -1)])
    job.resume()
    assert settled(job, JobState.TRANSFERRED, JobState.ERROR) is JobState.TRANSFERRED
    assert file.get_filled_file_ranges() == (Range(0, SIZE),)
    assert job.complete() is Result.S_OK
    assert read(local_name, 0, SIZE) == content
    sent = sum(asked.sent_bytes for asked in nginx.asked("whole.bin"))
    assert SIZE <= sent < SIZE + 10_000, "nothing is fetched twice"


def test_requests_and_positions_while_it_runs(daemon: Daemon, origin: Origin, directory: str) -> None:
    """F11, F12: the running transfer hears them, on the connection that it has."""
    path = f"/gen/{SIZE}/101"
    job = a_job(daemon, origin.url(f"{path}?rate=2000000"), os.path.join(directory, "x"), priority="foreground")
    [file] = list(job.enum_files())
    file.request_file_ranges([(0, 1_000_000)])
    job.resume()
    settled(job, JobState.TRANSFERRING)
    file.request_file_ranges([(3_000_000, 500_000), (500_000, 1_000_000)])
    file.update_download_position(3_000_000)
    assert settled(job, JobState.SUSPENDED, JobState.ERROR) is JobState.SUSPENDED
    assert file.get_filled_file_ranges() == (Range(0, 1_500_000), Range(3_000_000, 500_000))
    temporary = file.get_temporary_name()
    assert read(temporary, 0, 1_500_000) == generate(SIZE, 101, 0, 1_500_000)
    assert read(temporary, 3_000_000, 500_000) == generate(SIZE, 101, 3_000_000, 500_000)
    requests = origin.requests_of(path)
    assert len({request.connection for request in requests}) == 1
    asked = [each for request in requests for each in str(request.range).removeprefix("bytes=").split(",")]
    offsets = [int(each.partition("-")[0]) for each in asked]
    assert 3_000_000 in offsets
    assert offsets[offsets.index(3_000_000) - 1] < 1_500_000, "what was under way came first"
    assert offsets[-1] < 1_500_000, "and what lies before the position comes last"


def test_resume_without_a_request(daemon: Daemon, origin: Origin, directory: str) -> None:
    """S10: back to SUSPENDED, and the property is fixed from then on."""
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/102"), os.path.join(directory, "x"))
    job.resume()
    assert job.get_state() is JobState.SUSPENDED
    assert origin.requests_of(f"/gen/{SIZE}/102") == []
    with pytest.raises(BitsError, match="BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"):
        job.set_property(openbits.JobProperty.ON_DEMAND_MODE, False)
    job.cancel()


def test_several_files_of_one_job(daemon: Daemon, origin: Origin, directory: str) -> None:
    urls = [origin.url(f"/gen/{SIZE}/{seed}") for seed in (110, 111, 112)]
    job = a_job(daemon, urls[0], os.path.join(directory, "x"), *urls[1:])
    files = list(job.enum_files())
    files[2].request_file_ranges([(50, 50)])
    job.resume()
    settled(job, JobState.SUSPENDED)
    assert origin.requests_of(f"/gen/{SIZE}/110") == [], "files of which nothing was requested are left alone"
    assert files[2].get_filled_file_ranges() == (Range(50, 50),)
    for file in files:
        file.request_file_ranges([(0, -1)])
    job.resume()
    assert settled(job, JobState.TRANSFERRED, JobState.ERROR) is JobState.TRANSFERRED
    job.complete()
    assert read(os.path.join(directory, "x-1"), 0, SIZE) == generate(SIZE, 112)


def test_complete_with_holes_and_cancel_leave_nothing(daemon: Daemon, origin: Origin, directory: str) -> None:
    """J7, J6: an unfinished file is deleted."""
    for end in ("complete", "cancel"):
        job = a_job(daemon, origin.url(f"/gen/{SIZE}/103"), os.path.join(directory, "x"))
        [file] = list(job.enum_files())
        file.request_file_ranges([(10, 10)])
        job.resume()
        settled(job, JobState.SUSPENDED)
        temporary = file.get_temporary_name()
        assert os.path.exists(temporary)
        result = getattr(job, end)()
        assert result is (Result.BG_S_PARTIAL_COMPLETE if end == "complete" else Result.S_OK)
        assert os.listdir(directory) == []


# --- a reader of the growing file (F5) -------------------------------------------------------


READER = """
import os, sys, time
path, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "rb") as file:
    sys.stdout.buffer.write(os.pread(file.fileno(), length, offset))
"""


def read_as(account: TestAccount, path: str, offset: int, length: int) -> bytes:
    """What a program of this account reads."""
    return subprocess.run(
        [sys.executable, "-c", READER, path, str(offset), str(length)],
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        cwd="/",
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout


def test_the_owner_reads_what_is_here_while_the_rest_comes(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """F5: of a file that is fetched whole, as far as it is transferred."""
    target = os.path.join(alice.home, "growing")
    job = daemon.submit(origin.url(f"/gen/{SIZE}/120?rate=1500000"), "-o", target, account=alice)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > 1_000_000, "bytes to come in")
    seen = daemon.show(job)
    assert seen["state"] == "TRANSFERRING"
    [file] = daemon.show(job)["files"]
    temporary = file["temporary_name"]
    assert os.path.dirname(temporary) == alice.home
    status = os.stat(temporary)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (alice.uid, 0o644)
    # What has come in is written a quarter of a mebibyte at a time; what is durable is in the file in any case.
    stored = daemon.stored_files(job)[0].durable_bytes
    readable = max(stored, seen["bytes_transferred"] - 512 * 1024)
    assert readable > 0
    assert read_as(alice, temporary, 0, readable) == generate(SIZE, 120, 0, readable)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("cancel", job, account=alice, check=True)


def test_the_owner_reads_pieces_while_others_come(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """F5, F13: with `bits`, as an account."""
    target = os.path.join(alice.home, "pieces")
    job = json.loads(daemon.bits("create", "pieces", "--json", account=alice, check=True).stdout)["id"]
    daemon.bits("set", job, "on_demand_mode=true", account=alice, check=True)
    daemon.bits("add", job, origin.url(f"/gen/{SIZE}/121?rate=1000000"), target, account=alice, check=True)
    daemon.bits("request-ranges", job, "0", "2000000:1000", "100:eof", account=alice, check=True)
    daemon.bits("request-ranges", job, "0", "--position", "2000000", "--resume", account=alice, check=True)

    def here() -> list[dict[str, int]]:
        filled: list[dict[str, int]] = daemon.show(job)["files"][0]["filled_ranges"]
        return filled

    wait_until(here, "the first piece to be here")
    piece = here()[0]
    assert piece["offset"] == 2_000_000
    [file] = daemon.show(job)["files"]
    data = read_as(alice, file["temporary_name"], piece["offset"], piece["length"])
    assert data == generate(SIZE, 121, piece["offset"], piece["length"])
    shown = daemon.bits("show", job, account=alice, check=True).stdout
    assert "ranges here" in shown
    assert "on_demand_mode:" in shown
    daemon.wait_state(job, "SUSPENDED")
    assert here() == [{"offset": 100, "length": SIZE - 100}]
    refused = daemon.bits("request-ranges", job, "0", f"{SIZE}:1", account=alice)
    assert refused.returncode == 2
    assert "BG_E_INVALID_RANGE" in refused.stderr
    daemon.bits("cancel", job, account=alice, check=True)


# --- what goes wrong -------------------------------------------------------------------------


def test_a_server_without_ranges_fails_the_job(daemon: Daemon, origin: Origin, directory: str) -> None:
    """F12: ERROR; from then on pieces of the file cannot be asked for."""
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/130?ranges=no"), os.path.join(directory, "x"))
    [file] = list(job.enum_files())
    file.request_file_ranges([(10, 10)])
    job.resume()
    assert settled(job, JobState.SUSPENDED, JobState.ERROR) is JobState.ERROR
    assert job.get_error().code == "BG_E_RANDOM_ACCESS_NOT_SUPPORTED"
    with pytest.raises(BitsError, match="BG_E_RANDOM_ACCESS_NOT_SUPPORTED"):
        file.request_file_ranges([(50, 10)])
    with pytest.raises(BitsError, match="BG_E_RANDOM_ACCESS_NOT_SUPPORTED"):
        file.update_download_position(5)
    job.cancel()


def test_a_range_outside_of_a_file_of_unknown_size(daemon: Daemon, origin: Origin, directory: str) -> None:
    """F12: found out in the run; Resume fetches what lies in the file."""
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/131"), os.path.join(directory, "x"))
    [file] = list(job.enum_files())
    file.request_file_ranges([(SIZE - 10, 50)])
    job.resume()
    assert settled(job, JobState.SUSPENDED, JobState.ERROR) is JobState.ERROR
    assert job.get_error().code == "BG_E_INVALID_RANGE"
    with pytest.raises(BitsError, match="BG_E_INVALID_RANGE"):
        file.request_file_ranges([(SIZE, 1)])
    job.resume()
    assert settled(job, JobState.SUSPENDED) is JobState.SUSPENDED
    assert file.get_filled_file_ranges() == (Range(SIZE - 10, 10),)
    job.cancel()


def test_a_remote_file_that_changes(daemon: Daemon, nginx: Nginx, directory: str) -> None:
    """D3: all pieces are of one version, those that had been here, too."""
    nginx.add("changing.bin", SIZE, seed=1)
    job = a_job(daemon, nginx.url("changing.bin"), os.path.join(directory, "x"))
    [file] = list(job.enum_files())
    file.request_file_ranges([(0, 1000), (2_000_000, 1000)])
    job.resume()
    settled(job, JobState.SUSPENDED)
    nginx.add("changing.bin", SIZE - 500, seed=2)
    os.utime(os.path.join(nginx.root, "changing.bin"), (1_000_000, 1_000_000))
    content = read(os.path.join(nginx.root, "changing.bin"), 0, SIZE)
    file.request_file_ranges([(3_000_000, 1000)])
    job.resume()
    settled(job, JobState.SUSPENDED)
    here = (Range(0, 1000), Range(2_000_000, 1000), Range(3_000_000, 1000))
    assert file.get_filled_file_ranges() == here
    for piece in here:
        assert read(file.get_temporary_name(), piece.offset, 1000) == content[piece.offset :][:1000]
    info = file.get_info()
    assert (info.restarts, info.progress.bytes_total) == (1, SIZE - 500)
    job.cancel()


@pytest.mark.parametrize("whom", ["worker", "service", "everything"])
def test_kills_in_the_middle(origin: Origin, directory: str, whom: str) -> None:
    """M8: what is told to be here is here, and only the rest is fetched."""
    seed = {"worker": 140, "service": 141, "everything": 142}[whom]
    with running_daemon("system") as daemon:
        job = a_job(daemon, origin.url(f"/gen/{SIZE}/{seed}?rate=1500000"), os.path.join(directory, "x"))
        [file] = list(job.enum_files())
        file.request_file_ranges([(0, 1_500_000), (2_500_000, 1_000_000)])
        job.resume()
        wait_until(lambda: len(file.get_filled_file_ranges()) > 0, "a first piece to be here")
        if whom == "worker":
            for process in daemon.workers():
                os.kill(process.pid, signal.SIGKILL)
        elif whom == "service":
            os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
        else:
            daemon.kill()
            daemon.start()
        daemon.wait_reachable()
        here = file.get_filled_file_ranges()
        assert here
        for piece in here:
            data = read(file.get_temporary_name(), piece.offset, piece.length)
            assert data == generate(SIZE, seed, piece.offset, piece.length)
        daemon.wait_state(job.id, "SUSPENDED", "ERROR")
        assert file.get_filled_file_ranges() == (Range(0, 1_500_000), Range(2_500_000, 1_000_000))
        temporary = file.get_temporary_name()
        assert read(temporary, 0, 1_500_000) == generate(SIZE, seed, 0, 1_500_000)
        assert read(temporary, 2_500_000, 1_000_000) == generate(SIZE, seed, 2_500_000, 1_000_000)
        assert file.get_info().restarts == 0
        job.cancel()


def test_a_lost_temporary_file_is_fetched_again(daemon: Daemon, origin: Origin, directory: str) -> None:
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/150"), os.path.join(directory, "x"))
    [file] = list(job.enum_files())
    file.request_file_ranges([(0, 1000)])
    job.resume()
    settled(job, JobState.SUSPENDED)
    os.unlink(file.get_temporary_name())
    file.request_file_ranges([(5000, 1000)])
    job.resume()
    assert settled(job, JobState.SUSPENDED, JobState.ERROR) is JobState.SUSPENDED
    assert file.get_filled_file_ranges() == (Range(0, 1000), Range(5000, 1000))
    assert read(file.get_temporary_name(), 0, 1000) == generate(SIZE, 150, 0, 1000)
    assert file.get_info().restarts == 1
    job.cancel()


def test_taking_a_job_over_keeps_its_pieces(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """I8: the new owner gets a file of his own, with the same pieces and the same holes."""
    # Root's worker has no rights over what is alice's.
    os.chmod(alice.home, 0o777)
    job = json.loads(daemon.bits("create", "taken", "--json", account=alice, check=True).stdout)["id"]
    daemon.bits("set", job, "on_demand_mode=true", account=alice, check=True)
    target = os.path.join(alice.home, "taken")
    daemon.bits("add", job, origin.url("/gen/400000000/151"), target, account=alice, check=True)
    daemon.bits("request-ranges", job, "0", "390000000:1000", "--resume", account=alice, check=True)
    daemon.wait_state(job, "SUSPENDED")
    daemon.bits("take-ownership", job, check=True)
    [file] = daemon.show(job)["files"]
    assert file["filled_ranges"] == [{"offset": 390_000_000, "length": 1000}]
    status = os.stat(file["temporary_name"])
    assert (status.st_uid, status.st_size) == (0, 390_001_000)
    assert status.st_blocks * 512 < 1024 * 1024
    assert read(file["temporary_name"], 390_000_000, 1000) == generate(400_000_000, 151, 390_000_000, 1000)
    daemon.bits("request-ranges", job, "0", "100:100", "--resume", check=True)
    daemon.wait_state(job, "SUSPENDED")
    assert read(file["temporary_name"], 100, 100) == generate(400_000_000, 151, 100, 100)
    assert len(daemon.show(job)["files"][0]["filled_ranges"]) == 2
    daemon.bits("cancel", job, check=True)
    assert [name for name in os.listdir(alice.home) if name.startswith(".")] == []


def test_t3_pieces_in_a_file_that_another_account_opens(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """The descriptor is handed over each time the file is taken up, and what is here already is never cut off."""
    target = os.path.join(alice.home, "helped")
    with helped_job(daemon, on_demand_mode=True, file_concurrency=2) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(origin.url(f"/gen/{SIZE}/152"), target)
        helped.add(origin.url(f"/gen/{SIZE}/153?rate=1000000"), f"{target}-slow")
        first, second = helped.job.enum_files()
        first.request_file_ranges([(1_000_000, 1000)])
        second.request_file_ranges([(0, SIZE)])
        helped.resume()
        # While the second is on its way the first rests, and is taken up again and again.
        for number in range(1, 6):
            wait_until(lambda: not first.get_requested_file_ranges(), "the pieces of the first file to be here")
            assert helped.job.get_state() is JobState.TRANSFERRING
            first.request_file_ranges([(1_000_000 - number * 10_000, 1000)])
        assert settled(helped.job, JobState.SUSPENDED, JobState.ERROR) is JobState.SUSPENDED
        [one, two] = daemon.show(helped.job.id)["files"]
        assert two["transferred"]
        assert len(one["filled_ranges"]) == 6
        assert (one["restarts"], os.stat(one["temporary_name"]).st_uid) == (0, alice.uid)
        for piece in one["filled_ranges"]:
            expected = generate(SIZE, 152, piece["offset"], piece["length"])
            assert read(one["temporary_name"], piece["offset"], piece["length"]) == expected
        first.request_file_ranges([(0, -1)])
        helped.resume()
        assert settled(helped.job, JobState.TRANSFERRED, JobState.ERROR) is JobState.TRANSFERRED
        helped.complete()
    assert read(target, 0, SIZE) == generate(SIZE, 152)
    numbers = [
        at
        for request in origin.requests_of(f"/gen/{SIZE}/152")
        for each in str(request.range).removeprefix("bytes=").split(",")
        for at in range(int(each.partition("-")[0]), int(each.partition("-")[2]) + 1)
    ]
    assert sorted(numbers) == list(range(SIZE)), "nothing is fetched twice"


def test_what_does_not_go_with_it(daemon: Daemon, origin: Origin, directory: str) -> None:
    """J67: downloads over HTTP, whose content stays as it is."""
    manager = openbits.Manager(daemon.socket)
    url, local_name = origin.url("/gen/10/1"), os.path.join(directory, "x")
    for settings in ({"dynamic_content": True}, {"high_performance": True}):
        with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
            manager.create_job("no", settings={"on_demand_mode": True, **settings})
    with pytest.raises(BitsError, match="BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD"):
        manager.create_job("no", settings={"on_demand_mode": True, "http_method": "POST"})
    with pytest.raises(BitsError, match="BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY"):
        manager.create_job("no", openbits.JobType.UPLOAD, settings={"on_demand_mode": True})
    job = a_job(daemon, url, local_name)
    with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
        job.add_file("file:///etc/hostname", f"{local_name}2")
    with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
        job.add_file_with_ranges(url, f"{local_name}2", [Range(0, 5)])
    with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
        next(iter(job.enum_files())).set_remote_name("file:///etc/hostname")
    job.cancel()
    other = manager.create_job("other")
    other.add_file("file:///etc/hostname", local_name)
    with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
        other.set_property("on_demand_mode", True)
    with pytest.raises(BitsError, match="BG_E_RANDOM_ACCESS_NOT_SUPPORTED"):
        next(iter(other.enum_files())).request_file_ranges([(0, 1)])
    other.cancel()


def test_the_asyncio_client(daemon: Daemon, origin: Origin, directory: str) -> None:
    async def use() -> None:
        async with openbits.aio.Manager(daemon.socket) as manager:
            job = await manager.create_job("async", settings={"on_demand_mode": True})
            assert await job.get_property(openbits.JobProperty.ON_DEMAND_MODE) is True
            await job.add_file(origin.url(f"/gen/{SIZE}/160"), os.path.join(directory, "x"))
            [file] = list(await job.enum_files())
            await file.request_file_ranges([(7, 7)])
            await file.update_download_position(3)
            await job.resume()
            await job.wait((JobState.SUSPENDED,), timeout=60)
            assert await file.get_filled_file_ranges() == (Range(7, 7),)
            assert await file.is_downloaded_from_peer() is False
            assert await file.get_peer_download_stats() == openbits.PeerDownloadStats(7, 0)
            await job.cancel()

    asyncio.run(use())
