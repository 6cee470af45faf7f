"""Events are written later, in order, and a pass never waits for one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nightorders.adapters.kube.events import EventAnnouncer, LaterAnnouncer
from tests.unit.domain.make import incident


class Slow:
    def __init__(self) -> None:
        self.written: list[str] = []
        self.gate = asyncio.Event()

    async def announce(self, about: Any, reason: str, message: str, *, warning: bool) -> None:
        await self.gate.wait()
        self.written.append(message)


async def test_nobody_waits_and_the_order_is_kept() -> None:
    slow = Slow()
    later = LaterAnnouncer(cast(EventAnnouncer, slow))
    writing = asyncio.create_task(later.run())
    for n in range(5):
        await asyncio.wait_for(later.announce(incident(), "Staged", str(n), warning=False), 0.1)
    assert slow.written == []
    slow.gate.set()
    await asyncio.sleep(0.01)
    assert slow.written == ["0", "1", "2", "3", "4"]
    writing.cancel()


async def test_what_is_left_is_written_at_the_end_and_what_is_too_much_is_counted() -> None:
    slow, lost = Slow(), []
    later = LaterAnnouncer(cast(EventAnnouncer, slow), on_lost=lost.append, limit=2)
    for n in range(4):
        await later.announce(incident(), "Staged", str(n), warning=False)
    slow.gate.set()
    await later.flush()
    assert slow.written == ["0", "1"]
    assert len(lost) == 2
