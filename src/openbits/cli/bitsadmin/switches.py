"""What a switch of `bitsadmin` is, and how one is found: a table of data, so that help, tests and docs cannot differ.

A row names the function that carries its switch out, and the module is loaded with the switch it is for. The rows
stand in `job_switches` (inventory B1 to B21), `property_switches` (B22 to B39) and `group_switches` (B40 to B47).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from openbits.cli.bitsadmin.invocation import Invocation

PACKAGE: Final = "openbits.cli.bitsadmin"
ANYWHERE: Final = 1_000_000
"""More arguments than a command line has: the options of the switch may stand before and behind all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One row: a switch, its arguments, its line in the help, and the function that carries it out."""

    name: str
    """In lower case, with its slash: `/addfile`."""
    row: str
    """Where the inventory has it: `B8`."""
    help: str
    function: str
    """`module.function` in this package; the function takes an Invocation."""
    aliases: tuple[str, ...] = ()
    """Other names that manuals give it."""
    group: str = ""
    """The switch before it, for the lists of their own: `/util`, `/peercaching`, `/cache`, `/peers`."""
    syntax: str = ""
    """The arguments as the help shows them: `<job> <remote_url> <local_name>`."""
    arguments: tuple[int, int] = (0, 0)
    """The fewest and the most arguments, options not counted."""
    options: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    """Its options in lower case, and whether a value follows: `{"/refresh": True}`."""
    options_until: int = ANYWHERE
    """How many arguments may stand before an option: behind them `/download` is the path of a file."""
    is_raw: bool = False
    """Whether /rawreturn counts: /create and the switches that get something."""
    starts_service: bool = False
    """Whether the user's service is started where none answers: for the switches that make a job."""
    action: str = ""
    """What could not be done, behind `Unable to`, where the function does not say it more exactly."""
    needs: str = ""
    """Who may do it, where not everybody may: `an administrator`."""
    details: tuple[str, ...] = ()
    """Further lines of help."""

    @property
    def full_name(self) -> str:
        """The switch with the one before it: `/util /version`."""
        return f"{self.group} {self.name}".lstrip()

    def load(self) -> Callable[[Invocation], Any]:
        """Import the function."""
        import importlib  # noqa: PLC0415 - loaded with the switch it is for

        module, _, name = self.function.rpartition(".")
        function: Callable[[Invocation], Any] = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
        return function


GROUPS: Final = ("/util", "/peercaching", "/cache", "/peers")
HELP_NAMES: Final = frozenset({"/help", "/?", "--help", "-h"})


def all_switches() -> Iterator[Switch]:
    """Return the whole table in the order of the help."""
    from openbits.cli.bitsadmin.group_switches import GROUP_SWITCHES  # noqa: PLC0415 - they import Switch from here
    from openbits.cli.bitsadmin.job_switches import JOB_SWITCHES  # noqa: PLC0415
    from openbits.cli.bitsadmin.property_switches import PROPERTY_SWITCHES  # noqa: PLC0415

    yield from JOB_SWITCHES
    yield from PROPERTY_SWITCHES
    yield from GROUP_SWITCHES


def find(name: str, group: str = "") -> Switch | None:
    """Return the switch with this name, in capitals or not."""
    wanted = name.lower()
    return next((one for one in all_switches() if wanted in (one.name, *one.aliases) and one.group == group), None)
