"""What it costs that a call carries the identity of the thread that makes it."""

from __future__ import annotations

import json
import sys

from bench import cloaked_calls
from bench.cases.accounts import temporary_accounts
from bench.context import Context, need_root
from bench.product import Setup, make_directory, service
from bench.results import Figure, Goal, Result
from bench.running import Command, run


def cloaked(context: Context) -> Result:
    """The same call without cloaking, with it, and from one identity to the other."""
    need_root("may be everybody")
    setup = Setup(directory=make_directory(context.places.disk), mode="system")
    with temporary_accounts(2) as accounts, service(setup) as running:
        names = [account.pw_name for account in accounts]
        command = [sys.executable, "-m", "bench.cloaked_calls", running.socket_path, *names]
        taken_us = json.loads(run(Command(arguments=[*command, str(context.amounts.call_rounds)])))
    figures = {name: Figure(name=name, values=values, unit="µs") for name, values in taken_us.items()}
    plain = figures[cloaked_calls.PLAIN].value
    return Result(
        key="cloaking",
        title=f"One small call by the Python client, medians of {context.amounts.call_rounds} rounds",
        figures=list(figures.values()),
        goals=[
            Goal(what=f"{name} / {cloaked_calls.PLAIN}", value=figures[name].value / plain, limit=2, unit="×")
            for name in (
                cloaked_calls.DYNAMIC,
                cloaked_calls.IMPERSONATING,
                cloaked_calls.STATIC,
                cloaked_calls.IN_TURN,
            )
        ],
        remarks=[
            "What costs is to become somebody else and to come back; a call as somebody else costs what any call costs."
        ],
    )
