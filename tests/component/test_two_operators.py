"""Two operators over one store: a stale leader that does not know it. A Lease does not fence; preconditions must."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.component.fakes import Call
from tests.component.test_crash import FLOWS, prepared, to_the_end, whole
from tests.component.test_faults import gist
from tests.component.world import BAD, GOOD, SECOND, SHOP, Process, World, stuck

pytestmark = pytest.mark.promise(2)


def pair(w: World) -> tuple[Process, Process]:
    w.processes = [Process(w, "a"), Process(w, "b")]
    return w.processes[0], w.processes[1]


@pytest.mark.parametrize("flow", ["L3 undo", "L4 recover"])
async def test_another_operator_makes_a_whole_pass_at_any_await(flow: str) -> None:
    """At every write of the first one, and at some of its reads."""
    usual = await whole(flow)
    expected = gist(usual)
    sides = ("before", "after") if flow == "L4 recover" else ("after",)
    moments = [(i, when) for i, c in enumerate(usual.api.calls) for when in sides if c.writes or i % 19 == 0]
    for index, when in moments:
        w = await prepared(flow)
        other = Process(w, "b", detect=False)
        await other.janitor.prove()
        asked = 0

        async def between(call: Call, w: World = w, other: Process = other, index: int = index) -> None:
            nonlocal asked
            if call.actor != "operator":
                return
            asked += 1
            if asked - 1 == index and w.incidents():
                await other.look((SHOP, w.incident.metadata.name))

        setattr(w.api, when, between)
        await to_the_end(w, 200)
        assert gist(w) == expected, f"{when} {usual.api.calls[index]}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flow", FLOWS)
async def test_two_operators_side_by_side(flow: str, seed: int) -> None:
    """Both work all the time, and every request waits for a while that chance decides."""
    expected = gist(await whole(flow))
    w = await prepared(flow)
    a, b = pair(w)
    chance = random.Random(seed)

    async def wait(_: Call) -> None:
        for _i in range(chance.choice((0, 0, 1, 2, 5))):
            await asyncio.sleep(0)

    w.api.before = w.api.after = wait

    for _ in range(120):
        w.clock.advance(SECOND)
        w.at_each_second()
        w.controllers.sync()
        await asyncio.gather(a.work(), b.work())
        if w.ended() and w.phase in ("Recovered", "Undone", "Escalated"):
            break
    assert gist(w) == expected


@pytest.mark.threat(17)
async def test_a_stale_operator_does_not_apply_what_was_undone_since() -> None:
    """It read while the execution was reserved, slept, and sends its patch when everything is over."""
    w = await stuck("L4")
    w.at_each_second = lambda: w.controllers.sick.add(GOOD) if w.image() == GOOD else None
    stale = Process(w, "stale", detect=False)
    await stale.janitor.prove()
    asleep: list[asyncio.Event] = []
    passes: list[asyncio.Task[None]] = []

    async def sleeps(call: Call) -> None:
        if call.actor == "stale" and call.verb == "patch" and not asleep:
            asleep.append(asyncio.Event())
            await asleep[0].wait()

    async def reserved(call: Call) -> None:
        if (
            call.actor == "operator"
            and call.verb == "status"
            and not passes
            and any(e.state == "Reserved" for e in w.incident.status.executions)
        ):
            passes.append(asyncio.ensure_future(stale.look((SHOP, w.incident.metadata.name))))
            for _ in range(1000):
                await asyncio.sleep(0)

    w.api.before, w.api.after = sleeps, reserved
    await w.until_phase("Undone")
    assert (w.image(), len(w.mutations())) == (BAD, 2)
    asleep[0].set()
    await passes[0]
    await w.seconds(5)
    assert (w.image(), len(w.mutations())) == (BAD, 2)
    assert [c.call.actor for c in w.mutations()] == ["operator", "operator"]


async def test_two_operators_open_one_incident() -> None:
    w = World.empty()
    w.deploy()
    w.policy("L1")
    pair(w)
    await w.seconds(5)
    w.release(BAD)
    await w.seconds(30)
    assert len(w.incidents()) == 1
