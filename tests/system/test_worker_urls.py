"""Peculiar URLs: what a server is really sent for each of them (D6, I9).

A recording server is the witness: request line, Host, and the name that a TLS client asks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.core.names import check_remote_name
from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec
from support.accounts import needs_root
from support.proxy_server import ProxyServer
from support.recorder import BODY, Recorder
from support.worker_process import WorkerProcess


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        yield server


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(url: str, directory: Path) -> FileSpec:
    check_remote_name(url)
    return FileSpec(
        index=0, remote_name=url, local_name=str(directory / "x"), temporary_name=str(directory / ".BIT.tmp")
    )


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("/", "/"),
        ("?", "/?"),
        ("?q", "/?q"),
        ("?a=b?c/d", "/?a=b?c/d"),
        ("#part", "/"),
        ("/x#part", "/x"),
        ("/x?#part", "/x?"),
        ("/x?q#part?no", "/x?q"),
        ("//", "//"),
        ("//x//y//", "//x//y//"),
        ("/?", "/?"),
        ("/.", "/."),
        ("/..", "/.."),
        ("/a/../b", "/a/../b"),
        ("/a/./b/..", "/a/./b/.."),
        ("/../../etc/passwd", "/../../etc/passwd"),
        ("/%2e%2e/x", "/%2e%2e/x"),
        ("/%2E%2e/x", "/%2E%2e/x"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2fb"),
        ("/caf%c3%a9", "/caf%c3%a9"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/%41%7e", "/%41%7e"),
        ("/%00", "/%00"),
        ("/%0d%0aX-Evil:%201", "/%0d%0aX-Evil:%201"),
        ("/%25", "/%25"),
        ("/x?%ff=%FF", "/x?%ff=%FF"),
        ("/x?a=%2f&b=%2F+c", "/x?a=%2f&b=%2F+c"),
        ("/a;b=c,d/(e)!$&'*+=@:~_-.", "/a;b=c,d/(e)!$&'*+=@:~_-."),
        ("/x?a[]=1&b=:@", "/x?a[]=1&b=:@"),
        ("/a@b:c", "/a@b:c"),
        ("/x?http://other.example/", "/x?http://other.example/"),
        ("/" + "s" * 255, "/" + "s" * 255),
        ("/?" + "q" * 2100, "/?" + "q" * 2100),
    ],
)
def test_the_path_is_sent_as_it_was_written(
    worker: WorkerProcess, recorder: Recorder, tmp_path: Path, rest: str, target: str
) -> None:
    """No dot is resolved, no escape made, undone or written anew; a fragment stays here."""
    recorder.heads.clear()
    file = spec(f"http://127.0.0.1:{recorder.port}{rest}", tmp_path)
    assert worker.fetch(file).error == ""
    assert Path(file.temporary_name).read_bytes() == BODY
    assert recorder.first_lines == [f"GET {target} HTTP/1.1"]
    assert recorder.field("host") == [f"127.0.0.1:{recorder.port}"]


@pytest.mark.parametrize("rest", ["/x%2fy/%2e%2e/z?%aa#part", "/x", "/../y", "?q"])
def test_a_proxy_is_told_the_same(worker: WorkerProcess, recorder: Recorder, tmp_path: Path, rest: str) -> None:
    recorder.heads.clear()
    with ProxyServer(hosts={"origin.test": recorder.port}) as proxy:
        by = ProxySpec(usage="manual", proxies=f"127.0.0.1:{proxy.port}")
        assert worker.fetch(spec(f"http://origin.test{rest}", tmp_path), proxy=by).error == ""
        sent = rest.partition("#")[0]
        sent = sent if sent.startswith("/") else f"/{sent}"
        assert [asked.target for asked in proxy.requests] == [f"http://origin.test{sent}"]
    assert recorder.first_lines == [f"GET {sent} HTTP/1.1"]
    assert recorder.field("host") == ["origin.test"]


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("HTTP://127.0.0.1:PORT", "127.0.0.1:PORT"),
        ("http://localhost:PORT", "localhost:PORT"),
        ("http://LocalHost:PORT", "LocalHost:PORT"),
        ("http://localhost.:PORT", "localhost.:PORT"),
        ("http://a_b.localhost:PORT", "a_b.localhost:PORT"),
        ("http://bücher.localhost:PORT", "xn--bcher-kva.localhost:PORT"),
        ("http://BÜCHER.localhost:PORT", "xn--bcher-kva.localhost:PORT"),
        ("http://例え。localhost:PORT", "xn--r8jz45g.localhost:PORT"),
        ("http://💩.localhost:PORT", "xn--ls8h.localhost:PORT"),
        ("http://xn--strae-oqa.localhost:PORT", "xn--strae-oqa.localhost:PORT"),
    ],
)
def test_the_server_is_asked_for_by_its_name(
    worker: WorkerProcess, recorder: Recorder, tmp_path: Path, server: str, host: str
) -> None:
    recorder.heads.clear()
    port = str(recorder.port)
    assert worker.fetch(spec(server.replace("PORT", port) + "/x", tmp_path)).error == ""
    assert recorder.first_lines == ["GET /x HTTP/1.1"]
    assert recorder.field("host") == [host.replace("PORT", port)]


@pytest.mark.parametrize(
    "userinfo", ["user:secret", "user", ":", "a%40b:c%3ad", "a@b:c:d", "%ff%fe:x", "us;er=1:p!$&'()*+,"]
)
def test_nobody_is_told_a_user_name_unasked(
    worker: WorkerProcess, recorder: Recorder, tmp_path: Path, userinfo: str
) -> None:
    """I9: not even where one stands in the URL still."""
    recorder.heads.clear()
    url = f"http://{userinfo}@127.0.0.1:{recorder.port}/x@y"
    assert worker.fetch(spec(url, tmp_path)).error == ""
    assert recorder.first_lines == ["GET /x@y HTTP/1.1"]
    assert recorder.field("host") == [f"127.0.0.1:{recorder.port}"]
    assert recorder.field("authorization") == []


IN_A_NAMESPACE = {
    # url: (first line, Host, name in the TLS handshake)
    "http://127.0.0.1/x": ("GET /x", "127.0.0.1", []),
    "http://127.0.0.1:80/x": ("GET /x", "127.0.0.1", []),
    "http://127.0.0.1:0080/x": ("GET /x", "127.0.0.1", []),
    "http://127.0.0.1:443/x": None,
    "http://[::1]/x": ("GET /x", "[::1]", []),
    "http://[::1]:8080/x": ("GET /x", "[::1]:8080", []),
    "http://[0:0:0:0:0:0:0:1]:8080/x": ("GET /x", "[::1]:8080", []),
    "http://[::ffff:127.0.0.1]:8080/x": ("GET /x", "[::ffff:127.0.0.1]:8080", []),
    "http://[fe80::1234%25link-0.1]/x": ("GET /x", "[fe80::1234]", []),
    "http://[FE80::1234%25link-0.1]:8080/x": ("GET /x", "[fe80::1234]:8080", []),
    "http://[fe80::1234%25other]:8080/x": None,
    "https://localhost/x": ("GET /x", "localhost", ["localhost"]),
    "https://LOCALHOST:443/x": ("GET /x", "LOCALHOST", ["localhost"]),
    "https://localhost./x": ("GET /x", "localhost.", ["localhost"]),
    "https://bücher.localhost/%2e%2e": ("GET /%2e%2e", "xn--bcher-kva.localhost", ["xn--bcher-kva.localhost"]),
    "https://127.0.0.1/x": ("GET /x", "127.0.0.1", [None]),
    "https://[::1]/x": ("GET /x", "[::1]", [None]),
    "https://[fe80::1234%25link-0.1]/x": ("GET /x", "[fe80::1234]", [None]),
}


@needs_root
def test_addresses_zones_and_ports_that_need_not_be_named(tmp_path: Path) -> None:
    """D6: a zone is for this machine alone; an address is no name to ask for by TLS, nor is a dot at the end."""
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "support.url_child", str(tmp_path)],
        input=json.dumps(list(IN_A_NAMESPACE)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for url, error, heads, names in json.loads(result.stdout):
        expected = IN_A_NAMESPACE[url]
        if expected is None:
            assert error, url
            assert heads == [], url
            continue
        assert error == "", (url, error)
        first, *lines = heads[0].split("\r\n")
        assert len(heads) == 1, url
        assert first == f"{expected[0]} HTTP/1.1", url
        assert [line.partition(": ")[2] for line in lines if line.startswith("Host:")] == [expected[1]], url
        assert names == expected[2], url
