"""Waits for a job on behalf of a person: shows its progress, says what it waits for, and says how it ended."""

from __future__ import annotations

import time
from typing import Final

from openbits.cli.common import FailedTransfer
from openbits.cli.display import Display
from openbits.cli.text import local_time, safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.events import EventStream
from openbits.client.session import Session
from openbits.errors import BitsError

SETTLED: Final = frozenset({"TRANSFERRED", "ERROR", "ACKNOWLEDGED", "CANCELLED"})
_TICK_S: Final = 1.0
_HELD_STATES: Final = frozenset({"QUEUED", "CONNECTING", "TRANSIENT_ERROR", "SUSPENDED"})


class Follower:
    """Follows one job until it is settled."""

    def __init__(self, session: Session, job_id: str, display: Display) -> None:
        self._session = session
        self._job_id = job_id
        self._display = display
        self._state = ""
        self._state_since_s = 0.0
        self._explained = False
        self._is_upload = False
        self._is_sent = False
        """Whether the server has all bytes of an upload: its answer may take minutes."""

    def wait_settled(self, timeout_s: float | None = None) -> Json | None:
        """Return the job when it is TRANSFERRED, in ERROR or final; None after `timeout_s`. Raises BitsError."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        try:
            with EventStream(self._session.pool, job_id=self._job_id) as stream:
                while True:
                    messages = stream.wait_messages(min(_TICK_S, max(0.0, deadline - time.monotonic())))
                    for message in messages:
                        job = self._take(message.type, message.data)
                        if job is not None and job["state"] in SETTLED:
                            return job
                    if time.monotonic() >= deadline:
                        return None
                    self._explain()
                    if not messages:
                        self._display.tick()
        finally:
            self._display.close()

    def _take(self, kind: str, data: Json) -> Json | None:
        if kind == "progress":
            self._display.note("")
            self._display.progress(data)
            self._look_whether_sent(data)
            return None
        job: Json | None = data if kind == "snapshot" else data.get("job")
        if job is None:
            return None
        if job["state"] != self._state:
            self._state, self._state_since_s, self._explained = job["state"], time.monotonic(), False
        if self._state not in _HELD_STATES:
            self._display.note("")
        if self._state not in ("ERROR", "CANCELLED"):
            self._display.progress(job)
        self._is_upload = job["type"] != "download"
        self._look_whether_sent(job)
        return job

    def _look_whether_sent(self, data: Json) -> None:
        total_bytes = data["bytes_total"]
        is_sent = self._is_upload and total_bytes is not None and data["bytes_transferred"] >= total_bytes
        if is_sent != self._is_sent:
            self._is_sent, self._state_since_s, self._explained = is_sent, time.monotonic(), False

    def _explain(self) -> None:
        """Say what holds the job; a short wait for a slot or a server is not worth a word."""
        if self._explained or not (self._state in _HELD_STATES or self._is_sent):
            return
        is_brief = self._is_sent or self._state in ("QUEUED", "CONNECTING")
        if is_brief and time.monotonic() - self._state_since_s < _TICK_S:
            return
        self._explained = True
        try:
            why = self._session.perform(calls.why(self._job_id))
        except BitsError:
            return  # The job has just gone on, or the service is restarting: the stream will tell.
        if why["gate"] != "none":
            self._display.note(waiting_sentence(why))


def waiting_sentence(why: Json) -> str:
    """Return what a job waits for as one line: `waiting: …, retry at 10:42:07`."""
    sentence = safe(why["sentence"])
    if why["until"] is None:
        return f"waiting: {sentence}"
    moment = local_time(why["until"])
    return f"waiting: {sentence}" if moment in sentence else f"waiting: {sentence}, retry at {moment}"


def raise_if_failed(job: Json) -> None:
    """Raise the error of a job that ended badly, with what can be done about it."""
    job_id = job["id"]
    if job["state"] == "CANCELLED":
        raise FailedTransfer("BG_E_INVALID_STATE", "the job was cancelled")
    if job["state"] != "ERROR":
        return
    advice = f"try again with 'bits resume {job_id}', or delete the job with 'bits cancel {job_id}'"
    error = job["error"] or {"code": "E_FAIL", "message": "the job failed", "remote_name": None}
    message = str(error["message"])
    remote_name = error["remote_name"]
    if remote_name and remote_name not in message:
        message = f"{message}: {remote_name}"
    try:
        raise FailedTransfer(error["code"], f"{message}: {advice}")
    except KeyError:
        raise FailedTransfer("E_FAIL", f"{error['code']}: {message}: {advice}") from None
