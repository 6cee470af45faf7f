"""What people and clusters do in between: policies, stops, deletions, changes, lost permissions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import FINALIZER
from nightorders.ports import TransientError
from tests.component.fakes import Call
from tests.component.world import BAD, GOOD, SHOP, SYSTEM, World, stuck

OTHER = "registry.example/checkout:8"


async def waiting(**rule: Any) -> World:
    w = await stuck("L3", **rule)
    await w.until_phase("AwaitingApproval")
    return w


async def verifying(level: str = "L4", **rule: Any) -> World:
    w = await stuck(level, **rule)
    if level == "L3":
        await w.until_phase("AwaitingApproval")
        w.approve("alice")
    await w.until_phase("Verifying")
    await w.seconds(2)
    return w


def before(w: World, verb: str, kind: str, act: Callable[[], None], nth: int = 1) -> list[Call]:
    """`act` happens right before the operator's nth such request."""
    seen: list[Call] = []

    async def hook(call: Call) -> None:
        if (call.verb, call.kind) == (verb, kind):
            seen.append(call)
            if len(seen) == nth:
                act()

    w.api.before = hook
    return seen


def after(w: World, verb: str, kind: str, act: Callable[[], None]) -> None:
    done: list[Call] = []

    async def hook(call: Call) -> None:
        if (call.verb, call.kind) == (verb, kind) and not done:
            done.append(call)
            act()

    w.api.after = hook


# ---------------------------------------------------------------- policies while a plan waits


@pytest.mark.promise(1)
async def test_a_policy_deleted_while_a_plan_waits_ends_it() -> None:
    w = await waiting()
    w.approve("alice")
    w.api.delete("RemediationPolicy", SHOP, "orders")
    await w.seconds(30)
    assert (w.phase, w.mutations(), w.incident.status.plan) == ("Diagnosed", [], None)


@pytest.mark.promise(1)
@pytest.mark.parametrize(("level", "phase"), [("L2", "Advised"), ("L1", "Diagnosed")])
async def test_a_policy_lowered_while_a_plan_waits_is_obeyed(level: str, phase: str) -> None:
    w = await waiting()
    w.policy(level)
    w.approve("alice")
    await w.seconds(30)
    assert (w.phase, w.mutations()) == (phase, [])


@pytest.mark.threat(8)
@pytest.mark.promise(6)
async def test_a_policy_raised_while_a_plan_waits_does_not_release_it() -> None:
    w = await waiting()
    w.policy("L4")
    await w.seconds(60)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])
    w.approve("alice")
    await w.until_phase("Recovered")


@pytest.mark.threat(8)
@pytest.mark.promise(6)
async def test_a_policy_written_after_the_diagnosis_never_acts_alone() -> None:
    w = await stuck()
    await w.until_phase("Diagnosed")
    w.policy("L4")
    await w.seconds(60)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])


@pytest.mark.promise(6)
async def test_another_policy_that_governs_the_same_makes_both_void() -> None:
    w = await waiting()
    w.policy("L4", name="second")
    w.approve("alice")
    await w.seconds(30)
    assert w.mutations() == []


@pytest.mark.threat(8)
@pytest.mark.promise(6)
async def test_a_relabelled_workload_does_not_act_alone() -> None:
    w = await stuck()
    w.policy("L4", tier="batch")
    w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["labels"].update(tier="batch"))
    await w.seconds(3)
    w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["labels"].update(note="harmless"))
    await w.seconds(60)
    assert (w.phase, w.mutations()) == ("AwaitingApproval", [])


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_changed_orders_for_the_verification_make_another_plan() -> None:
    w = await waiting()
    old = w.incident.status.plan
    w.approve("alice")
    w.policy("L3", verify={"onWorse": "Escalate"})
    await w.seconds(30)
    new = w.incident.status.plan
    assert w.mutations() == []
    assert old is not None
    assert new is not None
    assert new.digest != old.digest
    assert w.phase == "AwaitingApproval"


