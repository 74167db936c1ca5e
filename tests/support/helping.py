"""Helper tokens as a service uses them: the public client, impersonation, and a blanket on the options."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import openbits
from openbits import Cloaking, Job, JobType, Manager, TokenFlags, TokenOptions
from support.accounts import TestAccount
from support.daemon import Daemon, Process

LOCAL_FILE, NETWORK = TokenFlags.LOCAL_FILE, TokenFlags.NETWORK


@contextlib.contextmanager
def acting(account: TestAccount | None) -> Iterator[None]:
    """Make calls on objects with a dynamic blanket as an account; None: as the test itself."""
    if account is None:
        yield
        return
    with openbits.impersonate(account.name):
        yield


@dataclass(frozen=True, kw_only=True)
class Helped:
    """A job of an owner's (None: root's), and the options of its helper token; both are dynamically cloaked."""

    job: Job
    options: TokenOptions
    owner: TestAccount | None

    def help_by(self, helper: TestAccount | None, flags: TokenFlags | int | None = None) -> None:
        """Let an account give itself, and say for what (I18)."""
        with acting(helper):
            self.options.set_helper_token()
        if flags is not None:
            with acting(self.owner):
                self.options.set_helper_token_flags(flags)

    def add(self, url: str, path: str) -> None:
        """Add a file."""
        with acting(self.owner):
            self.job.add_file(url, path)

    def resume(self) -> None:
        """Resume the job."""
        with acting(self.owner):
            self.job.resume()

    def suspend(self) -> None:
        """Suspend the job."""
        with acting(self.owner):
            self.job.suspend()

    def complete(self) -> None:
        """Complete the job."""
        with acting(self.owner):
            self.job.complete()


def dynamic(proxy: object) -> None:
    """Let every call on an object be made as whoever makes it."""
    openbits.set_proxy_blanket(proxy, Cloaking.DYNAMIC)


def options_of(job: Job) -> TokenOptions:
    """The token options of a job; the caller must be its owner."""
    options = job.token_options()
    dynamic(options)
    return options


@contextlib.contextmanager
def helped_job(
    daemon: Daemon,
    owner: TestAccount | None = None,
    *,
    job_type: JobType = JobType.DOWNLOAD,
    **properties: object,
) -> Iterator[Helped]:
    """Make a suspended job without files; it is cancelled at the end of the `with` block, if it is still there."""
    with Manager(daemon.socket) as manager:
        dynamic(manager)
        with acting(owner):
            job = manager.create_job("helped", job_type)
            dynamic(job)
            for name, value in properties.items():
                job.set_property(name, value)
            helped = Helped(job=job, options=options_of(job), owner=owner)
        try:
            yield helped
        finally:
            with contextlib.suppress(openbits.BitsError), acting(owner):
                job.cancel()


def worker_of(daemon: Daemon, uid: int) -> Process:
    """The one worker of an account that lives now."""
    found = [worker for worker in daemon.workers() if worker.uids[0] == uid]
    assert len(found) == 1, f"{len(found)} workers have uid {uid}: {daemon.workers()}"
    return found[0]


def open_files(process: Process) -> list[str]:
    """What the descriptors of a process lead to."""
    found = []
    directory = f"/proc/{process.pid}/fd"
    for entry in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(os.path.join(directory, entry)))
    return found


def tcp_sockets(process: Process) -> int:
    """How many TCP connections a process has."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{process.pid}/net/{table}", encoding="ascii") as file:
            inodes |= {line.split()[9] for line in list(file)[1:]}
    # One that the kernel moves bytes from has two descriptors.
    return len({link for link in open_files(process) if link.startswith("socket:[") and link[8:-1] in inodes})
