"""The commands that look at jobs: list, show, why."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from openbits.cli import properties, text
from openbits.cli.common import (
    Context,
    find_job,
    job_argument,
    json_option,
    pass_context,
    print_json,
    say,
    socket_option,
)
from openbits.cli.notify import told_rows
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.calls import Json

FILES_SHOWN_UNASKED: Final = 20
HELPER_USES: Final = ((1, "local files"), (2, "the network"))
LIST_HEADER: Final = ("ID", "NAME", "STATE", "PRIORITY", "PROGRESS", "FILES", "OWNER")
HISTORY_HEADER: Final = ("ENDED", "RESULT")
FINAL_STATES: Final = ("ACKNOWLEDGED", "CANCELLED")


def terminal_columns() -> int | None:
    """Return the width of standard output if it is a terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None
    except (OSError, ValueError):
        return None


def list_row(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a job as a row of the list."""
    return (
        job["id"][:8],
        safe(job["name"]),
        job["state"],
        job["priority"],
        text.progress(job["bytes_transferred"], job["bytes_total"]),
        f"{job['files_transferred']}/{job['files_total']}",
        safe(job["owner"]["name"]),
    )


def history_row(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Return when and how a job has ended; nothing happens to it after that, so that its last change was its end."""
    if job["state"] not in FINAL_STATES:
        return "-", "-"
    return text.local_time(job["modification_time"]), job["result"] or "-"


@click.command("list")
@click.option("--all-users", is_flag=True, help="Jobs of every account (administrators only).")
@click.option("--history", is_flag=True, help="Also jobs that were completed or cancelled, while they are kept.")
@json_option
@socket_option
@pass_context
def list_jobs(context: Context, all_users: bool, history: bool, as_json: bool) -> None:
    """List your jobs, oldest first."""
    jobs = context.session().perform(calls.all_jobs(all_users=all_users, history=history))
    if as_json:
        print_json(jobs)
    elif jobs:
        header = (*LIST_HEADER, *HISTORY_HEADER) if history else LIST_HEADER
        rows = [(*list_row(job), *history_row(job)) if history else list_row(job) for job in jobs]
        say("\n".join(text.table(header, rows, columns=terminal_columns())))
    elif sys.stdout.isatty():
        say("There are no jobs.")


@click.command()
@job_argument
@click.option("--files", "with_files", is_flag=True, help="List all files of the job.")
@click.option("--response-headers", is_flag=True, help="Print only what was answered last for each file.")
@json_option
@socket_option
@pass_context
def show(context: Context, job: str, with_files: bool, response_headers: bool, as_json: bool) -> None:
    """Show everything about a job: state, error, progress, times, properties, and what its server cannot do."""
    session = context.session()
    job_id = find_job(session, job)
    detail = session.perform(calls.job(job_id))
    some_files = with_files or as_json or response_headers or detail["files_total"] <= calls.PAGE_SIZE
    files: list[Json] = session.perform(calls.all_files(job_id)) if some_files else []
    if as_json:
        print_json({**detail, "files": files})
        return
    if response_headers:
        say("\n".join(answer_lines(files)))
        return
    why = session.perform(calls.why(job_id))
    lines = [*job_lines(detail, str(why["sentence"])), *remark_lines(files)]
    if with_files or 0 < len(files) <= FILES_SHOWN_UNASKED:
        lines += ["", *file_lines(files)]
    elif detail["files_total"]:
        lines += ["", f"{detail['files_total']} files: list them with 'bits show {job_id} --files'"]
    say("\n".join(lines))


def job_lines(job: Mapping[str, Any], why: str) -> list[str]:
    """Return a job with its properties as `name: value` lines."""
    owner = job["owner"]
    rows = [
        ("id", job["id"]),
        ("name", safe(job["name"])),
        ("description", safe(job["description"])),
        ("type", job["type"]),
        ("state", job["state"]),
        ("why", safe(why)),
        ("owner", f"{safe(owner['name'])} (uid {owner['uid']}, {owner['kind']}{elevation(job)})"),
        ("progress", text.progress(job["bytes_transferred"], job["bytes_total"])),
        ("files", f"{job['files_transferred']} of {job['files_total']} transferred"),
        ("created", text.local_time(job["creation_time"])),
        ("modified", text.local_time(job["modification_time"])),
        ("transferred", text.local_time(job["transfer_completion_time"])),
        ("retry", text.local_time(job["retry_time"])),
        ("errors so far", str(job["error_count"])),
    ]
    rows += helper_rows(job)
    rows += credential_rows(job)
    rows += certificate_rows(job)
    rows += told_rows(job)
    if job["result"]:
        rows.append(("result", job["result"]))
    if job.get("proxy_in_use"):
        rows.append(("proxy in use", safe(job["proxy_in_use"])))
    rows += reply_rows(job)
    rows += error_rows(job["error"])
    hidden = ("name", "description", *(("upload_protocol",) if job["type"] == "download" else ()))
    settings = dict(job["settings"])
    if job.get("headers_are_write_only"):
        settings["custom_headers"] = "(write-only)"
    rows += [(key, properties.show(key, value)) for key, value in settings.items() if key not in hidden]
    label_columns = max(len(label) for label, _ in rows)
    return [f"{label + ':':<{label_columns + 1}} {value}".rstrip() for label, value in rows]


def credential_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the job may prove to whom, for its owner, where that is anything (J35)."""
    rows = []
    for what, implicit in (("a user name and a password", False), ("the account's own", True)):
        schemes: dict[str, list[str]] = {}
        for slot in job.get("credentials") or ():
            if slot["implicit"] is implicit:
                schemes.setdefault(slot["target"], []).append(slot["scheme"])
        if schemes:
            meant = " and ".join(f"the {target} ({', '.join(names)})" for target, names in schemes.items())
            rows.append(("credentials", f"{what}, for {meant}"))
    return rows


def certificate_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return which certificate the job presents, for its owner (H4), and who judges those of servers (H12)."""
    rows = []
    certificate = job.get("client_certificate")
    if certificate is not None:
        named = f"sha1 {certificate['sha1']}" if certificate["sha1"] else f"subject {safe(certificate['subject'])}"
        rows.append(
            ("client certificate", f"{named}, in the store {safe(certificate['store'])} of {certificate['location']}")
        )
    if job.get("validates_certificates"):
        presence = "" if job.get("has_certificate_validator") else ", and is not there now"
        rows.append(("server certificates", f"a program judges them, besides the system{presence}"))
    return rows


def helper_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the helper token and its use as a line, where there is anything to say of them (T3, T4)."""
    helper, flags = job.get("helper_token"), job.get("helper_token_flags", 0)
    if helper is None and not flags:
        return []
    who = f"{safe(helper['name'])} (uid {helper['uid']}, {helper['kind']})" if helper else "missing"
    use = " and ".join(text for flag, text in HELPER_USES if flags & flag) or "nothing"
    return [("helper token", f"{who}, used for {use}")]


def reply_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of an upload's reply as lines (J31, J34)."""
    if job["type"] != "upload-reply":
        return []
    reply = job.get("reply")
    if reply is None:
        return [("reply", "gets its name when the job is resumed")]
    figures = "has not begun"
    if reply["bytes_total"] is not None:
        figures = text.progress(reply["bytes_transferred"], reply["bytes_total"])
    return [("reply", f"{_file_state(reply)}, {figures}"), ("reply file name", safe(reply["local_name"]))]


def elevation(job: Mapping[str, Any]) -> str:
    """Return what is to be said of the owner's rights (J52)."""
    return ", as an administrator" if job.get("owner_is_elevated") else ""


def error_rows(error: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the error of a job as lines."""
    if error is None:
        return []
    rows = [("error", f"{error['code']} ({error['hresult']:#010x}): {safe(error['message'])}")]
    rows.append(("error context", error["context"]))
    if error["remote_name"]:
        rows.append(("error file", safe(error["remote_name"])))
    return rows


def remark_lines(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is worth knowing about the files' servers, one line a kind."""
    lines = []
    stuck = [file for file in files if file["resumable"] is False and not file["completed"]]
    if stuck:
        lines.append(f"note: the server cannot resume {_names(stuck)}: an interruption starts it from zero")
    restarted = [file for file in files if file["restarts"]]
    if restarted:
        times = sum(file["restarts"] for file in restarted)
        lines.append(
            f"note: {_names(restarted)} began again ({times} in all): the file had changed, or could not be resumed"
        )
    return lines


def _names(files: Sequence[Mapping[str, Any]]) -> str:
    first = safe(files[0]["remote_name"])
    return first if len(files) == 1 else f"{first} and {len(files) - 1} more"


def file_lines(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the files as a table, with what the server cannot do."""
    rows = [
        (
            str(file["index"]),
            _file_state(file),
            text.progress(file["bytes_transferred"], file["bytes_total"]),
            safe(file["remote_name"]),
            safe(file["local_name"]),
            _file_remarks(file),
        )
        for file in files
    ]
    return text.table(("FILE", "STATE", "PROGRESS", "REMOTE NAME", "LOCAL NAME", "REMARKS"), rows)


def answer_lines(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the header block of the last answer for each file (F10)."""
    lines: list[str] = []
    for file in files:
        block = [safe(line) for line in file["response_headers"].splitlines() if line]
        lines += [
            f"{file['index']} {safe(file['remote_name'])}",
            *(f"    {line}" for line in block or ["no answer yet"]),
        ]
    return lines


def _file_state(file: Mapping[str, Any]) -> str:
    if file["completed"]:
        return "completed"
    return "transferred" if file["transferred"] else "waiting"


def _file_remarks(file: Mapping[str, Any]) -> str:
    remarks = []
    if file["ranges"]:
        remarks.append(f"{len(file['ranges'])} ranges")
    if file["wanted_ranges"]:
        remarks.append(f"{len(file['wanted_ranges'])} ranges requested")
    if file["filled_ranges"] and not file["transferred"]:
        remarks.append(f"{len(file['filled_ranges'])} ranges here")
    if file["resumable"] is False:
        remarks.append("server cannot resume")
    if file["restarts"]:
        remarks.append(f"began again {file['restarts']} times")
    if file["validation_state"] is False:
        remarks.append("declared invalid")
    return ", ".join(remarks)


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def why(context: Context, job: str, as_json: bool) -> None:
    """Say the one thing that a job waits for."""
    session = context.session()
    answer = session.perform(calls.why(find_job(session, job)))
    if as_json:
        print_json(answer)
        return
    until = text.local_time(answer["until"])
    sentence = safe(answer["sentence"])
    say(sentence if answer["until"] is None or until in sentence else f"{sentence} (next attempt at {until})")
