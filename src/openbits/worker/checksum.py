"""The checksum that a file must have (`sha256:HEX`, `sha512:HEX`), computed on the way where that is possible."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

_ALGORITHMS: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_READ_BYTES: Final = 1024 * 1024


class Checksum:
    """Follows the bytes as long as they come in order from the first; else the file is read again."""

    def __init__(self, expected: str) -> None:
        algorithm, _, self.expected = expected.partition(":")
        self.algorithm = algorithm
        self._hash = _ALGORITHMS[algorithm]()
        self._hashed = 0

    def __repr__(self) -> str:
        return f"<Checksum {self.algorithm} after {self._hashed} bytes>"

    def feed(self, offset: int, data: bytes) -> None:
        """Bytes come in; what does not follow the last ones is left for reading back."""
        if offset == self._hashed:
            self._hash.update(data)
            self._hashed += len(data)

    def reset(self) -> None:
        """The file begins again."""
        self._hash = _ALGORITHMS[self.algorithm]()
        self._hashed = 0

    def is_complete(self, total: int) -> bool:
        """Whether all bytes went through `feed`."""
        return self._hashed == total

    def read_back(self, fd: int, total: int, is_cancelled: Callable[[], bool]) -> None:
        """Read from the file what did not go through `feed`; for a helper thread."""
        while self._hashed < total and not is_cancelled():
            data = os.pread(fd, min(_READ_BYTES, total - self._hashed), self._hashed)
            if not data:
                return
            self._hash.update(data)
            self._hashed += len(data)

    @property
    def actual(self) -> str:
        """What it is."""
        return self._hash.hexdigest()

    @property
    def matches(self) -> bool:
        """Whether it is what it should be."""
        return self.actual == self.expected.lower()
