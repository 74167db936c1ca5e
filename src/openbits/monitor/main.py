"""`bitsd`: the command line of the daemon, and the order in which it sets itself up.

The rule: what needs root's power comes first; then that power goes, before the first byte from another
program is read.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Sequence
from typing import Final

from openbits import privileges
from openbits.monitor import keys, lock, places
from openbits.monitor.accounts import AccountDatabase, IdentityRule, OwnRule, SystemRule
from openbits.monitor.children import Program
from openbits.monitor.keys import Key
from openbits.monitor.log import StartError, say
from openbits.monitor.places import Mode, Places
from openbits.monitor.startup import Notifier, take_listener
from openbits.monitor.supervisor import Supervisor
from openbits.privileges import Capability, Identity
from openbits.title import set_title
from openbits.version import __version__

SERVICE_ACCOUNT: Final = "openbits"
SERVICE_COMMAND: Final = (sys.executable, "-I", "-m", "openbits.service.main")
ZYGOTE_COMMAND: Final = (sys.executable, "-I", "-m", "openbits.worker.zygote")

_MONITOR_CAPABILITIES: Final = frozenset({Capability.SETUID, Capability.SETGID, Capability.KILL})
_SERVICE_CAPABILITIES: Final = frozenset({Capability.SETUID, Capability.SETGID})
# The kernel sends a parent-death signal with the rights of the parent that dies: a zygote that
# may not kill would leave its workers behind.
_ZYGOTE_CAPABILITIES: Final = _MONITOR_CAPABILITIES
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(
    arguments: Sequence[str] | None = None,
    *,
    service_command: tuple[str, ...] = SERVICE_COMMAND,
    zygote_command: tuple[str, ...] = ZYGOTE_COMMAND,
) -> int:
    """Run the daemon; return its exit status. Only tests have it start other programs."""
    options = _parser().parse_args(arguments)
    mode = options.mode or (Mode.SYSTEM if os.geteuid() == 0 else Mode.USER)
    try:
        chosen = places.choose(
            mode, config=options.config, state_dir=options.state_dir, runtime_dir=options.runtime_dir
        )
        return serve(chosen, service_command=service_command, zygote_command=zygote_command)
    except StartError as error:
        say(str(error))
        return error.exit_status


def serve(chosen: Places, *, service_command: tuple[str, ...], zygote_command: tuple[str, ...]) -> int:
    """Set the daemon up and run it with these programs. Raises StartError."""
    _open_standard_descriptors()
    set_title("bitsd", " ".join(["bitsd", *sys.argv[1:]]))
    notifier = Notifier(os.environ)
    listener_fd = take_listener(os.environ)
    os.umask(0o022)
    os.chdir("/")
    account, home = _service_account(chosen.mode)
    places.prepare(chosen, account)
    lock_fd = lock.take(chosen, account)
    key = keys.provide(chosen, os.environ)
    _check_programs_readable()
    rule = _identity_rule(chosen.mode, account)
    _drop_rights(chosen.mode)
    listener = () if listener_fd is None else ("--listen-fd", str(listener_fd))
    is_system = chosen.mode is Mode.SYSTEM
    service = Program(
        name="service",
        command=(*service_command, *_service_options(chosen, account, key), *listener),
        # Where the bus is that tells who is logged on: a machine, or a test, may have it elsewhere.
        environment=_environment(home, "DBUS_SYSTEM_BUS_ADDRESS", "OPENBITS_JOURNAL_SOCKET"),
        capabilities=_SERVICE_CAPABILITIES if is_system else frozenset(),
        inherited=(lock_fd, key.fd) if listener_fd is None else (lock_fd, key.fd, listener_fd),
    )
    zygote = Program(
        name="zygote",
        command=zygote_command,
        # Its workers are of many accounts; nobody's home is a safer place to look for files than a wrong one.
        # Workers log on to the network as the machine's Kerberos configuration says, wherever that is.
        # An account's own service has the tickets of the session that started it.
        # And of the system's message bus a machine, or a test, may have another one.
        environment=_environment(
            "/" if is_system else home,
            "DBUS_SYSTEM_BUS_ADDRESS",
            "KRB5_CONFIG",
            *(() if is_system else ("KRB5CCNAME",)),
        ),
        capabilities=_ZYGOTE_CAPABILITIES if is_system else frozenset(),
    )
    return Supervisor(service=service, zygote=zygote, rule=rule, notifier=notifier).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitsd",
        description="The Background Intelligent Transfer Service. Runs until it is told to stop.",
        epilog="SIGTERM stops the service in order, SIGHUP has it read its configuration again.",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--system",
        dest="mode",
        action="store_const",
        const=Mode.SYSTEM,
        help="work for every account of this machine (the default for root)",
    )
    modes.add_argument(
        "--user",
        dest="mode",
        action="store_const",
        const=Mode.USER,
        help="work for the own account (the default for everybody else)",
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration file (default: /etc/openbits/bitsd.toml)")
    parser.add_argument("--state-dir", metavar="DIR", help="where jobs are kept (default: /var/lib/openbits)")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where the socket stands (default: /run/openbits)")
    parser.add_argument("--version", action="version", version=f"bitsd {__version__}")
    return parser


def _open_standard_descriptors() -> None:
    """Keep files that are opened later from becoming stdin, stdout or stderr of a program."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _service_account(mode: Mode) -> tuple[Identity, str]:
    """Return who the service is to be, and its home."""
    if mode is Mode.USER:
        identity = privileges.current_identity()
        if identity is None:
            raise StartError("bitsd must not be a set-user-id program")
        return identity, os.environ.get("HOME") or os.path.expanduser("~")
    if _MONITOR_CAPABILITIES - privileges.capabilities():
        raise StartError("bitsd --system must be started by root; an account's own service is bitsd --user")
    try:
        entry = pwd.getpwnam(SERVICE_ACCOUNT)
    except KeyError:
        raise StartError(
            f"there is no account {SERVICE_ACCOUNT} for the service: 'make install-system' makes it, "
            f"or systemd-sysusers with packaging/openbits.sysusers.conf"
        ) from None
    if entry.pw_uid == 0:
        raise StartError(f"the account {SERVICE_ACCOUNT} must not have the uid 0")
    groups = {entry.pw_gid, *os.getgrouplist(SERVICE_ACCOUNT, entry.pw_gid)}
    return Identity(entry.pw_uid, entry.pw_gid, tuple(sorted(groups))), entry.pw_dir


