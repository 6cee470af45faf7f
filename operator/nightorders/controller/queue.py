"""A keyed work queue: one worker per key at a time, no duplicates, due times, back-off with jitter (as client-go's workqueue)."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
from typing import Generic, TypeVar

import structlog

from ..ports import PortError

K = TypeVar("K", bound=Hashable)
log = structlog.get_logger(__name__)

FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0


class WorkQueue(Generic[K]):
    """Calls `handle(key)` for every key that was added, soon after its due time.

    `handle` returns when to look at the key again by itself (None: only when somebody adds it). A PortError from it is retried with
    back-off, and `failed(key, error, attempts)` is told; any other exception is a bug, is logged and retried in the same way, so
    that one bad object never ends the worker.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[K], Awaitable[timedelta | None]],
        *,
        workers: int = 8,
        failed: Callable[[K, Exception, int], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._handle = handle
        self._failed = failed
        self._workers = workers
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._busy: set[K] = set()
        self._again: dict[K, float] = {}
        self._attempts: dict[K, int] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self.last_turn = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, after: timedelta = timedelta(0)) -> None:
        """Asks for a look at `key`, at the latest `after` from now. An earlier request that is still waiting stays."""
        at = asyncio.get_running_loop().time() + after.total_seconds()
        if key in self._busy:
            self._again[key] = min(at, self._again.get(key, at))
        elif at < self._due.get(key, float("inf")):
            self._push(key, at)

    def _push(self, key: K, at: float) -> None:
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._next()
            try:
                after = await self._turn(key)
            finally:
                self._busy.discard(key)
            self._requeue(key, after)

    async def _next(self) -> K:
        loop = asyncio.get_running_loop()
        while True:
            self.last_turn = loop.time()
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)  # replaced by an earlier request
            wait = self._heap[0][0] - loop.time() if self._heap else 5.0
            if self._heap and wait <= 0:
                _, _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._busy.add(key)
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(min(wait, 5.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _turn(self, key: K) -> timedelta | None:
        try:
            after = await self._handle(key)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the last line of defence: a worker must survive any one object
            return await self._backoff(key, error)
        self._attempts.pop(key, None)
        return after

    async def _backoff(self, key: K, error: Exception) -> timedelta:
        attempts = self._attempts[key] = self._attempts.get(key, 0) + 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(attempts - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        if isinstance(error, PortError):
            log.warning("pass failed", queue=self.name, key=str(key), error=str(error), attempts=attempts, retry_in=round(delay, 1))
        else:
            log.exception("pass crashed", queue=self.name, key=str(key), attempts=attempts, retry_in=round(delay, 1))
        if self._failed is not None:
            try:
                await self._failed(key, error, attempts)
            except PortError as second:
                log.warning("could not record the failure", queue=self.name, key=str(key), error=str(second))
            except Exception:  # telling is no reason to lose the worker either, and with it all others
                log.exception("could not record the failure", queue=self.name, key=str(key))
        return timedelta(seconds=delay)

    def _requeue(self, key: K, after: timedelta | None) -> None:
        asked = self._again.pop(key, None)
        at = None if after is None else asyncio.get_running_loop().time() + after.total_seconds()
        due = min((t for t in (asked, at) if t is not None), default=None)
        if due is not None:
            self._push(key, due)
