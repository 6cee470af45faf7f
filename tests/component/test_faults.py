"""Answers that get lost, conflicts, reads that fail: one effect, and the same end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nightorders.ports import ConflictError, ForbiddenError, TransientError
from tests.component.fakes import Call
from tests.component.test_crash import FLOWS, end_state, prepared, to_the_end, whole
from tests.component.world import BAD, GOOD, SHOP, World, stuck

Hook = Callable[[Call], Awaitable[None]]


def once(number: int, error: Exception) -> Hook:
    async def hook(call: Call) -> None:
        if call.number == number:
            raise error

    return hook


def gist(w: World) -> dict[str, Any]:
    """The end state without what another sequence of plans changes."""
    state = end_state(w)
    return {k: state[k] for k in ("incidents", "target", "phase", "executions", "verdict", "slots", "finalizers", "effects")}


# ---------------------------------------------------------------- writes


@pytest.mark.promise(2)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("flow", ["L3 undo", "L4 recover"])
async def test_any_write_whose_answer_is_lost_leads_to_the_same_end(flow: str, when: str) -> None:
    """`after`: committed, although the operator only heard that the connection broke."""
    usual = await whole(flow)
    expected = end_state(usual)
    for number in range(1, usual.api.writes + 1):
        w = await prepared(flow)
        setattr(w.api, when, once(number, TransientError("connection broken; the outcome is unknown")))
        await to_the_end(w, 200)
        assert end_state(w) == expected, f"{when} write {number}"


@pytest.mark.promise(2)
async def test_an_effect_whose_answer_is_lost_is_found_and_not_made_again() -> None:
    w = await stuck("L4")

    async def lost(call: Call) -> None:
        if call.verb == "patch":
            raise TransientError("time-out")

    w.api.after = lost
    await w.until_phase("Recovered")
    assert len(w.mutations()) == 1
    assert [c.verb for c in w.api.calls].count("patch") == 1


@pytest.mark.promise(2)
async def test_an_effect_that_never_arrives_is_tried_again_under_the_same_id() -> None:
    w = await stuck("L4")
    tries: list[Call] = []

    async def broken(call: Call) -> None:
        if call.verb == "patch":
            tries.append(call)
            if len(tries) < 4:
                raise TransientError("connection refused")

    w.api.before = broken
    await w.until_phase("Recovered")
    assert len(tries) == 4
    assert len(w.incident.status.executions) == len(w.mutations()) == 1


@pytest.mark.promise(2)
@pytest.mark.threat(17)
@pytest.mark.parametrize("flow", ["L3 undo", "L4 recover"])
async def test_a_refusal_because_another_leads_ends_nothing(flow: str) -> None:
    """Of the dry run, the effect and the undo, three times each: what is reserved stays for whoever leads."""
    expected = end_state(await whole(flow))
    w = await prepared(flow)
    refused: Counter[tuple[str, str]] = Counter()

    async def replaced(call: Call) -> None:
        if call.verb in ("patch", "dry-run"):
            key = (call.verb, w.incident.status.executions[-1].state if w.incident.status.executions else "")
            refused[key] += 1
            if refused[key] <= 3:
                raise ForbiddenError("another operator leads", "nightorders-leader")

    w.api.before = replaced
    await to_the_end(w, 200)
    assert end_state(w) == expected
    assert ("patch", "Reserved") in refused
    assert ("dry-run", "") in refused
    assert (("patch", "Undoing") in refused) == (flow == "L3 undo")


async def test_an_api_server_that_stays_away_is_waited_for_and_told() -> None:
    w = await stuck("L4")
    away = True

    async def broken(call: Call) -> None:
        if away and call.verb == "patch":
            raise TransientError("connection refused")

    w.api.before = broken
    await w.until(lambda: any(c.type == "Stalled" and c.status == "True" for c in w.incident.status.conditions))
    assert len(w.slots()) == 2
    away = False
    await w.until_phase("Recovered")
    assert not any(c.type == "Stalled" for c in w.incident.status.conditions)


@pytest.mark.promise(2)
@pytest.mark.parametrize("verb", ["status", "ledger", "finalizer", "patch", "dry-run"])
@pytest.mark.parametrize("flow", ["L3 undo", "L4 recover"])
async def test_a_storm_of_conflicts_passes(flow: str, verb: str) -> None:
    """Two of three writes of that kind lose."""
    expected = gist(await whole(flow))
    w = await prepared(flow)
    losses, chance = 0, random.Random(1)

    async def storm(call: Call) -> None:
        nonlocal losses
        if call.verb == verb and (losses < 5 or chance.random() < 0.66):
            losses += 1
            raise ConflictError("changed since it was read (409)")

    w.api.before = storm
    await to_the_end(w, 200)
    assert losses >= 5
    assert gist(w) == expected


@pytest.mark.parametrize("flow", ["L3 recover", "L4 undo"])
async def test_somebody_who_touches_the_incident_before_every_other_write_only_delays(flow: str) -> None:
    expected = gist(await whole(flow))
    w = await prepared(flow)
    touched, chance = 0, random.Random(1)

    async def touch(call: Call) -> None:
        nonlocal touched
        if call.verb in ("status", "finalizer") and chance.random() < 0.5:
            touched += 1
            w.api.edit(
                "Incident", SHOP, w.incident.metadata.name, lambda raw: raw["metadata"].setdefault("labels", {}).update(n=str(touched))
            )

    w.api.before = touch
    await to_the_end(w, 200)
    assert touched >= 5
    assert gist(w) == expected


@pytest.mark.threat(28)
async def test_the_books_that_others_write_at_the_same_time_are_not_overwritten() -> None:
    w = await stuck("L4")
    entry = {"uid": "u", "workload": "Deployment/x", "labels": {}, "previousLabels": {}}

    async def other(call: Call) -> None:
        if call.verb == "ledger" and call.name == "ledger":
            w.api.before = quiet
            w.api.edit("Ledger", SHOP, "ledger", lambda raw: raw["spec"]["workloads"].append(entry))

    async def quiet(_: Call) -> None:
        return None

    await w.until(lambda: w.phase in ("Diagnosed", "Waiting", "AwaitingApproval", "Triage") or w.incident.status.plan)
    w.api.before = other
    await w.until_phase("Recovered")
    assert any(x.uid == "u" for x in w.ledger().spec.workloads)


# ---------------------------------------------------------------- reads


@pytest.mark.promise(2)
@pytest.mark.parametrize("flow", ["L4 recover", "L4 undo"])
async def test_any_read_that_fails_once_never_leads_to_a_second_effect(flow: str) -> None:
    """It may delay, and a hole at the very end of a verification may call a human; it never acts twice and leaves nothing behind."""
    usual = await whole(flow)
    reads = [i for i, c in enumerate(usual.api.calls) if not c.writes]
    kinds: dict[tuple[str, str], int] = {}
    chosen = []
    for i in reads:
        what = (usual.api.calls[i].verb, usual.api.calls[i].kind)
        kinds[what] = kinds.get(what, 0) + 1
        if kinds[what] % 9 == 1:
            chosen.append(i)
    assert len(chosen) > 15
    ends = []
    for index in chosen:
        w = await prepared(flow)

        async def fails(call: Call, w: World = w, index: int = index) -> None:
            if len(w.api.calls) - 1 == index:
                raise TransientError("time-out")

        w.api.before = fails
        await w.until(lambda w=w: bool(w.results()) and w.ended(), 200)  # type: ignore[misc]
        ends.append(w.results()[-1])
        assert w.slots() == []
        assert len(w.mutations()) == (1 if w.image() == GOOD else 2), usual.api.calls[index]
    usually = "operator:Undone" if "undo" in flow else "operator:Recovered"
    assert set(ends) <= {usually, "operator:Escalated"}
    assert ends.count("operator:Escalated") <= len(ends) // 8


@pytest.mark.parametrize("what", ["ConfigMap/nightorders-stop", "Namespace/shop", "ReplicaSet"])
async def test_a_read_that_fails_between_approval_and_effect_does_not_throw_the_approval_away(what: str) -> None:
    w = await stuck("L3")
    await w.until_phase("AwaitingApproval")

    async def reserved(call: Call) -> None:
        if call.verb == "status" and any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions):
            w.operator.reader.unread[what] = "failed: time-out"
            w.api.after = quiet

    async def quiet(_: Call) -> None:
        return None

    w.api.after = reserved
    w.approve("alice")
    await w.until_phase("Executing")
    await w.seconds(20)
    assert w.mutations() == []
    w.operator.reader.unread.clear()
    await w.until_phase("Recovered")
    assert w.results() == ["operator:Recovered"]


@pytest.mark.promise(4)
async def test_what_can_never_be_read_ends_the_reservation() -> None:
    w = await stuck("L4")

    async def reserved(call: Call) -> None:
        if call.verb == "status" and any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions):
            w.api.forbidden.add(("get", "ConfigMap"))

    w.api.after = reserved
    await w.until(lambda: "operator:NotApplied" in w.results(), 200)
    assert (w.mutations(), w.slots(), w.image()) == ([], [], BAD)


@pytest.mark.threat(28)
@pytest.mark.promise(4)
async def test_ledgers_that_cannot_be_read_are_not_empty_ledgers() -> None:
    w = await stuck("L4")

    async def fails(call: Call) -> None:
        if (call.verb, call.kind) == ("get", "Ledger"):
            raise TransientError("time-out")

    w.api.before = fails
    await w.seconds(60)
    assert w.mutations() == []
    assert all(name in FLOWS for name in FLOWS)
