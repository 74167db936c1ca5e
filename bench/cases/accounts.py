"""Several accounts download at the same time, each by its own foreground job, from one system service."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import tempfile
from collections.abc import Iterator, Sequence

from bench import places
from bench.comparing import Contender, compare
from bench.context import Context, need_root, size_text
from bench.product import Service, Setup, make_directory, service
from bench.results import Result, wall_ratio
from bench.running import BenchError, Command, Sample, measure, run


def several_accounts(context: Context) -> Result:
    """One `bits get` for each account against one `curl --parallel` for all."""
    need_root("makes accounts")
    amounts = context.amounts
    with contextlib.ExitStack() as stack:
        digests = stack.enter_context(_files(context))
        accounts = stack.enter_context(temporary_accounts(amounts.accounts))
        setup = Setup(directory=make_directory(context.places.disk), mode="system")
        fetching = _Fetching(context, accounts, digests, stack.enter_context(service(setup)))
        contenders = [
            Contender(name=f"{len(accounts)} × bits get", run=fetching.ours),
            Contender(name="curl --parallel", run=fetching.curl),
        ]
        lines = compare(contenders, runs=amounts.runs)
    return Result(
        key="accounts",
        title=(
            f"{amounts.accounts} foreground jobs of {size_text(amounts.account_file_bytes)} "
            f"for {amounts.accounts} accounts, to tmpfs"
        ),
        lines=lines,
        reference=lines[1],
        goals=[wall_ratio(lines[0], lines[1], 0.8)],
        remarks=["The wall time holds the start of all the commands; curl is one process, as one account."],
    )


@contextlib.contextmanager
def _files(context: Context) -> Iterator[Sequence[str]]:
    directory = os.path.join(context.origin.root, "each")
    os.mkdir(directory)
    try:
        yield [
            places.make_file(os.path.join(directory, str(number)), context.amounts.account_file_bytes)
            for number in range(context.amounts.accounts)
        ]
    finally:
        for entry in os.scandir(directory):
            os.unlink(entry.path)
        os.rmdir(directory)


@contextlib.contextmanager
def temporary_accounts(count: int) -> Iterator[Sequence[pwd.struct_passwd]]:
    """Make accounts, and remove them in the end."""
    with contextlib.ExitStack() as stack:
        names = [f"obbench{secrets.token_hex(4)}" for _ in range(count)]
        for name in names:
            options = ["--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
            run(Command(arguments=["useradd", *options, name]))
            stack.callback(run, Command(arguments=["userdel", "--force", name]))
        yield [pwd.getpwnam(name) for name in names]


class _Fetching:
    """All the files at once, each into the directory of its account."""

    def __init__(
        self, context: Context, accounts: Sequence[pwd.struct_passwd], digests: Sequence[str], running: Service
    ) -> None:
        self._context = context
        self._accounts = accounts
        self._digests = digests
        self._service = running

    def ours(self, check: bool) -> Sample:
        """One command for each account."""
        with self._targets() as downloads:
            commands = [
                self._service.bits("get", "-q", "-o", path, url, account=account)
                for account, (url, path) in zip(self._accounts, downloads, strict=True)
            ]
            sample = measure(commands, background=self._service.pid)
            self._check(downloads, check)
            for account, (_, path) in zip(self._accounts, downloads, strict=True):
                if os.stat(path).st_uid != account.pw_uid:
                    raise BenchError(f"{path} does not belong to {account.pw_name}")
            return sample

    def curl(self, check: bool) -> Sample:
        """One command for all."""
        with self._targets() as downloads:
            files = [argument for url, path in downloads for argument in ("-o", path, url)]
            options = ["--parallel", "--parallel-immediate", "--parallel-max", str(len(downloads))]
            sample = measure([Command(arguments=["curl", "-sSf", *options, *files])])
            self._check(downloads, check)
            return sample

    @contextlib.contextmanager
    def _targets(self) -> Iterator[list[tuple[str, str]]]:
        with tempfile.TemporaryDirectory(prefix="d-", dir=self._context.places.memory) as parent:
            os.chmod(parent, 0o755)
            places.touch_memory(parent, len(self._accounts) * self._context.amounts.account_file_bytes)
            downloads = []
            for number, account in enumerate(self._accounts):
                directory = os.path.join(parent, str(number))
                os.mkdir(directory, 0o700)
                os.chown(directory, account.pw_uid, account.pw_gid)
                downloads.append((f"{self._context.origin.http_url}/each/{number}", os.path.join(directory, "file")))
            yield downloads

    def _check(self, downloads: Sequence[tuple[str, str]], thoroughly: bool) -> None:
        for digest, (_, path) in zip(self._digests, downloads, strict=True):
            if os.path.getsize(path) != self._context.amounts.account_file_bytes:
                raise BenchError(f"{path} has the wrong size")
            if thoroughly and places.sha256_of(path) != digest:
                raise BenchError(f"{path} has the wrong content")
