"""R7: the service's time neither jumps nor stands still in suspend."""

import time

from openbits.service.clock import SteadyClock


class Hands:
    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.steady = 50.0

    def clock(self) -> SteadyClock:
        return SteadyClock(wall=lambda: self.wall, steady=lambda: self.steady)


def test_a_changed_wall_clock_takes_effect_with_the_next_start() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now() == 1_000_000
    hands.wall -= 3600
    hands.steady += 10
    assert clock.now() == 1_000_010
    assert hands.clock().now() == 1_000_000 - 3600


def test_it_starts_with_the_wall_clock() -> None:
    before = time.time()
    now = SteadyClock().now()
    assert before - 1 < now < time.time() + 1
