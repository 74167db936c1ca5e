"""Files of which an application asks for pieces: what requests and reports make of a job (J67, F11–F13, S10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.demand import MOST_PIECES, MOST_PLACES, ranges_here
from openbits.core.events import (
    AskForPieces,
    Complete,
    FileAnswered,
    FilesFetched,
    MovePosition,
    NetworkChanged,
    RangesFilled,
    RenameRemote,
    RequestRanges,
    Resume,
    RunEnded,
    SetValidation,
    SlotGranted,
    SlotTaken,
    StartRun,
    Suspend,
)
from openbits.core.lifecycle import apply
from openbits.core.model import TO_EOF, ByteRange, Demand, File, Job, JobState, JobType, Validator
from openbits.core.why import gate_of
from openbits.errors import BitsError
from support.jobs import OFFLINE, a_file, a_job, at, failure, step

SIZE = 1000
VERSION = Validator(etag='"1"', last_modified="Tue, 14 Nov 2023 22:13:20 GMT", size=SIZE)


def a_demand_job(*files: File, **more: Any) -> Job:
    return a_job(*(files or (a_file(),)), settings={"on_demand_mode": True}, **more)


def request(job: Job, *ranges: tuple[int, int], index: int = 0) -> Job:
    return step(job, RequestRanges(index=index, ranges=tuple(ByteRange(*each) for each in ranges))).job


def running(job: Job) -> Job:
    job = step(step(job, Resume()).job, SlotGranted()).job
    assert job.state is JobState.CONNECTING
    return job


def answered(job: Job, *, index: int = 0, size: int = SIZE, restarted: str = "", run: int | None = None) -> Job:
    event = FileAnswered(
        run=job.run if run is None else run,
        index=index,
        bytes_total=size,
        validator=replace(VERSION, size=size),
        offset=0 if restarted else job.files[index].bytes_transferred,
        restarted=restarted,
        resumable=True,
        response_headers="HTTP/1.1 206 Partial Content",
    )
    return step(job, event).job


def fill(job: Job, *ranges: tuple[int, int], index: int = 0) -> Job:
    event = RangesFilled(run=job.run, index=index, ranges=tuple(ByteRange(*each) for each in ranges))
    return step(job, event).job


def demand(job: Job, index: int = 0) -> Demand:
    found = job.files[index].demand
    assert found is not None
    return found


def wanted(job: Job, index: int = 0) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in demand(job, index).wanted]


def filled(job: Job, index: int = 0) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in demand(job, index).filled]


# --- requests --------------------------------------------------------------------------------


def test_requests_overlap_and_nothing_is_wanted_twice() -> None:
    """F12: ranges may overlap what is asked for, what is here, and each other."""
    job = request(a_demand_job(), (0, 100), (50, 100), (150, 50))
    assert wanted(job) == [(0, 200)]
    job = fill(answered(running(job)), (0, 100))
    assert (wanted(job), filled(job)) == ([(100, 100)], [(0, 100)])
    job = request(job, (0, 300))
    assert (wanted(job), filled(job)) == ([(100, 200)], [(0, 100)])
    assert step(job, RequestRanges(index=0, ranges=(ByteRange(0, 100),))).effects == ()


def test_a_request_starts_nothing() -> None:
    """F12: it is Resume that does."""
    job = a_demand_job()
    assert request(job, (0, 10)).state is JobState.SUSPENDED
    assert step(job, RequestRanges(index=0, ranges=(ByteRange(0, 10),))).effects == ()


def test_a_run_is_told_of_requests_and_positions() -> None:
    """F11, F12: what is under way goes on, with more to do."""
    job = running(request(a_demand_job(), (0, 10)))
    told = step(job, RequestRanges(index=0, ranges=(ByteRange(100, 10),)))
    assert told.effects == (AskForPieces(job_id=job.id, index=0),)
    assert told.job.run == job.run
    told = step(told.job, MovePosition(index=0, offset=100))
    assert told.effects == (AskForPieces(job_id=job.id, index=0),)
    assert demand(told.job).position == 100
    assert step(told.job, MovePosition(index=0, offset=100)).effects == ()


def test_an_open_range_ends_where_the_file_does() -> None:
    job = request(a_demand_job(), (900, TO_EOF))
    assert wanted(job) == [(900, TO_EOF)]
    job = answered(running(job))
    assert wanted(job) == [(900, 100)]
    assert wanted(request(job, (500, TO_EOF))) == [(500, 500)]


@pytest.mark.parametrize("ranges", [(0, SIZE + 1), (SIZE, 1), (SIZE, TO_EOF), (-1, 5), (0, 0), (0, -2), (2**63, 1)])
def test_ranges_outside_of_the_file_are_refused(ranges: tuple[int, int]) -> None:
    """F12: BG_E_INVALID_RANGE, and nothing of the request counts."""
    job = answered(running(request(a_demand_job(), (0, 1))))
    with pytest.raises(BitsError) as refused:
        request(job, (5, 5), ranges)
    assert refused.value.name == "BG_E_INVALID_RANGE"


def test_what_turned_out_to_be_outside_is_not_wanted_any_more() -> None:
    """The run fails with BG_E_INVALID_RANGE; Resume gets what there is."""
    job = answered(running(request(a_demand_job(), (900, 500))))
    job = step(job, RunEnded(run=job.run, failure=failure("BG_E_INVALID_RANGE", transient=False))).job
    assert job.state is JobState.ERROR
    assert wanted(job) == [(900, 100)]
    assert step(job, Resume()).job.state is JobState.QUEUED


@pytest.mark.parametrize("offset", [-1, SIZE, 2**63])
def test_positions_outside_of_the_file_are_refused(offset: int) -> None:
    """F11."""
    job = answered(running(request(a_demand_job(), (0, 1))))
    with pytest.raises(BitsError) as refused:
        step(job, MovePosition(index=0, offset=offset))
    assert refused.value.name == "BG_E_INVALID_RANGE"


def test_no_more_places_than_fit_into_a_frame() -> None:
    job = request(a_demand_job(), *((2 * at, 1) for at in range(MOST_PIECES)))
    with pytest.raises(BitsError) as refused:
        request(job, (2 * MOST_PIECES, 1))
    assert refused.value.name == "BG_E_TOO_MANY_RANGES_IN_FILE"
    assert len(wanted(request(job, (0, 2 * MOST_PIECES)))) == 1, "closing the gaps is possible"


def test_no_position_cuts_what_is_wanted_into_more_places_than_fit_into_a_frame() -> None:
    job = request(a_demand_job(), *((4 * at, 2) for at in range(MOST_PIECES)))
    with pytest.raises(BitsError) as refused:
        step(job, MovePosition(index=0, offset=1))
    assert refused.value.name == "BG_E_TOO_MANY_RANGES_IN_FILE"
    assert step(job, MovePosition(index=0, offset=4)).job.files[0].demand is not None, "this one cuts nothing"


def test_no_report_puts_a_file_into_more_places_than_fit_into_a_frame() -> None:
    """A worker may have been taken over."""
    job = answered(running(request(a_demand_job(), (0, 10_000))), size=10_000)
    some = tuple(ByteRange(2 * at, 1) for at in range(MOST_PLACES // 2 - 1))
    job = step(job, RangesFilled(run=job.run, index=0, ranges=some)).job
    more = tuple(ByteRange(5000 + 2 * at, 1) for at in range(10))
    assert apply(job, RangesFilled(run=job.run, index=0, ranges=more), at(0.0)) is None
    closed = step(job, RangesFilled(run=job.run, index=0, ranges=(ByteRange(0, 5000),))).job
    assert filled(closed) == [(0, 5000)]


@pytest.mark.parametrize(
    "job",
    [
        a_job(a_file()),
        a_job(a_file(), type=JobType.UPLOAD),
        a_demand_job(a_file(resumable=False)),
    ],
)
def test_files_without_random_access(job: Job) -> None:
    """F11, F12: BG_E_RANDOM_ACCESS_NOT_SUPPORTED."""
    for event in (RequestRanges(index=0, ranges=(ByteRange(0, 1),)), MovePosition(index=0, offset=0)):
        with pytest.raises(BitsError) as refused:
            step(job, event)
        assert refused.value.name == "BG_E_RANDOM_ACCESS_NOT_SUPPORTED"


def test_final_jobs_take_no_requests() -> None:
    job = replace(a_demand_job(), state=JobState.CANCELLED)
    with pytest.raises(BitsError) as refused:
        request(job, (0, 1))
    assert refused.value.name == "BG_E_INVALID_STATE"


def test_what_is_here_of_other_jobs() -> None:
    """F13: of a file that is fetched from its beginning, that; of an upload or a list of ranges, nothing."""
    assert ranges_here(a_job(a_file(bytes_transferred=70, bytes_total=100)), 0) == (ByteRange(0, 70),)
    assert ranges_here(a_job(a_file()), 0) == ()
    for job in (a_job(a_file(), type=JobType.UPLOAD), a_job(a_file(ranges=(ByteRange(5, 5),)))):
        with pytest.raises(BitsError) as refused:
            ranges_here(job, 0)
        assert refused.value.name == "BG_E_RANDOM_ACCESS_NOT_SUPPORTED"


# --- the states ------------------------------------------------------------------------------


def test_resume_without_a_request_leads_back() -> None:
    """S10: there is nothing to fetch."""
    resumed = step(a_demand_job(), Resume())
    assert resumed.job.state is JobState.SUSPENDED
    assert resumed.job.was_resumed
    assert [entry.kind for entry in resumed.entries] == ["queued", "suspended"]


def test_all_that_was_requested_is_here() -> None:
    """S10: SUSPENDED while the file has holes, TRANSFERRED when it is whole."""
    job = fill(answered(running(request(a_demand_job(), (0, 400)))), (0, 400))
    assert job.bytes_transferred == 400
    assert job.bytes_total == SIZE
    job = step(job, RunEnded(run=job.run)).job
    assert job.state is JobState.SUSPENDED
    assert job.error is None
    job = fill(answered(running(request(job, (400, 600)))), (400, 600))
    job = step(job, FilesFetched(run=job.run, files=((0, SIZE),))).job
    assert job.state is JobState.TRANSFERRED
    assert (wanted(job), filled(job)) == ([], [(0, SIZE)])
    assert wanted(request(job, (5, 5))) == [], "J7: nothing is left to ask for"


def test_pieces_of_one_file_leave_the_job_suspended_for_the_other() -> None:
    job = running(request(a_demand_job(a_file(0), a_file(1)), (0, SIZE)))
    job = answered(job)
    job = step(fill(job, (0, SIZE)), FilesFetched(run=job.run, files=((0, SIZE),))).job
    assert job.state is JobState.TRANSFERRING
    assert step(job, RunEnded(run=job.run)).job.state is JobState.SUSPENDED


def test_what_was_asked_for_at_the_last_moment_gets_a_run_of_its_own() -> None:
    job = fill(answered(running(request(a_demand_job(), (0, 400)))), (0, 400))
    job = request(job, (500, 10))
    ended = step(job, RunEnded(run=job.run))
    assert ended.job.state is JobState.TRANSFERRING
    assert ended.effects == (StartRun(job_id=job.id, run=job.run + 1),)


def test_whole_but_not_finished_files_get_a_run() -> None:
    """The worker died between the last byte and the file's end."""
    job = fill(answered(running(request(a_demand_job(), (0, SIZE)))), (0, SIZE))
    assert wanted(job) == []
    job = step(step(job, Suspend()).job, Resume()).job
    assert job.state is JobState.QUEUED
    assert step(job, SlotGranted()).job.state is JobState.CONNECTING


