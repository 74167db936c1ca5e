"""tus 1.0.0 (core protocol, creation, termination), as a dialect of `resumable`.

The remote name is the address that makes uploads, or a file's in the directory that does; the server chooses the
address of the file, and hears its name in Upload-Metadata.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from openbits.upload.conversation import Answered, Chunk, Send, Upload
from openbits.upload.resumable import Limits

PROTOCOL_NAME: Final = "tus"
VERSION: Final = "1.0.0"

_VERSION_HEADER: Final = ("Tus-Resumable", VERSION)


@dataclass(frozen=True, slots=True)
class Tus:
    """What tus calls things."""

    name: str = PROTOCOL_NAME

    def create(self, upload: Upload, url: str) -> Send:
        """POST, with the size and the name; some servers insist on a type as well."""
        metadata = f"filename {_encoded(upload.name or 'file')},filetype {_encoded('application/octet-stream')}"
        headers = (_VERSION_HEADER, ("Upload-Length", str(upload.size)), ("Upload-Metadata", metadata))
        return Send(method="POST", url=url, headers=headers)

    def ask(self, location: str) -> Send:
        """HEAD."""
        return Send(method="HEAD", url=location, headers=(_VERSION_HEADER,))

    def append(self, location: str, _upload: Upload, chunk: Chunk) -> Send:
        """PATCH; the server knows the size, and so the end."""
        headers = (
            _VERSION_HEADER,
            ("Content-Type", "application/offset+octet-stream"),
            ("Upload-Offset", str(chunk.offset)),
        )
        return Send(method="PATCH", url=location, headers=headers, body=chunk if chunk.length else None)

    def cancel(self, location: str) -> Send:
        """DELETE, which servers need not know."""
        return Send(method="DELETE", url=location, headers=(_VERSION_HEADER,), ends_session=True)

    def is_complete(self, _answer: Answered, offset: int, upload: Upload) -> bool:
        """Whether all bytes are there: then the upload has ended."""
        return offset == upload.size

    def is_of_the_content(self, _answer: Answered) -> bool:
        """Never: tus does not tell."""
        return False

    def limits(self, _answer: Answered) -> Limits:
        """None: Tus-Max-Size is only in answers to OPTIONS, and a file that is too large is answered by 413."""
        return Limits()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def is_offered(answer: Answered) -> bool:
    """Whether an answer to OPTIONS is that of a tus server that speaks our version."""
    versions = answer.get("tus-version") or answer.get("tus-resumable") or ""
    return VERSION in (version.strip() for version in versions.split(","))
