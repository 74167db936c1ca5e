"""A worker against a real server: whole files, ranges, resumption, and the path through the kernel."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.frames.worker import FileDurable, FileReceived, FileSpec, RangeSpec
from support.origin import generate
from support.worker_process import WorkerProcess

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

SIZE = 30_000_007
_CONFIGURATION = """
daemon off; pid {base}/pid; error_log {base}/error.log; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
  access_log {base}/access.log; sendfile on; keepalive_requests 10000;
  client_body_temp_path {base}/t1; proxy_temp_path {base}/t2; fastcgi_temp_path {base}/t3;
  uwsgi_temp_path {base}/t4; scgi_temp_path {base}/t5;
  server {{
    listen 127.0.0.1:{port}; root {base}/www;
    location /slow/ {{ alias {base}/www/; limit_rate 8m; }}
  }}
}}
"""


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    base = tmp_path_factory.mktemp("nginx")
    (base / "www").mkdir()
    (base / "www" / "big").write_bytes(generate(SIZE, 1))
    for index in range(50):
        (base / "www" / f"small{index}").write_bytes(generate(index * 997, index))
    port = _port()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = base / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(base=base, port=port, user=user))
    with subprocess.Popen(["nginx", "-e", base / "error.log", "-c", configuration]) as nginx:
        try:
            deadline = time.monotonic() + 10
            while not _listens(port) and time.monotonic() < deadline:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}", base / "www"
        finally:
            nginx.terminate()


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(url: str, directory: Path, index: int = 0, **more: object) -> FileSpec:
    return FileSpec(
        index=index,
        remote_name=url,
        local_name=str(directory / f"out{index}"),
        temporary_name=str(directory / f".BIT{index}.tmp"),
        **more,  # type: ignore[arg-type]  # passed through
    )


def test_whole_file_through_the_kernel(site: tuple[str, Path], tmp_path: Path) -> None:
    """The bytes never pass through the worker's memory, and none of them is wrong."""
    traced = tmp_path / "spliced"
    program = f"""
import os, socket, sys
moved = 0
real = os.splice
def splice(*args, **kwargs):
    global moved
    count = real(*args, **kwargs)
    if "offset_dst" in kwargs:
        moved += count
        open({str(traced)!r}, "w").write(str(moved))
    return count
os.splice = splice
from openbits.worker.main import run
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
    with WorkerProcess(program=program) as worker:
        # Twice, since the second connection may get the number of the first.
        for turn in range(2):
            file = spec(f"{site[0]}/slow/big", tmp_path, turn)
            assert worker.fetch(file, transfer=turn).error == ""
            assert Path(file.temporary_name).read_bytes() == generate(SIZE, 1)
    assert int(traced.read_text()) > SIZE


def test_small_files_then_a_large_one_then_small_ones(
    worker: WorkerProcess, site: tuple[str, Path], tmp_path: Path
) -> None:
    names = [*(f"small{index}" for index in range(25)), "big", *(f"small{index}" for index in range(25, 50))]
    files = [spec(f"{site[0]}/{name}", tmp_path, index) for index, name in enumerate(names)]
    assert worker.fetch(*files, file_concurrency=3).error == ""
    for name, file in zip(names, files, strict=True):
        assert Path(file.temporary_name).read_bytes() == (site[1] / name).read_bytes()


@pytest.mark.parametrize("turn", range(3))
def test_kill_and_continue(site: tuple[str, Path], tmp_path: Path, turn: int) -> None:
    with WorkerProcess() as worker:
        worker.begin(spec(f"{site[0]}/slow/big", tmp_path), checkpoint_bytes=3_000_000, checkpoint_s=0.1)
        worker.wait_for(FileDurable, lambda durable: durable.durable_bytes > turn * 4_000_000)
        worker.kill()
        durable, started = worker.durable_bytes(), worker.started()[0]
    assert 0 < durable < SIZE
    file = spec(
        f"{site[0]}/big",
        tmp_path,
        durable_bytes=durable,
        size=SIZE,
        etag=started.etag,
        last_modified=started.last_modified,
    )
    with WorkerProcess() as worker:
        assert worker.fetch(file).error == ""
        assert worker.started()[0].offset == durable
    assert Path(file.temporary_name).read_bytes() == generate(SIZE, 1)


def test_stop_in_the_middle_of_the_kernels_path(worker: WorkerProcess, site: tuple[str, Path], tmp_path: Path) -> None:
    file = spec(f"{site[0]}/slow/big", tmp_path)
    worker.begin(file)
    worker.wait_for(FileReceived, lambda received: received.received_bytes > 6_000_000)
    start = time.monotonic()
    assert worker.stop().error == ""
    assert time.monotonic() - start < 1
    durable = worker.durable_bytes()
    with open(file.temporary_name, "rb") as stream:
        assert stream.read(durable) == generate(SIZE, 1, 0, durable)


def test_ranges(worker: WorkerProcess, site: tuple[str, Path], tmp_path: Path) -> None:
    wanted = ((5_000_000, 100_000), (0, 1), (29_000_000, -1), (100, 5_000))
    ranges = tuple(RangeSpec(offset=offset, length=length) for offset, length in wanted)
    file = spec(f"{site[0]}/big", tmp_path, ranges=ranges)
    assert worker.fetch(file).error == ""
    expected = b"".join(generate(SIZE, 1, offset, SIZE if length < 0 else length) for offset, length in wanted)
    assert Path(file.temporary_name).read_bytes() == expected
