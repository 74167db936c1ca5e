"""Which files `bits get` and `bits put` are asked for: URLs and absolute paths, or a usage error. No service needed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import click

from openbits.cli.text import safe

MAX_NAME_BYTES: Final = 255
FALLBACK_NAME: Final = "index.html"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SECRET_PART: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/{0,2})[^/?#]*@", re.DOTALL)
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_NOT_IN_URL: Final = re.compile(rb"[^A-Za-z0-9._~-]")
_CHECKSUM: Final = re.compile(r"sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128}")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and the absolute path of the file it becomes."""

    url: str
    path: str


def file_name(url: str) -> str:
    """Return the file name that a URL suggests: its last segment, decoded, harmless; `index.html` if there is none."""
    rest = url.partition("://")[2] or url.partition(":")[2]
    path = rest.partition("#")[0].partition("?")[0]
    _, slash, segment = path.rpartition("/")
    if not slash:
        return FALLBACK_NAME  # Only a host.
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(segment))
    # A decoded slash or control character must not act where a name is meant.
    raw = bytes(0x5F if octet < 0x20 or octet in (0x2F, 0x7F) else octet for octet in raw)
    if raw in (b"", b".", b".."):
        return FALLBACK_NAME
    return os.fsdecode(_shortened(raw))


def _shortened(raw: bytes) -> bytes:
    if len(raw) <= MAX_NAME_BYTES:
        return raw
    stem, extension = os.path.splitext(raw)
    if len(extension) > 32:
        stem, extension = raw, b""
    cut = stem[: MAX_NAME_BYTES - len(extension)]
    # Not in the middle of a UTF-8 sequence.
    while cut and len(cut) < len(stem) and stem[len(cut)] & 0xC0 == 0x80:
        cut = cut[:-1]
    return cut + extension


def checked_url(url: str) -> str:
    """Return the URL if it has a scheme; raises UsageError with the likely meaning if not."""
    if _SCHEME.match(url) and ("://" in url or url.lower().startswith("file:")):
        return url
    if url.startswith(("/", "./", "../")):
        raise click.UsageError(
            f"{safe(url)!r} is a path, not a URL: did you mean 'file://{safe(os.path.abspath(url))}'?"
        )
    raise click.UsageError(f"{safe(url)!r} has no scheme: did you mean 'https://{safe(url.lstrip(':/'))}'?")


def upload_url(url: str, path: str) -> str:
    """Return where a file goes: a URL that ends in '/' gets the file's name, whatever bytes that has.

    Raises UsageError for what is no URL.
    """
    checked_url(url)
    place, mark, query = url.partition("?")
    if not place.partition("://")[2].partition("/")[1]:
        place += "/"  # Only a host.
    if not place.endswith("/"):
        return url
    name = _NOT_IN_URL.sub(lambda match: b"%%%02X" % match[0][0], os.fsencode(os.path.basename(path)))
    return f"{place}{name.decode('ascii')}{mark}{query}"


def shown_url(url: str) -> str:
    """Return the URL as it may be shown: user name and password hidden."""
    return _SECRET_PART.sub(r"\1***@", url)


def checked_checksum(checksum: str | None) -> str | None:
    """Return the checksum in lower case; raises UsageError if it is not one."""
    if checksum is not None and not _CHECKSUM.fullmatch(checksum):
        raise click.UsageError("a checksum is 'sha256:' and 64 or 'sha512:' and 128 hexadecimal digits")
    return None if checksum is None else checksum.lower()


def checked_headers(headers: Iterable[str]) -> str:
    """Return header lines as the job's custom headers; raises UsageError for a line that is not one."""
    lines = ""
    for header in headers:
        name, colon, _ = header.partition(":")
        if not colon or not name.strip() or "\r" in header or "\n" in header:
            raise click.UsageError(f"{safe(header)!r} is not a header: write 'Name: value'")
        lines += f"{header.strip()}\r\n"
    return lines


def absolute(path: str, directory: str | None = None) -> str:
    """Return the absolute path that the client means; raises UsageError if there is no current directory."""
    try:
        return os.path.abspath(os.path.join(directory or "", path))
    except FileNotFoundError:
        raise click.UsageError("the current directory does not exist any more: give absolute paths") from None


def choose_targets(
    urls: Sequence[str], *, output: str | None, directory: str | None, lines: Sequence[bytes] = ()
) -> list[Target]:
    """Return what to fetch and where to; raises UsageError.

    `output` names the file of a single URL, or an existing directory to put it in, as with cp. `lines` are
    those of an input file: a URL, or a URL, a tab and a path.
    """
    if output is not None and directory is not None:
        raise click.UsageError("-o names the file, -d the directory: give one of them")
    if output is not None and (len(urls) != 1 or lines):
        raise click.UsageError("-o names one file, but there are several URLs: use -d DIR")
    targets = [_target(url, None, output, directory) for url in urls]
    for line in lines:
        url, tab, path = os.fsdecode(line).strip("\r\n ").partition("\t")
        if url and not url.startswith("#"):
            targets.append(_target(url, path if tab and path else None, None, directory))
    if not targets:
        raise click.UsageError("there is no URL to get")
    _refuse_duplicates(targets)
    return targets


def _target(url: str, path: str | None, output: str | None, directory: str | None) -> Target:
    checked_url(url)
    if path is not None:
        return Target(url, absolute(path, directory))
    if output is None:
        return Target(url, absolute(file_name(url), directory))
    if output.endswith("/") or os.path.isdir(output):
        return Target(url, absolute(file_name(url), output))
    return Target(url, absolute(output))


def _refuse_duplicates(targets: Sequence[Target]) -> None:
    seen: set[str] = set()
    for target in targets:
        if target.path in seen:
            raise click.UsageError(
                f"two URLs would become {safe(target.path)}: name the files in a list (--input-file, URL<TAB>PATH)"
            )
        seen.add(target.path)


def read_lines(path: str) -> list[bytes]:
    """Return the lines of an input file, `-` being standard input; raises UsageError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read().split(b"\n")
        with open(path, "rb") as file:
            return file.read().split(b"\n")
    except OSError as error:
        raise click.UsageError(f"{safe(path)} cannot be read: {error.strerror}") from None