def test_the_last_piece_comes_when_the_slot_is_gone() -> None:
    job = answered(running(request(a_demand_job(), (0, 400))))
    job = step(job, SlotTaken()).job
    assert job.state is JobState.QUEUED
    assert fill(job, (0, 200)).state is JobState.QUEUED
    assert fill(job, (0, 400)).state is JobState.SUSPENDED


def test_a_job_without_a_request_waits_for_no_network() -> None:
    resumed = apply(a_demand_job(), Resume(), OFFLINE)
    assert resumed is not None
    assert resumed.job.state is JobState.SUSPENDED
    waiting = apply(request(a_demand_job(), (0, 1)), Resume(), OFFLINE)
    assert waiting is not None
    assert waiting.job.state is JobState.TRANSIENT_ERROR
    back = apply(waiting.job, NetworkChanged(), at(5))
    assert back is not None
    assert back.job.state is JobState.QUEUED


# --- what becomes of what is here ------------------------------------------------------------


def test_a_changed_remote_file_drops_everything_and_gets_it_again() -> None:
    """D3: what was requested before is not silently missing afterwards."""
    job = fill(answered(running(request(a_demand_job(), (0, 100), (300, 100)))), (0, 100))
    job = answered(job, size=350, restarted="the remote file has changed")
    assert filled(job) == []
    assert wanted(job) == [(0, 100), (300, 50)]
    assert job.bytes_transferred == 0
    assert job.files[0].restarts == 1