# ---------------------------------------------------------------- stop, suspend


@pytest.mark.threat(16)
@pytest.mark.parametrize("place", [SHOP, SYSTEM])
async def test_a_stop_holds_everything_and_lifting_it_lets_it_go_on(place: str) -> None:
    w = await stuck("L4")
    w.stop(place)
    await w.seconds(40)
    assert w.mutations() == []
    w.resume(place)
    await w.until_phase("Recovered")


@pytest.mark.threat(16)
@pytest.mark.parametrize("place", [SHOP, SYSTEM])
@pytest.mark.parametrize("level", ["L3", "L4"])
async def test_a_stop_between_reservation_and_effect_applies_nothing_and_frees_the_slots(level: str, place: str) -> None:
    w = await stuck(level)

    # Right after the reservation is saved, before the pass that would apply it.
    def reserved(call: Call) -> bool:
        return any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions)

    async def hook(call: Call) -> None:
        if (
            call.kind == "Incident"
            and call.verb == "status"
            and reserved(call)
            and ("ConfigMap", place, "nightorders-stop") not in w.api.objects
        ):
            w.stop(place)

    w.api.after = hook
    if level == "L3":
        await w.until_phase("AwaitingApproval")
        w.approve("alice")
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(20)
    assert (w.mutations(), w.slots(), list(w.incident.metadata.finalizers)) == ([], [], [])
    assert w.image() == BAD


@pytest.mark.threat(16)
@pytest.mark.promise(1)
async def test_after_a_stop_the_same_plan_needs_a_new_approval() -> None:
    w = await waiting()
    old = w.incident.status.plan
    w.approve("alice")
    w.stop()
    await w.seconds(10)
    w.resume()
    await w.until_phase("AwaitingApproval")
    new = w.incident.status.plan
    await w.seconds(30)
    assert w.mutations() == []
    assert old is not None
    assert new is not None
    assert new.digest != old.digest
    w.approve("alice", key="again")
    await w.until_phase("Recovered")


async def test_a_stop_during_verification_does_not_stop_the_undo() -> None:
    w = await verifying()
    w.stop()
    w.controllers.sick.add(GOOD)
    await w.until_phase("Undone")
    assert (w.image(), w.results(), w.slots()) == (BAD, ["operator:Undone"], [])
    assert len(w.mutations()) == 2


async def test_a_suspended_incident_starts_nothing_and_goes_on_when_it_is_not() -> None:
    w = await stuck("L4")
    w.suspend()
    await w.seconds(40)
    assert w.mutations() == []
    w.suspend(False)
    await w.until_phase("Recovered")


async def test_suspending_during_verification_still_verifies_and_undoes() -> None:
    w = await verifying()
    w.suspend()
    w.controllers.sick.add(GOOD)
    await w.until(lambda: w.results() == ["operator:Undone"])
    assert w.image() == BAD


# ---------------------------------------------------------------- deletions


@pytest.mark.threat(7)
async def test_an_incident_deleted_while_verifying_is_finished_first() -> None:
    w = await verifying()
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    assert w.incident.metadata.deletion_timestamp is not None
    w.start(detect=False)
    await w.until(lambda: not w.incidents())
    assert (w.image(), w.slots()) == (GOOD, [])
    assert [o.result for o in w.ledger().spec.outcomes] == ["Recovered"]


@pytest.mark.threat(7)
async def test_an_incident_deleted_while_verifying_still_undoes() -> None:
    w = await verifying()
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    w.controllers.sick.add(GOOD)
    w.start(detect=False)
    await w.until(lambda: not w.incidents())
    assert (w.image(), w.slots()) == (BAD, [])
    assert [o.result for o in w.ledger().spec.outcomes] == ["Undone"]


