"""Section 4 of the inventory, as values: what is told next, by which way, and when again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core import telling
from openbits.core.events import FilesAnnounced
from openbits.core.lifecycle import apply
from openbits.core.model import (
    REPLY_INDEX,
    AccountKind,
    ByteRange,
    Closing,
    Demand,
    Job,
    JobState,
    JobType,
    Notice,
    NotifyCommand,
)
from openbits.core.telling import Channel, Kind, Means, Obstacle, Presence, Subject
from support.jobs import a_file, a_job, at, fetched

LISTENED = Means(callback=Presence.VALID)
NOBODY = Means()
DONE = Subject(kind=Kind.JOB_TRANSFERRED)
FAILED = Subject(kind=Kind.JOB_ERROR)
FILE = Subject(kind=Kind.FILE_TRANSFERRED, index=0)
COMMAND = NotifyCommand(program="/bin/true", arguments=("true",))


def done(*files: Any, notify_flags: int = 3, **more: Any) -> Job:
    values: dict[str, Any] = {"state": JobState.TRANSFERRED, "owed_notice": Notice.TRANSFERRED}
    return a_job(*(files or (fetched(),)), settings={"notify_flags": notify_flags}, **values | more)


@pytest.mark.parametrize(
    ("flags", "notice", "kind"),
    [
        (0x3, Notice.TRANSFERRED, Kind.JOB_TRANSFERRED),
        (0x3, Notice.ERROR, Kind.JOB_ERROR),
        (0x2, Notice.TRANSFERRED, None),
        (0x1, Notice.ERROR, None),
        (0x4, Notice.TRANSFERRED, None),
        (0x3F, Notice.TRANSFERRED, None),
        (0x3, None, None),
        (0x8, Notice.TRANSFERRED, None),
    ],
)
def test_j17_the_flags_say_what_is_owed(flags: int, notice: Notice | None, kind: Kind | None) -> None:
    subject = telling.owed(done(notify_flags=flags, owed_notice=notice), LISTENED)
    assert (subject.kind if subject else None) is kind


def test_n2_files_come_first_and_only_until_the_job_s_end_was_told() -> None:
    job = done(fetched(), fetched(1), notify_flags=0x11)
    assert telling.owed(job, LISTENED) == FILE
    assert telling.owed(job, LISTENED, 1) == Subject(kind=Kind.FILE_TRANSFERRED, index=1)
    step = apply(job, FilesAnnounced(indices=(0, 1)), at(0))
    assert step is not None
    assert step.changed_files == (0, 1)
    assert telling.owed(step.job, LISTENED, 2) == DONE
    assert telling.owed(replace(job, owed_notice=None), LISTENED) is None, "the end was told already"
    running = replace(job, state=JobState.TRANSFERRING, owed_notice=None)
    assert telling.owed(running, LISTENED) == FILE


def test_n2_files_that_nobody_hears_of_do_not_keep_the_command_line_waiting() -> None:
    job = done(notify_flags=0x11, notify_command=COMMAND)
    assert telling.owed(job, NOBODY) == DONE
    assert telling.owed(job, Means(callback=Presence.INVALID)) == DONE
    assert telling.owed(job, LISTENED) == FILE


def test_n2_of_an_upload_the_reply_is_told() -> None:
    reply = fetched(1)
    job = done(fetched(), notify_flags=0x11, type=JobType.UPLOAD_REPLY, reply=reply)
    assert telling.owed(job, LISTENED) == Subject(kind=Kind.FILE_TRANSFERRED, index=REPLY_INDEX)
    step = apply(job, FilesAnnounced(indices=(REPLY_INDEX,)), at(0))
    assert step is not None
    assert step.job.reply == replace(reply, was_announced=True)
    assert telling.owed(step.job, LISTENED) == DONE


@pytest.mark.parametrize("more", [{"closing": Closing.COMPLETE}, {"state": JobState.CANCELLED}])
def test_nothing_is_told_of_a_job_that_is_being_ended(more: dict[str, Any]) -> None:
    assert telling.owed(done(**more), LISTENED) is None


@pytest.mark.parametrize(
    ("callback", "name", "command", "subject", "found"),
    [
        (Presence.VALID, "org.x.Y", True, DONE, (Channel.CALLBACK, Channel.COMMAND)),
        (Presence.VALID, "", False, DONE, (Channel.CALLBACK,)),
        (Presence.INVALID, "org.x.Y", True, FAILED, (Channel.BUS_NAME, Channel.COMMAND)),
        (Presence.ABSENT, "org.x.Y", False, FILE, (Channel.BUS_NAME,)),
        (Presence.ABSENT, "", True, DONE, (Channel.COMMAND,)),
        (Presence.ABSENT, "", True, FILE, Obstacle.NOBODY),
        (Presence.INVALID, "", False, DONE, Obstacle.SILENT),
        (Presence.ABSENT, "", False, DONE, Obstacle.NOBODY),
    ],
)
def test_n7_n10_the_order_of_the_ways(
    callback: Presence, name: str, command: bool, subject: Subject, found: tuple[Channel, ...] | Obstacle
) -> None:
    job = done(notify_command=COMMAND if command else None)
    job = replace(job, settings=replace(job.settings, notification_clsid=name))
    assert telling.channels(job, subject, Means(callback=callback)) == found


@pytest.mark.parametrize(
    ("means", "obstacle"),
    [
        (Means(is_logged_on=False), Obstacle.LOGGED_OFF),
        (Means(commands_forbidden="by policy"), Obstacle.FORBIDDEN),
        *((Means(owner_kind=kind), Obstacle.SERVICE_ACCOUNT) for kind in AccountKind if kind is not AccountKind.USER),
    ],
)
def test_n13_when_a_command_line_is_not_run(means: Means, obstacle: Obstacle) -> None:
    assert telling.channels(done(notify_command=COMMAND), DONE, means) is obstacle
    listened = replace(means, callback=Presence.VALID)
    assert telling.channels(done(notify_command=COMMAND), DONE, listened) == (Channel.CALLBACK,)


def test_n4_n12_who_is_asked_next_and_when_again() -> None:
    job = done()
    both = (Channel.CALLBACK, Channel.COMMAND)
    assert telling.next_channel(both, ()) is Channel.CALLBACK
    assert telling.next_channel(both, {Channel.CALLBACK}) is Channel.COMMAND
    assert telling.next_channel(both, set(both)) is None
    assert [telling.pause_s(job, {Channel.CALLBACK}, rounds) for rounds in (1, 2, 3, 20)] == [1, 2, 4, 300]
    for failed in (set(both), {Channel.BUS_NAME}, {Channel.WEBHOOK}):
        assert telling.pause_s(job, failed, 1) == job.settings.minimum_retry_delay


def test_what_a_url_is_told_outlives_completing() -> None:
    job = done(owed_webhook=Notice.TRANSFERRED)
    assert telling.owed_to_url(job) is None
    job = replace(job, settings=replace(job.settings, notify_url="https://x.example/"), state=JobState.ACKNOWLEDGED)
    assert telling.owed_to_url(job) == DONE
    assert telling.url_channels(Means(is_logged_on=False)) is Obstacle.LOGGED_OFF
    for flags in (4, 7, 2):
        assert telling.owed_to_url(replace(job, settings=replace(job.settings, notify_flags=flags))) is None


def test_n1_what_is_a_modification() -> None:
    before = a_job(a_file(), a_file(1), state=JobState.TRANSFERRING)
    assert not telling.is_modified(before, before)
    assert telling.is_modified(before, replace(before, files=(a_file(), fetched(1))))
    assert telling.is_modified(before, replace(before, state=JobState.SUSPENDED))
    assert telling.is_modified(before, replace(before, settings=replace(before.settings, description="x")))
    assert telling.is_modified(before, replace(before, files=(*before.files, a_file(2))))
    for state in (JobState.TRANSFERRED, JobState.ERROR):
        assert not telling.is_modified(before, replace(before, state=state))
    # Who was told is nobody's news.
    told = replace(before, owed_notice=Notice.ERROR, files=(replace(a_file(), was_announced=True), a_file(1)))
    assert not telling.is_modified(before, told)


def test_n3_which_pieces_are_new() -> None:
    pieces = ByteRange(0, 100), ByteRange(0, 300)
    old, new = (a_file(demand=Demand(filled=(piece,))) for piece in pieces)
    before, after = (a_job(file, settings={"on_demand_mode": True}) for file in (old, new))
    assert telling.new_ranges(before, after) == {0: (ByteRange(100, 200),)}
    assert telling.new_ranges(after, after) == {}
