"""A job and its files as the Windows tool's lines: the summary, the verbose block with its order, the error.

The rule: labels, order and what stands on one line are the Windows tool's (inventory 9.1), since programs cut values
out from between two labels. What we have beyond it does not appear.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from openbits.cli.bitsadmin.output import NULL, date_time, guid, total
from openbits.cli.bitsadmin.words import acl_letters, level_word, owner_word, state_word, type_word
from openbits.cli.text import safe
from openbits.client.values import parse_time
from openbits.errors import CONTEXT_DESCRIPTIONS, ErrorContext

Json = Mapping[str, Any]


def summary(job: Json) -> str:
    """Return a job as one line: `{GUID} 'name' STATE files / files bytes / bytes` (B2)."""
    return (
        f"{guid(job['id'])} '{safe(job['name'])}' {state_word(job['state'])} "
        f"{job['files_transferred']} / {job['files_total']} "
        f"{job['bytes_transferred']} / {total(job['bytes_total'])}"
    )


def verbose_block(job: Json, files: Sequence[Json]) -> list[str]:
    """Return everything about a job, in the order of the Windows tool (9.1)."""
    settings = job["settings"]
    notify = "REGISTERED" if job["has_notify_interface"] else "UNREGISTERED"
    created, modified, completed = (
        date_time(parse_time(job[name])) for name in ("creation_time", "modification_time", "transfer_completion_time")
    )
    patience = f"NO PROGRESS TIMEOUT: {settings['no_progress_timeout']} ERROR COUNT: {job['error_count']}"
    proxies, bypass = or_null(settings["proxy_list"]), or_null(settings["proxy_bypass_list"])
    return [
        f"GUID: {guid(job['id'])} DISPLAY: '{safe(job['name'])}'",
        f"TYPE: {type_word(job['type'])} STATE: {state_word(job['state'])} OWNER: {owner_word(job['owner'])}",
        figures(job),
        f"CREATION TIME: {created} MODIFICATION TIME: {modified}",
        f"COMPLETION TIME: {completed} ACL FLAGS: {acl_letters(settings['acl_flags'])}".rstrip(),
        f"NOTIFY INTERFACE: {notify} NOTIFICATION FLAGS: {settings['notify_flags']}",
        f"RETRY DELAY: {settings['minimum_retry_delay']} {patience}",
        f"PROXY USAGE: {settings['proxy_usage'].upper()} PROXY LIST: {proxies} PROXY BYPASS LIST: {bypass}",
        *(error_lines(job["error"]) if job["error"] else ()),
        f"DESCRIPTION: {safe(job['description'])}".rstrip(),
        "JOB FILES:",
        *(f"\t{file_line(file)}" for file in files),
        f"NOTIFICATION COMMAND LINE: {command_words(job['notify_command'])}",
        f"owner MIC integrity level: {level_word(job['owner_integrity_level'])}",
        f"owner elevated ?           {'true' if job['owner_is_elevated'] else 'false'}",
        "",
        "Peercaching flags",
        # The block of the Windows tool has no line for the third.
        *peer_caching_lines(settings["peer_caching_flags"])[:2],
        "",
        *header_lines(settings["custom_headers"]),
    ]


def figures(job: Json) -> str:
    """Return a job's priority and progress: `PRIORITY: NORMAL FILES: 0 / 1 BYTES: 0 / UNKNOWN`."""
    files = f"{job['files_transferred']} / {job['files_total']}"
    size = f"{job['bytes_transferred']} / {total(job['bytes_total'])}"
    return f"PRIORITY: {job['priority'].upper()} FILES: {files} BYTES: {size}"


def or_null(text: str | None) -> str:
    """Return a text that may be absent: NULL then."""
    return safe(text) if text else NULL


def file_line(file: Json) -> str:
    """Return a file: `done / total WORKING url -> path`; COMPLETED once it stands under its name (B12)."""
    status = "COMPLETED" if file["completed"] else "WORKING"
    names = f"{url_shown(file['remote_name'])} -> {safe(file['local_name'])}"
    return f"{file['bytes_transferred']} / {total(file['bytes_total'])} {status} {names}"


def error_lines(error: Json) -> list[str]:
    """Return an error with the file it is about, as far as it is about one (B19)."""
    lines = []
    if error["remote_name"]:
        lines.append(f"ERROR FILE:    {url_shown(error['remote_name'])} -> {safe(error['local_name'] or '')}".rstrip())
    sentence = " ".join(safe(error["message"].replace("\n", " ")).split())
    context = CONTEXT_DESCRIPTIONS[ErrorContext(error["context_code"])]
    return [
        *lines,
        f"ERROR CODE:    {error['hresult']:#010x} - {sentence}",
        f"ERROR CONTEXT: {error['context_code']:#010x} - {context}",
    ]


def command_words(command: Json | None) -> str:
    """Return the notification command line: `none`, or the program and its arguments in quotes (B30).

    An argument with a blank stands in quotes of its own: what is shown can be set again, and hides nothing.
    """
    if command is None:
        return "none"
    return " ".join(f"'{safe(word)}'" for word in (command["program"], shlex.join(command["arguments"])) if word)


def peer_caching_lines(flags: int) -> list[str]:
    """Return what peer caching flags mean, a job's or the machine's, one a line (B37, B45)."""
    words = (("Enable download from peers", 1), ("Enable serving to peers", 2), ("Disable BranchCache", 4))
    return [f"\t {what:<32}:{'true' if flags & bit else 'false'}" for what, bit in words]


def header_lines(headers: str | None) -> list[str]:
    """Return the custom headers, one a line; NULL for none, and for who may not read them."""
    if not headers:
        return [f"CUSTOM HEADERS: {NULL}"]
    return ["CUSTOM HEADERS:", *(f"\t{safe(line)}" for line in headers.splitlines() if line)]


def url_shown(url: str) -> str:
    """Return a URL as it may be shown: a user name and a password in it hidden."""
    if "@" in url:
        from openbits.cli.targets import shown_url  # noqa: PLC0415 - few URLs have one, and the module needs click

        url = shown_url(url)
    return safe(url)
