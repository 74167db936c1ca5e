"""The event log's numbers and the entries that carry them: each with its fields, none with a secret (section 13)."""

import dataclasses
import pathlib
import re

import pytest

from openbits.core import entries, eventlog
from openbits.core.entries import MOST_NAMES, Process
from openbits.core.eventlog import EVENTS, Level, kinds_of, level_of, numbers_of
from openbits.core.events import Cancel, ChangeOwner, ChangeSettings, DeadlineReached, Entry, Failure, Resume, Suspend
from openbits.core.model import (
    AccountKind,
    Caller,
    CredentialSlot,
    Identity,
    Job,
    JobState,
    NotifyCommand,
    SealedCredential,
)
from openbits.errors import ErrorContext
from support.jobs import a_file, job_in, step

_SHARED = {"job_title", "job_owner", "user", "user_uid", "property_name", "file_count", "bytes_transferred"}


def by(uid: int, name: str = "root") -> Caller:
    """Somebody who calls."""
    return Caller(identity=Identity(uid=uid, gid=uid), name=name, kind=AccountKind.USER, is_administrator=True, pid=1)


def failure(name: str, **changes: object) -> Failure:
    """A run's failure about the first file."""
    values = {"context": ErrorContext.REMOTE_FILE, "message": "it broke", "transient": False, "index": 0}
    return Failure(name=name, **(values | changes))  # type: ignore[arg-type]  # the values are those of a failure


def made(job: Job, entry: Entry) -> dict[str, str]:
    """The entry's fields, of which its row of the table knows all."""
    assert set(dict(entry.fields)) <= set(EVENTS[entry.event_id].fields) | _SHARED
    assert dict(entry.fields)["job_title"] == job.settings.name
    return dict(entry.fields)


def test_the_verbs_have_their_numbers() -> None:
    """1, 2, 5."""
    job = job_in(JobState.SUSPENDED)
    assert step(job, Resume()).entries[0].event_id == 1
    assert [each.event_id for each in step(job_in(JobState.QUEUED), Suspend()).entries] == [2]
    [cancelled] = step(job, Cancel()).entries
    assert cancelled.event_id == 5
    assert made(job, cancelled)["file_count"] == str(len(job.files))


def test_a_created_job_says_by_what_and_for_what() -> None:
    """3: title, owner, process, URLs."""
    job = job_in(JobState.SUSPENDED)
    fields = made(job, entries.created(job, Process(pid=77, name="curl", path="/usr/bin/curl")))
    assert (fields["process_id"], fields["process_name"], fields["process_path"]) == ("77", "curl", "/usr/bin/curl")
    assert fields["urls"].split("\n") == [file.remote_name for file in job.files]


def test_no_entry_grows_with_its_job() -> None:
    """10,000 files are named by the first of them, and counted; a line break in a name is no line."""
    files = tuple(dataclasses.replace(a_file(0), local_name=f"/x/a\n{number}") for number in range(10_000))
    fields = dict(entries.added(files).fields)
    assert len(fields["urls"].split("\n")) == len(fields["local_names"].split("\n")) == MOST_NAMES
    assert fields["file_count"] == "10000"


def test_no_url_has_a_password() -> None:
    """Should one ever stand in a file's name."""
    file = dataclasses.replace(a_file(0), remote_name="https://me:secret@example.org/")
    assert "secret" not in repr(entries.added([file]))


def test_a_command_line_is_told_whole() -> None:
    """6: persistence by notification command is seen."""
    job = job_in(JobState.SUSPENDED)
    command = NotifyCommand(program="/bin/sh", arguments=("sh", "-c", "id > /tmp/x"))
    fields = made(job, entries.command_set(job, command))
    assert (fields["program"], fields["parameters"]) == ("/bin/sh", "-c 'id > /tmp/x'")
    disguised = entries.command_set(job, NotifyCommand(program="/tmp/x", arguments=("ls", "a b")))
    assert disguised.text.endswith("/tmp/x 'a b'"), "what is executed, not what it is told that it is called"
    assert "program" not in dict(entries.command_set(job, None).fields)


@pytest.mark.parametrize(
    ("name", "changes", "number"),
    [
        ("ERROR_WINHTTP_CONNECTION_ERROR", {}, eventlog.FILE_FAILED),
        ("BG_E_HTTP_ERROR_404", {}, eventlog.FILE_FAILED),
        ("BG_E_INSUFFICIENT_RANGE_SUPPORT", {}, eventlog.NO_HTTP_SUPPORT),
        ("BG_E_INVALID_PROXY_INFO", {"index": None}, eventlog.PROXY_REFUSED),
        ("BG_E_HTTP_ERROR_407", {}, eventlog.PROXY_TROUBLE),
        ("BG_E_HTTP_ERROR_401", {}, eventlog.FILE_FAILED),
        ("BG_E_NETWORK_DISCONNECTED", {"index": None, "transient": True}, eventlog.JOB_BLOCKED),
        ("BG_E_BLOCKED_BY_POLICY", {"index": None, "transient": True}, eventlog.JOB_BLOCKED),
        ("ERROR_DISK_FULL", {"transient": True}, eventlog.JOB_BLOCKED),
        ("BG_E_MAXDOWNLOAD_TIMEOUT", {"index": None}, eventlog.JOB_FAILED),
    ],
)
def test_a_failure_has_the_number_of_its_sort(name: str, changes: dict[str, object], number: int) -> None:
    """61, 200, 201, 202, 211, 213."""
    job = job_in(JobState.TRANSFERRING)
    what = failure(name, **changes)
    entry = entries.failed(job, what, is_transient=what.transient)
    assert entry.event_id == number
    assert made(job, entry)["error"] == name
    assert entry.kind == ("transient error" if what.transient else "error")


