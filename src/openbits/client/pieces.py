"""Pieces of files, and where their bytes came from, in BITS's terms, for both clients (see `objects`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from openbits.client import calls
from openbits.client.calls import Call, Json
from openbits.client.http1 import quote
from openbits.client.operations import operation
from openbits.client.values import Range, Result


@dataclass(frozen=True, slots=True)
class PeerDownloadStats:
    """How many bytes of a file came from where (F9)."""

    from_origin: int
    from_peers: int


def request_ranges(job_id: str, index: int, ranges: Iterable[Range | tuple[int, int]]) -> Call[Json]:
    """RequestFileRanges (F12)."""
    pieces = [{"offset": offset, "length": length} for offset, length in map(_pair, ranges)]
    return Call("POST", f"{_target(job_id, index)}/ranges", {"ranges": pieces}, repeatable=True)


def update_position(job_id: str, index: int, offset: int) -> Call[Json]:
    """UpdateDownloadPosition (F11)."""
    return Call("PUT", f"{_target(job_id, index)}/position", {"offset": offset}, repeatable=True)


def known_ranges(job_id: str, index: int) -> Call[Json]:
    """PiecesOut (F13)."""
    return Call("GET", f"{_target(job_id, index)}/ranges", repeatable=True)


class PieceOperations:
    """IBackgroundCopyFile6, and what IBackgroundCopyFile3 and 4 say of peers (F8, F9, F11-F13)."""

    _job_id: str
    _index: int

    @operation
    def request_file_ranges(self, ranges: Iterable[Range | tuple[int, int]]) -> Call[Result]:
        """Ask for ranges of the file (F12), of a job with `on_demand_mode`; a length of LENGTH_TO_EOF is to its end.

        They may overlap each other, and what is here or wanted already: nothing is fetched twice. A job that runs
        fetches them at once, any other when it is resumed. When all that was requested is here, the job is TRANSFERRED
        if that is the whole file, else SUSPENDED. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE,
        BG_E_TOO_MANY_RANGES_IN_FILE, E_INVALIDARG (no range), BG_E_INVALID_STATE.
        """
        return request_ranges(self._job_id, self._index, ranges).then(_result)

    @operation
    def update_download_position(self, offset: int) -> Call[Result]:
        """Let what is wanted from a byte on be fetched before the rest (F11). It asks for nothing by itself.

        Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE, BG_E_INVALID_STATE.
        """
        return update_position(self._job_id, self._index, offset).then(_result)

    @operation
    def get_filled_file_ranges(self) -> Call[tuple[Range, ...]]:
        """Return which ranges of the file are here and durable, ascending and merged (F13).

        They can be read from the temporary file at once. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED for an upload and a
        file that was added with ranges.
        """
        return known_ranges(self._job_id, self._index).then(lambda data: _ranges(data["filled"]))

    @operation
    def get_requested_file_ranges(self) -> Call[tuple[Range, ...]]:
        """Return which ranges were requested and are not here yet: ours, beyond BITS."""
        return known_ranges(self._job_id, self._index).then(lambda data: _ranges(data["wanted"]))

    @operation
    def is_downloaded_from_peer(self) -> Call[bool]:
        """Return whether any byte came from a peer (F8): none does yet."""
        return calls.file(self._job_id, self._index).then(lambda _data: False)

    @operation
    def get_peer_download_stats(self) -> Call[PeerDownloadStats]:
        """Return how many bytes came from the origin and from peers (F9): all that are here came from the origin."""
        return calls.file(self._job_id, self._index).then(
            lambda data: PeerDownloadStats(from_origin=data["bytes_transferred"], from_peers=0)
        )


def _target(job_id: str, index: int) -> str:
    return f"/v1/jobs/{quote(job_id)}/files/{index}"


def _pair(piece: Range | tuple[int, int]) -> tuple[int, int]:
    return (piece.offset, piece.length) if isinstance(piece, Range) else piece


def _ranges(data: list[Json]) -> tuple[Range, ...]:
    return tuple(Range(one["offset"], one["length"]) for one in data)


def _result(data: Any) -> Result:
    return Result(data["result"])
