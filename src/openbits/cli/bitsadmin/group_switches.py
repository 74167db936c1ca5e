"""The switches behind /util, /peercaching, /cache and /peers (inventory B40 to B47), as data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from openbits.cli.bitsadmin.switches import Switch

_VERBOSE: Final = MappingProxyType({"/verbose": False})
_CONNECTION: Final = MappingProxyType({"/conn": True})
_ADMINISTRATOR: Final = "an administrator"
_RECORD: Final = "<{record}>"
_NO_EFFECT: Final = ("Kept and shown, and without effect yet.",)
_ACCOUNTS: Final = (
    "<account> is LOCALSYSTEM, NETWORKSERVICE or LOCALSERVICE; /CONN NAME has no effect: there is one LAN."
)

UTILITIES: Final = (
    Switch(
        name="/version",
        row="B40",
        group="/util",
        syntax="[/VERBOSE]",
        options=_VERBOSE,
        help="Print the version of BITS whose interfaces there are",
        function="util.version",
        action="get the version",
        details=("/VERBOSE also prints the versions of the programs, and checks whether the service answers.",),
    ),
    Switch(
        name="/repairservice",
        row="B41",
        group="/util",
        syntax="[/FORCE]",
        options=MappingProxyType({"/force": False}),
        help="Check the service, start it if it does not run, and say what else to do",
        function="util.repair_service",
        action="repair the service",
        details=("/FORCE restarts it even if nothing is wrong. Starting it needs root and systemd. No job is lost.",),
    ),
    Switch(
        name="/setieproxy",
        row="B42",
        group="/util",
        syntax="<account> <usage> [parameters] [/CONN <name>]",
        arguments=(2, 4),
        options=_CONNECTION,
        help="Set the proxies that a service account's jobs use",
        function="util.set_account_proxy",
        action="set the proxy settings of the account",
        needs=_ADMINISTRATOR,
        details=(
            _ACCOUNTS,
            "<usage> is NO_PROXY, AUTODETECT, MANUAL_PROXY <proxy_list> [<bypass_list>], AUTOSCRIPT <url>, or RESET;",
            'proxies are divided by commas, hosts to reach without by spaces; NULL or "" for no such hosts.',
            "What an earlier usage was given is kept; RESET forgets it.",
        ),
    ),
    Switch(
        name="/getieproxy",
        row="B43",
        group="/util",
        syntax="<account> [/CONN <name>]",
        arguments=(1, 1),
        options=_CONNECTION,
        help="Print the proxies that a service account's jobs use",
        function="util.get_account_proxy",
        action="get the proxy settings of the account",
        needs=_ADMINISTRATOR,
        details=(_ACCOUNTS, "What was set for usages that are not active is printed too."),
    ),
    Switch(
        name="/enableanalyticchannel",
        row="B44",
        group="/util",
        syntax="TRUE|FALSE",
        arguments=(1, 1),
        help="Log events of the level verbose, or do not",
        function="util.enable_analytic_channel",
        action="switch the analytic channel",
        needs=_ADMINISTRATOR,
    ),
)

PEER_CACHING: Final = (
    Switch(
        name="/getconfigurationflags",
        row="B45",
        group="/peercaching",
        syntax="[<job>]",
        arguments=(0, 1),
        help="Print the machine's peer caching flags",
        function="peercaching.get_configuration_flags",
        is_raw=True,
        action="get the configuration flags",
        details=("They are the machine's, whatever job is named.",),
    ),
    Switch(
        name="/setconfigurationflags",
        row="B45",
        group="/peercaching",
        syntax="[<job>] <value>",
        arguments=(1, 2),
        help="Set the machine's peer caching flags",
        function="peercaching.set_configuration_flags",
        action="set the configuration flags",
        needs=_ADMINISTRATOR,
        details=("1: fetch from peers; 2: serve them; 4: no BranchCache. They are the machine's.", *_NO_EFFECT),
    ),
)


def _cache(
    name: str,
    text: str,
    function: str,
    *,
    syntax: str = "",
    is_verbose: bool = False,
    needs: str = "",
    details: tuple[str, ...] = (),
) -> Switch:
    count = 1 if syntax else 0
    return Switch(
        name=name,
        row="B46",
        group="/cache",
        syntax=f"{syntax} [/VERBOSE]".lstrip() if is_verbose else syntax,
        arguments=(count, count),
        options=_VERBOSE if is_verbose else MappingProxyType({}),
        help=text,
        function=f"peercaching.{function}",
        is_raw=name.startswith("/get"),
        action=(text[0].lower() + text[1:]).partition(",")[0],
        needs=needs,
        details=details,
    )


CACHE: Final = (
    _cache("/list", "List the cache", "list_records", is_verbose=True),
    _cache("/info", "Show a record of the cache", "show_record", syntax=_RECORD, is_verbose=True),
    _cache("/delete", "Delete a record of the cache", "delete_record", syntax=_RECORD, needs=_ADMINISTRATOR),
    _cache("/deleteurl", "Delete a URL from the cache", "delete_url", syntax="<url>", needs=_ADMINISTRATOR),
    _cache("/clear", "Clear the cache", "clear_records", needs=_ADMINISTRATOR),
    _cache("/getlimit", "Get the cache's limit, in percent of the disk", "get_limit"),
    _cache(
        "/setlimit",
        "Set the cache's limit, in percent of the disk",
        "set_limit",
        syntax="<percent>",
        needs=_ADMINISTRATOR,
        details=("1 to 80; 1 when nothing is said.", *_NO_EFFECT),
    ),
    _cache("/getexpirationtime", "Get the cache's expiration time, in seconds", "get_expiration_time"),
    _cache(
        "/setexpirationtime",
        "Set the cache's expiration time, in seconds",
        "set_expiration_time",
        syntax="<seconds>",
        needs=_ADMINISTRATOR,
        details=("86400 to 10368000; 7776000 when nothing is said.", *_NO_EFFECT),
    ),
)

PEERS: Final = tuple(
    Switch(
        name=name,
        row="B47",
        group="/peers",
        help=text,
        function=f"peercaching.{function}",
        action=text[0].lower() + text[1:],
        needs=needs,
    )
    for name, text, function, needs in (
        ("/list", "List the peers", "list_peers", ""),
        ("/discover", "Discover peers", "discover_peers", _ADMINISTRATOR),
        ("/clear", "Clear the list of peers", "clear_peers", _ADMINISTRATOR),
    )
)

GROUP_SWITCHES: Final[tuple[Switch, ...]] = (*UTILITIES, *PEER_CACHING, *CACHE, *PEERS)
