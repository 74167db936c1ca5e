"""The key by which the service seals what owners entrust to it: passwords and header lines (I14).

    $CREDENTIALS_DIRECTORY/openbits.key    where systemd hands one over (LoadCredentialEncrypted=)
    STATE_DIR.key (/var/lib/openbits.key)  else: root's alone, made at the first start
    STATE_DIR/credentials.key              of an account's own daemon, whose service is the account too

The rule: the service's account can read the key neither here nor there; it gets it by a descriptor, and what is not a
key is never passed on.  Beside the state directory, not in it: that is the service's own, where a root without its
usual power cannot go, and a copy of the jobs is no copy of the key.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from openbits.monitor.log import StartError, say
from openbits.monitor.places import Mode, Places

CREDENTIAL_NAME: Final = "openbits.key"
SUFFIX: Final = ".key"
OWN_FILE_NAME: Final = "credentials.key"
KEY_BYTES: Final = 32
_KEY: Final = re.compile(rb"[0-9a-fA-F]{%d}\n?" % (2 * KEY_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An anonymous file that holds the key, and where it comes from, for people."""

    fd: int
    source: str


def provide(places: Places, environment: MutableMapping[str, str]) -> Key:
    """Return the key, made if there is none; the variable that says where credentials are is removed.

    Raises StartError for a file that is no key, or is not the starter's alone.
    """
    directory = environment.pop("CREDENTIALS_DIRECTORY", "")
    if directory:
        path = os.path.join(directory, CREDENTIAL_NAME)
        content = _read(path)
        if content is not None:
            return _handed_over(content, path, f"the systemd credential {CREDENTIAL_NAME}")
    path = path_of(places)
    content = _read(path)
    if content is None:
        _make(path)
        content = _read(path)
        say(f"made the key for stored credentials: {path}")
    return _handed_over(content or b"", path, path)


def path_of(places: Places) -> str:
    """Where the key is when nobody hands one over."""
    if places.mode is Mode.SYSTEM:
        return places.state_dir + SUFFIX
    return os.path.join(places.state_dir, OWN_FILE_NAME)


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"cannot read the key {path}: {error.strerror}", exit_status=2) from None
    try:
        found = os.fstat(fd)
        # Whoever may write to the directory can put a file there, but none that is root's.
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_nlink != 1:
            raise StartError(f"{path} is no file of {'root' if os.geteuid() == 0 else 'this account'}", exit_status=2)
        if found.st_mode & 0o077:
            raise StartError(f"others may read the key {path}: chmod 600 it", exit_status=2)
        return os.read(fd, 4 * KEY_BYTES)
    finally:
        os.close(fd)


def _make(path: str) -> None:
    """A key that was lost in a power cut must not be the one by which something was sealed."""
    new = f"{path}.{secrets.token_hex(8)}"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StartError(f"cannot make the key {path}: {error.strerror}", exit_status=2) from None


def _handed_over(content: bytes, path: str, source: str) -> Key:
    if not _KEY.fullmatch(content):
        raise StartError(
            f"{path} is no key: a key is {2 * KEY_BYTES} hexadecimal digits, as 'openssl rand -hex {KEY_BYTES}' prints",
            exit_status=2,
        )
    fd = os.memfd_create("key", os.MFD_CLOEXEC)
    os.write(fd, bytes.fromhex(content.decode("ascii").strip()))
    return Key(fd=fd, source=source)
