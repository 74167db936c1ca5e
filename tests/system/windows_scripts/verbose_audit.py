"""An auditor's reader of `bitsadmin /list /allusers /verbose`: every value between its label and the next one.

Written against the documented block (inventory 9.1), with nothing of ours: it reads standard input and prints JSON.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

PAIRS = (
    r"^GUID: (?P<guid>\{[0-9A-F-]{36}\}) DISPLAY: '(?P<display>.*)'$",
    r"^TYPE: (?P<type>\S+) STATE: (?P<state>\S+) OWNER: (?P<domain>[^\\]*)\\(?P<user>.*)$",
    r"^PRIORITY: (?P<priority>\S+) FILES: (?P<files_done>.+) / (?P<files>.+) BYTES: (?P<bytes_done>.*) / (?P<bytes>.*)",
    r"^CREATION TIME: (?P<created>\S+ \S+ [AP]M) MODIFICATION TIME: (?P<modified>\S+ \S+ [AP]M)$",
    r"^COMPLETION TIME: (?P<completed>UNKNOWN|\S+ \S+ [AP]M) ACL FLAGS:(?P<acl>.*)$",
    r"^NOTIFY INTERFACE: (?P<interface>REGISTERED|UNREGISTERED) NOTIFICATION FLAGS: (?P<flags>\d+)$",
    r"^RETRY DELAY: (?P<retry>\d+) NO PROGRESS TIMEOUT: (?P<timeout>\d+) ERROR COUNT: (?P<errors>\d+)$",
    r"^PROXY USAGE: (?P<usage>\S+) PROXY LIST: (?P<proxies>.*) PROXY BYPASS LIST: (?P<bypass>.*)$",
    r"^ERROR FILE: +(?P<error_url>\S+) -> (?P<error_path>.*)$",
    r"^ERROR CODE: +0x(?P<error>[0-9a-f]{8}) - (?P<error_text>.*)$",
    r"^ERROR CONTEXT: +0x(?P<context>[0-9a-f]{8}) - (?P<context_text>.*)$",
    r"^DESCRIPTION:(?P<description>.*)$",
    r"^NOTIFICATION COMMAND LINE: (?P<command>.*)$",
    r"^owner MIC integrity level: (?P<level>\S+)$",
    r"^owner elevated \? +(?P<elevated>true|false)$",
)
FILE = re.compile(r"^\t(?P<done>\d+) / (?P<total>\d+|UNKNOWN) (?P<status>\S+) (?P<url>\S+) -> (?P<path>.*)$")


def read(text: str) -> list[dict[str, Any]]:
    """Return the jobs; raises ValueError for what is not as documented."""
    listed = re.search(r"^Listed (\d+) job\(s\)\.$", text, re.MULTILINE)
    blocks = re.split(r"(?m)^(?=GUID: \{)", text)[1:]
    if listed is None or int(listed[1]) != len(blocks):
        raise ValueError(f"{len(blocks)} jobs, and the summary says {listed and listed[0]}")
    return [job(block.splitlines()) for block in blocks]


def job(lines: list[str]) -> dict[str, Any]:
    """Return one job; the labels must come in their order, those of an error only if there is one."""
    found: dict[str, Any] = {"list": []}
    rest = iter(lines)
    line = next(rest)
    for pattern in PAIRS:
        match = re.match(pattern, line)
        if match is None:
            if pattern.startswith("^ERROR"):
                continue
            raise ValueError(f"{line!r} is not {pattern}")
        found |= {name: value.strip() for name, value in match.groupdict().items()}
        line = next(rest)
        if pattern.startswith("^DESCRIPTION"):
            if line.strip() != "JOB FILES:":
                raise ValueError(f"{line!r} is no list of files")
            for line in rest:
                entry = FILE.match(line)
                if entry is None:
                    break
                found["list"].append(entry.groupdict())
    return found


if __name__ == "__main__":
    json.dump(read(sys.stdin.read()), sys.stdout)
