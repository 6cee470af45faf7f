"""What the gatherer counts from a snapshot."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.meta import APPROVE_PREFIX, Level
from nightorders.api.v1alpha1.incident import BlastRadius
from nightorders.controller.gatherer import about_to_act, current_revision, failing_dependents, ready_pods, rollout_of
from nightorders.domain.snapshot import KubeObject
from nightorders.domain.verification import unavailable_allowed
from tests.unit.domain.make import (
    NOW,
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
