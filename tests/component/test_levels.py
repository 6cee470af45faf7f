"""Each level end to end, and what people may say to a plan while it waits."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.meta import APPROVE_PREFIX, EXECUTION_LABEL, MAX_LEVEL_ANNOTATION
from tests.component.world import BAD, GOOD, SECOND, SHOP, SYSTEM, World, stuck


def reason(w: World, kind: str) -> str:
    return next((c.reason for c in w.incident.status.conditions if c.type == kind), "")


async def waiting(**rule: Any) -> World:
    w = await stuck("L3", **rule)
    await w.until_phase("AwaitingApproval")
    return w


# ---------------------------------------------------------------- L1, L2


@pytest.mark.promise(1)
@pytest.mark.parametrize("level", [None, "L1"])
async def test_l1_explains_and_stages_nothing(level: str | None) -> None:
    w = await stuck(level)
    await w.seconds(40)
    i = w.incident
    assert (w.phase, i.status.plan) == ("Diagnosed", None)
    assert "names an image that does not exist" in i.status.summary
    assert i.status.hypotheses
    assert not any(c.verb in ("dry-run", "patch") for c in w.api.calls)
    assert not w.slots()


@pytest.mark.promise(1)
async def test_l2_writes_the_command_and_touches_nothing() -> None:
    w = await stuck("L2")
    await w.until_phase("Advised")
    await w.seconds(30)
    p = w.incident.status.plan
    assert p is not None
    assert p.command[-1][:3] == ("kubectl", "patch", "deployment")
    assert p.dry_run is not None
    assert (p.approve, w.image(), w.mutations(), w.slots()) == ("", BAD, [], [])


async def test_l2_notices_what_the_human_did_and_verifies_it() -> None:
    w = await stuck("L2")
    await w.until_phase("Advised")
    w.release(GOOD, actor="alice")
    await w.until_phase("Recovered")
    assert w.results() == ["human:Recovered"]
    assert w.mutations() == []
    assert [o.by for o in w.ledger().spec.outcomes] == ["human"]
    assert not w.incident.metadata.finalizers


async def test_l2_does_not_undo_what_a_human_did_and_calls_for_help() -> None:
    w = await stuck("L2")
    await w.until_phase("Advised")
    w.controllers.sick.add(GOOD)
    w.release(GOOD, actor="alice")
    await w.until(lambda: w.results() == ["human:Escalated"])
    assert w.image() == GOOD
    assert w.mutations() == []


async def test_l2_needs_no_right_to_patch() -> None:
    w = await stuck("L2")
    w.api.forbidden.add(("patch", "Deployment"))
    await w.until_phase("Advised")
    p = w.incident.status.plan
    assert p is not None
    assert p.dry_run is None
    assert "not dry-run" in next(c.message for c in w.incident.status.conditions if c.type == "Planned")


async def test_a_human_may_also_do_what_awaits_an_approval() -> None:
    w = await waiting()
    w.release(GOOD, actor="alice")
    await w.until_phase("Recovered")
    assert w.results() == ["human:Recovered"]
    assert w.mutations() == []


# ---------------------------------------------------------------- L3


@pytest.mark.promise(1)
async def test_l3_stops_at_the_gate() -> None:
    w = await waiting()
    await w.seconds(60)
    assert (w.phase, w.image(), w.mutations(), w.slots()) == ("AwaitingApproval", BAD, [], [])
    assert reason(w, "Approved") == "Waiting"


async def test_l3_approved_executes_verifies_and_closes() -> None:
    w = await waiting()
    w.approve("alice")
    await w.until_phase("Verifying")
    assert w.image() == GOOD
    assert w.incident.metadata.finalizers
    assert len(w.slots()) == 2
    await w.until_phase("Recovered")
    i = w.incident
    assert (w.results(), w.slots(), list(i.metadata.finalizers)) == (["operator:Recovered"], [], [])
    assert [a.user for a in i.status.approvals] == ["alice"]
    assert [o.result for o in w.ledger().spec.outcomes] == ["Recovered"]
    assert [o.result for o in w.ledger(SYSTEM).spec.outcomes] == ["Recovered"]
    assert w.operator.guard.asked[-1] == i.metadata.name, "the guard is proven on the very Incident"
    assert w.api.objects[("Deployment", SHOP, "checkout")]["metadata"]["labels"][EXECUTION_LABEL] == i.status.executions[0].id


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_two_approvals_are_two_people() -> None:
    w = await waiting(approval={"count": 2})
    w.approve("alice")
    w.approve("alice", key="again")
    await w.seconds(40)
    assert w.mutations() == []
    w.approve("bob")
    await w.until_phase("Recovered")
    assert w.results() == ["operator:Recovered"]


@pytest.mark.threat(5)
@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "user", ["system:serviceaccount:nightorders-system:nightorders", "system:serviceaccount:shop:ci", "system:admin", ""]
)
async def test_accounts_do_not_approve(user: str) -> None:
    w = await waiting()
    w.approve(user, key="k")
    await w.seconds(30)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])


@pytest.mark.threat(3)
@pytest.mark.promise(1)
@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "", "sha256:"])
async def test_an_approval_of_another_plan_counts_nothing(digest: str) -> None:
    w = await waiting()
    w.approve("alice", digest=digest)
    await w.seconds(30)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])


@pytest.mark.threat(6)
@pytest.mark.promise(1)
async def test_the_requester_does_not_count_with_two_wanted() -> None:
    w = await stuck("L3", approval={"count": 2})
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    w.open_incident(requester="carol")
    w.start(detect=False)
    await w.until_phase("AwaitingApproval")
    w.approve("carol")
    w.approve("alice")
    await w.seconds(30)
    assert w.mutations() == []
    w.approve("bob")
    await w.until_phase("Recovered")


@pytest.mark.threat(6)
@pytest.mark.promise(6)
async def test_an_incident_opened_by_hand_never_acts_alone() -> None:
    w = await stuck("L4")
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    w.open_incident()
    w.start(detect=False)
    await w.until_phase("AwaitingApproval")
    await w.seconds(30)
    assert w.mutations() == []
    w.approve("carol")
    await w.until_phase("Recovered")


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_an_approval_written_before_the_plan_is_nothing() -> None:
    w = await stuck("L3")
    w.answer(APPROVE_PREFIX, "alice", digest="sha256:" + "1" * 64)
    await w.until_phase("AwaitingApproval")
    await w.seconds(20)
    assert w.mutations() == []


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_a_withdrawn_approval_does_not_count() -> None:
    w = await waiting(approval={"count": 2})
    w.approve("alice")
    await w.seconds(3)
    w.withdraw("alice")
    w.approve("bob")
    await w.seconds(30)
    assert w.mutations() == []
    assert [a.user for a in w.incident.status.approvals] == ["bob"]
    assert any(t.actor == "alice" and t.what == "withdraws the approval" for t in w.incident.status.timeline)


async def test_a_rejection_ends_the_plan_for_good() -> None:
    w = await waiting()
    w.reject("bob", why="the vendor is on it")
    await w.seconds(2)
    assert reason(w, "Planned") == "Rejected"
    await w.seconds(60)
    assert w.incident.status.plan is None
    w.policy("L4")
    await w.seconds(60)
    assert (w.mutations(), w.incident.status.plan) == ([], None)
    assert any(t.actor == "bob" and "the vendor is on it" in t.what for t in w.incident.status.timeline)


async def test_a_rejection_at_the_same_moment_outweighs_the_approval() -> None:
    w = await waiting()
    w.approve("alice")
    w.reject("bob")
    await w.seconds(40)
    assert w.mutations() == []


# ---------------------------------------------------------------- expiry


async def test_a_plan_that_nobody_answered_is_staged_again_under_the_same_digest() -> None:
    w = await waiting(approval={"count": 1, "expiresAfter": "20s"})
    p = w.incident.status.plan
    await w.seconds(45)
    q = w.incident.status.plan
    assert p is not None
    assert q is not None
    assert (q.digest, q.sequence) == (p.digest, p.sequence)
    assert q.expires_at is not None
    assert q.expires_at > w.clock.now()
    w.approve("alice")
    await w.until_phase("Recovered")


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_an_approval_does_not_become_young_by_waiting() -> None:
    w = await waiting(approval={"count": 2, "expiresAfter": "20s"})
    w.approve("alice")
    await w.seconds(25)
    w.approve("bob")
    await w.seconds(15)
    assert w.mutations() == [], "alice's is too old"
    w.approve("alice", key="again")
    await w.until_phase("Recovered")


# ---------------------------------------------------------------- L4


async def test_l4_acts_alone_and_says_why_it_may() -> None:
    w = await stuck("L4")
    await w.until_phase("Recovered")
    assert w.results() == ["operator:Recovered"]
    assert reason(w, "Approved") == "NotRequired"
    assert len(w.mutations()) == 1
    assert w.operator.errors == []


async def test_l4_waits_until_the_fault_has_held() -> None:
    w = await stuck("L4", limits={"stalledAfter": "30s"})
    began = w.clock.now()
    await w.until(lambda: w.mutations())
    assert w.mutations()[0].at - began >= 20 * SECOND


@pytest.mark.promise(6)
@pytest.mark.parametrize("place", ["object", "namespace"])
@pytest.mark.parametrize(("value", "phase"), [("L3", "AwaitingApproval"), ("L2", "Advised"), ("L1", "Diagnosed"), ("L5", "Diagnosed")])
async def test_an_annotation_is_a_ceiling(place: str, value: str, phase: str) -> None:
    w = await stuck("L4")
    where = ("Deployment", SHOP, "checkout") if place == "object" else ("Namespace", "", SHOP)
    w.api.edit(*where, lambda raw: raw["metadata"].setdefault("annotations", {}).update({MAX_LEVEL_ANNOTATION: value}))
    await w.until_phase(phase)
    await w.seconds(20)
    assert w.mutations() == []


@pytest.mark.threat(12)
@pytest.mark.promise(4)
@pytest.mark.parametrize("what", ["guard", "schemas", "policy", "cluster policy", "not proven healthy"])
async def test_without_a_proof_it_does_not_act_alone(what: str) -> None:
    w = await stuck("L4")
    p = w.start()
    if what == "guard":
        p.guard.proven = False
    elif what == "schemas":
        p.schemas = type(p.schemas)(False, "older")
    elif what == "policy":
        w.api.edit("RemediationPolicy", SHOP, "orders", lambda raw: raw["spec"].update(earn={"from": "L2"}))
    elif what == "cluster policy":
        w.cluster_policy(unheardOf=True)
    else:
        w.api.edit("Ledger", SHOP, "ledger", lambda raw: raw["spec"].update(healthyRevisions=[]))
        for name in [n for (k, _, n) in list(w.api.objects) if k == "Pod"]:
            w.api.delete("Pod", SHOP, name)
        w.controllers.missing.add(GOOD)
    await w.seconds(45)
    assert w.mutations() == []
    assert w.phase in ("Diagnosed", "Advised", "AwaitingApproval")


@pytest.mark.threat(2)
@pytest.mark.promise(1)
async def test_a_guard_that_fails_on_the_very_incident_holds_the_approved_plan() -> None:
    w = await waiting()
    w.operator.guard.proven = False
    w.approve("alice")
    await w.seconds(20)
    assert w.mutations() == []
    assert w.phase == "Advised"
