"""The shapes of the calls about peer caching (C6, C7); see `wire`."""

from __future__ import annotations

import msgspec

from openbits.api.wire import Request, Response


class PeerCachingIn(Request):
    """Settings of the machine; what is absent stays as it is. `maximum_content_age` is in seconds."""

    configuration_flags: int | msgspec.UnsetType = msgspec.UNSET
    """1 client, 2 server, 4 no branch cache."""
    maximum_cache_size: int | msgspec.UnsetType = msgspec.UNSET
    """Percent of the disk."""
    maximum_content_age: int | msgspec.UnsetType = msgspec.UNSET
    """Seconds."""


class PeerCachingValues(Response):
    """The three settings: flags, percent of the disk, seconds."""

    configuration_flags: int
    maximum_cache_size: int
    maximum_content_age: int


class PeerCachingOut(Response):
    """What counts, and what was set: a policy goes before it."""

    in_force: PeerCachingValues
    settings: PeerCachingValues
    overridden: list[str]
    """Which of them a policy has replaced by another value."""
    effect: str
    """What the settings do: nothing yet."""
    result: str = "S_OK"
    """Of a change: BG_S_OVERRIDDEN_BY_POLICY for flags, and S_FALSE for the others, that a policy has replaced (C6)."""


class CacheRecordOut(Response):
    """A record of the cache (C7); there are none yet."""

    id: str
    origin_url: str
    file_size: int
    file_modification_time: str
    last_access_time: str
    is_validated: bool


class CacheRecords(Response):
    """EnumRecords."""

    records: list[CacheRecordOut]


class PeerOut(Response):
    """A peer (C7); there are none yet."""

    name: str
    is_authenticated: bool
    is_available: bool


class Peers(Response):
    """EnumPeers."""

    peers: list[PeerOut]
