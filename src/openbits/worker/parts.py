"""The body of an answer that is one part of a file, or several between boundaries, as its bytes come (RFC 9110, 14).

The rule: every byte is handed on with the place in the remote file that its own Content-Range gives it, whatever was
asked for; an answer that does not say what it sends, or sends more than that, is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from openbits.core.http import InvalidAnswer, Response
from openbits.core.multipart import MultipartParser, PartBegins, boundary_of
from openbits.worker.answers import invalid_answer
from openbits.worker.failure import TransferError


class Parts:
    """That of one answer with the status 206.

    `on_part` is told of each part that begins how large its file is, as far as the part says so, and `on_bytes` what
    has come and for which place.
    """

    def __init__(
        self,
        response: Response,
        url: str,
        *,
        on_part: Callable[[int | None], None],
        on_bytes: Callable[[int, bytes], None],
    ) -> None:
        """Raises TransferError for a body that is none."""
        self._url = url
        self._on_part = on_part
        self._on_bytes = on_bytes
        self._position = 0
        self._left = 0
        if response.content_codings:
            raise TransferError(invalid_answer(url, "it sent parts of a compressed form of the file"))
        try:
            boundary = boundary_of(response.get("content-type"))
        except InvalidAnswer as error:
            raise TransferError(invalid_answer(url, str(error))) from None
        self._parser = None if boundary is None else MultipartParser(boundary)
        self._single = response.content_range if boundary is None else None

    def __repr__(self) -> str:
        return f"<Parts of {self._url}, {self._left} bytes left of one>"

    @property
    def total(self) -> int | None:
        """How large the file is, if the header of the answer says so: of several parts only each of them does."""
        return None if self._single is None else self._single.total

    def begin(self) -> None:
        """Take the answer. Raises TransferError."""
        if self._parser is not None:
            return
        part = self._single
        if part is None or part.first is None:
            raise TransferError(invalid_answer(self._url, "it does not say which part of the file it sends"))
        self._begin_part(part.first, part.length, part.total)

    def feed(self, data: bytes) -> None:
        """More of the body has come. Raises TransferError."""
        if self._parser is None:
            if len(data) > self._left:
                raise TransferError(invalid_answer(self._url, "it sent more bytes than it had said"))
            self._take(data)
            return
        try:
            for event in self._parser.feed(data):
                if isinstance(event, PartBegins):
                    part = event.content_range
                    assert part.first is not None
                    self._begin_part(part.first, part.length, part.total)
                else:
                    self._take(event.data)
        except InvalidAnswer as error:
            raise TransferError(invalid_answer(self._url, str(error))) from None

    @property
    def is_cut(self) -> bool:
        """Whether the body, if it ends here, is shorter than it had said."""
        return self._left > 0 if self._parser is None else not self._parser.finished

    def _begin_part(self, first: int, length: int, total: int | None) -> None:
        self._on_part(total)
        self._position, self._left = first, length

    def _take(self, data: bytes) -> None:
        self._on_bytes(self._position, data)
        self._position += len(data)
        self._left -= len(data)
