"""Tells owners what has become of their jobs (section 4 of the inventory).

What is owed stands in the store until somebody has acknowledged it; `core.telling` decides who is told what next, and
here it is done: one thing after the other for each job, four at once for each account.  A job costs something only
while there is something to tell of it and somebody to be told: nothing is searched, each commit says what it changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from openbits.core import telling
from openbits.core.accounts import AccountRules, kind_of
from openbits.core.events import FilesAnnounced, Noted, NoticeTaken
from openbits.core.model import AccountKind, Job
from openbits.core.pieces import merged
from openbits.core.telling import Channel, Kind, Means, Obstacle, Subject
from openbits.errors import BitsError
from openbits.service import notices
from openbits.service.configuration import Notifications as Limits
from openbits.service.lanes import REMARKS, Lane, Telling, has_other_ways, stamp
from openbits.service.ledger import RETRY_FULL_STORE_S, Draft, Ledger
from openbits.service.listeners import AT_ONCE, Gone, Listeners, Told
from openbits.service.messengers import Messengers
from openbits.service.tasks import Tasks
from openbits.service.turns import Turns
from openbits.service.worker import WorkerGone

log = logging.getLogger(__name__)


class Notifications:
    """See the module's docstring."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        messengers: Messengers,
        tasks: Tasks,
        limits: Callable[[], Limits],
        rules: Callable[[], AccountRules],
        is_logged_on: Callable[[int, AccountKind], bool],
        commands_forbidden: Callable[[], str],
    ) -> None:
        """`commands_forbidden` says why no command line may run, as a clause, or nothing."""
        self._ledger = ledger
        self._tasks = tasks
        self._limits = limits
        self._rules = rules
        self._is_logged_on = is_logged_on
        self._commands_forbidden = commands_forbidden
        self.messengers = messengers
        self.listeners = Listeners(job=ledger.jobs.get, changed=self._listener_changed, late=self._answered_late)
        self._turns: Turns[Lane] = Turns(AT_ONCE, self._begin)
        self._lanes: dict[str, Lane] = {}
        self._url_lanes: dict[str, Lane] = {}
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Notifications {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        lanes = len(self._lanes) + len(self._url_lanes)
        return {"notice_lanes": lanes, **self._turns.statistics(), **self.listeners.statistics()}

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tell, also what a former life has left untold (N5)."""
        self._is_open = True
        for job in self._ledger.jobs.values():
            self._consider(job)

    def close(self) -> None:
        """Tell nothing any more."""
        self._is_open = False
        for lane in (*self._lanes.values(), *self._url_lanes.values()):
            lane.drop_timer()
        self.listeners.close()

    def take_note(self, before: Mapping[str, Job | None], after: Mapping[str, Job | None]) -> None:
        """Look at what a transaction has changed."""
        if not self._is_open:
            return
        for job_id, job in after.items():
            if job is None:
                self._forget(job_id)
                continue
            was = before[job_id]
            if was is not None and has_other_ways(was, job):
                self._begin_anew(job_id)
            if was is not None:
                self._collect(was, job)
            self._consider(job)

    def progressed(self, job_id: str) -> None:
        """More of a job's bytes have come, which the ledger will hear of later."""
        if job_id not in self._lanes and not self.listeners.is_there(job_id):
            return
        job = self._ledger.jobs.get(job_id)
        if job is not None and self._wants(job, Kind.JOB_MODIFICATION):
            self._lane(job_id).is_modified = True
            self._look(self._lane(job_id))

    def logon_changed(self, came: Collection[int], went: Collection[int]) -> None:
        """Tell those who have come what they missed; let go what runs for those who went."""
        if went:
            self.messengers.interrupt(went)
        if came:
            self.look_again()

    def look_again(self) -> None:
        """What decides beside the jobs has changed: log-ons, policy, configuration."""
        for lane in (*self._lanes.values(), *self._url_lanes.values()):
            self._look(lane)

    def network_is_back(self) -> None:
        """Do not wait for the next attempt's time."""
        for lane in tuple(self._url_lanes.values()):
            if not lane.is_busy:
                lane.begin_anew()
            self._look(lane)

    def remark(self, job: Job) -> str:
        """Say what a telling waits for, as a clause; nothing where it waits for nothing."""
        for lane, channel in ((self._lanes.get(job.id), ""), (self._url_lanes.get(job.id), "its notify_url: ")):
            if lane is None:
                continue
            if lane.trouble and lane.again_at is not None:
                wait_s = max(0.0, lane.again_at - _now())
                return f"{channel}telling its owner failed, and is tried again in {wait_s:.0f} s: {lane.trouble}"
            if lane.obstacle in REMARKS:
                forbidden = self._commands_forbidden() if lane.obstacle is Obstacle.FORBIDDEN else ""
                return f"{channel}{REMARKS[lane.obstacle]}{f': {forbidden}' if forbidden else ''}"
        return ""

    @property
    def callback_limit_s(self) -> int:
        """How long a program that listens may take to answer."""
        return self._limits().callback_limit_s

    # --- what there is to tell ----------------------------------------------------------------------------

    def _consider(self, job: Job) -> None:
        """See whether there is something to tell of a job, and somebody to be told: for most there is not."""
        settings = job.settings
        if settings.notify_url and telling.owed_to_url(job) is not None:
            self._look(self._url_lanes.setdefault(job.id, Lane(job_id=job.id, is_for_url=True)))
        elif job.id in self._url_lanes:
            self._look(self._url_lanes[job.id])
        is_listened = self.listeners.is_there(job.id)
        lane = self._lanes.get(job.id)
        if lane is None and (is_listened or job.notify_command is not None or settings.notification_clsid):
            lane = self._lane(job.id)
        if lane is not None:
            self._look(lane)

    def _collect(self, was: Job, job: Job) -> None:
        """Remember what may be lost: that the job is another, and which pieces have come."""
        if self._wants(job, Kind.JOB_MODIFICATION) and telling.is_modified(was, job):
            self._lane(job.id).is_modified = True
        if job.settings.on_demand_mode and self._wants(job, Kind.FILE_RANGES_TRANSFERRED):
            ranges = self._lane(job.id).ranges
            for index, pieces in telling.new_ranges(was, job).items():
                ranges[index] = merged((*ranges.get(index, ()), *pieces))

    def _wants(self, job: Job, kind: Kind) -> bool:
        flags = job.settings.notify_flags
        if flags & telling.DISABLE or not flags & telling.FLAGS[kind]:
            return False
        return self.listeners.is_there(job.id) or bool(job.settings.notification_clsid)

    def _lane(self, job_id: str) -> Lane:
        lane = self._lanes.get(job_id)
        if lane is None:
            lane = self._lanes[job_id] = Lane(job_id=job_id)
        return lane

    def _forget(self, job_id: str) -> None:
        self.listeners.let_go(job_id)
        for lanes in (self._lanes, self._url_lanes):
            lane = lanes.pop(job_id, None)
            if lane is not None:
                lane.drop_timer()

    def _begin_anew(self, job_id: str) -> None:
        for lane in (self._lanes.get(job_id), self._url_lanes.get(job_id)):
            if lane is not None:
                lane.begin_anew()

    def _listener_changed(self, job_id: str) -> None:
        job = self._ledger.jobs.get(job_id)
        if self._is_open and job is not None:
            self._begin_anew(job_id)
            self._consider(job)

    # --- who is told what next -------------------------------------------------------------------------------

    def _look(self, lane: Lane) -> None:
        """Let a lane go on, wait, or end."""
        if lane.is_busy or lane.is_queued or lane.late or not self._is_open:
            return
        lane.drop_timer()
        match self._next(lane):
            case Telling() as decided:
                lane.is_queued = True
                self._turns.want(decided.uid, lane, is_urgent=not decided.subject.is_lossy)
            case float() as again_at:
                lane.timer = asyncio.get_running_loop().call_at(again_at, self._look, lane)
            case None:
                self._rest(lane)

    def _rest(self, lane: Lane) -> None:
        """Nothing can be told now: drop what costs memory and means nothing."""
        job = self._ledger.jobs.get(lane.job_id)
        lanes = self._url_lanes if lane.is_for_url else self._lanes
        if job is None or job.state.is_final:
            if not lane.is_for_url:
                self.listeners.let_go(lane.job_id)
            if lane.obstacle is None and lanes.get(lane.job_id) is lane:
                del lanes[lane.job_id]
        elif lane.obstacle in (None, Obstacle.NOBODY) and not lane.told_at and lanes.get(lane.job_id) is lane:
            del lanes[lane.job_id]

    def _next(self, lane: Lane) -> Telling | float | None:
        lane.obstacle = None
        job = self._ledger.jobs.get(lane.job_id)
        if job is None or lane.late:
            return None
        means = self._means(job)
        if lane.is_for_url:
            subject = telling.owed_to_url(job)
            found = telling.url_channels(means)
        else:
            subject = telling.owed(job, means, lane.first)
            if subject is None:
                return self._next_lossy(lane, job, means)
            found = telling.channels(job, subject, means)
        if subject is None:
            return None
        if isinstance(found, Obstacle):
            lane.obstacle = found
            return None
        return self._in_turn(lane, job, subject, found)

    def _next_lossy(self, lane: Lane, job: Job, means: Means) -> Telling | float | None:
        kind = Kind.FILE_RANGES_TRANSFERRED if lane.ranges else Kind.JOB_MODIFICATION
        if not lane.ranges and not lane.is_modified:
            return None
        index = next(iter(lane.ranges), None)
        subject = Subject(kind=kind, index=index, ranges=() if index is None else lane.ranges[index])
        found = telling.channels(job, subject, means)
        if isinstance(found, Obstacle) or not self._wants(job, kind):
            lane.is_modified = False
            lane.ranges.clear()
            return None
        due = lane.told_at.get(kind, float("-inf")) + job.settings.minimum_notification_interval_ms / 1000
        if due > _now():
            return due
        return self._in_turn(lane, job, subject, found)

    def _in_turn(self, lane: Lane, job: Job, subject: Subject, found: tuple[Channel, ...]) -> Telling | float | None:
        about = (subject.kind, subject.index)
        if lane.about != about:
            lane.begin_anew()
            lane.about = about
        if lane.again_at is not None and lane.again_at > _now():
            return lane.again_at
        channel = telling.next_channel(found, lane.failed)
        if channel is None:
            return self._end_round(lane, job)
        if channel is Channel.CALLBACK and not self.listeners.has_room(job.id):
            lane.obstacle = Obstacle.SILENT
            return None
        caller = self.listeners.account(job.id) if channel is Channel.CALLBACK else None
        uid = job.owner.identity.uid if caller is None else caller.identity.uid
        return Telling(job=job, subject=subject, channel=channel, uid=uid)

    def _end_round(self, lane: Lane, job: Job) -> float:
        lane.rounds += 1
        lane.again_at = _now() + telling.pause_s(job, lane.failed, lane.rounds)
        lane.failed.clear()
        return lane.again_at

    def _means(self, job: Job) -> Means:
        identity = job.owner.identity
        # What sort of account it is the configuration says as it is now.
        kind, _ = kind_of(identity.uid, job.owner.name, self._rules())
        return Means(
            callback=self.listeners.presence(job.id),
            owner_kind=kind,
            is_logged_on=self._is_logged_on(identity.uid, job.owner.kind),
            commands_forbidden=self._commands_forbidden() if job.notify_command is not None else "",
        )

    # --- telling ----------------------------------------------------------------------------------------------

    def _begin(self, uid: int, lane: Lane) -> None:
        """A lane has its turn; what it is for may be something else by now, or nothing."""
        lane.is_queued = False
        lane.is_busy = True
        self._tasks.start(f"notice {lane.job_id}", self._take_turn(uid, lane))

    async def _take_turn(self, uid: int, lane: Lane) -> None:
        try:
            decided = self._next(lane) if self._is_open else None
            if isinstance(decided, Telling) and decided.uid == uid:
                await self._tell(lane, decided)
        finally:
            lane.is_busy = False
            self._turns.done(uid)
        self._look(lane)

    async def _tell(self, lane: Lane, decided: Telling) -> None:
        job, subject, channel = decided.job, decided.subject, decided.channel
        if subject.kind is Kind.JOB_MODIFICATION:
            lane.is_modified = False
        elif subject.kind is Kind.FILE_RANGES_TRANSFERRED and subject.index is not None:
            lane.ranges.pop(subject.index, None)
        try:
            told = await self._carry(decided)
        except Gone:
            # Nobody has heard it: who comes next does.
            self._put_back(lane, subject)
            return
        except TimeoutError:
            self._put_back(lane, subject)
            limit_s = self._limits().callback_limit_s
            message = f"it did not answer within {limit_s} s, and counts as none until it does"
            silent = Told(error="ERROR_TIMEOUT", message=message)
            self._ledger.post(job.id, Noted(entries=notices.failed(job, subject, channel, silent, None)))
            return
        except WorkerGone:
            if not self._is_logged_on(job.owner.identity.uid, job.owner.kind):
                return
            told = Told(error="E_FAIL", message="the process that was to tell it ended in the middle")
        if subject.is_lossy:
            lane.told_at[subject.kind] = _now()
        if told.error:
            self._put_back(lane, subject)
            self._failed(lane, decided, told)
        else:
            await self._taken(lane, job, subject, channel, told)

    async def _carry(self, decided: Telling) -> Told:
        job, subject = decided.job, decided.subject
        match decided.channel:
            case Channel.CALLBACK:
                return await self.listeners.tell(job, subject, limit_s=float(self._limits().callback_limit_s))
            case Channel.BUS_NAME:
                return await self.messengers.call_bus_name(job, subject)
            case Channel.COMMAND:
                return await self.messengers.run_command(job)
            case Channel.WEBHOOK:
                return await self.messengers.post(job, subject)

    @staticmethod
    def _put_back(lane: Lane, subject: Subject) -> None:
        if subject.kind is Kind.JOB_MODIFICATION:
            lane.is_modified = True
        elif subject.kind is Kind.FILE_RANGES_TRANSFERRED and subject.index is not None:
            lane.ranges[subject.index] = merged((*lane.ranges.get(subject.index, ()), *subject.ranges))

    def _failed(self, lane: Lane, decided: Telling, told: Told) -> None:
        job, subject, channel = decided.job, decided.subject, decided.channel
        now = self._ledger.jobs.get(job.id)
        again_s = None
        if lane.about == (subject.kind, subject.index) and now is not None:
            lane.failed.add(channel)
            found = telling.url_channels(self._means(now)) if lane.is_for_url else None
            if found is None:
                found = telling.channels(now, subject, self._means(now))
            if isinstance(found, Obstacle) or telling.next_channel(found, lane.failed) is None:
                again_s = self._end_round(lane, now) - _now()
            lane.trouble = f"{told.error}: {told.message}" if told.message else told.error
        self._ledger.post(job.id, Noted(entries=notices.failed(job, subject, channel, told, again_s)))

    async def _taken(self, lane: Lane, job: Job, subject: Subject, channel: Channel, told: Told) -> None:
        """Write down that somebody has taken note; only then the next thing is told."""
        if subject.is_lossy:
            return
        if subject.kind is Kind.FILE_TRANSFERRED and subject.index is not None:
            lane.first = subject.index + 1
        entries = notices.taken(job, subject, channel, told)

        def write(draft: Draft) -> None:
            present = draft.get(job.id)
            # It may have failed again while somebody was told of the first time: that is news.
            if present is not None and stamp(present, subject) == stamp(job, subject):
                notice = telling.told(subject)
                if notice is not None:
                    draft.apply(job.id, NoticeTaken(notice=notice, by_webhook=channel is Channel.WEBHOOK))
                elif subject.index is not None:
                    draft.apply(job.id, FilesAnnounced(indices=(subject.index,)))
            if present is not None and entries:
                draft.apply(job.id, Noted(entries=entries))

        while True:
            try:
                await self._ledger.submit(write)
            except BitsError:
                # The store's disk is full. Nobody is told twice for that: this waits for room.
                await asyncio.sleep(RETRY_FULL_STORE_S)
            else:
                return

    def _answered_late(self, job_id: str, subject: Subject, told: Told) -> None:
        """A program that took too long has answered after all."""
        job = self._ledger.jobs.get(job_id)
        if job is not None and self._is_open:
            lane = self._lane(job_id)
            lane.late += 1
            self._tasks.start(f"late answer {job_id}", self._take_late(lane, job, subject, told))

    async def _take_late(self, lane: Lane, job: Job, subject: Subject, told: Told) -> None:
        try:
            if not told.error:
                await self._taken(lane, job, subject, Channel.CALLBACK, told)
        finally:
            lane.late -= 1
        self._look(lane)


def _now() -> float:
    return asyncio.get_running_loop().time()
