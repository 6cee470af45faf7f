"""What the night orders say, end to end: Shadow, freezes, the breaker over restarts, earning, and a human who takes over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from nightorders.domain.journal import breaks
from tests.component.fakes import Call, Died, stamp
from tests.component.world import BAD, GOOD, SECOND, SHOP, SYSTEM, World, stuck

OTHER = "registry.example/checkout:8"
SHADOW = {"enforcement": "Shadow"}


def reason(w: World, kind: str) -> str:
    return next((c.reason for c in w.incident.status.conditions if c.type == kind), "")


def once_reserved(w: World, act: Callable[[], Any]) -> None:
    """Right after the reservation is saved, before the pass that would apply it."""
    done: list[Call] = []

    async def hook(call: Call) -> None:
        reserved = any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions)
        if (call.kind, call.verb) == ("Incident", "status") and reserved and not done:
            done.append(call)
            act()

    w.api.after = hook


def untouched(w: World) -> bool:
    return not w.mutations() and not w.slots() and not any(c.verb in ("patch", "dry-run") for c in w.api.calls)


# ---------------------------------------------------------------- Shadow


@pytest.mark.parametrize("level", ["L2", "L3", "L4"])
async def test_shadow_decides_and_touches_nothing(level: str) -> None:
    w = await stuck(level, orders=SHADOW)
    await w.until(lambda: w.incident.status.shadow is not None)
    w.approve("alice", digest="sha256:" + "0" * 64)
    await w.seconds(60)
    status = w.incident.status
    assert untouched(w)
    assert status.shadow is not None
    assert status.shadow.would.startswith(
        {"L2": "would have advised", "L3": "would have asked for an approval", "L4": "would have acted alone"}[level]
    )
    assert (status.plan, status.executions, reason(w, "Planned")) == (None, (), "Shadow")
    assert w.image() == BAD


@pytest.mark.parametrize(("image", "score"), [(GOOD, "Agreed"), (OTHER, "Differed"), (None, "Needless")])
async def test_shadow_is_scored_against_what_really_happened_and_noted_once(image: str | None, score: str) -> None:
    w = await stuck("L4", orders=SHADOW)
    await w.until(lambda: w.incident.status.shadow is not None)
    if image is None:
        w.controllers.missing.clear()
    else:
        w.release(image, actor="alice")
    await w.until(w.all_closed)
    await w.seconds(20)
    w.start()
    await w.seconds(20)
    (note,) = w.ledger().spec.shadows
    assert (note.score, note.workload, note.policy) == (score, "Deployment/checkout", "orders")
    assert w.incident.status.shadow is not None
    assert w.incident.status.shadow.score == score
    assert untouched(w)
    assert breaks(w.incident.status.timeline, w.incident.metadata.uid) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_any_write_in_shadow_changes_nothing(when: str) -> None:
    async def run(number: int) -> World:
        w = await stuck("L4", orders=SHADOW)

        async def dies(call: Call) -> None:
            if call.number == number:
                raise Died

        setattr(w.api, when, dies)
        released = False
        for _ in range(80):
            if not released and w.incident.status.shadow is not None:
                w.release(GOOD, actor="alice")
                released = True
            if w.all_closed():
                break
            try:
                await w.second()
            except Died:
                w.start()
        assert w.all_closed(), w.story()
        return w

    writes = (await run(-1)).api.writes
    assert writes >= 4
    for number in range(1, writes + 1):
        w = await run(number)
        assert untouched(w), number
        assert [s.score for s in w.ledger().spec.shadows] == ["Agreed"], number


async def test_a_policy_that_goes_into_shadow_withdraws_its_plan_and_one_that_comes_back_asks_again() -> None:
    w = await stuck("L3")
    await w.until_phase("AwaitingApproval")
    w.policy("L3", orders=SHADOW)
    w.approve("alice")
    await w.seconds(20)
    assert (w.mutations(), w.incident.status.plan) == ([], None)
    w.policy("L3")
    await w.until_phase("AwaitingApproval")
    await w.seconds(20)
    assert w.mutations() == [], "the approval was for the plan before"
    w.approve("alice", key="again")
    await w.until_phase("Recovered")


async def test_a_policy_that_goes_into_shadow_between_reservation_and_effect_stops_it() -> None:
    w = await stuck("L4")
    once_reserved(w, lambda: w.policy("L4", orders=SHADOW))
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(20)
    assert (w.mutations(), w.slots(), w.image()) == ([], [], BAD)


async def test_a_policy_that_goes_into_shadow_does_not_stop_an_undo() -> None:
    w = await stuck("L4")
    await w.until_phase("Verifying")
    w.policy("L4", orders=SHADOW)
    w.controllers.sick.add(GOOD)
    await w.until_phase("Undone")
    assert (w.image(), len(w.mutations())) == (BAD, 2)


# ---------------------------------------------------------------- freezes


def held(w: World, begins: int = 0, lasts: int = 600) -> dict[str, Any]:
    now = w.clock.now()
    return {"name": "audit", "from": stamp(now + timedelta(seconds=begins)), "until": stamp(now + timedelta(seconds=begins + lasts))}


@pytest.mark.parametrize("whose", ["team", "platform"])
@pytest.mark.parametrize("level", ["L3", "L4"])
async def test_a_freeze_that_begins_between_reservation_and_effect_stops_it(level: str, whose: str) -> None:
    w = await stuck(level)

    def begins() -> None:
        if whose == "team":
            w.policy(level, orders={"freezes": [held(w)]})
        else:
            w.cluster_policy("frozen", freezes=[held(w)])

    once_reserved(w, begins)
    if level == "L3":
        await w.until_phase("AwaitingApproval")
        w.approve("alice")
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(30)
    assert (w.mutations(), w.slots(), w.image()) == ([], [], BAD)
    assert w.phase == "Advised"


async def test_a_freeze_that_begins_by_the_clock_between_reservation_and_effect_stops_it() -> None:
    w = await stuck("L4")
    w.cluster_policy("frozen", freezes=[held(w, begins=300)])
    once_reserved(w, lambda: w.clock.advance(timedelta(seconds=300)))
    await w.until(lambda: "operator:NotApplied" in w.results())
    assert w.mutations() == []


async def test_during_a_freeze_there_is_advice_and_afterwards_it_goes_on() -> None:
    w = await stuck()
    w.policy("L4", orders={"freezes": [held(w, lasts=40)]})
    w.start()
    await w.until_phase("Advised")
    await w.seconds(15)
    assert w.mutations() == []
    await w.until_phase("Recovered")
    assert w.clock.now() > w.incident.metadata.creation_timestamp + timedelta(seconds=40)  # type: ignore[operator]


async def test_a_freeze_that_cannot_be_read_holds_everything() -> None:
    w = await stuck()
    w.policy("L4", orders={"freezes": [{"name": "broken", "schedule": "every friday", "duration": "1h"}]})
    w.start()
    await w.seconds(60)
    assert (w.phase, w.mutations()) == ("Advised", [])


async def test_an_emergency_approval_and_no_other_carries_a_plan_through_a_freeze() -> None:
    w = await stuck()
    w.policy("L3", approval={"count": 1, "emergency": "Allow"}, orders={"freezes": [held(w)]})
    w.start()
    await w.until_phase("AwaitingApproval")
    w.approve("alice")
    await w.seconds(20)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])
    w.answer("emergency.nightorders.dev/", "alice", key="mute")  # without a reason
    await w.seconds(20)
    assert w.mutations() == []
    w.answer("emergency.nightorders.dev/", "alice", key="loud", why="orders are lost")
    await w.until_phase("Recovered")
    assert w.incident.status.executions[0].emergency
    assert [o.emergency for o in w.ledger().spec.outcomes] == [True]


async def test_a_freeze_does_not_stop_an_undo() -> None:
    w = await stuck("L4")
    await w.until_phase("Verifying")
    w.cluster_policy("frozen", freezes=[held(w)])
    w.controllers.sick.add(GOOD)
    await w.until_phase("Undone")
    assert w.image() == BAD


# ---------------------------------------------------------------- three failures


def images(name: str) -> tuple[str, str]:
    return f"registry.example/{name}:6", f"registry.example/{name}:7"


async def breaks_down(w: World, name: str, *, helps: bool) -> None:
    """A release of that workload gets stuck; going back helps, or makes it worse."""
    good, bad = images(name)
    w.controllers.missing.add(bad)
    known = len(w.incidents())
    w.release(bad, name)
    await w.until(lambda: len(w.incidents()) > known)

    def people() -> None:
        if not helps and w.image(name) == good:
            w.controllers.sick.add(good)
        if helps:
            w.controllers.sick.discard(good)

    w.at_each_second = people


def of(w: World, name: str) -> Any:
    return next(i for i in reversed(w.incidents()) if i.spec.target.name == name)


def phase(w: World, name: str) -> str:
    return str(of(w, name).status.phase or "")


async def shop(*names: str, **rule: Any) -> World:
    """Several workloads, each healthy and recorded, under one rule."""
    w = World.empty()
    w.policy("L4", limits={"perHour": 50, "cooldown": "1s", "stalledAfter": "5s"}, **rule)
    for name in names:
        w.deploy(name, image=images(name)[0])
    w.start()
    await w.until(lambda: ("Ledger", SHOP, "ledger") in w.api.objects and len(w.ledger().spec.healthy_revisions) == len(names))
    return w


async def test_three_failures_open_the_breaker_over_restarts_and_policies_made_anew() -> None:
    names = ("a", "b", "c", "d", "e")
    w = await shop(*names)
    for name in names[:3]:
        await breaks_down(w, name, helps=False)
        await w.until(lambda name=name: phase(w, name) == "Undone", 200)  # type: ignore[misc]
        w.start()  # nothing is remembered but what the store holds
    failures = [o.result for o in w.ledger().spec.outcomes]
    assert failures == ["Undone"] * 3
    done = len(w.mutations())
    # open: advice only, also for another workload, and also under a policy of another name
    await breaks_down(w, "d", helps=True)
    await w.until(lambda: phase(w, "d") == "Advised")
    w.api.delete("RemediationPolicy", SHOP, "orders")
    w.policy("L4", name="renamed", limits={"perHour": 50, "cooldown": "1s", "stalledAfter": "5s"})
    w.start()
    await w.seconds(60)
    assert (phase(w, "d"), len(w.mutations())) == ("Advised", done)
    said = {s.who: s for s in of(w, "d").status.autonomy.decided_by}
    assert said["breaker"].value == "3 failures"
    # half-open after an hour: one trial, which a human approves; its success closes it
    w.clock.advance(timedelta(hours=1))
    w.start()
    await w.until(lambda: phase(w, "d") == "AwaitingApproval")
    await w.seconds(20)
    assert len(w.mutations()) == done
    w.api.edit(
        "Incident", SHOP, of(w, "d").metadata.name,
        lambda raw: raw["metadata"].setdefault("annotations", {}).update({"approve.nightorders.dev/a": f"{of(w, 'd').status.plan.digest}|alice"}),
    )  # fmt: skip
    await w.until(lambda: phase(w, "d") == "Recovered")
    assert len(w.mutations()) == done + 1
    await breaks_down(w, "e", helps=True)
    await w.until(lambda: phase(w, "e") == "Recovered")
    assert len(w.mutations()) == done + 2


async def test_a_rule_that_earns_begins_with_advice_and_a_failure_throws_it_back() -> None:
    w = await shop("a", "b", "c")
    w.api.edit(
        "RemediationPolicy", SHOP, "orders", lambda p: p["spec"]["rules"][0].update(earn={"from": "L3", "successes": 1, "over": "336h"})
    )
    await breaks_down(w, "a", helps=True)
    await w.until(lambda: phase(w, "a") == "AwaitingApproval")
    await w.seconds(10)
    assert w.mutations() == []
    w.approve("alice")
    await w.until(lambda: phase(w, "a") == "Recovered")
    assert [(o.confirmed, o.level) for o in w.ledger().spec.outcomes] == [("Human", "L3")]
    await breaks_down(w, "b", helps=False)  # one confirmed success has carried it to L4
    await w.until(lambda: phase(w, "b") == "Undone", 200)
    await breaks_down(w, "c", helps=True)
    await w.until(lambda: phase(w, "c") == "AwaitingApproval")


# ---------------------------------------------------------------- a human takes over


async def test_taken_while_a_plan_waits_it_is_advice_and_given_back_it_waits_again() -> None:
    w = await stuck("L3")
    await w.until_phase("AwaitingApproval")
    w.take()
    await w.until_phase("Advised")
    w.approve("alice")
    await w.seconds(20)
    assert w.mutations() == []
    w.give_back()
    w.withdraw("alice")
    await w.until_phase("AwaitingApproval")
    assert [(t.actor, t.what) for t in w.incident.status.timeline if t.actor == "eve"] == [
        ("eve", "takes this Incident: advice only from here"), ("eve", "gives it back"),
    ]  # fmt: skip
    w.approve("alice", key="again")
    await w.until_phase("Recovered")


@pytest.mark.parametrize("level", ["L3", "L4"])
async def test_taken_between_reservation_and_effect_nothing_is_done(level: str) -> None:
    w = await stuck(level)
    once_reserved(w, w.take)
    if level == "L3":
        await w.until_phase("AwaitingApproval")
        w.approve("alice")
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(20)
    assert (w.mutations(), w.slots(), w.image()) == ([], [], BAD)


async def test_taken_during_the_verification_it_is_still_verified_and_undone() -> None:
    w = await stuck("L4")
    await w.until_phase("Verifying")
    w.take()
    w.controllers.sick.add(GOOD)
    await w.until(lambda: w.results() == ["operator:Undone"])
    assert (w.image(), w.slots()) == (BAD, [])


async def test_somebody_who_toggles_does_not_fill_the_story() -> None:
    w = await stuck("L3")
    await w.until_phase("AwaitingApproval")
    for n in range(60):
        (w.take if n % 2 == 0 else w.give_back)()
        await w.second()
    await w.seconds(20)
    timeline = w.incident.status.timeline
    assert len(timeline) <= 96
    assert breaks(timeline, w.incident.metadata.uid) == []
    w.approve("alice")
    await w.until_phase("Recovered")


# ---------------------------------------------------------------- what was there before


async def test_a_ledger_that_vanishes_leaves_advice_only_although_it_is_made_anew() -> None:
    w = await stuck("L4", limits={"cooldown": "1s"})
    w.exempt = True  # its books are lost
    await w.until_phase("Recovered")
    assert SHOP in w.ledger(SYSTEM).spec.namespaces
    w.api.delete("Ledger", SHOP, "ledger")
    w.start()
    await w.seconds(5)
    assert not w.ledger().spec.outcomes, "the watch made it again, and it remembers nothing"
    w.release(BAD)
    await w.until(lambda: len(w.incidents()) == 2)
    await w.until_phase("Advised")
    await w.seconds(20)
    assert len(w.mutations()) == 1


async def test_a_rejection_is_remembered_for_the_next_incident() -> None:
    w = await stuck("L3")
    await w.until_phase("AwaitingApproval")
    w.reject("bob")
    await w.seconds(5)
    assert [(r.by, r.workload) for r in w.ledger().spec.rejections] == [("bob", "Deployment/checkout")]
    w.policy("L4")
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    w.start()
    await w.until_phase("AwaitingApproval")
    await w.seconds(20)
    assert w.mutations() == [], "it would have acted alone, and somebody said no to the same within the day"
    assert w.clock.now() - timedelta(days=1) < w.ledger().spec.rejections[0].at
    assert timedelta(minutes=1) > SECOND