async def test_an_incident_deleted_while_it_waits_is_simply_gone() -> None:
    w = await waiting()
    w.start(detect=False)
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    await w.seconds(5)
    assert (w.incidents(), w.slots(), w.mutations()) == ([], [], [])


@pytest.mark.threat(7)
async def test_an_incident_deleted_between_reservation_and_effect_is_not_carried_out() -> None:
    w = await stuck("L4")
    w.start(detect=False)

    async def hook(call: Call) -> None:
        if call.verb == "status" and any(e.state == "Reserved" for i in w.incidents() for e in i.status.executions):
            w.api.after = nothing_more
            w.api.delete("Incident", SHOP, w.incident.metadata.name)

    async def nothing_more(_: Call) -> None:
        return None

    w.api.after = hook
    await w.until(lambda: not w.incidents())
    assert (w.mutations(), w.slots(), w.image()) == ([], [], BAD)


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_a_target_deleted_and_made_anew_voids_the_plan() -> None:
    w = await waiting()
    w.api.delete("Deployment", SHOP, "checkout")
    w.controllers.sync()
    w.deploy(image=BAD)
    w.approve("alice")
    await w.seconds(40)
    assert w.mutations() == []


async def test_a_target_deleted_while_verifying_ends_the_execution() -> None:
    w = await verifying()
    w.api.delete("Deployment", SHOP, "checkout")
    await w.until(lambda: w.results() == ["operator:Superseded"])
    await w.seconds(5)
    assert (w.slots(), list(w.incident.metadata.finalizers)) == ([], [])


async def test_a_target_that_is_gone_stalls_the_incident_and_says_so() -> None:
    w = await stuck("L4")
    w.api.delete("Deployment", SHOP, "checkout")
    await w.until_phase("Stalled")
    assert "does not exist" in next(c.message for c in w.incident.status.conditions if c.type == "Stalled")


# ---------------------------------------------------------------- changes of the target


@pytest.mark.threat(3)
@pytest.mark.promise(1)
async def test_a_target_changed_after_the_approval_voids_it() -> None:
    w = await waiting()
    w.controllers.missing.add(OTHER)
    w.approve("alice")
    w.release(OTHER)
    await w.seconds(60)
    assert w.mutations() == []
    assert w.image() == OTHER


@pytest.mark.promise(1)
async def test_a_target_changed_between_the_last_look_and_the_effect_is_left_alone() -> None:
    w = await stuck("L4")
    before(w, "patch", "Deployment", lambda: w.release(OTHER))
    await w.until(lambda: w.results() == ["operator:Superseded"])
    assert (w.mutations(), w.image(), w.slots()) == ([], OTHER, [])
    await w.seconds(60)
    assert w.mutations() == [], "no further action"


async def test_a_status_that_moved_in_between_does_not_matter() -> None:
    """A pod's death moves the resourceVersion, not the spec."""
    w = await waiting()
    w.approve("alice")
    seen = before(
        w, "patch", "Deployment", lambda: w.api.edit("Deployment", SHOP, "checkout", lambda d: d["status"].update(collisionCount=1))
    )
    await w.until_phase("Recovered")
    assert len(seen) == 2, "one conflict, then once more under the same id"
    assert len(w.mutations()) == 1


async def test_an_annotation_that_moved_the_generation_does_not_matter() -> None:
    w = await waiting()
    w.approve("alice")

    def edit() -> None:
        w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["annotations"].update(note="x"))

    before(w, "patch", "Deployment", edit)
    await w.until_phase("Recovered")


@pytest.mark.parametrize("image", [OTHER, BAD])
async def test_somebody_elses_change_during_verification_is_theirs(image: str) -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    w.release(image)
    await w.until(lambda: w.results() == ["operator:Superseded"])
    await w.seconds(60)
    assert (w.image(), len(w.mutations()), w.slots()) == (image, 1, [])


