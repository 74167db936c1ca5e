"""Watches the network of the namespace that it runs in, and says on standard output what it sees."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from openbits.service.network import NetworkWatcher


def say(what: str, **more: object) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


class Watcher(NetworkWatcher):
    """Says also when an answer changed nothing."""

    def _settled(self) -> None:
        super()._settled()
        say("asked", has=self.has_network)


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    loop = asyncio.get_running_loop()
    watcher = Watcher(loop, lambda has: say("change", has=has))
    watcher.start()
    over = loop.create_future()

    def command() -> None:
        match sys.stdin.readline().strip():
            case "statistics":
                say("statistics", **watcher.statistics())
            case _:
                loop.remove_reader(sys.stdin)
                over.set_result(None)

    loop.add_reader(sys.stdin, command)
    say("start", has=watcher.has_network, problem=watcher.problem)
    await over
    watcher.close()


if __name__ == "__main__":
    asyncio.run(main())
