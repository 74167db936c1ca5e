"""The directories of the daemon: which they are, and that the service's account can use them.

The rule: a directory that is missing is made; one that the service can use is left exactly as it
is; one that it cannot use is taken over only when nothing of anybody else stands in it.  Ownership is
changed by descriptor and never through a symbolic link, so that nobody who may write beside the directory
can choose what is given away.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from openbits import paths
from openbits.monitor.log import StartError, say
from openbits.privileges import Identity, acting_as

_LONGEST_SOCKET_PATH_BYTES: Final = 107
_STATE_MODE: Final = 0o700
_RUNTIME_MODE: Final = {"system": 0o755, "user": 0o700}


class Mode(enum.Enum):
    """For whom the daemon works: every account of the machine, or the one that started it."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Absolute paths; the configuration file may be missing unless somebody named it."""

    mode: Mode
    config: str
    state_dir: str
    runtime_dir: str

    @property
    def socket_path(self) -> str:
        """Where the service listens."""
        return os.path.join(self.runtime_dir, paths.SOCKET_NAME)


def choose(mode: Mode, *, config: str | None, state_dir: str | None, runtime_dir: str | None) -> Places:
    """Fill in what was not given with the mode's defaults. Raises StartError."""
    if config is not None and not os.path.isfile(config):
        raise StartError(f"there is no configuration file {config}", exit_status=2)
    if mode is Mode.SYSTEM:
        defaults = (paths.SYSTEM_CONFIG, paths.SYSTEM_STATE_DIR, paths.SYSTEM_RUNTIME_DIR)
    else:
        defaults = (paths.user_config(), paths.user_state_dir(), paths.user_runtime_dir())
        if state_dir is not None and defaults[2] == os.path.join(defaults[1], "run"):
            defaults = (defaults[0], state_dir, os.path.join(state_dir, "run"))
    given = (config, state_dir, runtime_dir)
    absolute = [os.path.abspath(value or default) for value, default in zip(given, defaults, strict=True)]
    places = Places(mode=mode, config=absolute[0], state_dir=absolute[1], runtime_dir=absolute[2])
    if len(os.fsencode(places.socket_path)) > _LONGEST_SOCKET_PATH_BYTES:
        raise StartError(
            f"the path {places.socket_path} is too long for a socket: choose a shorter --runtime-dir", exit_status=2
        )
    return places


def prepare(places: Places, account: Identity) -> None:
    """Make both directories usable by the service's account. Raises StartError with exit status 2."""
    ours = {places.state_dir, places.runtime_dir}
    _prepare(places.state_dir, _STATE_MODE, account, ours, places.mode)
    _prepare(places.runtime_dir, _RUNTIME_MODE[places.mode.value], account, ours, places.mode)


def seen_by(account: Identity, mode: Mode) -> AbstractContextManager[None]:
    """Touch files as the service will, where that is another account than the monitor's."""
    return acting_as(account) if mode is Mode.SYSTEM else nullcontext()


def _prepare(path: str, mode_bits: int, account: Identity, ours: set[str], mode: Mode) -> None:
    try:
        made = _make(path, mode_bits)
    except OSError as error:
        raise StartError(f"cannot make the directory {path}: {_reason(error)}", exit_status=2) from None
    if made and mode is Mode.SYSTEM:
        _give(path, mode_bits, account)
    with seen_by(account, mode):
        usable = _is_usable(path)
        obstacle = None if usable else _obstacle(path)
    if usable:
        return
    if obstacle is not None:
        raise StartError(
            f"the service's account (uid {account.uid}) cannot reach {path}: {obstacle} does not let it pass",
            exit_status=2,
        )
    if mode is Mode.USER:
        raise StartError(f"the directory {path} cannot be written to by this account", exit_status=2)
    _refuse_to_take_from_others(path, ours)
    _give(path, mode_bits, account)
    say(f"{path} now belongs to the service's account (uid {account.uid})")
    with seen_by(account, mode):
        if not _is_usable(path):
            raise StartError(f"the service's account (uid {account.uid}) cannot write to {path}", exit_status=2)


def _make(path: str, mode_bits: int) -> bool:
    if os.path.isdir(path):
        return False
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        os.mkdir(path, mode_bits)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return False
    return True


def _is_usable(path: str) -> bool:
    return os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)


def _obstacle(path: str) -> str | None:
    """Return the first directory on the way that cannot be passed, if it is not the last one."""
    ancestors = []
    while (path := os.path.dirname(path)) not in ancestors:
        ancestors.append(path)
    for ancestor in reversed(ancestors):
        if not os.access(ancestor, os.X_OK, effective_ids=True):
            return ancestor
    return None


def _refuse_to_take_from_others(path: str, ours: set[str]) -> None:
    """Keep a slip of the pen (`--state-dir /etc`) from giving a part of the system away."""
    foreign = [
        entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False) and entry.path not in ours
    ]
    if foreign or os.path.dirname(os.path.dirname(path)) == os.path.dirname(path):
        raise StartError(
            f"the service's account cannot use {path}, and it is not a directory of OpenBITS alone: "
            f"name another one, or change its owner yourself",
            exit_status=2,
        )


def _give(path: str, mode_bits: int, account: Identity) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, account.uid, account.gid)
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | mode_bits)
        finally:
            os.close(fd)
    except OSError as error:
        message = f"cannot give {path} to the service's account (uid {account.uid}): {_reason(error)}"
        raise StartError(message, exit_status=2) from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