def _identity_rule(mode: Mode, account: Identity) -> IdentityRule:
    database = AccountDatabase()
    if mode is Mode.SYSTEM:
        return SystemRule(service_uid=account.uid, database=database)
    return OwnRule(account, database)


def _check_programs_readable() -> None:
    """See now what would be a riddle later: the programs are started by a root without its usual power."""
    package = os.path.dirname(os.path.dirname(places.__file__))
    for path in (sys.executable, package):
        pid = os.fork()
        if pid == 0:
            try:
                privileges.limit_capabilities(frozenset())
                os._exit(0 if os.access(path, os.R_OK | os.X_OK, effective_ids=True) else 1)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            raise StartError(f"{path} is closed to a root without capabilities: install OpenBITS where root owns it")


def _drop_rights(mode: Mode) -> None:
    privileges.adopt_orphans()
    privileges.limit_capabilities(_MONITOR_CAPABILITIES if mode is Mode.SYSTEM else frozenset())
    privileges.forbid_inspection()


def _service_options(chosen: Places, account: Identity, key: Key) -> tuple[str, ...]:
    return (
        "--mode",
        chosen.mode.value,
        "--identity",
        str(account),
        "--config",
        chosen.config,
        "--state-dir",
        chosen.state_dir,
        "--runtime-dir",
        chosen.runtime_dir,
        "--key-fd",
        str(key.fd),
        "--key-source",
        key.source,
    )


def _environment(home: str, *places: str) -> dict[str, str]:
    """Nothing of whoever started the daemon goes on: a proxy in root's shell is not a setting of the service.

    But `places`, names of variables that say where something of the machine is, and who the starter is decides.
    """
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": home}
    environment.update((name, os.environ[name]) for name in ("TZ", *places) if name in os.environ)
    return environment


if __name__ == "__main__":
    sys.exit(main())
