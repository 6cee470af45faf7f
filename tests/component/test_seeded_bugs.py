"""Each safeguard is taken out on purpose: a run must then break a promise, and the oracle must see it. Otherwise the oracle is worth nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import APPROVE_PREFIX, EXECUTION_LABEL, Level
from nightorders.api.v1alpha1.incident import Approval, DryRun
from nightorders.controller import executor, gatherer
from nightorders.domain import approval, autonomy, gates, scores, steps
from nightorders.domain.steps import before, within
from tests.component import oracle
from tests.component.fakes import Call, stamp
from tests.component.world import BAD, GOOD, SHOP, World, stuck

OTHER = "registry.example/checkout:8"


async def quiet(_: Call) -> None:
    return None


def once(w: World, verb: str, kind: str, act: Callable[[], Any]) -> Callable[[Call], Awaitable[None]]:
    """Right before the first such request."""

    async def hook(call: Call) -> None:
        if (call.verb, call.kind) == (verb, kind):
            w.api.before = quiet
            act()

    return hook


async def run(level: str = "L4", prepare: Callable[[World], Any] = lambda w: None, seconds: int = 60, **rule: Any) -> World:
    """A run that is judged here and not by the fixture."""
    w = await stuck(level, **rule)
    w.exempt = True
    w.api.careless = True
    prepare(w)
    await w.seconds(seconds)
    return w


async def judged(scenario: Callable[[], Awaitable[World]], says: str) -> None:
    w = await scenario()
    with pytest.raises(AssertionError, match=says):
        oracle.check(w)


def their_change(w: World) -> None:
    w.api.before = once(w, "patch", "Deployment", lambda: w.release(OTHER))


async def sound(scenario: Callable[[], Awaitable[World]]) -> None:
    oracle.check(await scenario())


# ---------------------------------------------------------------- the request itself


async def test_a_patch_without_preconditions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> World:
        return await run(prepare=their_change)

    await sound(scenario)
    monkeypatch.setattr(
        executor, "conditional", lambda target, patch, execution, term: {**patch, "metadata": {"labels": {EXECUTION_LABEL: execution}}}
    )
    await judged(scenario, "not what was planned")


async def test_a_patch_without_a_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    real = executor.conditional
    monkeypatch.setattr(
        executor, "conditional", lambda *a: {**real(*a), "metadata": {**real(*a)["metadata"], "labels": {EXECUTION_LABEL: "no-0"}}}
    )
    await judged(run, "no saved intention")


async def test_an_undo_over_somebody_elses_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(w: World) -> None:
        def people() -> None:
            if w.image() == GOOD:
                w.controllers.sick.add(GOOD)
            if w.phase == "Undoing":
                w.release(OTHER)

        w.at_each_second = people
        w.api.after = change_when_undoing(w)

    async def scenario() -> World:
        return await run(prepare=prepare)

    await sound(scenario)
    monkeypatch.setattr(
        within,
        "_undoing",
        lambda s, e, plan, target, digest, now: steps.Undo(e, target, s.backward) if digest != e.before else steps.Idle("", None),
    )
    await judged(scenario, "an undo of something else|more than one effect")


def change_when_undoing(w: World) -> Callable[[Call], Awaitable[None]]:
    async def hook(call: Call) -> None:
        if call.verb == "status" and w.phase == "Undoing":
            w.api.after = quiet
            w.release(OTHER)

    return hook


# ---------------------------------------------------------------- the last look


async def test_no_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_once_reserved(w: World) -> None:
        async def hook(call: Call) -> None:
            if call.verb == "status" and any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions):
                w.api.after = quiet
                w.stop()

        w.api.after = hook

    async def scenario() -> World:
        return await run(prepare=stop_once_reserved)

    await sound(scenario)
    monkeypatch.setattr(within, "_last_look", lambda *a: None)
    await judged(scenario, "stopped")


async def test_a_stop_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(self: Any, namespace: str) -> gates.Stop:
        return gates.Stop()

    monkeypatch.setattr(gatherer.Gatherer, "stop", none)

    async def scenario() -> World:
        return await run(prepare=lambda w: w.stop())

    await judged(scenario, "stopped")


# ---------------------------------------------------------------- who allowed it


@pytest.mark.parametrize("name", ["_rule", "_ceilings", "_max_level"])
async def test_a_speaker_that_is_not_heard(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(w: World) -> None:
        if name == "_rule":
            w.policy("L2")
        elif name == "_ceilings":
            w.cluster_policy(ceilings=[{"name": "most", "level": "L2"}])
        else:
            w.api.edit(
                "Namespace", "", SHOP, lambda raw: raw["metadata"].setdefault("annotations", {}).update({"nightorders.dev/max-level": "L2"})
            )

    async def scenario() -> World:
        return await run(prepare=prepare)

    await sound(scenario)
    loud = autonomy.Speaker(who="everything else", level=Level.L4)
    others = tuple(s for s in autonomy.SPEAKERS if s is not getattr(autonomy, name))
    monkeypatch.setattr(autonomy, "SPEAKERS", (*others, lambda v, now: iter([loud])))
    monkeypatch.setattr(autonomy, "ordered", lambda v, now: Level.L4)
    await judged(scenario, "the orders say L2")


async def test_an_approval_of_any_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_approval(w: World) -> None:
        w.answer(APPROVE_PREFIX, "alice", digest="sha256:" + "0" * 64)

    async def scenario() -> World:
        return await run("L3", prepare=old_approval)

    await sound(scenario)

    def lax(notes: Any, plan: Any, before: Any, now: Any) -> Any:
        users = {approval.claim(v)[1] for k, v in notes.items() if k.startswith(APPROVE_PREFIX)}
        return tuple(Approval(user=u, key="k", digest=plan.digest, at=now) for u in sorted(users))

    monkeypatch.setattr(approval, "seen", lax)
    await judged(scenario, "approved by set")


async def test_one_person_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(w: World) -> None:
        def people() -> None:
            if w.phase == "AwaitingApproval" and not w.incident.metadata.annotations:
                w.approve("alice")
                w.approve("alice", key="again")

        w.at_each_second = people

    async def scenario() -> World:
        return await run("L3", prepare=prepare, approval={"count": 2})

    await sound(scenario)
    monkeypatch.setattr(
        approval,
        "judge",
        lambda notes, plan, approvals, spec, *a: approval.Approved(("alice",)) if len(approvals) >= 2 else approval.Waiting(2, 2, ()),
    )
    await judged(scenario, "approved by")


async def test_a_plan_without_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(self: Any, s: Any, step: Any, execution: str) -> DryRun:
        return DryRun(at=self._clock.now(), diff="")

    monkeypatch.setattr(executor.Executor, "_dry_run", none)
    await judged(run, "no dry run was asked for")


def once_reserved(w: World, act: Callable[[], Any]) -> None:
    async def hook(call: Call) -> None:
        if call.verb == "status" and any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions):
            w.api.after = quiet
            act()

    w.api.after = hook


async def test_a_policy_in_shadow_that_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> World:
        return await run(orders={"enforcement": "Shadow"})

    await sound(scenario)
    lax = tuple(replace(g, judge=lambda q, now: gates.passed("open")) if g.name == "enforcement" else g for g in gates.CHAIN)
    monkeypatch.setattr(gates, "CHAIN", lax)
    monkeypatch.setattr(gates, "enforcement", lambda q, now: gates.passed("open"))
    await judged(scenario, "in Shadow")


async def test_a_freeze_that_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def begins(w: World) -> None:
        now = w.clock.now()
        freeze = {"name": "f", "from": stamp(now), "until": stamp(now + timedelta(hours=1))}
        once_reserved(w, lambda: w.cluster_policy("frozen", freezes=[freeze]))

    async def scenario() -> World:
        return await run(prepare=begins)

    await sound(scenario)
    monkeypatch.setattr(autonomy, "frozen_by", lambda *a: iter(()))
    await judged(scenario, "frozen")


async def test_a_human_who_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> World:
        return await run(prepare=lambda w: once_reserved(w, w.take))

    await sound(scenario)
    monkeypatch.setattr(scores, "RISK", tuple(part for part in scores.RISK if part is not scores.taken))
    await judged(scenario, "taken")


# ---------------------------------------------------------------- the books


async def test_no_slot_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(self: Any, *a: Any) -> None:
        return None

    monkeypatch.setattr(executor.Executor, "_take", none)
    await judged(run, "no slot|Ledger")


async def test_no_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.component.fakes import Incidents

    async def none(self: Any, incident: Any, present: bool) -> Any:
        return incident

    monkeypatch.setattr(Incidents, "set_finalizer", none)
    await judged(run, "no finalizer")


async def test_a_slot_that_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(self: Any, incident: Any) -> None:
        await self._incidents.set_finalizer(incident, False)

    monkeypatch.setattr(executor.Executor, "_close", none)
    await judged(run, "slots still taken|without an outcome")


@pytest.mark.parametrize("layers", [1, 2])
async def test_after_an_undo_it_acts_again(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    """Not what the oracle looks for, but what a count of effects must show. Both layers must be gone: the Incident's and the Ledger's."""
    monkeypatch.setattr(before, "_stopped_acting", lambda status: None)
    if layers == 2:
        monkeypatch.setattr(scores, "TRUST", tuple(part for part in scores.TRUST if part is not scores.record))

    def prepare(w: World) -> None:
        w.at_each_second = lambda: w.controllers.sick.add(GOOD) if w.image() == GOOD else None

    w = await run(prepare=prepare, seconds=200, limits={"cooldown": "30s"})
    assert (len(w.mutations()) > 2) is (layers == 2)
    assert w.image() in (GOOD, BAD)
