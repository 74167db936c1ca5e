"""What can go wrong with a store; whatever goes wrong, nothing of a batch has been applied."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be read or written."""


class StoreFull(StoreError):
    """There is no room on the store's disk; the same batch can be committed when there is."""


class StoreBusy(StoreError):
    """Another service uses the store."""