async def test_somebody_elses_change_at_the_moment_of_the_undo_is_theirs() -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    before(w, "patch", "Deployment", lambda: w.release(OTHER))
    await w.until(lambda: w.results() == ["operator:Superseded"])
    await w.seconds(30)
    assert (w.image(), len(w.mutations())) == (OTHER, 1)


async def test_a_planted_template_is_not_deployed() -> None:
    """threats.md 12: somebody edits the healthy ReplicaSet's template between plan and effect."""
    w = await waiting()
    name = next(
        n
        for (k, _, n), raw in w.api.objects.items()
        if k == "ReplicaSet" and raw["spec"]["template"]["spec"]["containers"][0]["image"] == GOOD
    )

    def plant() -> None:
        w.api.edit("ReplicaSet", SHOP, name, lambda r: r["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"))

    w.approve("alice")
    before(w, "finalizer", "Incident", plant)
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(30)
    assert (w.mutations(), w.image(), w.slots()) == ([], BAD, [])


@pytest.mark.promise(1)
async def test_a_webhook_that_makes_something_else_of_the_patch_is_noticed_in_the_dry_run() -> None:
    w = await stuck("L4")
    w.api.mutating_webhook = lambda raw: raw["spec"]["template"]["spec"]["containers"][0].update(image="mirror.example/checkout:6")
    await w.seconds(40)
    assert w.mutations() == []
    assert "webhook" in next(c.message for c in w.incident.status.conditions if c.type == "Planned")


async def test_an_owner_that_appears_is_respected() -> None:
    w = await waiting()
    w.approve("alice")
    w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["annotations"].update({"argocd.argoproj.io/tracking-id": "x"}))
    await w.seconds(30)
    assert w.mutations() == []


# ---------------------------------------------------------------- permissions


async def test_no_right_to_patch_is_said_at_the_dry_run_with_the_command_that_gives_it() -> None:
    w = await stuck("L4")
    w.api.forbidden.add(("patch", "Deployment"))
    await w.seconds(40)
    planned = next(c for c in w.incident.status.conditions if c.type == "Planned")
    assert (planned.reason, "kubectl create rolebinding" in planned.message) == ("PermissionMissing", True)
    w.api.forbidden.clear()
    await w.until_phase("Recovered")


async def test_a_right_revoked_at_the_moment_of_the_effect_ends_it_unapplied() -> None:
    w = await stuck("L4")
    before(w, "patch", "Deployment", lambda: w.api.forbidden.add(("patch", "Deployment")))
    await w.until(lambda: w.results() == ["operator:NotApplied"])
    await w.seconds(10)
    assert (w.mutations(), w.slots(), list(w.incident.metadata.finalizers)) == ([], [], [])


async def test_a_right_revoked_before_the_undo_calls_a_human() -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    w.api.forbidden.add(("patch", "Deployment"))
    await w.until(lambda: w.results() == ["operator:Escalated"])
    await w.seconds(10)
    assert (len(w.mutations()), w.slots(), w.phase) == (1, [], "Escalated")


@pytest.mark.promise(4)
async def test_a_right_to_read_that_is_gone_lowers_and_is_told() -> None:
    w = await stuck("L4")
    w.api.forbidden.add(("list", "Pod"))
    await w.seconds(40)
    assert w.mutations() == []


@pytest.mark.promise(4)
@pytest.mark.parametrize("what", ["ConfigMap/nightorders-stop", "Namespace/shop"])
async def test_what_must_be_known_and_cannot_be_read_holds_the_action(what: str) -> None:
    w = await stuck("L4")
    w.operator.reader.unread[what] = "failed: time-out"
    await w.seconds(40)
    assert w.mutations() == []
    w.operator.reader.unread.clear()
    await w.until_phase("Recovered")


@pytest.mark.promise(4)
async def test_policies_that_cannot_be_listed_are_not_no_policies() -> None:
    w = await stuck("L4")

    async def fails(call: Call) -> None:
        if (call.verb, call.kind) == ("list", "ClusterRemediationPolicy"):
            raise TransientError("time-out")

    w.api.before = fails
    await w.seconds(40)
    assert w.mutations() == []


