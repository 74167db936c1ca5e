"""How many bytes a request carries: digest section 5 (5 KiB .. 13 MiB, 413 halves)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openbits.upload.pace import FIRST_BYTES, LEAST_BYTES, MOST_BYTES, REQUEST_S, RESUMED_BYTES, Pace

KIB = 1024


def settled(pace: Pace, bps: float, requests: int = 30) -> Pace:
    """After many requests at one speed."""
    for _ in range(requests):
        pace = pace.after_success(pace.next_bytes, pace.next_bytes / bps)
    return pace


def test_a_request_takes_some_seconds_at_any_speed() -> None:
    for bps in (10_000, 100_000, 1_000_000, 5_000_000):
        assert settled(Pace(), bps).next_bytes / bps <= REQUEST_S * 1.01
    assert settled(Pace(), 1_000_000).next_bytes == 2_000_000


def test_no_speed_leaves_the_limits_of_windows() -> None:
    assert settled(Pace(), 1e12).next_bytes == MOST_BYTES == 13 * KIB * KIB
    assert settled(Pace(), 1).next_bytes == LEAST_BYTES == 5 * KIB


def test_a_clock_that_is_set_back_measures_nothing() -> None:
    assert Pace().after_success(FIRST_BYTES, -5.0).next_bytes == FIRST_BYTES


def test_a_refused_size_is_not_tried_again_at_once() -> None:
    pace = Pace(next_bytes=256 * KIB).after_refusal(256 * KIB)
    assert pace is not None
    assert settled(pace, 1e12, requests=15).next_bytes == 128 * KIB


def test_a_refused_size_is_crept_up_to_again() -> None:
    pace = Pace(next_bytes=256 * KIB).after_refusal(256 * KIB)
    assert pace is not None
    assert settled(pace, 1e12, requests=17).next_bytes == 160 * KIB
    assert settled(pace, 1e12, requests=2_000).next_bytes == MOST_BYTES


def test_a_server_with_a_limit_is_found_out_and_rarely_tried() -> None:
    """nginx takes 1 MiB unless it is told otherwise."""
    limit, pace = KIB * KIB, Pace()
    refused, sizes = 0, []
    for _ in range(2_000):
        if pace.next_bytes > limit:
            refused += 1
            shrunk = pace.after_refusal(pace.next_bytes)
            assert shrunk is not None
            pace = shrunk
        else:
            sizes.append(pace.next_bytes)
            pace = pace.after_success(pace.next_bytes, 0.001)
    assert refused <= 10
    assert min(sizes[100:]) >= limit // 2


def test_five_kibibytes_are_the_least() -> None:
    pace: Pace | None = Pace()
    sizes = []
    while pace is not None:
        sizes.append(pace.next_bytes)
        pace = pace.after_refusal(pace.next_bytes)
    assert sizes == [64 * KIB, 32 * KIB, 16 * KIB, 8 * KIB, 5 * KIB]
    assert Pace().after_refusal(3_000) is None


def test_connections_that_break_under_ever_larger_requests_are_taken_for_refusals() -> None:
    """Whoever finds a body too large often closes at once, and the 413 is lost."""
    pace = settled(Pace(), 1e12, requests=2)
    tried = pace.next_bytes
    pace = pace.after_break(tried).resumed()
    assert pace.cap_bytes == MOST_BYTES
    pace = pace.after_break(tried).resumed()
    assert pace.cap_bytes == tried // 2
    assert pace.next_bytes == RESUMED_BYTES


def test_connections_that_break_under_known_sizes_are_just_broken() -> None:
    pace = settled(Pace(), 1e12)
    for _ in range(10):
        pace = pace.after_break(MOST_BYTES)
    assert pace.cap_bytes == MOST_BYTES


@given(st.lists(st.tuples(st.sampled_from("srbR"), st.floats(-10, 1e6))))
def test_the_size_is_always_within_the_limits(events: list[tuple[str, float]]) -> None:
    pace = Pace()
    for kind, elapsed_s in events:
        length = pace.next_bytes
        match kind:
            case "s":
                pace = pace.after_success(length, elapsed_s)
            case "r":
                pace = pace.after_refusal(length) or pace
            case "b":
                pace = pace.after_break(length)
            case _:
                pace = pace.resumed()
        assert LEAST_BYTES <= pace.next_bytes <= pace.cap_bytes <= MOST_BYTES
