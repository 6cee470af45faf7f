"""The work queue: one worker a key, no duplicates, due times, back-off, and no object ends a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import structlog

from nightorders.controller import queue as module
from nightorders.controller.queue import WorkQueue
from nightorders.ports import PermanentError, TransientError

MOMENT = timedelta(milliseconds=20)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def running(handle: Callable[[str], Awaitable[timedelta | None]], **options: Any) -> Any:
    made: WorkQueue[str] = WorkQueue("test", handle, **options)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        assert not task.done(), "the workers are gone"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_key_added_often_is_looked_at_once() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async with running(handle) as q:
        for _ in range(10):
            q.add("a", MOMENT)
        assert len(q) == 1
        await until(lambda: seen)
        await asyncio.sleep(0.05)
    assert seen == ["a"]


async def test_one_key_is_never_in_two_hands() -> None:
    busy, most, passes = 0, 0, 0

    async def handle(_: str) -> None:
        nonlocal busy, most, passes
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.005)
        busy -= 1
        passes += 1

    async with running(handle, workers=4) as q:
        for _ in range(5):
            q.add("a")
            await asyncio.sleep(0.002)
        await until(lambda: passes >= 2)
    assert most == 1


async def test_what_is_added_during_a_pass_gets_another_pass() -> None:
    passes: list[int] = []

    async def handle(_: str) -> None:
        passes.append(1)
        if len(passes) == 1:
            q.add("a")

    async with running(handle) as q:
        q.add("a")
        await until(lambda: len(passes) == 2)
        await asyncio.sleep(0.03)
    assert len(passes) == 2


async def test_different_keys_run_side_by_side() -> None:
    together = asyncio.Event()
    here: set[str] = set()

    async def handle(key: str) -> None:
        here.add(key)
        if len(here) == 2:
            together.set()
        async with asyncio.timeout(2):
            await together.wait()

    async with running(handle, workers=2) as q:
        q.add("a")
        q.add("b")
        await until(together.is_set)


async def test_the_sooner_of_two_due_times_counts() -> None:
    at: list[float] = []

    async def handle(_: str) -> None:
        at.append(asyncio.get_running_loop().time())

    async with running(handle) as q:
        began = asyncio.get_running_loop().time()
        q.add("a", timedelta(seconds=5))
        q.add("a", MOMENT)
        q.add("a", timedelta(seconds=9))
        await until(lambda: at)
    assert at[0] - began < 1


async def test_the_answer_says_when_to_look_again() -> None:
    passes: list[int] = []

    async def handle(_: str) -> timedelta | None:
        passes.append(1)
        return MOMENT if len(passes) < 3 else None

    async with running(handle) as q:
        q.add("a")
        await until(lambda: len(passes) == 3)
        await asyncio.sleep(0.06)
        assert len(q) == 0
    assert len(passes) == 3


@pytest.mark.parametrize("error", [TransientError("time-out"), PermanentError("forbidden"), ValueError("a bug"), KeyError("x")])
async def test_whatever_a_pass_raises_it_is_tried_again_and_told(error: Exception) -> None:
    passes: list[int] = []
    told: list[tuple[str, int]] = []

    async def handle(_: str) -> None:
        passes.append(1)
        if len(passes) < 4:
            raise error

    async def failed(_: str, raised: Exception, attempts: int) -> None:
        told.append((type(raised).__name__, attempts))

    async with running(handle, failed=failed) as q:
        q.add("a")
        await until(lambda: len(passes) == 4)
    assert told == [(type(error).__name__, n) for n in (1, 2, 3)]


async def test_success_forgets_the_failures_before() -> None:
    told: list[int] = []
    passes: list[int] = []

    async def handle(_: str) -> timedelta | None:
        passes.append(1)
        if len(passes) % 2:
            raise TransientError("x")
        return MOMENT if len(passes) < 6 else None

    async def failed(_: str, __: Exception, attempts: int) -> None:
        told.append(attempts)

    async with running(handle, failed=failed) as q:
        q.add("a")
        await until(lambda: len(passes) == 6)
    assert told == [1, 1, 1]


@pytest.mark.parametrize("error", [TransientError("conflict"), ValueError("a bug in telling")])
async def test_a_failure_that_cannot_be_told_does_not_end_the_worker(error: Exception) -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)
        if key == "bad":
            raise TransientError("x")

    async def failed(*_: Any) -> None:
        raise error

    async with running(handle, failed=failed, workers=1) as q:
        q.add("bad")
        await until(lambda: seen.count("bad") >= 2)
        q.add("good")
        await until(lambda: "good" in seen)


async def test_one_bad_object_does_not_hold_up_the_others() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)
        if key == "bad":
            raise ValueError("always")

    async with running(handle, workers=1) as q:
        q.add("bad")
        for n in range(5):
            q.add(f"good-{n}")
        await until(lambda: sum(k.startswith("good") for k in seen) == 5)


async def test_the_wait_grows_and_ends_somewhere() -> None:
    waits = [module.FIRST_RETRY * 2 ** min(n, 10) for n in range(30)]
    made: WorkQueue[str] = WorkQueue("test", lambda _: asyncio.sleep(0, None))
    delays = [(await made._backoff("a", TransientError("x"))).total_seconds() for _ in range(30)]
    assert all(0.79 * w <= d <= 1.21 * w for w, d in zip(waits[:8], delays[:8], strict=True))
    assert max(delays) <= module.LONGEST_RETRY * 1.2


async def test_it_says_that_it_is_alive() -> None:
    async def handle(_: str) -> None:
        return None

    async with running(handle) as q:
        await until(lambda: q.last_turn > 0)
