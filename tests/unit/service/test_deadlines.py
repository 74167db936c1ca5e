"""One timer for all jobs."""

import asyncio

from openbits.service.deadlines import Deadlines
from support import virtual
from support.virtual import EPOCH, Clock


class World:
    """Deadlines that note who was reached and when."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, float]] = []
        self.deadlines = Deadlines(Clock.now, lambda job_id: self.reached.append((job_id, Clock.now() - EPOCH)))

    def set(self, job_id: str, seconds: float | None) -> None:
        self.deadlines.set(job_id, None if seconds is None else EPOCH + seconds)


def timers() -> int:
    return len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]  # what wakes the loop


def test_each_is_reached_at_its_time() -> None:
    async def main() -> None:
        world = World()
        for job_id, seconds in (("c", 30), ("a", 10), ("b", 20)):
            world.set(job_id, seconds)
        await asyncio.sleep(100)
        assert [(job_id, round(at, 3)) for job_id, at in world.reached] == [("a", 10), ("b", 20), ("c", 30)]
        assert timers() == 0, "nobody is waited for: no timer"

    virtual.run(main())


def test_an_earlier_time_counts_at_once() -> None:
    async def main() -> None:
        world = World()
        world.set("a", 1000)
        world.set("a", 10)
        await asyncio.sleep(2000)
        assert [round(at, 3) for _, at in world.reached] == [10]

    virtual.run(main())


def test_a_later_time_is_looked_at_when_the_old_one_comes() -> None:
    async def main() -> None:
        world = World()
        world.set("a", 10)
        world.set("a", 1000)
        await asyncio.sleep(50)
        assert [round(at, 3) for _, at in world.reached] == [10], "the callback finds nothing due and sets the new time"

    virtual.run(main())


def test_what_was_taken_back_is_not_reached() -> None:
    async def main() -> None:
        world = World()
        world.set("a", 10)
        world.set("a", None)
        world.set("b", 20)
        world.set("unknown", None)
        await asyncio.sleep(100)
        assert [job_id for job_id, _ in world.reached] == ["b"]

    virtual.run(main())


def test_a_time_that_is_set_again_after_it_was_taken_back_is_reached_once() -> None:
    async def main() -> None:
        world = World()
        for seconds in (10, None, 10, None, 10):
            world.set("a", seconds)
        await asyncio.sleep(100)
        assert len(world.reached) == 1

    virtual.run(main())


def test_a_past_time_is_reached_at_once() -> None:
    async def main() -> None:
        world = World()
        world.set("a", -1000)
        assert world.reached == [], "not inside the call"
        await virtual.rest()
        assert world.reached == [("a", 0.0)]

    virtual.run(main())


def test_ten_thousand_jobs_cost_one_timer() -> None:
    async def main() -> None:
        world = World()
        for number in range(10_000):
            world.set(f"j{number}", 1000.0 - number / 100)
        assert timers() - asyncio.get_running_loop()._timer_cancelled_count == 1  # type: ignore[attr-defined]
        await asyncio.sleep(2000)
        assert len(world.reached) == 10_000

    virtual.run(main())


def test_who_is_reached_may_be_set_again_from_the_callback() -> None:
    async def main() -> None:
        reached: list[float] = []

        def again(job_id: str) -> None:
            reached.append(Clock.now() - EPOCH)
            if len(reached) < 3:
                deadlines.set(job_id, Clock.now() + 5)

        deadlines = Deadlines(Clock.now, again)
        deadlines.set("a", EPOCH + 5)
        await asyncio.sleep(100)
        assert [round(at, 3) for at in reached] == [5, 10, 15]

    virtual.run(main())


def test_after_the_end_nothing_is_reached() -> None:
    async def main() -> None:
        world = World()
        world.set("a", 10)
        world.deadlines.close()
        await asyncio.sleep(100)
        assert world.reached == []

    virtual.run(main())
