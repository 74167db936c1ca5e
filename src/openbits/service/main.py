"""The program `bitsd-service`: started by the monitor, gives up its rights, then keeps the queue.

Everything is imported before rights are given up: the program may stand where its account cannot read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from openbits import privileges
from openbits.api.handlers import Handlers
from openbits.api.peer import Accounts
from openbits.api.server import ApiServer, listen
from openbits.core import eventlog
from openbits.frames.channel import Channel
from openbits.frames.monitor import MONITOR_TO_SERVICE, SERVICE_TO_MONITOR, ServiceStopping
from openbits.service.configuration import (
    Configuration,
    ConfigurationError,
    read_configuration_if_any,
)
from openbits.service.journal import tell_of_failure
from openbits.service.policyfiles import PolicyFileError, directory_beside
from openbits.service.runtime import Runtime
from openbits.service.secrets import KEY_BYTES, Secrets
from openbits.store.store import StoreError
from openbits.title import set_title

log = logging.getLogger("openbits.service")

EXIT_CONFIGURATION = 78
"""EX_CONFIG: starting again will not help."""
EXIT_FAILED = 1
STOP_TIMEOUT_S = 18.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit status."""
    options = _options(arguments)
    set_title("bitsd-service")
    os.umask(0o077)
    if options.mode == "system":
        # What the configuration may ask for has to be here before anybody may read the configuration.
        importlib.import_module("openbits.service.logon.logind")
    identity = privileges.Identity.parse(options.identity)
    privileges.become(identity.uid, identity.gid, identity.groups)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="bitsd-service: %(levelname)s %(message)s")
    channel = Channel(socket.socket(fileno=options.channel), outgoing=SERVICE_TO_MONITOR, incoming=MONITOR_TO_SERVICE)
    try:
        return asyncio.run(_serve(options, channel))
    except (ConfigurationError, PolicyFileError) as error:
        log.error("action=configuration-refused error=%s", error)
        tell_of_failure(eventlog.FAILED_TO_START, f"the service cannot start: {error}", EXIT_CONFIGURATION)
        return _tell_and_return(channel, EXIT_CONFIGURATION)
    except StoreError as error:
        log.error("action=store-refused error=%s", error)
        tell_of_failure(eventlog.FAILED_TO_START, f"the service cannot start: {error}", EXIT_FAILED)
        return EXIT_FAILED


def _tell_and_return(channel: Channel, status: int) -> int:
    channel.send(ServiceStopping(exit_status=status))
    return status


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bitsd-service", description="Started by bitsd, not by hand.")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--mode", choices=("system", "user"), required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--runtime-dir", required=True)
    parser.add_argument("--listen-fd", type=int, default=None)
    parser.add_argument("--key-fd", type=int, required=True)
    parser.add_argument("--key-source", required=True)
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace, channel: Channel) -> int:
    loop = asyncio.get_running_loop()
    configuration = _read(options.config)
    ended: asyncio.Future[int] = loop.create_future()

    def give_up(reason: str) -> None:
        log.critical("action=give-up reason=%s", reason)
        if not ended.done():
            tell_of_failure(eventlog.SERVICE_FAILED, f"the service has failed, and begins anew: {reason}", EXIT_FAILED)
            ended.set_result(EXIT_FAILED)

    def stop() -> None:
        if not ended.done():
            ended.set_result(0)

    runtime = Runtime(
        configuration=configuration,
        state_directory=options.state_dir,
        monitor=channel,
        give_up=give_up,
        secrets=_secrets(options),
        is_system=options.mode == "system",
        policy_directory=directory_beside(options.config),
    )
    server, listener = _server(options, runtime)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, options.config, runtime)
    await runtime.start()
    await server.start(listener)
    path = os.path.join(options.runtime_dir, "bitsd.sock")
    runtime.pool.announce_ready(path)
    log.info("action=ready socket=%s jobs=%d", path, len(runtime.ledger.jobs))
    status = await ended
    if status != 0:
        return status
    log.info("action=stop")
    # Streams would go on for ever, and the server waits for what it has begun to answer.
    runtime.feed.close()
    runtime.validators.close()
    runtime.notifications.close()
    await server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await runtime.stop(status)
    return status


def _secrets(options: argparse.Namespace) -> Secrets:
    """The key, by the descriptor that the monitor gave; nothing of it is left for others to find."""
    key = os.pread(options.key_fd, KEY_BYTES, 0)
    os.close(options.key_fd)
    return Secrets(key, options.key_source)


def _server(options: argparse.Namespace, runtime: Runtime) -> tuple[ApiServer, socket.socket]:
    accounts = Accounts(lambda: runtime.account_rules, runtime.conditions.administrators_gid)
    limits = runtime.configuration.api
    handlers = Handlers(runtime.services, accounts, mode=options.mode, read_timeout_s=float(limits.read_timeout_s))
    runtime.notifications.messengers.body_of = handlers.url_body
    if options.listen_fd is not None:
        sock = socket.socket(fileno=options.listen_fd)
    else:
        sock = listen(os.path.join(options.runtime_dir, "bitsd.sock"))
    return ApiServer(handlers, accounts, limits), sock


def _read(path: str) -> Configuration:
    configuration = read_configuration_if_any(path)
    for warning in configuration.warnings():
        log.warning("action=configuration-warning text=%s", warning)
    return configuration


def _reload(path: str, runtime: Runtime) -> None:
    try:
        runtime.reload(_read(path))
    except ConfigurationError as error:
        # What is in force stays in force.
        log.error("action=reload-refused error=%s", error)
    else:
        log.info("action=reloaded config=%s", path)
    # Each by itself: one that is wrong keeps the other from nothing.
    with contextlib.suppress(PolicyFileError):
        runtime.policies.reload()


if __name__ == "__main__":
    sys.exit(main())
