"""The worker with a computation that is held back until the test has put together what waits."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from dexml.serve.worker import BATCH, Overloaded, Worker


class Held:
    """Doubles numbers, noting the size of each call; 13 cannot be doubled."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls: list[int] = []

    def double(self, numbers: list[int]) -> list[int]:
        self.go.wait(10)
        self.calls.append(len(numbers))
        if 13 in numbers:
            raise ValueError("13 is a bad number")
        return [2 * number for number in numbers]


def run(scene: Callable[[Worker, Held], Awaitable[None]], waiting: int = 1000) -> Held:
    held = Held()

    async def play() -> None:
        async with Worker(waiting) as worker:
            await scene(worker, held)
            assert worker.items == 0

    asyncio.run(play())
    return held


async def behind(worker: Worker, held: Held, jobs: list[list[int]]) -> list[asyncio.Task[list[int]]]:
    """A first job that is computed now, and `jobs` behind it."""
    tasks = [asyncio.create_task(worker.run(held.double, [0]))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(worker.run(held.double, job)) for job in jobs]
    await asyncio.sleep(0.05)
    held.go.set()
    return tasks


def test_what_waits_is_joined_into_one_call_and_everyone_gets_his_own() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        tasks = await behind(worker, held, [[1, 2], [3], [4, 5, 6]])
        assert await asyncio.gather(*tasks) == [[0], [2, 4], [6], [8, 10, 12]]

    assert run(scene).calls == [1, 6]


def test_a_call_is_never_larger_than_a_batch_unless_one_request_is() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        large = [5] * (BATCH + 5)
        tasks = await behind(worker, held, [large, [1] * (BATCH - 1), [2, 2], [3]])
        assert [len(one) for one in await asyncio.gather(*tasks)] == [1, BATCH + 5, BATCH - 1, 2, 1]

    assert run(scene).calls == [1, BATCH + 5, BATCH, 2]


def test_a_change_runs_alone_between_calls() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        tasks = [asyncio.create_task(worker.run(held.double, [0]))]
        await asyncio.sleep(0.05)
        change = asyncio.create_task(worker.alone(lambda: held.calls.append(-1)))
        await asyncio.sleep(0.05)
        tasks += await behind(worker, held, [[1]])
        await asyncio.gather(change, *tasks)

    assert run(scene).calls == [1, -1, 2]


def test_one_bad_item_does_not_fail_its_neighbours() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        tasks = await behind(worker, held, [[1], [13, 2], [3]])
        first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, second, fourth) == ([0], [2], [6])
        assert isinstance(third, ValueError)

    run(scene)


def test_too_much_that_waits_is_refused_with_a_time_to_come_back() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        held.go.set()
        assert await worker.run(held.double, [7] * 50) == [14] * 50, "alone, a large request is always taken"
        held.go.clear()
        tasks = [asyncio.create_task(worker.run(held.double, [1] * 10))]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="too many requests: try again in") as refused:
            await worker.run(held.double, [1])
        assert refused.value.retry_after >= 1
        held.go.set()
        await asyncio.gather(*tasks)
        assert await worker.run(held.double, [4]) == [8], "it goes on"

    run(scene, waiting=10)


def test_a_request_that_was_given_up_is_not_in_the_way() -> None:
    async def scene(worker: Worker, held: Held) -> None:
        tasks = [asyncio.create_task(worker.run(held.double, job)) for job in ([0], [1], [2])]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        held.go.set()
        assert await tasks[2] == [4]

    run(scene)