def test_late_news_of_a_former_run_count_unless_the_remote_name_is_another() -> None:
    job = answered(running(request(a_demand_job(), (0, 100))))
    former = job.run
    renamed = step(job, RenameRemote(names=((0, "http://other.example/0"),))).job
    assert renamed.run > former
    late = RangesFilled(run=former, index=0, ranges=(ByteRange(0, 50),))
    assert apply(renamed, late, at(1)) is None
    restarted = replace(job, run=former + 1)
    assert filled(step(restarted, late).job) == [(0, 50)]


def test_a_new_remote_name_keeps_the_pieces() -> None:
    """F4, J40: size and time decide at the new place whether they stay."""
    job = fill(answered(running(request(a_demand_job(), (0, 100)))), (0, 50))
    job = step(job, RenameRemote(names=((0, "http://other.example/0"),))).job
    assert (filled(job), wanted(job)) == ([(0, 50)], [(50, 50)])
    assert job.files[0].validator == replace(VERSION, etag=None)


def test_a_file_that_was_declared_invalid_is_fetched_again() -> None:
    """F6."""
    job = fill(answered(running(request(a_demand_job(), (0, SIZE)))), (0, SIZE))
    job = step(job, FilesFetched(run=job.run, files=((0, SIZE),))).job
    job = step(job, SetValidation(index=0, valid=False)).job
    assert job.state is JobState.ERROR
    assert (wanted(job), filled(job)) == ([(0, SIZE)], [])
    assert step(job, Resume()).job.state is JobState.QUEUED


