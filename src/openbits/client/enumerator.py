"""What EnumJobs and EnumFiles give out (inventory M5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from openbits.client.cloaking import Proxy
from openbits.client.values import Result
from openbits.errors import BitsError

T = TypeVar("T")


class Enumerator(Proxy, Generic[T]):
    """IEnumBackgroundCopyJobs and IEnumBackgroundCopyFiles (M5): a snapshot of what there was; the objects are live.

    It was filled by the call that gave it out, so there is no call left that its blanket could matter to; what is in
    it has the process's default, whoever takes it out.
    """

    def __init__(self, items: Sequence[T], position: int = 0) -> None:
        self._items = tuple(items)
        self._position = position

    def __repr__(self) -> str:
        return f"<Enumerator at {self._position} of {len(self._items)}>"

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> T:
        return self._items[index]

    def next(self, count: int = 1) -> list[T]:
        """Return the next `count` items, fewer at the end (S_FALSE in BITS)."""
        if count < 0:
            raise BitsError("E_INVALIDARG", "a count cannot be negative")
        items = self._items[self._position : self._position + count]
        self._position += len(items)
        return list(items)

    def skip(self, count: int) -> Result:
        """Pass over `count` items; S_FALSE when there were fewer."""
        return Result.S_OK if len(self.next(count)) == count else Result.S_FALSE

    def reset(self) -> None:
        """Begin again with the first item."""
        self._position = 0

    def clone(self) -> Enumerator[T]:
        """Return an enumerator of the same items at the same position."""
        return Enumerator(self._items, self._position)

    def get_count(self) -> int:
        """Return how many items there are."""
        return len(self._items)
