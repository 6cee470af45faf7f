"""What the gatherer counts from a snapshot."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nightorders.api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, TAKE_PREFIX, Level
from nightorders.api.v1alpha1.incident import BlastRadius
from nightorders.controller.gatherer import (
    Gatherer,
    Ports,
    about_to_act,
    answered,
    current_revision,
    disruption_budgets,
    failing_dependents,
    ready_in_namespace,
    ready_pods,
    released_at,
    rollout_of,
)
from nightorders.domain.snapshot import KubeObject
from nightorders.domain.verification import unavailable_allowed
from tests.unit.domain.make import (
    NOW,
    OPERATOR,
    after_target,
    deployment,
    diagnosis,
    hypothesis,
    incident,
    plan,
    pod_of,
    replica_set,
    situation,
    snapshot,
    staged_status,
    template,
)


@pytest.mark.parametrize(
    ("strategy", "replicas", "allowed"),
    [
        ({"rollingUpdate": {"maxUnavailable": 1}}, 3, 1),
        ({"rollingUpdate": {"maxUnavailable": "25%"}}, 4, 1),
        ({"rollingUpdate": {"maxUnavailable": "25%"}}, 3, 0),  # rounded down, as the controller does
        ({"rollingUpdate": {"maxUnavailable": "100%"}}, 3, 3),
        ({}, 8, 2),  # the default of 25 %
        ({"type": "Recreate"}, 3, 3),
        ({"rollingUpdate": {"maxUnavailable": "x%"}}, 3, 0),
        ({"rollingUpdate": {"maxUnavailable": ""}}, 3, 0),
        ({"rollingUpdate": {"maxUnavailable": None}}, 3, 0),
        ({"rollingUpdate": {"maxUnavailable": "²%"}}, 3, 0),
    ],
)
def test_how_many_pods_the_rollout_may_take_down(strategy: dict[str, Any], replicas: int, allowed: int) -> None:
    assert unavailable_allowed(deployment(spec={"strategy": strategy, "replicas": replicas})) == allowed


def test_ready_pods_are_those_of_the_targets_own_replica_sets() -> None:
    six, seven, foreign = replica_set(6), replica_set(7), replica_set(9, owner="uid-other")
    pods = (pod_of(six, "a", ready=True), pod_of(seven, "b", ready=False), pod_of(foreign, "c", ready=True))
    assert ready_pods(snapshot(deployment(), six, seven, foreign, *pods), deployment()) == 1


@pytest.mark.parametrize("unseen", ["Pod", "ReplicaSet"])
def test_pods_that_nobody_could_list_are_not_none(unseen: str) -> None:
    assert ready_pods(snapshot(deployment(), replica_set(6), unseen=(unseen,)), deployment()) is None


def other(name: str, want: int, have: int) -> KubeObject:
    raw = {"metadata": {"name": name, "namespace": "shop"}, "spec": {"replicas": want}, "status": {"availableReplicas": have}}
    return KubeObject(raw, "Deployment", "apps/v1")


def test_dependents_that_fail_are_those_of_the_blast_radius() -> None:
    radius = BlastRadius(workloads=("Deployment/checkout", "Deployment/cart"), victims=("Deployment/web",))
    inc = incident(staged_status().model_copy(update={"blast_radius": radius}))
    seen = snapshot(deployment(), other("cart", 2, 1), other("web", 1, 1), other("far", 3, 0))
    assert failing_dependents(inc, seen) == ["Deployment/cart"]
    assert failing_dependents(inc, snapshot(deployment(), unseen=("Deployment",))) is None
    assert failing_dependents(incident(), seen) == []


def test_the_current_revision_is_that_of_the_present_template() -> None:
    seen = snapshot(deployment(), replica_set(6), replica_set(7))
    found = current_revision(seen, deployment())
    assert found is not None
    assert found.name == "checkout-7"
    assert current_revision(seen, deployment(template("8"))) is None


@pytest.mark.parametrize(
    ("said", "own"),
    [
        (diagnosis(), True),
        (diagnosis(failing_revision=""), False),
        (diagnosis(hypothesis(object="ConfigMap/x")), False),
        (diagnosis(hypothesis(refuted="no")), False),
    ],
)
def test_a_rollout_is_the_fault_itself_only_if_its_revision_is_the_origin(said: Any, own: bool) -> None:
    assert rollout_of(deployment(), said).own_change is own


@pytest.mark.parametrize(("reason", "late"), [("ProgressDeadlineExceeded", True), ("ReplicaSetUpdated", False), (None, False)])
def test_a_deadline_is_read_from_the_condition(reason: str | None, late: bool) -> None:
    conditions = [{"type": "Progressing", "status": "False", "reason": reason}] if reason else []
    assert rollout_of(deployment(status={"conditions": conditions}), diagnosis()).past_deadline is late


@pytest.mark.parametrize(
    ("level", "notes", "target", "acts"),
    [
        (Level.L3, {}, deployment(), False),
        (Level.L3, {f"{APPROVE_PREFIX}a": "x"}, deployment(), True),
        (Level.L4, {}, deployment(), True),
        (Level.L2, {}, deployment(), False),
        (Level.L2, {}, after_target(), True),  # a human did it: measured at once
    ],
)
def test_a_baseline_is_measured_when_something_may_happen(level: Level, notes: dict[str, str], target: KubeObject, acts: bool) -> None:
    p = plan(level)
    s = situation(inc=incident(staged_status(level, p), annotations=notes))
    assert about_to_act(s, p, target) is acts
    assert s.incident.metadata.creation_timestamp is not None
    assert s.incident.metadata.creation_timestamp < NOW


@pytest.mark.parametrize(
    ("notes", "claimed"),
    [({}, False), ({f"{APPROVE_PREFIX}a": "x"}, True), ({f"{EMERGENCY_PREFIX}a": "x"}, True), ({f"{TAKE_PREFIX}a": "x"}, False)],
)
def test_whoever_claims_to_approve_has_the_guard_proven(notes: dict[str, str], claimed: bool) -> None:
    assert answered(incident(annotations=notes)) is claimed


def budget(name: str, selector: Any, allowed: Any = 1) -> KubeObject:
    raw = {"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": selector}, "status": {"disruptionsAllowed": allowed}}
    return KubeObject(raw, "PodDisruptionBudget", "policy/v1")


@pytest.mark.parametrize(
    ("selector", "allowed", "found"),
    [
        ({"matchLabels": {"app": "checkout"}}, 2, [("b", 2)]),
        ({}, 0, [("b", 0)]),
        ({"matchLabels": {"app": "cart"}}, 2, []),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["checkout"]}]}, 1, [("b", 1)]),
        ({"matchExpressions": [{"key": "app", "operator": "Sometimes"}]}, 1, [("b", 1)]),  # malformed: it may mean ours
        ({"matchLabels": {"app": "checkout"}}, "many", [("b", 0)]),
        (None, 1, []),
    ],
)
def test_the_disruption_budgets_over_the_targets_pods(selector: Any, allowed: Any, found: list[tuple[str, int]]) -> None:
    seen = snapshot(deployment(), budget("b", selector, allowed))
    assert [(b.name, b.allowed) for b in disruption_budgets(seen, deployment())] == found


def test_disruption_budgets_that_nobody_could_list_allow_nothing() -> None:
    (b,) = disruption_budgets(snapshot(deployment(), unseen=("PodDisruptionBudget",)), deployment())
    assert b.allowed == 0


def test_ready_pods_of_the_namespace_are_counted_or_not_known() -> None:
    six = replica_set(6)
    pods = (pod_of(six, "a", ready=True), pod_of(six, "b", ready=False), pod_of(replica_set(9, owner="uid-other"), "c", ready=True))
    assert ready_in_namespace(snapshot(deployment(), *pods)) == 2
    assert ready_in_namespace(snapshot(deployment(), unseen=("Pod",))) is None


def test_the_release_is_as_old_as_the_replica_set_that_fails() -> None:
    seen = snapshot(deployment(), replica_set(6), replica_set(7))
    assert released_at(seen, diagnosis()) == replica_set(7).created
    assert released_at(seen, diagnosis(failing_revision="")) is None
    assert released_at(seen, diagnosis(failing_revision="uid-rs-9")) is None


async def test_an_object_made_anew_is_not_judged_by_the_diagnosis_of_its_predecessor() -> None:
    """Same name, same spec, another uid: between the list (shared for some seconds) and the exact read it was deleted and created."""
    gatherer = Gatherer(cast(Ports, None), OPERATOR)
    anew = deployment(uid="uid-anew")
    s = situation(target=anew)
    assert await gatherer._for_decision(s, anew, snapshot(deployment(), replica_set(6), replica_set(7)), None) is s
