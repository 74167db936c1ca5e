"""The service put together: store, ledger, dispatcher, workers, conditions, and what flows between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openbits.core import eventlog
from openbits.core.blocking import is_blocked_by_policy, waits_for_policy
from openbits.core.events import (
    AskForPieces,
    BandwidthChanged,
    DeadlineReached,
    EndSession,
    Entry,
    FinishFiles,
    LogonChanged,
    NetworkChanged,
    ServiceStarted,
    StartRun,
    StopRun,
)
from openbits.core.lifecycle import LOG_OFF_PATIENCE_S, deadline
from openbits.core.model import AccountKind, Job, JobState
from openbits.errors import BitsError
from openbits.frames.channel import Channel
from openbits.service import journal
from openbits.service.analytic import AnalyticChannel
from openbits.service.audit import Audit
from openbits.service.bandwidth import Broker
from openbits.service.certificates import CertificateCalls
from openbits.service.clock import SteadyClock
from openbits.service.conditions import Conditions
from openbits.service.configuration import Configuration, account_rules
from openbits.service.credentials import CredentialCalls, ImplicitCredentials
from openbits.service.deadlines import Deadlines
from openbits.service.demand import DemandCalls
from openbits.service.dispatcher import Dispatcher
from openbits.service.farewells import Farewells
from openbits.service.feed import Feed
from openbits.service.headers import HeaderCalls
from openbits.service.health import Health
from openbits.service.helpertokens import HelperTokens
from openbits.service.intake import Intake
from openbits.service.journal import Journal, name_of_account
from openbits.service.ledger import RETRY_FULL_STORE_S, Committed, Ledger
from openbits.service.logon.logon import Logon
from openbits.service.logon.people import People
from openbits.service.logon.source import make_source
from openbits.service.manager import Manager, Parts
from openbits.service.messengers import Messengers
from openbits.service.mounts import Paths
from openbits.service.network import NetworkWatcher
from openbits.service.networkmanager import NetworkManager
from openbits.service.notifications import Notifications
from openbits.service.notifycommands import NotifyCommandCalls
from openbits.service.ownership import Ownership
from openbits.service.peercaching import PeerCaching
from openbits.service.policies import Policies, owners_of
from openbits.service.progress import ProgressNews
from openbits.service.proxies import AccountProxies
from openbits.service.refusals import check_limits
from openbits.service.runs import Conductor
from openbits.service.sealing import seal_old
from openbits.service.secrets import Secrets
from openbits.service.services import Services
from openbits.service.tasks import Tasks
from openbits.service.terms import Terms
from openbits.service.tickets import MachineTickets
from openbits.service.uploads import Replies
from openbits.service.validators import Validators
from openbits.service.workers import WorkerPool
from openbits.store.errors import StoreError
from openbits.store.interface import JobStore
from openbits.store.records import EventPrune
from openbits.store.store import OpenReport, Store

log = logging.getLogger(__name__)

FIRST_SEALED = 4
"""The version of the store in which nothing stands in clear that is secret."""


class Runtime:
    """One running service, from `start` to `stop`."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        state_directory: str,
        monitor: Channel,
        give_up: Callable[[str], None],
        secrets: Secrets,
        is_system: bool = True,
        policy_directory: str = "",
    ) -> None:
        self.configuration = configuration
        self._state_directory = state_directory
        self._give_up = give_up
        self._secrets = secrets
        self._tasks = Tasks(lambda name, error: give_up(f"{name}: {error!r}"))
        self._store, self.store_report = _open_store(state_directory)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._network = NetworkWatcher(asyncio.get_running_loop(), self._network_changed)
        self.account_rules = account_rules(configuration)
        """How accounts are sorted, by the configuration that is in force."""
        self._people = People(self.account_rules)
        self.logon = Logon(
            lambda on_change: make_source(
                configuration.logon.provider,
                is_system=is_system,
                tasks=self._tasks,
                on_change=on_change,
                bus_address=os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""),
            )
        )
        self.logon.observers.append(self._logon_changed)
        self.logon.concerned.append(self._owners)
        self.ledger = Ledger(
            store=self._store,
            writer=self._writer,
            environment=lambda: self.conditions.environment(),  # noqa: PLW0108 - they are not there yet
            committed=self._committed,
            prune=self._prune,
        )
        self._undone = self.ledger.load()
        self.clock = SteadyClock()
        self.policies = Policies(
            policy_directory,
            owners=owners_of(is_system=is_system),
            now=self.clock.now,
            configuration=lambda: self.configuration,
            on_change=self._policy_changed,
            record=self.ledger.record,
        )
        self.conditions = Conditions(
            configuration=lambda: self.configuration,
            policies=self.policies,
            logon=self.logon,
            has_network=lambda: self._network.has_network,
            now=self.clock.now,
        )
        self.feed = Feed()
        self.journal = Journal(os.environ.get(journal.VARIABLE, journal.SOCKET), name_of_account)
        self.broker = Broker(lambda: self.policies.in_force().limits)
        self.pool = WorkerPool(
            monitor,
            idle_s=configuration.worker.idle_s,
            tasks=self._tasks,
            monitor_gone=self._monitor_gone,
            is_away=self._is_away,
        )
        self.tokens = HelperTokens(self.ledger)
        self.logon.concerned.append(self.tokens.uids)
        self.tickets = MachineTickets(
            pool=self.pool,
            tasks=self._tasks,
            configuration=lambda: self.configuration.credentials,
            is_system=is_system,
        )
        implicit = ImplicitCredentials(lambda: self.configuration.credentials, self.tickets)
        network_manager = NetworkManager(tasks=self._tasks, address=os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""))
        self.proxies = AccountProxies(self.ledger, lambda: self.account_rules, network_manager.wpad_url)
        self.paths = Paths(self.pool)
        self.terms = terms = Terms(
            implicit=implicit, proxies=self.proxies, secrets=secrets, rules=lambda: self.account_rules
        )
        self.validators = Validators(self.ledger)
        self.notifications = Notifications(
            ledger=self.ledger,
            messengers=Messengers(
                pool=self.pool, tasks=self._tasks, terms=terms, limits=lambda: self.configuration.notifications
            ),
            tasks=self._tasks,
            limits=lambda: self.configuration.notifications,
            rules=lambda: self.account_rules,
            is_logged_on=self.logon.is_logged_on,
            commands_forbidden=self.conditions.commands_forbidden,
        )
        self.conductor = Conductor(
            pool=self.pool,
            tokens=self.tokens,
            terms=terms,
            validators=self.validators,
            broker=self.broker,
            configuration=configuration,
            tasks=self._tasks,
            jobs=self.ledger.jobs,
            post=self.ledger.post,
            settled=self._settled,
            moved=self._moved,
        )
        self.farewells = Farewells(
            pool=self.pool,
            tokens=self.tokens,
            terms=terms,
            validators=self.validators,
            configuration=lambda: self.configuration,
            environment=self.conditions.environment,
            tasks=self._tasks,
            post=self.ledger.post,
            settled=self._settled,
            run_ended=self.conductor.ended,
        )
        self.dispatcher = Dispatcher(
            limits=self.conditions.limits,
            now=self.clock.now,
            post=self.ledger.post,
            may_run=lambda job: self.logon.is_logged_on(job.owner.identity.uid, job.owner.kind),
        )
        self._deadlines = Deadlines(self.clock.now, self._deadline_reached)
        self._starting = True
        self._stopping = False
        intake = Intake(configuration=self.policies.effective, paths=self.paths, pool=self.pool)
        self.manager = self._make_manager(intake)
        self._progress = ProgressNews(feed=self.feed, jobs=self.ledger.jobs, received_bytes=self.manager.received_bytes)
        self.ownership = Ownership(
            ledger=self.ledger,
            conductor=self.conductor,
            pool=self.pool,
            paths=self.paths,
            tokens=self.tokens,
            tasks=self._tasks,
        )
        self.services = self._make_services(intake, is_system=is_system)

    def _make_manager(self, intake: Intake) -> Manager:
        return Manager(
            Parts(
                configuration=self.policies.effective,
                environment=self.conditions.environment,
                administrators_gid=self.conditions.administrators_gid,
                ledger=self.ledger,
                conductor=self.conductor,
                intake=intake,
                tokens=self.tokens,
                feed=self.feed,
                store=self._store,
                secrets=self._secrets,
                health=Health(
                    configuration=lambda: self.configuration,
                    state_directory=self._state_directory,
                    store_report=self.store_report,
                    jobs=self.ledger.jobs.values,
                    logon=self.logon,
                    has_network=lambda: self._network.has_network,
                    administrators_gid=self.conditions.administrators_gid,
                    pool=self.pool,
                    tickets=self.tickets,
                    terms=self.terms,
                    policies=self.policies,
                    journal=self.journal,
                ),
                background_running=lambda: self.dispatcher.background_running,
                statistics=self.statistics,
                limit_note=self.policies.limit_note,
            )
        )

    def _make_services(self, intake: Intake, *, is_system: bool) -> Services:
        return Services(
            analytic=AnalyticChannel(self.ledger, is_system=is_system),
            audit=Audit(store=self._store, jobs=self.ledger.jobs, name_of=name_of_account),
            certificates=CertificateCalls(self.ledger, self.pool),
            credentials=CredentialCalls(self.ledger, self._secrets),
            demand=DemandCalls(self.ledger, self.policies.effective),
            headers=HeaderCalls(self.ledger, self._secrets),
            notifications=self.notifications,
            notify_commands=NotifyCommandCalls(self.ledger),
            manager=self.manager,
            ownership=self.ownership,
            peer_caching=PeerCaching(self.ledger, lambda: self.policies.peer_caching, is_system=is_system),
            policies=self.policies,
            proxies=self.proxies,
            replies=Replies(
                ledger=self.ledger, conductor=self.conductor, intake=intake, tokens=self.tokens, pool=self.pool
            ),
            tokens=self.tokens,
            validators=self.validators,
        )

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what a former life has left, then run."""
        self._network.start()
        await self.logon.start()
        self._tasks.start("ledger", self.ledger.run())
        self._note_start()
        has_old = (self.store_report.migrated_from or FIRST_SEALED) < FIRST_SEALED
        for job_id, job in self.ledger.jobs.items():
            old = seal_old(self._secrets, job)
            if old is not None:
                has_old = True
                self.ledger.post(job_id, old)
            if job.state.is_active:
                self.ledger.post(job_id, ServiceStarted())
        self.tokens.service_started()
        with contextlib.suppress(BitsError):
            # Not for ever: where the store's disk is full, people must be able to see that.
            await self.ledger.submit(lambda _draft: None)
            if has_old:
                # Nothing else writes yet: whoever calls waits for this start.
                await asyncio.get_running_loop().run_in_executor(self._writer, _scrub, self._store)
        if self._network.has_network:
            self._end_waits_for_network()
        else:
            self._network_changed(False)
        for effect in self._undone:
            self.conductor.finish(effect)
        self._undone = []
        for job_id, job in self.ledger.jobs.items():
            if job.cancel_until is not None:
                self.farewells.start(job_id)
        self.ownership.take_up()
        self._apply_bandwidth()
        self.policies.start()
        # Only now, when it is known what there is: a job that ran before must not start before its betters.
        self._starting = False
        self._take_note(dict(self.ledger.jobs))
        self.notifications.start()

    def _note_start(self) -> None:
        """What administrators should know of this start (events 16391, 16397)."""
        moved = self.store_report.set_aside
        if moved is not None:
            text = f"the job list could not be read, and is {moved} now: {self.store_report.reason}"
            fields = (("set_aside", moved),)
            self.ledger.record(Entry(kind="store", text=text, event_id=eventlog.STORE_UNREADABLE, fields=fields))
        contradiction = check_limits(self.configuration.quotas)
        if contradiction is not None:
            self.ledger.record(contradiction)

    async def stop(self, exit_status: int) -> None:
        """Stop all transfers so that nothing received is lost, write everything down, tell the monitor."""
        self._stopping = True
        self.logon.close()
        self.policies.close()
        self.broker.stop()
        self.dispatcher.close()
        self.notifications.close()
        self._deadlines.close()
        self.feed.close()
        await self.conductor.stop_all()
        await self._settled("")
        self.tickets.close()
        self.pool.announce_stop(exit_status)
        self.pool.close()
        self._network.close()
        await self._tasks.cancel()
        self._writer.shutdown()
        self._store.close()
        self.journal.close()

    def reload(self, configuration: Configuration) -> None:
        """Let a new configuration take effect, for everything that starts from now on."""
        if configuration.logon != self.configuration.logon:
            log.warning("action=reload-incomplete key=logon.provider text=it takes effect at the next start")
        self.configuration = configuration
        self.account_rules = account_rules(configuration)
        self._people = People(self.account_rules)
        self.conditions.configuration_changed()
        self.conductor.configuration = configuration
        self._take_note(dict(self.ledger.jobs))
        self.notifications.look_again()

    # --- conditions -------------------------------------------------------------------------------------

    def _network_changed(self, connected: bool) -> None:
        log.info("action=network connected=%s", connected)
        for job_id, job in self.ledger.jobs.items():
            waits = job.state is JobState.TRANSIENT_ERROR
            if waits if connected else (job.state is JobState.QUEUED or job.state.is_active):
                self.ledger.post(job_id, NetworkChanged())
        if connected:
            self.farewells.try_again()
            self.notifications.network_is_back()

    def _end_waits_for_network(self) -> None:
        """The network came back while no service ran: nobody else tells those who wait for it, without a timer (R3)."""
        for job_id, job in self.ledger.jobs.items():
            if job.state is JobState.TRANSIENT_ERROR and job.retry_at is None:
                self.ledger.post(job_id, NetworkChanged())

    # --- policies (P1-P10) ----------------------------------------------------------------------------

    def _policy_changed(self) -> None:
        """Other limits, or other hours: they hold at once, for jobs that are under way, too."""
        if self._starting or self._stopping:
            return
        self.notifications.look_again()
        self.broker.limits_changed()
        self._apply_bandwidth()
        self._take_note(dict(self.ledger.jobs))

    def _apply_bandwidth(self) -> None:
        """Tell those jobs that have no bandwidth any more, or have some again (S5, S6)."""
        env = self.conditions.environment()
        for job_id, job in self.ledger.jobs.items():
            moves = job.state is JobState.QUEUED or job.state.is_active
            if (moves and is_blocked_by_policy(job, env)) or (
                waits_for_policy(job) and not is_blocked_by_policy(job, env)
            ):
                self.ledger.post(job_id, BandwidthChanged())

    # --- log-on (I2) --------------------------------------------------------------------------------------

    def _is_away(self, uid: int) -> bool:
        """Whether the account is that of a person who is logged off."""
        return not self.logon.is_logged_on(uid) and uid in self._people

    def _owners(self) -> set[int]:
        return {job.owner.identity.uid for job in self.ledger.jobs.values()}

    def _logon_changed(self, came: frozenset[int], went: frozenset[int]) -> None:
        """Stop what runs for those who went, and let the jobs of those who came wait for slots."""
        queued: dict[str, Job | None] = {}
        # Most people who come and go have no jobs, and others may have thousands.
        matters = any(owner.identity.uid in came or owner.identity.uid in went for owner in self.ledger.open_jobs)
        for job_id, job in self.ledger.jobs.items() if matters else ():
            uid = job.owner.identity.uid
            if job.owner.kind is not AccountKind.USER or (uid not in came and uid not in went):
                continue
            # A slot may have been granted, and that be on its way to the disk.
            if uid in went and (job.state.is_active or self.dispatcher.holds(job_id)):
                self.ledger.post(job_id, LogonChanged())
            if job.state is JobState.QUEUED:
                queued[job_id] = job
        self.tokens.logged_off(went)
        gone = {uid for uid in went if uid in self._people}
        self.conductor.interrupt(gone, LOG_OFF_PATIENCE_S)
        self.farewells.interrupt(gone)
        if came:
            self.farewells.try_again()
        for uid in gone:
            self.pool.account_left(uid)
        self.notifications.logon_changed(came, gone)
        if not self._starting:
            self.dispatcher.take_note(queued)

    def _monitor_gone(self, reason: str) -> None:
        # Without the monitor nobody could end us in an orderly way: what is durable is durable.
        log.error("action=monitor-gone reason=%s", reason)
        os._exit(1)

    def _prune(self) -> EventPrune:
        retention = self.configuration.retention
        return EventPrune(older_than=self.clock.now() - retention.events_s, keep=retention.max_events)

    # --- after a commit -------------------------------------------------------------------------------

    def _committed(self, committed: Committed) -> None:
        self.tokens.take_note(committed.before, committed.after)
        self.validators.take_note(committed.before, committed.after)
        self.notifications.take_note(committed.before, committed.after)
        for effect in committed.effects:
            match effect:
                case StopRun():
                    self.conductor.stop(effect)
                case StartRun():
                    if not self._stopping:
                        self.conductor.start(effect)
                case FinishFiles():
                    self.conductor.finish(effect)
                case AskForPieces():
                    self.conductor.ask(effect)
                case EndSession():
                    if not self._stopping:
                        self.farewells.start(effect.job_id)
        for job_id, job in committed.after.items():
            before = committed.before.get(job_id)
            if job is not None and before is not None and job.settings is not before.settings:
                self.conductor.change_priority(job_id, job.settings.priority)
        for event in committed.events:
            self.feed.publish(event)
            self.journal.write(event)
        if not self._starting and not self._stopping:
            self._take_note(committed.after)

    def _deadline_reached(self, job_id: str) -> None:
        job = self.ledger.jobs.get(job_id)
        due = deadline(job, self.conditions.environment()) if job is not None else None
        if due is not None and due <= self.clock.now():
            self.ledger.post(job_id, DeadlineReached())
        else:
            # It has moved since it was set.
            self._deadlines.set(job_id, due)

    def _take_note(self, jobs: Mapping[str, Job | None]) -> None:
        env = self.conditions.environment()
        for job_id, job in jobs.items():
            self._deadlines.set(job_id, deadline(job, env) if job is not None else None)
        self.dispatcher.take_note(jobs)

    async def _settled(self, job_id: str) -> Job | None:
        """Return a job when everything that was reported until now is written down."""
        while True:
            try:
                return await self.ledger.submit(lambda draft: draft.get(job_id))
            except BitsError:
                # The store's disk is full, and reports wait for room: so does this.
                await asyncio.sleep(RETRY_FULL_STORE_S)

    def _moved(self, job_id: str) -> None:
        self.notifications.progressed(job_id)
        self._progress.moved(job_id)

    # --- for people ---------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Counters, for people."""
        return {
            "jobs": len(self.ledger.jobs),
            "commits": self.ledger.commits,
            "workers_started": self.pool.started,
            "listeners": len(self.feed),
            **self.dispatcher.statistics(),
            **self.conductor.statistics(),
            **self.farewells.statistics(),
            **self.notifications.statistics(),
            **self.tickets.statistics(),
            **self.tokens.statistics(),
            **self.validators.statistics(),
            **self.broker.statistics(),
        }


def _scrub(store: JobStore) -> None:
    try:
        store.scrub()
    except StoreError as error:
        log.warning("action=scrub-failed error=%s", error)


def _open_store(directory: str) -> tuple[Store, OpenReport]:
    store, report = Store.open(directory)
    if report.set_aside is not None:
        log.error("action=store-set-aside name=%s reason=%s", report.set_aside, report.reason)
    return store, report
