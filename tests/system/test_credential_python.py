"""Credentials and custom headers from Python, blocking and awaited, of the real service (J35, J36, H5, H6, H11)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import openbits
from openbits import AuthScheme, AuthTarget, BitsError, Result, aio
from support.daemon import Daemon, running_daemon

LONGEST = "X: " + "y" * (16_383 - 5) + "\r\n"
REFUSED: list[tuple[tuple[Any, ...], str]] = [
    (("nobody", "basic", "a", "b"), "BG_E_INVALID_AUTH_TARGET"),
    (("server", "kerberos", "a", "b"), "BG_E_INVALID_AUTH_SCHEME"),
    (("server", "passport", "a", "b"), "E_NOTIMPL"),
    (("server", "basic"), "E_INVALIDARG"),
    (("server", "digest", "a"), "E_INVALIDARG"),
    (("server", "basic", "a" * 301, "b"), "BG_E_USERNAME_TOO_LARGE"),
    (("server", "basic", "a", "b" * 65_537), "BG_E_PASSWORD_TOO_LARGE"),
]
BAD_HEADERS = [
    ("Host: other.example\r\n", "E_INVALIDARG"),
    ("Range: bytes=0-1\r\n", "E_INVALIDARG"),
    ("Connection: close\r\n", "E_INVALIDARG"),
    ("Transfer-Encoding: chunked\r\n", "E_INVALIDARG"),
    ("Proxy-Authorization: Basic eA==\r\n", "E_INVALIDARG"),
    ("X: y\rHost: other.example\r\n", "E_INVALIDARG"),
    ("X: y\0\r\n", "E_INVALIDARG"),
    (" folded\r\n", "E_INVALIDARG"),
    ("no colon\r\n", "E_INVALIDARG"),
    ("X : y\r\n", "E_INVALIDARG"),
    ("X: ü\r\n", "E_INVALIDARG"),
    (LONGEST.replace("X: ", "XY: "), "BG_E_STRING_TOO_LONG"),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("user") as started:
        yield started


@pytest.fixture
def job(daemon: Daemon) -> Iterator[openbits.Job]:
    with openbits.Manager(socket=daemon.socket) as manager:
        made = manager.create_job("a job")
        yield made
        made.cancel()


def test_j35_j36_blocking(job: openbits.Job) -> None:
    assert job.set_credentials(AuthTarget.SERVER, AuthScheme.BASIC, "alice", "ä" * 65_536) is Result.S_OK
    assert job.set_credentials(AuthTarget.SERVER, AuthScheme.BASIC, "a" * 300, "") is Result.S_OK
    assert job.set_credentials("proxy", "negotiate") is Result.S_OK
    assert job.remove_credentials("server", "basic") is Result.S_OK
    assert job.remove_credentials("server", "basic") is Result.S_FALSE
    assert job.remove_credentials("proxy", "negotiate") is Result.S_OK


@pytest.mark.parametrize(("arguments", "name"), REFUSED)
def test_j35_refusals(job: openbits.Job, arguments: tuple[Any, ...], name: str) -> None:
    with pytest.raises(BitsError) as caught:
        job.set_credentials(*arguments)
    assert caught.value.name == name


def test_h5_h6_h11_blocking(job: openbits.Job) -> None:
    assert job.get_custom_headers() is None
    assert job.set_custom_headers(LONGEST) is Result.S_OK
    assert job.get_custom_headers() == LONGEST
    assert job.set_custom_headers("A: 1\nB:2") is Result.S_OK
    assert job.get_custom_headers() == job.get_property("custom_headers") == "A: 1\r\nB: 2\r\n"
    assert job.set_custom_headers(None) is Result.S_OK
    assert job.get_custom_headers() is None
    assert job.make_custom_headers_write_only() is Result.S_OK
    assert job.set_custom_headers("A: 1\r\n") is Result.S_OK
    assert job.make_custom_headers_write_only() is Result.S_OK
    with pytest.raises(BitsError, match="E_ACCESSDENIED"):
        job.get_custom_headers()
    assert job.get_property("custom_headers") is None


@pytest.mark.parametrize(("headers", "name"), BAD_HEADERS)
def test_h5_what_is_no_header_of_a_jobs(job: openbits.Job, headers: str, name: str) -> None:
    job.set_custom_headers("A: 1\r\n")
    with pytest.raises(BitsError) as caught:
        job.set_custom_headers(headers)
    assert caught.value.name == name
    with pytest.raises(BitsError):
        job.set_property("custom_headers", headers)
    assert job.get_custom_headers() == "A: 1\r\n"


def test_the_same_awaited(daemon: Daemon) -> None:
    async def story() -> None:
        manager = aio.Manager(socket=daemon.socket)
        job = await manager.create_job("a job")
        assert await job.set_credentials(AuthTarget.PROXY, AuthScheme.DIGEST, "alice", "secret") is Result.S_OK
        assert await job.remove_credentials(AuthTarget.PROXY, AuthScheme.DIGEST) is Result.S_OK
        assert await job.set_custom_headers("A: 1\r\n") is Result.S_OK
        assert await job.get_custom_headers() == "A: 1\r\n"
        assert await job.make_custom_headers_write_only() is Result.S_OK
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            await job.get_custom_headers()
        await job.cancel()
        # H11 is S_OK whatever the job is doing, and so of one that has ended.
        assert await job.make_custom_headers_write_only() is Result.S_OK
        manager.close()

    asyncio.run(story())
