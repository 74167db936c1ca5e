"""~/.netrc of the worker's account: a name and a password for a host, where the job allows it (I9).

The rule: the file counts only if it is the account's own and nobody else can read it, and nothing of it is said but
that it was of no use.  Reading may take its time, on a home that hangs say, so it is done in a helper thread.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass, field
from typing import Final

from openbits.worker.logins import Login, Source

_LIMIT_BYTES: Final = 1 << 20
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t"}
_WITH_VALUE: Final = frozenset(("login", "password", "account"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Netrc:
    """What was found; `trouble` says as a clause why nothing was."""

    machines: tuple[tuple[str | None, Login], ...] = field(default=(), repr=False)
    """In the order of the file; None stands for `default`."""
    trouble: str = ""

    def login_for(self, host: str) -> Login | None:
        """The first entry for a host, or the default before which none was found."""
        wanted = _plain(host)
        for machine, login in self.machines:
            if machine is None or _plain(machine) == wanted:
                return login
        return None


def read_netrc() -> Netrc:
    """Read the file of the account that this process runs as; never raises."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return Netrc(trouble="the account has no home directory in which a .netrc could be")
    path = os.path.join(home, ".netrc")
    try:
        # Whatever stands there, a pipe say, must not stop the thread.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return Netrc(trouble=f"{path} cannot be read ({error.strerror})")
    try:
        trouble = _why_not(os.fstat(fd), path)
        if trouble:
            return Netrc(trouble=trouble)
        with open(fd, "rb", closefd=False) as file:
            content = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        return Netrc(trouble=f"{path} cannot be read ({error.strerror})")
    finally:
        os.close(fd)
    if len(content) > _LIMIT_BYTES:
        return Netrc(trouble=f"{path} is larger than a .netrc can be")
    return Netrc(machines=parse_netrc(content.decode("utf-8", "surrogateescape")))


def _why_not(status: os.stat_result, path: str) -> str:
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is no file"
    if status.st_uid != os.getuid():
        return f"{path} is not used, because it belongs to another account (uid {status.st_uid})"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"{path} is not used, because others may read it: run chmod 600 {path}"
    return ""


def parse_netrc(text: str) -> tuple[tuple[str | None, Login], ...]:
    """Return the entries that have both a name and a password. Words may stand on any line; macros are passed over."""
    found: list[tuple[str | None, Login]] = []
    machine: str | None = None
    values: dict[str, str] | None = None

    def finish() -> None:
        if values is not None and "login" in values and "password" in values:
            login = Login(source=Source.NETRC, user_name=values["login"], password=values["password"])
            found.append((machine, login))

    words = _Words(text)
    while (word := words.next()) is not None:
        if word in ("machine", "default"):
            finish()
            machine = words.next() if word == "machine" else None
            values = None if word == "machine" and machine is None else {}
        elif word == "macdef":
            finish()
            values = None
            words.skip_macro()
        elif word in _WITH_VALUE:
            value = words.next()
            if values is not None and value is not None:
                values.setdefault(word, value)
    finish()
    return tuple(found)


class _Words:
    """The words of a text, one after the other; a word in quotes may hold blanks, and escapes of a backslash."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def next(self) -> str | None:
        """The next word; None at the end."""
        text = self._text
        while self._at < len(text):
            if text[self._at].isspace():
                self._at += 1
            elif text[self._at] == "#":
                # A comment: a value that begins so stands in quotes.
                self._skip_to("\n")
            elif text[self._at] == '"':
                return self._quoted()
            else:
                start = self._at
                while self._at < len(text) and not text[self._at].isspace():
                    self._at += 1
                return text[start : self._at]
        return None

    def skip_macro(self) -> None:
        """A macro reaches to the next empty line."""
        self._skip_to("\n\n")

    def _skip_to(self, mark: str) -> None:
        end = self._text.find(mark, self._at)
        self._at = len(self._text) if end < 0 else end + len(mark)

    def _quoted(self) -> str:
        text, parts = self._text, []
        self._at += 1
        while self._at < len(text) and text[self._at] != '"':
            if text[self._at] == "\\" and self._at + 1 < len(text):
                self._at += 1
                parts.append(_ESCAPED.get(text[self._at], text[self._at]))
            else:
                parts.append(text[self._at])
            self._at += 1
        self._at += 1
        return "".join(parts)


def _plain(host: str) -> str:
    return host.lower().removesuffix(".").strip("[]")
