"""Resumable Uploads for HTTP, draft-ietf-httpbis-resumable-upload-12 (interop version 8), as a dialect of `resumable`.

The resource is always created before any byte is sent ("careful upload creation"): interim answers (104) do not reach
us, and its address must be on the disk first.  The last piece says that it is the last one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from openbits.upload.conversation import Answered, Chunk, Send, Upload
from openbits.upload.packets import sendable_name
from openbits.upload.resumable import Limits

PROTOCOL_NAME: Final = "ietf"
INTEROP_VERSION: Final = "8"

_VERSION_HEADER: Final = ("Upload-Draft-Interop-Version", INTEROP_VERSION)
_MEDIA_TYPE: Final = "application/partial-upload"
_LIMIT: Final = re.compile(r"(?:^|,)[ \t]*(max-size|max-append-size|min-append-size)=([0-9]{1,15})(?=[ \t]*(?:,|;|$))")


@dataclass(frozen=True, slots=True)
class Ietf:
    """What the draft calls things."""

    name: str = PROTOCOL_NAME

    def create(self, upload: Upload, url: str) -> Send:
        """POST without content, which announces the size and the name (section 4.2)."""
        headers = [_VERSION_HEADER, ("Upload-Complete", "?0"), ("Upload-Length", str(upload.size))]
        if plain := sendable_name(upload.name):
            # The plain form never needs quoting beyond this: what would, is an underscore.
            disposition = f'inline; filename="{plain}"'
            if plain != upload.name:
                disposition += f"; filename*=UTF-8''{quote(upload.name.encode('utf-8', 'replace'), safe='')}"
            headers.append(("Content-Disposition", disposition))
        return Send(method="POST", url=url, headers=tuple(headers))

    def ask(self, location: str) -> Send:
        """HEAD (section 4.3)."""
        return Send(method="HEAD", url=location, headers=(_VERSION_HEADER,))

    def append(self, location: str, upload: Upload, chunk: Chunk) -> Send:
        """PATCH (section 4.4)."""
        is_last = chunk.offset + chunk.length == upload.size
        headers = (
            _VERSION_HEADER,
            ("Upload-Complete", "?1" if is_last else "?0"),
            ("Content-Type", _MEDIA_TYPE),
            ("Upload-Offset", str(chunk.offset)),
        )
        return Send(method="PATCH", url=location, headers=headers, body=chunk if chunk.length else None)

    def cancel(self, location: str) -> Send:
        """DELETE (section 4.5)."""
        return Send(method="DELETE", url=location, headers=(_VERSION_HEADER,), ends_session=True)

    def is_complete(self, answer: Answered, offset: int, upload: Upload) -> bool:
        """Whether the server says so: that all bytes are there does not end the upload."""
        return offset == upload.size and _says_complete(answer)

    def is_of_the_content(self, answer: Answered) -> bool:
        """Whether an error comes from what processes the file (section 4.4.1)."""
        return _says_complete(answer)

    def limits(self, answer: Answered) -> Limits:
        """Upload-Limit (section 4.1.4); a member that is no number is left out."""
        found = {match[1]: int(match[2]) for match in _LIMIT.finditer(answer.get("upload-limit") or "")}
        return Limits(
            largest=found.get("max-size"), most=found.get("max-append-size"), least=found.get("min-append-size", 0)
        )


def is_offered(answer: Answered) -> bool:
    """Whether an answer to OPTIONS is that of a server that speaks some version of the draft."""
    patches = {value.partition(";")[0].strip().lower() for value in (answer.get("accept-patch") or "").split(",")}
    signs = (answer.get("upload-limit"), answer.get("upload-draft-interop-version"))
    return _MEDIA_TYPE in patches or any(sign is not None for sign in signs)


def _says_complete(answer: Answered) -> bool:
    return (answer.get("upload-complete") or "").strip() == "?1"
