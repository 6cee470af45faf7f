"""The process dies at every write of a run, before it is committed and after; a new one, knowing only the store, ends the run the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from nightorders.domain.digest import spec_sha256
from tests.component.fakes import Call, Died
from tests.component.world import GOOD, SECOND, SHOP, World, stuck

pytestmark = pytest.mark.promise(2)

Flow = Callable[[World], Awaitable[None]]


def worse(w: World) -> None:
    """From the moment the rollback is applied, the old release is sick, too."""
    if w.image() == GOOD:
        w.controllers.sick.add(GOOD)


def approve_when_asked(w: World) -> None:
    """A human who approves what waits, once for each plan."""
    for i in w.incidents():
        p = i.status.plan
        waits = any(c.type == "Approved" and c.reason == "Waiting" for c in i.status.conditions)
        if p is not None and waits and not any(p.digest in v for v in i.metadata.annotations.values()):
            w.approve("alice", key=f"plan-{p.sequence}")


FLOWS: dict[str, tuple[str, bool]] = {
    "L3 recover": ("L3", False),
    "L3 undo": ("L3", True),
    "L4 recover": ("L4", False),
    "L4 undo": ("L4", True),
}


async def prepared(flow: str) -> World:
    level, sick = FLOWS[flow]
    w = await stuck(level)

    def people() -> None:
        if sick:
            worse(w)
        if level == "L3":
            approve_when_asked(w)

    w.at_each_second = people
    return w


def over(w: World) -> bool:
    return w.ended() and w.phase in ("Recovered", "Undone", "Escalated")


def end_state(w: World) -> dict[str, Any]:
    """All that must be the same, however often the process died."""
    status = w.incident.status
    return {
        "incidents": len(w.incidents()),
        "target": spec_sha256(w.api.objects[("Deployment", SHOP, "checkout")]["spec"]),
        "phase": w.phase,
        "executions": w.results(),
        "ids": [e.id for e in status.executions],
        "conditions": {c.type: (c.status, c.reason) for c in status.conditions},
        "verdict": status.verification.verdict if status.verification else None,
        "outcomes": [[(o.execution, o.result, o.by) for o in w.ledger(ns).spec.outcomes] for ns in (SHOP, "nightorders-system")],
        "slots": w.slots(),
        "finalizers": [list(i.metadata.finalizers) for i in w.incidents()],
        "effects": len(w.mutations()),
    }


async def whole(flow: str) -> World:
    w = await prepared(flow)
    await to_the_end(w)
    return w


async def to_the_end(w: World, within: int = 90) -> None:
    """Until nothing is under way, and a good while longer, in which nothing more may happen."""
    await w.until(partial(over, w), within)
    for _ in range(3):
        w.clock.advance(20 * SECOND)
        await w.second()


def dies_at(number: int, when: str) -> Callable[[Call], Awaitable[None]]:
    async def hook(call: Call) -> None:
        if call.number == number:
            raise Died(f"{when} write {number}: {call.verb} {call.kind}")

    return hook


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("flow", FLOWS)
async def test_a_crash_at_any_write_changes_nothing_in_the_end(flow: str, when: str) -> None:
    usual = await whole(flow)
    expected = end_state(usual)
    assert expected["phase"] == ("Undone" if "undo" in flow else "Recovered")
    assert usual.operator.errors == []
    writes = usual.api.writes
    assert writes >= 14, "the run is not long enough to mean anything"
    for number in range(1, writes + 1):
        w = await prepared(flow)
        setattr(w.api, when, dies_at(number, when))
        with pytest.raises(Died):
            await to_the_end(w)
        setattr(w.api, when, nothing)
        w.start()
        await to_the_end(w, 200)
        assert end_state(w) == expected, f"died {when} write {number} of {writes}"


async def nothing(_: Call) -> None:
    return None


@pytest.mark.parametrize("flow", ["L3 undo", "L4 recover"])
async def test_dying_again_and_again_changes_nothing_either(flow: str) -> None:
    """Every process manages three writes."""
    expected = end_state(await whole(flow))
    w = await prepared(flow)
    deaths = 0

    async def third(call: Call) -> None:
        if call.writes and call.number % 3 == 0:
            raise Died

    w.api.after = third
    for _ in range(60):
        try:
            await w.until(partial(over, w), within=200)
            break
        except Died:
            deaths += 1
            w.start()
    assert deaths >= 4
    w.api.after = nothing
    await to_the_end(w)
    assert end_state(w) == expected


CHANGES: dict[str, Callable[[World], Any]] = {
    "stop": lambda w: w.stop(),
    "suspend": lambda w: w.suspend(),
    "policy": lambda w: w.policy("L1"),
    "sick": lambda w: w.controllers.sick.add(GOOD),
    "their change": lambda w: w.release("registry.example/checkout:8"),
    "put back": lambda w: w.release("registry.example/checkout:7"),
    "deleted": lambda w: w.api.delete("Incident", SHOP, w.incident.metadata.name),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_the_world_changes_while_nobody_runs(change: str) -> None:
    """Dead after any write from the reservation on, and something has changed until the next process starts: still one effect, and books that agree.

    The oracle holds the books against the Incident.
    """
    usual = await whole("L4 recover")
    first = next(c.number for c in usual.api.calls if c.kind == "Ledger" and c.writes)
    for number in range(first, usual.api.writes + 1):
        w = await prepared("L4 recover")
        w.api.after = dies_at(number, "after")
        with pytest.raises(Died):
            await to_the_end(w)
        w.api.after = nothing
        touched = bool(w.mutations())
        CHANGES[change](w)
        w.clock.advance(5 * SECOND)
        w.start(detect=False)
        await w.seconds(3)
        for _ in range(40):
            if not w.incidents() or w.ended():
                break
            await w.second()
        where = f"died after write {number}, then {change}: {w.story()}"
        assert not w.incidents() or w.ended(), where
        if not touched and change in ("stop", "suspend", "policy", "deleted"):
            assert not w.mutations(), where
        for _ in range(3):
            w.clock.advance(60 * SECOND)  # what is left of a reservation that was never saved is reclaimed
            await w.second()
        assert not w.slots(), where
