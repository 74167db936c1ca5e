"""Which protocol an upload speaks: what was asked for, what it has begun with, or what the server knows.

`auto` opens a BITS session, and where nobody understands that, asks by OPTIONS for others: so a BITS server costs no
request more.  A plain PUT, which cannot be resumed, is for those who ask for it.
"""

from __future__ import annotations

from typing import Final

from openbits.upload import bits, put
from openbits.upload.conversation import Conversation, Upload

PROTOCOLS: Final = ("auto", "bits", "tus", "ietf", "put")


def start(
    protocol: str, upload: Upload, memory: str, acknowledged_bytes: int, *, is_new_source: bool = False
) -> Conversation:
    """Make the conversation of one run; `memory` is what the last Keep of an earlier run said, or "".

    With `is_new_source` a session that the memory knows is ended first, as well as that goes, and all begins anew.
    """
    if protocol == put.PROTOCOL_NAME:
        return put.begin(upload)
    return bits.begin(upload, memory, acknowledged_bytes, is_new_source=is_new_source)
