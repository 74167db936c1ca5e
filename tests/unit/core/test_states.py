"""The table of states against the inventory: every cell of 6.1 and 6.2, and nothing beside them."""

import dataclasses
import pathlib
import re

import pytest

import openbits
from openbits.api.render import error_of
from openbits.core.events import (
    AddFiles,
    Cancel,
    ChangeSettings,
    Complete,
    Event,
    FilesFinished,
    FinishFiles,
    RenameRemote,
    Resume,
    SetValidation,
    StopRun,
    Suspend,
)
from openbits.core.lifecycle import apply
from openbits.core.model import Closing, Job, JobState
from openbits.core.states import TRANSITIONS, VERBS, Trigger, next_state
from openbits.errors import BitsError
from support.jobs import A_FAILURE, a_file, a_job, after, at, closing, fetched, job_in, step

FINAL = (JobState.ACKNOWLEDGED, JobState.CANCELLED)
LIVE = tuple(state for state in JobState if state not in FINAL)
SETTERS: dict[str, Event] = {
    "AddFile": AddFiles(files=(a_file(7),)),
    "Set…": ChangeSettings(settings=dataclasses.replace(a_job().settings, description="new")),
    "SetRemoteName": RenameRemote(names=((0, "http://other.example/0"),)),
}

VERB_CELLS = """
                  Resume        Suspend     Cancel      Complete
SUSPENDED         QUEUED        SUSPENDED   CANCELLED   ACKNOWLEDGED
QUEUED            QUEUED        SUSPENDED   CANCELLED   ACKNOWLEDGED
CONNECTING        CONNECTING    SUSPENDED   CANCELLED   ACKNOWLEDGED
TRANSFERRING      TRANSFERRING  SUSPENDED   CANCELLED   ACKNOWLEDGED
TRANSIENT_ERROR   QUEUED        SUSPENDED   CANCELLED   ACKNOWLEDGED
ERROR             QUEUED        SUSPENDED   CANCELLED   ACKNOWLEDGED
TRANSFERRED       TRANSFERRED   SUSPENDED   CANCELLED   ACKNOWLEDGED
ACKNOWLEDGED      IS            IS          IS          IS
CANCELLED         IS            IS          IS          IS
"""
"""6.1 for download jobs. UNDOC cells as decided: Suspend on ERROR and TRANSFERRED suspends, with nothing
lost; Resume on TRANSFERRED without new files leads back to TRANSFERRED by itself."""

VERBS_BY_NAME: dict[str, Event] = {
    "Resume": Resume(),
    "Suspend": Suspend(),
    "Cancel": Cancel(),
    "Complete": Complete(),
}


def verb_cells() -> list[tuple[JobState, str, str]]:
    header, *rows = VERB_CELLS.strip("\n").splitlines()
    return [
        (JobState[state], verb, cell)
        for state, *cells in (row.split() for row in rows)
        for verb, cell in zip(header.split(), cells, strict=True)
    ]


@pytest.mark.parametrize(("state", "verb", "cell"), verb_cells())
def test_every_cell_of_the_verbs(state: JobState, verb: str, cell: str) -> None:
    job = job_in(state)
    if cell == "IS":
        with pytest.raises(BitsError) as caught:
            apply(job, VERBS_BY_NAME[verb], at(1))
        assert caught.value.name == "BG_E_INVALID_STATE"
        return
    made = step(job, VERBS_BY_NAME[verb])
    stopped = StopRun(job_id=job.id)
    assert (stopped in made.effects) == (state.is_active and verb != "Resume"), "only a verb that ends a run stops it"
    if verb in ("Cancel", "Complete"):
        # The call ends when the owner's worker has reported that the files are in place, or gone.
        kind = Closing.CANCEL if verb == "Cancel" else Closing.COMPLETE
        assert made.effects[-1] == FinishFiles(job_id=job.id, closing=kind)
        done = tuple(index for index, file in enumerate(job.files) if file.transferred)
        ended = after(made.job, FilesFinished(renamed=done if verb == "Complete" else ()))
        assert ended.closing is None
        assert ended.state is JobState[cell]
        assert ended.result in ("S_OK", "BG_S_PARTIAL_COMPLETE")
    else:
        assert made.job.state is JobState[cell]
        assert made.job.files == job.files, "nothing is lost"


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("setter", SETTERS)
def test_setters_are_possible_before_the_end_and_leave_the_state(state: JobState, setter: str) -> None:
    job = job_in(state)
    made = step(job, SETTERS[setter])
    assert made.job.state is state
    assert made.job.modified_at == at(1).now, "J10: every Set and AddFile counts as a modification"


@pytest.mark.parametrize("state", FINAL)
@pytest.mark.parametrize("setter", [*SETTERS.values(), SetValidation(index=0, valid=True)], ids=repr)
def test_setters_are_refused_at_the_end(state: JobState, setter: Event) -> None:
    with pytest.raises(BitsError) as caught:
        apply(job_in(state), setter, at(1))
    assert caught.value.name == "BG_E_INVALID_STATE"


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.TRANSFERRED])
@pytest.mark.parametrize(
    "verb", [Resume(), Suspend(), Cancel(), *SETTERS.values(), SetValidation(index=0, valid=False)], ids=repr
)
def test_nothing_but_complete_is_possible_while_files_are_put_in_place(state: JobState, verb: Event) -> None:
    """J7: the rename cannot be taken back half-way."""
    job = closing(job_in(state, fetched()))
    with pytest.raises(BitsError) as caught:
        apply(job, verb, at(1))
    assert caught.value.name == "BG_E_INVALID_STATE"