def test_reports_beyond_the_end_are_cut() -> None:
    """A worker may have been taken over."""
    job = fill(answered(running(request(a_demand_job(), (0, 100)))), (900, 500))
    assert filled(job) == [(900, 100)]


def test_complete_with_holes_is_possible() -> None:
    """J7: the file is unfinished, and goes."""
    job = fill(answered(running(request(a_demand_job(), (0, 100)))), (0, 100))
    job = step(job, RunEnded(run=job.run)).job
    assert step(job, Complete()).job.closing is not None


MOVES = st.lists(
    st.tuples(st.sampled_from(["request", "fill", "restart"]), st.integers(0, SIZE - 1), st.integers(1, 300)),
    max_size=25,
)


@given(MOVES)
def test_wanted_and_filled_are_what_they_would_be_as_sets_of_bytes(moves: list[tuple[str, int, int]]) -> None:
    """F12, F13: whatever happens in whatever order."""
    job = answered(running(request(a_demand_job(), (0, 1))))
    want, have = {0}, set[int]()
    for kind, offset, length in moves:
        span = (offset, min(length, SIZE - offset))
        named = set(range(offset, offset + span[1]))
        match kind:
            case "request":
                job = request(job, span)
                want |= named - have
            case "fill":
                job = fill(job, span)
                have |= named
                want -= named
            case _:
                job = answered(job, restarted="changed")
                want, have = want | have, set()
        assert {at for start, count in wanted(job) for at in range(start, start + count)} == want
        assert {at for start, count in filled(job) for at in range(start, start + count)} == have
        assert job.bytes_transferred == len(have)


def test_why_says_what_such_a_job_waits_for() -> None:
    idle = gate_of(a_demand_job(), at(0), ahead=0, trouble="")
    assert idle.gate == "requests"
    assert gate_of(request(a_demand_job(), (0, 1)), at(0), ahead=0, trouble="").gate == "suspended"
