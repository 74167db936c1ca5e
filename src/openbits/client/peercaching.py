"""Peer caching in BITS's terms (C6, C7, J50): the values, and what each method asks of the service, for both clients.

The machine's settings are checked and kept, and have no effect yet: there are no records, and no peers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openbits.client import calls
from openbits.client.calls import Call, Json
from openbits.client.enumerator import Enumerator
from openbits.client.http1 import encode_query, quote
from openbits.client.objects import result_of
from openbits.client.operations import Asynchronous, Blocking, operation
from openbits.client.values import Result

_TARGET = "/v1/peer-caching"


class PeerCachingFlags(enum.IntFlag):
    """The flags of a job (J50) and, with the same numbers, of the machine (C6)."""

    ENABLE_PEERCACHING_CLIENT = 1
    ENABLE_PEERCACHING_SERVER = 2
    DISABLE_BRANCH_CACHE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """IBitsPeerCacheRecord (C7)."""

    id: str
    origin_url: str
    file_size: int
    file_modification_time: datetime
    last_access_time: datetime
    is_validated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """IBitsPeer (C7)."""

    name: str
    is_authenticated: bool
    is_available: bool


def settings() -> Call[Json]:
    """PeerCachingOut."""
    return Call("GET", _TARGET, repeatable=True)


def _call(method: str, target: str, body: Json | None = None, *, repeatable: bool = True) -> Call[Json]:
    return Call(method, _TARGET + target, body, repeatable=repeatable)


def _set(**changes: int) -> Call[Result]:
    return _call("PUT", "", changes).then(result_of)


def _in_force(name: str) -> Call[int]:
    return settings().then(lambda data: int(data["in_force"][name]))


def _record_from(data: Json) -> CacheRecord:
    times = {name: datetime.fromisoformat(data[name]) for name in ("file_modification_time", "last_access_time")}
    return CacheRecord(**{**data, **times})


def _record(record_id: str) -> str:
    return f"/records/{quote(record_id.strip('{}').lower())}"


class PeerCacheAdministrationOperations:
    """IBitsPeerCacheAdministration (C6). Everybody may read, administrators may change.

    A method that changes something raises E_ACCESSDENIED for others, and the ones that empty or look for something
    BG_E_PEERCACHING_DISABLED where peer caching is switched off.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @operation
    def get_configuration_flags(self) -> Call[PeerCachingFlags]:
        """Return whether this machine fetches from peers and serves them, as it counts: a policy goes first."""
        return _in_force("configuration_flags").then(PeerCachingFlags)

    @operation
    def set_configuration_flags(self, flags: PeerCachingFlags | int) -> Call[Result]:
        """Set whether this machine fetches from peers (1), serves them (2), and does without BranchCache (4).

        Gives BG_S_OVERRIDDEN_BY_POLICY where a policy says something else, which then counts; raises E_NOTIMPL.
        """
        return _set(configuration_flags=int(flags))

    @operation
    def get_maximum_cache_size(self) -> Call[int]:
        """Return how much of the disk the cache may take, in percent, as it counts."""
        return _in_force("maximum_cache_size")

    @operation
    def set_maximum_cache_size(self, percent: int) -> Call[Result]:
        """Set how much of the disk the cache may take: 1 to 80 percent, 1 when nothing is said.

        Gives S_FALSE where a policy says something else, which then counts; raises E_INVALIDARG.
        """
        return _set(maximum_cache_size=percent)

    @operation
    def get_maximum_content_age(self) -> Call[int]:
        """Return how long a file that nobody asks for stays in the cache, in seconds, as it counts."""
        return _in_force("maximum_content_age")

    @operation
    def set_maximum_content_age(self, seconds: int) -> Call[Result]:
        """Set how long a file that nobody asks for stays in the cache: 86,400 to 10,368,000 s; 7,776,000 when unsaid.

        Gives S_FALSE where a policy says something else, which then counts; raises E_INVALIDARG.
        """
        return _set(maximum_content_age=seconds)

    @operation
    def enum_records(self) -> Call[Enumerator[CacheRecord]]:
        """Return what is in the cache."""
        call = _call("GET", "/records")
        return call.then(lambda data: Enumerator([_record_from(one) for one in data["records"]]))

    @operation
    def get_record(self, record_id: str) -> Call[CacheRecord]:
        """Return a record of the cache. Raises E_INVALIDARG (no identifier), BG_E_RECORD_DELETED (there is none)."""
        return _call("GET", _record(record_id)).then(_record_from)

    @operation
    def clear_records(self) -> Call[Result]:
        """Empty the cache."""
        return _call("DELETE", "/records").then(result_of)

    @operation
    def delete_record(self, record_id: str) -> Call[Result]:
        """Remove a record and its file from the cache. Raises BG_E_RECORD_DELETED, BG_E_BUSYCACHERECORD."""
        return _call("DELETE", _record(record_id), repeatable=False).then(result_of)

    @operation
    def delete_url(self, url: str) -> Call[Result]:
        """Remove all records of an address from the cache; S_FALSE when it is not there."""
        return _call("DELETE", f"/records{encode_query({'url': url})}", repeatable=False).then(result_of)

    @operation
    def enum_peers(self) -> Call[Enumerator[Peer]]:
        """Return the machines that are known to serve."""
        call = _call("GET", "/peers")
        return call.then(lambda data: Enumerator([Peer(**one) for one in data["peers"]]))

    @operation
    def clear_peers(self) -> Call[Result]:
        """Forget the machines that are known to serve."""
        return _call("DELETE", "/peers").then(result_of)

    @operation
    def discover_peers(self) -> Call[Result]:
        """Look for machines that serve; S_FALSE: none is looked for yet. May raise BG_E_DISCOVERY_IN_PROGRESS."""
        return _call("POST", "/discover", repeatable=False).then(result_of)


class PeerCacheAdministration(PeerCacheAdministrationOperations, Blocking):
    """IBitsPeerCacheAdministration, for programs that wait."""


class AsyncPeerCacheAdministration(PeerCacheAdministrationOperations, Asynchronous):
    """IBitsPeerCacheAdministration, awaited."""


class PeerCachingJobOperations:
    """What IBackgroundCopyJob4 says of peers (J50)."""

    _id: str

    @operation
    def set_peer_caching_flags(self, flags: PeerCachingFlags | int) -> Call[Result]:
        """Set whether the job's files may come from peers, and be given to them (J50): kept, and without effect yet.

        0 when nothing is said. The machine has to allow it too: `PeerCacheAdministration.set_configuration_flags`.
        Raises E_NOTIMPL for bits that do not exist, BG_E_INVALID_STATE.
        """
        return calls.change_settings(self._id, {"peer_caching_flags": int(flags)}).then(result_of)

    @operation
    def get_peer_caching_flags(self) -> Call[PeerCachingFlags]:
        """Return what was set (J50)."""
        return calls.job(self._id).then(lambda data: PeerCachingFlags(data["settings"]["peer_caching_flags"]))
