"""A FUSE file system for tests: an empty directory that a thread of the test answers for. Only root can mount it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import Final

_LOOKUP, _GETATTR, _STATFS, _INIT, _OPENDIR, _RELEASEDIR, _READDIR, _ACCESS = 1, 3, 17, 26, 27, 29, 28, 34
_FORGET: Final = frozenset((2, 42))
HANGING: Final = frozenset((_LOOKUP,))
"""For `silent_for`: whoever opens a file waits until the mount is gone, as for a server that does not answer."""
_DESTROY: Final = 38
_ROOT_NODE: Final = 1
_IN_HEADER: Final = struct.Struct("=IIQQIIII")
_OUT_HEADER: Final = struct.Struct("=IiQ")
_REQUEST_BYTES: Final = 1 << 17
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def fuse_mount(
    path: str, *, uid: int, options: str = "", kind: str = "fuse.obt", silent_for: frozenset[int] = frozenset()
) -> Iterator[str]:
    """Mount an empty file system of an account at `path`, which is made, for the length of a `with` block."""
    os.mkdir(path)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    server = threading.Thread(target=_serve, args=(device, uid, silent_for), name="fuse")
    try:
        data = f"fd={device},rootmode=40777,user_id={uid},group_id={uid}{options}"
        if _libc.mount(b"obt", path.encode(), kind.encode(), 0, data.encode()) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        server.start()
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", path], check=True, timeout=20)
            server.join(20)
    finally:
        os.close(device)
        os.rmdir(path)


def _serve(device: int, uid: int, silent_for: frozenset[int]) -> None:
    while True:
        try:
            request = os.read(device, _REQUEST_BYTES)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                continue
            return  # unmounted
        _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
        if opcode in _FORGET or opcode in silent_for:
            continue
        number, body = _answer(opcode, node, uid)
        with contextlib.suppress(OSError):
            os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -number, unique) + body)
        if opcode == _DESTROY:
            return


def _answer(opcode: int, node: int, uid: int) -> tuple[int, bytes]:
    match opcode:
        case _ if opcode == _INIT:
            return 0, struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 4, 3, 65536, 1, 16, 0, 0)
        case _ if opcode == _GETATTR and node == _ROOT_NODE:
            return 0, struct.pack("=QII", 1, 0, 0) + _attributes(uid)
        case _ if opcode == _LOOKUP:
            return errno.ENOENT, b""
        case _ if opcode == _STATFS:
            return 0, struct.pack("=QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
        case _ if opcode in (_OPENDIR, _READDIR, _RELEASEDIR, _ACCESS, _DESTROY):
            return 0, struct.pack("=QII", 0, 0, 0) if opcode == _OPENDIR else b""
        case _:
            return errno.ENOSYS, b""


def _attributes(uid: int) -> bytes:
    mode = stat.S_IFDIR | 0o777
    return struct.pack("=QQQQQQIIIIIIIIII", _ROOT_NODE, 0, 0, 0, 0, 0, 0, 0, 0, mode, 2, uid, uid, 0, 4096, 0)
