"""The way into a running server for those who may: publish, unpublish, list, over a Unix socket (U50, U51).

The rules:

- The kernel says who calls.  Root and the server's account may everything; members of one group, if the settings name
  one, may publish files and take back their own.  Nobody else is even read.
- A request is one line of JSON, with the descriptor of what is published beside it; so is the answer, without.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import grp
import json
import logging
import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openbits.server.publications import (
    NotPublished,
    Publication,
    Publications,
    check_descriptor,
    parse_prefix,
)
from openbits.server.tasks import Tasks

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 16_384
LONGEST_S: Final = 100 * 366 * 86_400
"""Later times are not what anybody means, and calendars end."""
_TIMEOUT_S: Final = 10.0
_MAX_CALLERS: Final = 16
_SO_PEERGROUPS: Final = 59
_MOST_GROUPS: Final = 65_536
_libc: Final = ctypes.CDLL(None, use_errno=True)
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls."""

    uid: int
    is_master: bool
    """Root, or the server's account."""


class ControlSocket:
    """The socket, and what is done for those who call."""

    def __init__(self, path: str, publications: Publications, *, group: Callable[[], str]) -> None:
        """`group` names whose members may publish files; empty: nobody besides root and the server's account."""
        self.path = path
        self._publications = publications
        self._group = group
        self._tasks = Tasks()
        self._listener: socket.socket | None = None
        self._is_ours = False

    def __repr__(self) -> str:
        return f"<ControlSocket {self.path}>"

    def start(self) -> None:
        """Listen; raises OSError (EADDRINUSE: another server listens there)."""
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(self.path), 0o755)
        listener = _listen(self.path)
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        await self._tasks.wait_finished(1.0)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._tasks) >= _MAX_CALLERS:
            sock.close()
            return
        sock.setblocking(False)
        self._tasks.start("control", self._talk(sock))

    async def _talk(self, sock: socket.socket) -> None:
        with sock:
            caller = _caller(sock, self._group())
            if caller is None:
                answer: dict[str, Any] = {
                    "error": f"only root, {_own_name()} and members of the publish group may do that with {self.path}"
                }
            else:
                answer = await self._read_and_do(sock, caller)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await asyncio.get_running_loop().sock_sendall(sock, json.dumps(answer).encode() + b"\n")

    async def _read_and_do(self, sock: socket.socket, caller: Caller) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                data, fds = await _receive(sock)
        except (OSError, TimeoutError):
            return {"error": "the request did not come"}
        left = list(fds)
        try:
            request = json.loads(data)
            if not isinstance(request, dict):
                raise TypeError
            return self._do(request, caller, left)
        except (ValueError, TypeError, KeyError):
            return {"error": "that is no request of this version of bits-server"}
        except NotPublished as refusal:
            return {"error": str(refusal)}
        finally:
            for fd in left:
                os.close(fd)

    def _do(self, request: Mapping[str, Any], caller: Caller, fds: list[int]) -> dict[str, Any]:
        match request["do"]:
            case "publish":
                self._publish(request, caller, fds)
                return {"done": True}
            case "unpublish":
                prefix = str(request["prefix"])
                self._publications.remove(prefix, uid=caller.uid, is_master=caller.is_master)
                log.info("action=unpublished prefix=%r uid=%d", prefix, caller.uid)
                return {"done": True}
            case "list":
                return {"publications": [_shown(each) for each in self._publications.all()]}
            case _:
                raise ValueError

    def _publish(self, request: Mapping[str, Any], caller: Caller, fds: list[int]) -> None:
        """Takes the descriptor out of `fds` once the publication has it."""
        prefix = str(request["prefix"])
        lasts_s = request["lasts_s"]
        if len(fds) != 1 or not (lasts_s is None or type(lasts_s) in (int, float)):
            raise ValueError
        # Not a number among them: it is neither more nor less than anything.
        if lasts_s is not None and not lasts_s <= LONGEST_S:
            raise NotPublished("--expires is centuries away: leave it out, and it lasts until the server stops")
        is_directory = check_descriptor(fds[0])
        if is_directory and not caller.is_master:
            raise NotPublished(
                "only root and the server's account publish directories: publish the files in it one by one"
            )
        now = time.time()
        self._publications.add(
            Publication(
                prefix=parse_prefix(prefix),
                shown_prefix=prefix,
                path=str(request["path"]),
                fd=fds[0],
                is_directory=is_directory,
                publisher_uid=caller.uid,
                published_at=now,
                expires_at=None if lasts_s is None else now + lasts_s,
                group=str(request["allow"] or ""),
            ),
            is_master=caller.is_master,
        )
        fds.clear()
        log.info("action=published prefix=%r path=%r uid=%d", prefix, request["path"], caller.uid)


def _shown(publication: Publication) -> dict[str, Any]:
    found = os.fstat(publication.fd)
    return {
        "prefix": publication.shown_prefix,
        "path": publication.path,
        "directory": publication.is_directory,
        "size": None if publication.is_directory else found.st_size,
        "publisher_uid": publication.publisher_uid,
        "published_at": publication.published_at,
        "expires_at": publication.expires_at,
        "allow": publication.group or None,
        "hand_outs": publication.hand_outs,
    }


async def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return a line and the descriptors that came with its beginning."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(sock.fileno(), event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock.fileno())
    data, fds, _, _ = socket.recv_fds(sock, MAX_REQUEST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        while not data.endswith(b"\n") and len(data) < MAX_REQUEST_BYTES:
            more = await loop.sock_recv(sock, MAX_REQUEST_BYTES)
            if not more:
                break
            data += more
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return data, fds


def _caller(sock: socket.socket, group: str) -> Caller | None:
    _, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid in (0, os.geteuid()):
        return Caller(uid=uid, is_master=True)
    if not group:
        return None
    try:
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        return None
    return Caller(uid=uid, is_master=False) if wanted == gid or wanted in _peer_groups(sock) else None


def _peer_groups(sock: socket.socket) -> frozenset[int]:
    # Not by socket.getsockopt: it has room for 256 groups, and directory services give people more.
    buffer = (ctypes.c_uint32 * _MOST_GROUPS)()
    length = ctypes.c_uint32(ctypes.sizeof(buffer))
    if _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(length)) != 0:
        return frozenset()
    return frozenset(buffer[: length.value // ctypes.sizeof(ctypes.c_uint32)])


def _listen(path: str) -> socket.socket:
    """Everybody may connect; what a caller may do is asked then. A socket that nobody listens on is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        try:
            is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
        except FileNotFoundError:
            is_socket = False
        if is_socket:
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "another server listens there")
            os.unlink(path)
        previous = os.umask(0o111)
        try:
            sock.bind(path)
        finally:
            os.umask(previous)
        sock.listen(16)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def call(path: str, request: Mapping[str, Any], *, fd: int | None = None) -> dict[str, Any]:
    """Ask a server; the other end of all this.  Blocks; raises OSError, NotPublished with what the server says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.connect(path)
        line = json.dumps(request).encode() + b"\n"
        parts = []
        # Whoever may not ask is told so before the question, and finds the connection closed for it.
        with contextlib.suppress(BrokenPipeError):
            if fd is None:
                sock.sendall(line)
            else:
                socket.send_fds(sock, [line], [fd])
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65_536):
                parts.append(part)
    answer = json.loads(b"".join(parts) or b"{}")
    if not isinstance(answer, dict) or "error" in answer or not answer:
        raise NotPublished(str(answer.get("error", "the server did not answer")) if isinstance(answer, dict) else "?")
    return answer


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