# ---------------------------------------------------------------- verdicts


async def test_worse_is_undone_and_then_a_human_decides() -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    await w.until_phase("Undone")
    assert (w.image(), len(w.mutations())) == (BAD, 2)
    await w.seconds(90)
    assert (len(w.mutations()), w.results(), w.slots()) == (2, ["operator:Undone"], [])
    assert len(w.incidents()) == 1
    assert next(c.reason for c in w.incident.status.conditions if c.type == "Planned") == "StoppedActing"


@pytest.mark.parametrize(("on", "result", "image"), [("Undo", "Undone", BAD), ("Escalate", "Escalated", GOOD)])
async def test_unchanged_does_what_the_policy_says(on: str, result: str, image: str) -> None:
    w = await stuck("L4", verify={"onUnchanged": on, "checks": [{"name": "available", "condition": "Happy"}], "onNoData": on})
    await w.until(lambda: w.results() == [f"operator:{result}"])
    await w.seconds(30)
    assert (w.image(), w.slots()) == (image, [])


@pytest.mark.promise(4)
async def test_no_data_is_never_success() -> None:
    w = await stuck("L4", verify={"checks": [{"name": "errors", "promql": "up", "max": "1"}]})
    w.operator.metrics.value = None
    await w.until(lambda: w.results() == ["operator:Escalated"])
    assert w.image() == GOOD
    assert "NoData" in next(c.reason for c in w.incident.status.conditions if c.type == "Verified")


@pytest.mark.threat(18)
async def test_a_metric_alone_escalates_and_does_not_undo() -> None:
    w = await stuck("L4", verify={"checks": [{"name": "errors", "promql": "up", "max": "1"}]})
    await w.until_phase("Verifying")
    w.operator.metrics.value = 9.0
    await w.until(lambda: w.results() == ["operator:Escalated"])
    assert (w.image(), len(w.mutations())) == (GOOD, 1)


@pytest.mark.promise(4)
async def test_pods_that_cannot_be_listed_during_verification_are_no_success() -> None:
    w = await verifying()
    w.operator.reader.unread["Pod"] = "failed: time-out"
    await w.until(lambda: w.results() == ["operator:Escalated"])
    assert w.image() == GOOD


async def test_one_read_that_fails_does_not_end_an_undo() -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    w.operator.reader.unread["ReplicaSet/" + failing_set(w)] = "failed: 503"
    await w.until_phase("Undoing")
    await w.seconds(30)
    assert w.phase == "Undoing"
    w.operator.reader.unread.clear()
    await w.until_phase("Undone")


def failing_set(w: World) -> str:
    p = w.incident.status.plan
    assert p is not None
    return p.inverse.ref.partition("/")[2]


async def test_an_undo_whose_bytes_are_gone_escalates() -> None:
    w = await verifying()
    w.controllers.sick.add(GOOD)
    w.api.delete("ReplicaSet", SHOP, failing_set(w))
    await w.until(lambda: w.results() == ["operator:Escalated"])
    assert (w.image(), w.slots()) == (GOOD, [])


# ---------------------------------------------------------------- several Incidents, budgets, episodes


@pytest.mark.promise(2)
async def test_two_incidents_for_one_target_only_one_acts() -> None:
    w = await stuck("L4")
    first = w.incident.metadata.name
    w.api.put("Incident", SHOP, "second", {**w.api.objects[("Incident", SHOP, first)], "status": {}, "metadata": {}})
    await w.until(lambda: w.all_closed(), within=90)
    assert len(w.mutations()) == 1
    assert w.results() == ["operator:Recovered"]
    assert w.slots() == []


