"""The undo is part of the transaction, and is itself verified."""

from __future__ import annotations

from functools import partial

import pytest

from nightorders.api.meta import find_condition
from tests.component.fakes import Call, Died
from tests.component.world import BAD, GOOD, SECOND, SHOP, World, stuck

OTHER = "registry.example/checkout:8"


async def undoing(*, dead: bool = False) -> World:
    """The rollback makes it worse. `dead`: the old release does not come back either, once it is put back."""
    w = await stuck("L4")

    def people() -> None:
        if w.image() == GOOD:
            (w.controllers.dead if dead else w.controllers.sick).add(GOOD)

    w.at_each_second = people
    return w


def verified(w: World) -> tuple[str, str]:
    c = find_condition(w.incident.status.conditions, "Verified")
    return (c.reason, c.message) if c else ("", "")


async def test_it_is_undone_when_it_serves_as_before() -> None:
    w = await undoing()
    await w.until_phase("Undone")
    assert (w.image(), w.results(), w.slots()) == (BAD, ["operator:Undone"], [])
    reason, message = verified(w)
    assert reason == "UndoVerified"
    assert message.startswith("Worse: ")
    assert message.endswith("as before: 2 of 2 pods ready")
    assert w.incident.status.executions[0].undone_at is not None


async def test_the_patch_goes_out_at_once() -> None:
    w = await undoing()
    await w.until_phase("Undone")
    decided = next(
        c.at for c in w.api.journal if c.call.kind == "Incident" and c.after and (c.after.get("status") or {}).get("phase") == "Undoing"
    )
    assert w.mutations()[1].at == decided


async def test_what_does_not_come_back_is_escalated_with_what_is_missing() -> None:
    w = await undoing(dead=True)
    await w.until_phase("Escalated")
    assert (w.image(), w.results(), w.slots()) == (BAD, ["operator:Escalated"], [])
    reason, message = verified(w)
    assert reason == "UndoNotVerified"
    assert "0 of 2 pods ready" in message
    assert len(w.mutations()) == 2


async def test_it_stays_undoing_until_that_can_be_told() -> None:
    w = await undoing()
    await w.until(lambda: w.incident.status.executions and w.incident.status.executions[0].undo_started_at is not None)
    w.operator.reader.unread["Pod"] = "failed: 503"
    await w.seconds(5)
    assert (w.phase, w.image(), len(w.slots())) == ("Undoing", BAD, 2)
    assert w.incident.metadata.finalizers
    w.operator.reader.unread.clear()
    await w.until_phase("Undone", within=5)


@pytest.mark.parametrize("image", [OTHER, GOOD], ids=["something new", "the same again"])
async def test_a_change_after_the_undo_is_theirs(image: str) -> None:
    w = await undoing(dead=True)
    await w.until(lambda: w.incident.status.executions and w.incident.status.executions[0].undone_at is not None)
    w.release(image)
    await w.until(lambda: w.results() == ["operator:Superseded"], within=5)
    await w.seconds(30)
    assert (w.image(), len(w.mutations()), w.slots()) == (image, 2, [])


@pytest.mark.promise(4)
async def test_pods_that_cannot_be_counted_are_no_undo() -> None:
    w = await undoing()
    await w.until(lambda: w.incident.status.executions and w.incident.status.executions[0].undo_started_at is not None)
    w.operator.reader.unread["Pod"] = "failed: 503"
    await w.until_phase("Escalated")
    assert "pods could not be listed" in verified(w)[1]


def ended(w: World) -> bool:
    return w.ended() and w.phase in ("Undone", "Escalated")


async def to_the_end(w: World) -> None:
    await w.until(partial(ended, w))
    await w.seconds(3)


@pytest.mark.promise(2)
@pytest.mark.parametrize("dead", [False, True], ids=["comes back", "does not"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_any_write_ends_the_same(when: str, dead: bool) -> None:
    usual = await undoing(dead=dead)
    await to_the_end(usual)
    expected = (usual.phase, usual.results(), usual.image(), len(usual.mutations()), verified(usual)[0])
    for number in range(1, usual.api.writes + 1):
        w = await undoing(dead=dead)

        async def dies(call: Call, number: int = number) -> None:
            if call.number == number:
                raise Died

        setattr(w.api, when, dies)
        with pytest.raises(Died):
            await to_the_end(w)
        setattr(w.api, when, _nothing)
        w.clock.advance(2 * SECOND)
        w.start()
        await w.until(partial(ended, w), within=200)
        assert (w.phase, w.results(), w.image(), len(w.mutations()), verified(w)[0]) == expected, f"died {when} write {number}"
        assert not w.slots()
        assert ("Incident", SHOP, w.incident.metadata.name) in w.api.objects


async def _nothing(_: Call) -> None:
    return None