def test_rejected_credentials_name_server_and_scheme_and_no_more() -> None:
    """204: only where credentials were sent."""
    slot = CredentialSlot("server", "basic")
    sealed = SealedCredential(slot=slot, sealed="SEALED")
    job = dataclasses.replace(job_in(JobState.TRANSFERRING), explicit_credentials=(sealed,))
    entry = entries.failed(job, failure("BG_E_HTTP_ERROR_401"), is_transient=False)
    assert entry.event_id == eventlog.CREDENTIALS_REJECTED
    fields = made(job, entry)
    assert fields["scheme"] == "basic"
    assert job.files[0].remote_name.startswith(fields["server"])
    assert "SEALED" not in repr(entry)


def test_what_others_do_has_numbers_of_its_own() -> None:
    """16384, 16387: and the same by the owner has none."""
    job = job_in(JobState.SUSPENDED)
    own, other = by(job.owner.identity.uid, job.owner.name), by(job.owner.identity.uid + 1)
    changed = step(job, ChangeSettings(settings=dataclasses.replace(job.settings, description="x"))).entries
    [mine], [theirs] = entries.attributed(job, changed, own), entries.attributed(job, changed, other)
    assert (mine.event_id, theirs.event_id) == (0, eventlog.CHANGED_BY_OTHER)
    assert dict(theirs.fields)["property_name"] == "description"
    assert dict(theirs.fields)["user"] == "root"
    cancelled = step(job, Cancel()).entries
    assert [each.event_id for each in entries.attributed(job, cancelled, own)] == [5]
    assert [each.event_id for each in entries.attributed(job, cancelled, other)] == [5, 16384]


def test_f12_requested_ranges_are_verbose_unless_somebody_else_requests_them() -> None:
    """102, and 16387: an owner finds what others did without having every request written down."""
    job = job_in(JobState.SUSPENDED)
    entry = entries.ranges_requested(job, 0, "0:10")
    [own] = entries.attributed(job, [entry], by(job.owner.identity.uid))
    assert (own.event_id, level_of(own.event_id)) == (102, Level.VERBOSE)
    assert made(job, own)["ranges"] == "0:10"
    [another] = entries.attributed(job, [entry], by(0))
    assert (another.event_id, level_of(another.event_id)) == (16387, Level.INFORMATION)
    assert dict(another.fields)["property_name"] == "requested ranges"
    assert len(dict(another.fields)) == len(another.fields)


def test_a_new_owner_and_an_old_one() -> None:
    """16388."""
    job = job_in(JobState.SUSPENDED)
    owner = dataclasses.replace(job.owner, name="admin")
    fields = dict(step(job, ChangeOwner(owner=owner)).entries[0].fields)
    assert (fields["job_owner"], fields["former_owner"]) == ("admin", job.owner.name)


def test_an_inactive_job_says_after_how_many_days() -> None:
    """16389."""
    job = dataclasses.replace(job_in(JobState.SUSPENDED), modified_at=0.0)
    [entry] = step(job, DeadlineReached()).entries
    assert entry.event_id == eventlog.INACTIVE_REMOVED
    assert float(made(job, entry)["day_count"]) > 0


def test_temporary_files_that_are_left_are_listed_and_counted() -> None:
    """16385, 16386."""
    job = job_in(JobState.SUSPENDED)
    _, left = entries.cleaned(job, ["/a"])
    assert (left.event_id, made(job, left)["file_list"]) == (16385, "/a")
    told = entries.completed(job, "BG_S_UNABLE_TO_DELETE_FILES", [f"/{number}" for number in range(100)])
    assert [each.event_id for each in told] == [4, 16385, 16386]


def test_every_number_of_the_table_is_made_somewhere() -> None:
    """Who filters for a number must be able to rely on it: what nobody makes does not stand in the table."""
    package = pathlib.Path(entries.__file__).parent.parent
    made_somewhere = set(re.findall(r"\beventlog\.([A-Z_]+)", "".join(map(_text_of, package.rglob("*.py")))))
    names = {name for name, value in vars(eventlog).items() if isinstance(value, int) and value in EVENTS}
    assert len(names) == len(EVENTS)
    assert names <= made_somewhere


def _text_of(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def test_levels_choose_what_is_as_grave() -> None:
    """`--level`: and events without a number by their kind."""
    assert eventlog.FILE_FAILED in numbers_of(Level.WARNING)
    assert eventlog.FILE_FAILED not in numbers_of(Level.ERROR)
    assert kinds_of(Level.INFORMATION) is None
    assert kinds_of(Level.ERROR) == frozenset({"error"})
    for level in Level:
        assert all(
            level_of(number) in list(Level)[: list(Level).index(level) + 1] for number in numbers_of(level) - {0}
        )
    assert level_of(4711) is Level.INFORMATION
