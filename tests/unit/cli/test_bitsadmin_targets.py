"""Which job a word on bitsadmin's command line means (section 9)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from openbits.cli.bitsadmin.targets import find_job
from openbits.client.session import Session
from openbits.errors import BitsError

GUID = "0f0e0d0c-1111-4222-8333-444455556666"


class NoJobs:
    """A session with a service that has none."""

    def perform(self, call: Any) -> list[Any]:
        return []


@pytest.mark.parametrize(("word", "hint"), [(GUID, f"in braces, {{{GUID.upper()}}}"), ("update", "'bitsadmin /list'")])
def test_what_is_not_found_says_how_it_would_be(word: str, hint: str) -> None:
    with pytest.raises(BitsError) as raised:
        find_job(cast("Session", NoJobs()), word)
    assert raised.value.name == "BG_E_NOT_FOUND"
    assert hint in raised.value.message
