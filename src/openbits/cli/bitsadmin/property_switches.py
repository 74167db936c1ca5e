"""The switches for what a job is told and what is told of it (inventory B22 to B39), as data."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.switches import Switch

PROPERTY_SWITCHES: Final[tuple[Switch, ...]] = ()