async def test_what_the_operator_did_for_another_incident_is_not_a_humans_doing() -> None:
    w = await stuck("L3")
    first = w.incident.metadata.name
    w.api.put("Incident", SHOP, "another", {**w.api.objects[("Incident", SHOP, first)], "status": {}, "metadata": {}})
    await w.until(lambda: all(i.status.plan is not None for i in w.incidents()))
    w.approve("alice")
    await w.until(w.all_closed)
    assert len(w.mutations()) == 1
    assert w.results() == ["operator:Recovered"]
    assert [o.by for o in w.ledger().spec.outcomes] == ["operator"]


@pytest.mark.threat(28)
@pytest.mark.promise(2)
async def test_the_last_slot_of_the_fleet_is_taken_once() -> None:
    w = await stuck("L4")
    w.cluster_policy(fleet={"maxConcurrent": 1, "perHour": 20})
    w.deploy("cart", image=GOOD)
    await w.seconds(6)
    w.release(BAD, "cart")
    running: list[int] = []

    async def count(call: Call) -> None:
        running.append(sum(e.state != "Ended" for i in w.incidents() for e in i.status.executions))

    w.api.after = count
    await w.until(lambda: len(w.mutations()) == 2, within=120)
    await w.until(w.all_closed)
    assert max(running) == 1
    assert sorted(w.results()) == ["operator:Recovered", "operator:Recovered"]


async def test_a_cooldown_holds_the_second_action_on_the_same_workload() -> None:
    w = await stuck("L4")
    await w.until_phase("Recovered")
    w.release(BAD)
    await w.until(lambda: len(w.incidents()) == 2)
    await w.seconds(60)
    assert len(w.mutations()) == 1
    assert next(c.reason for c in w.incident.status.conditions if c.type == "Planned") == "Cooldown"
    w.clock.advance(timedelta(minutes=10))
    await w.until(lambda: len(w.mutations()) == 2)
    await w.until_phase("Recovered")


async def test_a_fault_that_returns_is_the_next_episode() -> None:
    w = await stuck("L4")
    await w.until_phase("Recovered")
    w.release(BAD)
    await w.until(lambda: len(w.incidents()) == 2)
    assert [i.metadata.name[-2:] for i in w.incidents()] == ["-1", "-2"]


async def test_a_fault_that_ends_by_itself_closes_without_us() -> None:
    w = await waiting()
    w.controllers.missing.clear()
    await w.until_phase("Recovered")
    assert w.mutations() == []
    assert next(c.reason for c in w.incident.status.conditions if c.type == "Closed") == "RecoveredByItself"
    assert w.incident.status.plan is None


async def test_a_slot_left_by_an_incident_that_is_gone_is_reclaimed() -> None:
    w = await stuck("L4")
    seen = before(w, "finalizer", "Incident", lambda: w.api.delete("Incident", SHOP, w.incident.metadata.name))
    w.start(detect=False)
    await w.until(lambda: seen)
    assert len(w.slots()) == 2
    await w.seconds(190)
    assert (w.slots(), w.mutations()) == ([], [])


@pytest.mark.promise(4)
async def test_a_slot_of_an_incident_that_cannot_be_read_is_not_reclaimed() -> None:
    """Somebody upgraded and downgraded: its execution may still run."""
    w = await verifying()
    w.api.edit("Incident", SHOP, w.incident.metadata.name, lambda raw: raw["spec"].update(unheardOf=1))
    await w.seconds(200)
    assert len(w.slots()) == 2
    w.api.edit("Incident", SHOP, next(n for (k, _, n) in w.api.objects if k == "Incident"), lambda raw: raw["spec"].pop("unheardOf"))
    await w.until(w.ended)


async def test_a_finalizer_that_outlived_its_execution_goes() -> None:
    w = await stuck("L1")
    w.api.edit("Incident", SHOP, w.incident.metadata.name, lambda raw: raw["metadata"].update(finalizers=[FINALIZER]))
    await w.seconds(5)
    assert not w.incident.metadata.finalizers
