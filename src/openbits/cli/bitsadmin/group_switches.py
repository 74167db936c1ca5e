"""The switches behind /util, /peercaching, /cache and /peers (inventory B40 to B47), as data."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.switches import Switch

GROUP_SWITCHES: Final[tuple[Switch, ...]] = ()