@pytest.mark.parametrize("state", LIVE)
def test_resume_without_files_is_an_error_and_changes_nothing(state: JobState) -> None:
    """J5; only a job that was never started can be without files."""
    job = a_job(state=state)
    with pytest.raises(BitsError) as caught:
        apply(job, Resume(), at(1))
    assert caught.value.name == "BG_E_EMPTY"


@pytest.mark.parametrize(
    ("state", "available"),
    [
        (JobState.SUSPENDED, False),
        (JobState.QUEUED, True),
        (JobState.CONNECTING, True),
        (JobState.TRANSFERRING, False),
        (JobState.TRANSIENT_ERROR, True),
        (JobState.ERROR, True),
        (JobState.TRANSFERRED, False),
        (JobState.ACKNOWLEDGED, False),
        (JobState.CANCELLED, False),
    ],
)
def test_get_error_is_available_only_where_the_table_says(state: JobState, available: bool) -> None:
    """J12: on the way back from an error it stays until the server answers."""
    job = dataclasses.replace(job_in(state), error=A_FAILURE)
    assert (error_of(job) is not None) == available
    assert error_of(dataclasses.replace(job, error=None)) is None


AUTOMATIC = {
    # S1
    (JobState.QUEUED, Trigger.START): JobState.CONNECTING,
    # S2
    (JobState.CONNECTING, Trigger.ANSWERED): JobState.TRANSFERRING,
    # S3
    (JobState.CONNECTING, Trigger.PREEMPT): JobState.QUEUED,
    (JobState.TRANSFERRING, Trigger.PREEMPT): JobState.QUEUED,
    (JobState.CONNECTING, Trigger.LOG_OFF): JobState.QUEUED,
    (JobState.TRANSFERRING, Trigger.LOG_OFF): JobState.QUEUED,
    # S4; a job whose files are all there already passes QUEUED only (UNDOC cell of Resume)
    (JobState.TRANSFERRING, Trigger.DONE): JobState.TRANSFERRED,
    (JobState.CONNECTING, Trigger.DONE): JobState.TRANSFERRED,
    (JobState.QUEUED, Trigger.DONE): JobState.TRANSFERRED,
    # S10
    (JobState.QUEUED, Trigger.IDLE): JobState.SUSPENDED,
    (JobState.CONNECTING, Trigger.IDLE): JobState.SUSPENDED,
    (JobState.TRANSFERRING, Trigger.IDLE): JobState.SUSPENDED,
    # S5
    (JobState.QUEUED, Trigger.FAIL_TRANSIENT): JobState.TRANSIENT_ERROR,
    (JobState.CONNECTING, Trigger.FAIL_TRANSIENT): JobState.TRANSIENT_ERROR,
    (JobState.TRANSFERRING, Trigger.FAIL_TRANSIENT): JobState.TRANSIENT_ERROR,
    # S6
    (JobState.TRANSIENT_ERROR, Trigger.RETRY): JobState.QUEUED,
    # S7, S8
    (JobState.TRANSIENT_ERROR, Trigger.FAIL): JobState.ERROR,
    (JobState.QUEUED, Trigger.FAIL): JobState.ERROR,
    (JobState.CONNECTING, Trigger.FAIL): JobState.ERROR,
    (JobState.TRANSFERRING, Trigger.FAIL): JobState.ERROR,
    **{(state, Trigger.INVALIDATE): JobState.ERROR for state in LIVE},
    # S9
    **{(state, Trigger.EXPIRE): JobState.CANCELLED for state in LIVE},
    # J7
    (JobState.SUSPENDED, Trigger.COMPLETED): JobState.ACKNOWLEDGED,
    (JobState.TRANSFERRED, Trigger.COMPLETED): JobState.ACKNOWLEDGED,
    # M8
    (JobState.CONNECTING, Trigger.RECOVER): JobState.QUEUED,
    (JobState.TRANSFERRING, Trigger.RECOVER): JobState.QUEUED,
    # A report of a run that goes on
    (JobState.TRANSFERRING, Trigger.ANSWERED): JobState.TRANSFERRING,
    (JobState.CONNECTING, Trigger.START): JobState.CONNECTING,
    (JobState.TRANSFERRING, Trigger.START): JobState.TRANSFERRING,
}


def test_the_automatic_transitions_are_those_of_the_inventory_and_no_others() -> None:
    table = {
        (state, trigger): target
        for state, row in TRANSITIONS.items()
        for trigger, target in row.items()
        if trigger not in VERBS
    }
    assert table == AUTOMATIC


def test_final_is_final() -> None:
    assert not any(TRANSITIONS[state] for state in FINAL)
    assert TRANSITIONS.keys() == set(JobState)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("trigger", Trigger)
def test_a_verb_without_a_cell_is_an_error_and_anything_else_comes_too_late(state: JobState, trigger: Trigger) -> None:
    target = TRANSITIONS[state].get(trigger)
    if target is None and trigger in VERBS:
        with pytest.raises(BitsError) as caught:
            next_state(state, trigger)
        assert caught.value.name == "BG_E_INVALID_STATE"
        assert state.name in caught.value.message
    else:
        assert next_state(state, trigger) is target


def test_only_the_lifecycle_names_states_when_it_changes_a_job() -> None:
    """The rule of the module: a state comes out of the table, or a job is new."""
    root = pathlib.Path(openbits.__file__).parent
    assigns = re.compile(r"\bstate=(?!target\b|JobState\(state\))")
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for folder in ("core", "service", "api", "store")
        for path in sorted((root / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if assigns.search(line) and "log." not in line
    ]
    assert found == []


def test_a_job_begins_suspended() -> None:
    """M1."""
    job: Job = a_job()
    assert job.state is JobState.SUSPENDED
    assert job.bytes_total == 0, "progress of a job without files is 0 of 0"
    assert job.bytes_transferred == 0
