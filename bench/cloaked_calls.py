"""`python -m bench.cloaked_calls SOCKET ACCOUNT ACCOUNT ROUNDS`: what a call costs, in µs, as JSON.

A process of its own, because a process that has impersonated stays one that cannot be looked into.  The kinds of calls
take turns, and each value is the median of a few calls of one kind: what disturbs the machine for a moment
disturbs all of them.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import openbits
from openbits import Cloaking
from openbits.client.accounts import identity_of
from openbits.client.impersonation import as_identity

CALLS_A_TURN = 20


def main() -> int:
    """Measure, and print how long a call of each kind took in each round."""
    path, first, second, rounds = sys.argv[1:]
    with openbits.Manager(path) as manager:
        kinds = _kinds(manager, first, second)
        taken_us: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(int(rounds) + 1):
            for name, call in kinds.items():
                if name == IMPERSONATING:
                    with openbits.impersonate(first):
                        median_us = _median_us(call)
                else:
                    median_us = _median_us(call)
                if number > 0:
                    # The first round opens the connections.
                    taken_us[name].append(median_us)
    print(json.dumps(taken_us))
    return 0


PLAIN = "plain call"
DYNAMIC = "dynamic, not impersonating"
IMPERSONATING = "dynamic, impersonating"
STATIC = "static, two identities in turn"
IN_TURN = "dynamic, in and out of two identities in turn"
BY_NAME = "the same by account name"
BLOCK = "in and out of an identity, without a call"


def _kinds(manager: openbits.Manager, first: str, second: str) -> Mapping[str, Callable[[], object]]:
    dynamic, statics = openbits.copy_proxy(manager), itertools.cycle([_static(manager, one) for one in (first, second)])
    openbits.set_proxy_blanket(dynamic, Cloaking.DYNAMIC)
    identities = itertools.cycle([identity_of(first), identity_of(second)])
    names = itertools.cycle([first, second])

    def in_turn() -> None:
        with as_identity(next(identities)):
            dynamic.version()

    def by_name() -> None:
        with openbits.impersonate(next(names)):
            dynamic.version()

    def block() -> None:
        with as_identity(next(identities)):
            pass

    return {
        PLAIN: manager.version,
        DYNAMIC: dynamic.version,
        IMPERSONATING: dynamic.version,
        STATIC: lambda: next(statics).version(),
        IN_TURN: in_turn,
        BY_NAME: by_name,
        BLOCK: block,
    }


def _static(manager: openbits.Manager, account: str) -> openbits.Manager:
    copy = openbits.copy_proxy(manager)
    with openbits.impersonate(account):
        openbits.set_proxy_blanket(copy, Cloaking.STATIC)
    return copy


def _median_us(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(CALLS_A_TURN):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


if __name__ == "__main__":
    sys.exit(main())
