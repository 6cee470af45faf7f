"""What people may write into an Incident, and when it may go. The numbers are the rows of the design's table of threats."""

from __future__ import annotations

import json

import pytest

from tests.cluster.attacks.world import AT, DIGEST, WAITING, Actor, Json, World, execution, head, incident, policy, until

pytestmark = pytest.mark.cluster
GUARD = "nightorders-incidents"
FINALIZER = "nightorders.dev/execution"
CREATE = ("create", "-f", "-")


@pytest.fixture
def alice(world: World) -> Actor:
    """May open, change and delete Incidents."""
    return world.user("alice", "nightorders-incident-author")


def test_6_nobody_asks_in_the_name_of_somebody_else(world: World, alice: Actor) -> None:
    """With another's name as requester she would stay free to approve where separationOfDuties holds."""
    for document in (
        incident("forged", world.namespace, spec={"requestedBy": "bob"}),
        incident("forged", world.namespace, spec={"requestedBy": "alic"}),
    ):
        alice.may_not(GUARD, *CREATE, document=document, says="that is alice")
        alice.may_not(GUARD, "apply", "--server-side", "-f", "-", document=document, says="that is alice")
    alice.may(*CREATE, document=incident("own", world.namespace, spec={"requestedBy": "alice"}))
    alice.may(*CREATE, document=incident("unsaid", world.namespace))
    for name in ("own", "unsaid"):  # nor afterwards
        answer = alice.run(*alice.patch(name, {"spec": {"requestedBy": "bob"}}))
        assert "spec.requestedBy is immutable" in answer.stderr
    alice.may(*alice.patch("own", {"spec": {"severity": "Critical"}}))


def test_6_a_signal_is_the_operators(world: World, alice: Actor) -> None:
    """A forged one would make a person's question look like the operator's own finding, which may go to L4."""
    signal = {"source": "Detector", "name": "RolloutStuck", "startsAt": AT}
    alice.may_not(GUARD, *CREATE, document=incident("inc", world.namespace, spec={"signal": signal}), says="spec.signal")
    world.incident(spec={"signal": signal})
    alice.may(*CREATE, document=incident("plain", world.namespace))
    answer = alice.run(*alice.patch("plain", {"spec": {"signal": signal}}))
    assert "spec.signal is immutable" in answer.stderr
    answer = alice.run("patch", "incident", "inc", "--type=json", "-p", '[{"op":"remove","path":"/spec/signal"}]')
    assert "spec.signal is immutable" in answer.stderr


def test_7_the_execution_finalizer_is_the_operators(world: World, alice: Actor) -> None:
    world.incident()
    alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"finalizers": [FINALIZER]}}), says="metadata.finalizers")
    alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"finalizers": ["example.org/never"]}}), says="metadata.finalizers")
    world.operator.may(*world.operator.patch("inc", {"metadata": {"finalizers": [FINALIZER]}}))
    alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"finalizers": None}}), says="metadata.finalizers")
    alice.may(*alice.patch("inc", {"spec": {"suspend": True}}))
    world.operator.may(*world.operator.patch("inc", {"metadata": {"finalizers": None}}))
    alice.may_not(GUARD, *CREATE, document=incident("new", world.namespace, finalizers=[FINALIZER]), says="metadata.finalizers")


def test_7_emergency_lifts_the_finalizer_but_adds_none(world: World) -> None:
    """The way out when the operator is gone for good, and an execution will never end."""
    world.incident({"executions": [execution("Applied")]}, finalizers=[FINALIZER])
    fire = world.user("fire", "nightorders-emergency")
    fire.may_not(GUARD, *fire.patch("inc", {"metadata": {"finalizers": [FINALIZER, "example.org/never"]}}), says="metadata.finalizers")
    fire.may("delete", "incident", "inc", "--wait=false")
    fire.may(*fire.patch("inc", {"metadata": {"finalizers": None}}))
    assert world.admin.run("get", "incident", "inc").returncode != 0


def test_7_no_owner_is_injected(world: World, alice: Actor) -> None:
    """One patch without the verb delete made the garbage collector remove an Incident in the middle of a transaction."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
    world.incident({"executions": [execution("Applied")]})
    alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"ownerReferences": [owner]}}), says="metadata.ownerReferences")
    document = incident("born", world.namespace, ownerReferences=[owner])
    alice.may_not(GUARD, *CREATE, document=document, says="metadata.ownerReferences")
    alice.may(*alice.patch("inc", {"metadata": {"labels": {"team": "shop"}}}))
    alice.may(*CREATE, document=incident("born", world.namespace))


@pytest.mark.promise(5)
def test_7_no_deletion_while_an_execution_runs(world: World, alice: Actor) -> None:
    world.incident()
    guard, says = "nightorders-deletions", "An execution of Incident inc is running"
    for state in ("Reserved", "Applied", "Undoing"):
        world.status({"executions": [execution("Ended"), execution(state)]})
        alice.may_not(guard, "delete", "incident", "inc", says=says)
    alice.may_not(guard, "delete", "incident", "inc", "--force", "--grace-period=0", says=says)
    alice.may_not(guard, "delete", "incident", "inc", "--cascade=foreground", says=says)
    world.role("alice", ("nightorders.dev", "incidents", "deletecollection"))
    alice.may_not(guard, "delete", "--raw", f"/apis/nightorders.dev/v1alpha1/namespaces/{world.namespace}/incidents", says=says)
    world.status({"executions": [execution("Ended"), execution("Ended")]})
    alice.may("delete", "incident", "inc")


def test_7_deletion_while_nothing_runs(world: World, alice: Actor) -> None:
    """The twin: in the foreground, which needs the garbage collector to lift a finalizer of its own, and as a collection."""
    world.incident(name="plain")
    world.incident(WAITING, name="waits")
    alice.may("delete", "incident", "plain", "waits", "--cascade=foreground", "--timeout=30s")
    world.incident(name="one")
    world.role("alice", ("nightorders.dev", "incidents", "deletecollection"))
    alice.may("delete", "--raw", f"/apis/nightorders.dev/v1alpha1/namespaces/{world.namespace}/incidents")
    assert "No resources" in alice.run("get", "incidents").stderr


def test_7_28_a_namespace_takes_its_incidents_and_its_ledger_along(world: World) -> None:
    """Also in the middle of an execution: what it would undo goes as well. The namespace would stay Terminating for ever."""
    name = f"{world.namespace}-gone"
    world.admin.may("create", "namespace", name)
    gone = World(world.cluster, name)
    gone.incident({"executions": [execution("Applied")]})
    gone.operator.may(*CREATE, document={**head("Ledger", "ledger", name), "spec": {}})
    gone.admin.may("delete", "namespace", name, "--wait=false")
    until(lambda: gone.admin.run("get", "namespace", name).returncode != 0, f"namespace {name} is gone", 60)


def test_1_kopf_and_operator_annotations_are_the_operators(world: World, alice: Actor) -> None:
    """A forged progress annotation (`success: true`) makes kopf skip a handler."""
    forged: tuple[Json, ...] = (
        {"kopf.zalando.org/handler": '{"success":true}'},
        {"kopf.zalando.org/last-handled-configuration": "{}"},
        {"x.kopf.zalando.org/handler": "x"},
        {"kopf.dev/handler": "x"},
        {"nightorders.dev/anything": "x"},
        {"approved.nightorders.dev/alice": f"{DIGEST}|alice"},
    )
    world.incident(annotations={"kopf.zalando.org/mark": "1", "nightorders.dev/mark": "1"})
    for keys in forged:
        alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"annotations": keys}}), says="nnotations")
        alice.may_not(GUARD, *CREATE, document=incident("new", world.namespace, annotations=keys), says="nnotations")
    for key in ("kopf.zalando.org/mark", "nightorders.dev/mark"):
        alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"annotations": {key: None}}}), says="operator's account only")
        alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"annotations": {key: "2"}}}), says="operator's account only")
    alice.may(*alice.patch("inc", {"metadata": {"annotations": {"example.org/ticket": "4711"}}}))
    alice.may(*CREATE, document=incident("new", world.namespace, annotations={"example.org/ticket": "4711"}))
    world.operator.may(
        *world.operator.patch("inc", {"metadata": {"annotations": {"kopf.zalando.org/mark": None, "kopf.zalando.org/x": "y"}}})
    )


def test_1_operator_labels_are_the_operators(world: World, alice: Actor) -> None:
    world.incident(labels={"nightorders.dev/mark": "1"})
    for labels in ({"nightorders.dev/mark": None}, {"nightorders.dev/mark": "2"}, {"nightorders.dev/other": "1"}):
        alice.may_not(GUARD, *alice.patch("inc", {"metadata": {"labels": labels}}), says="Labels nightorders.dev/*")
    alice.may(*alice.patch("inc", {"metadata": {"labels": {"team": "shop"}}}))


def test_25_room_for_the_journal_is_not_filled_up(world: World, alice: Actor) -> None:
    """A large object made the write of the journal fail."""

    def with_annotations(name: str, count: int, size: int) -> Json:
        return incident(name, world.namespace, annotations={f"example.org/k{i}": "x" * size for i in range(count)})

    alice.may_not(GUARD, *CREATE, document=with_annotations("many", 65, 1), says="64 annotations")
    alice.may_not(GUARD, *CREATE, document=with_annotations("long", 1, 1025), says="1024 characters")
    alice.may(*CREATE, document=with_annotations("full", 64, 1024))
    alice.may_not(GUARD, "annotate", "incident", "full", "example.org/more=x", says="64 annotations")
    answer = alice.run(*CREATE, document=with_annotations("flood", 20_000, 1))
    assert answer.returncode != 0, "an evaluation that is too expensive must refuse, too"
    labels = incident("labels", world.namespace, labels={f"example.org/k{i}": "x" for i in range(65)})
    alice.may_not(GUARD, *CREATE, document=labels, says="64 labels")


def test_25_names_fit_a_label(world: World, alice: Actor) -> None:
    alice.may_not(GUARD, *CREATE, document=incident("x" * 64, world.namespace), says="63 characters")
    alice.may(*CREATE, document=incident("x" * 63, world.namespace))


@pytest.mark.promise(5)
def test_1_28_records_are_written_by_the_operator_only(world: World) -> None:
    """Status of every kind, and Ledgers in all ways, against a role of */*/* and against cluster-admin."""
    guard = "nightorders-records"
    ledger = {**head("Ledger", "ledger", world.namespace), "spec": {}}
    others = [{**head("Ledger", name, world.namespace), "spec": {}} for name in ("audit", "fleet")]
    mallory = world.wildcard()
    platform = {**head("ClusterRemediationPolicy", world.namespace), "spec": {"fleet": {"perHour": 1}}}
    mallory.may(*CREATE, document=policy("orders", world.namespace, "L1"))
    world.admin.may(*CREATE, document=platform)
    try:
        for actor in (mallory, world.admin):
            actor.may_not(guard, *CREATE, document=ledger, says="operator's account only")
            actor.may_not(guard, "apply", "--server-side", "-f", "-", document=ledger, says="operator's account only")
        world.operator.may(*CREATE, document=ledger)
        for document in others:  # the heads of the audit chains, and what would be the fleet's book
            mallory.may_not(guard, *CREATE, document=document, says="operator's account only")
            world.operator.may(*CREATE, document=document)
            name, head_of_a_lie = document["metadata"]["name"], '{"spec":{"audit":{"sequence":7,"heads":[]}}}'
            mallory.may_not(guard, "patch", "ledger", name, "--type=merge", "-p", head_of_a_lie, says="operator's account only")
            mallory.may_not(guard, "delete", "ledger", name, says="go with their namespace")
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
        tied = json.dumps({"metadata": {"ownerReferences": [owner]}})
        mallory.may_not(guard, "patch", "ledger", "audit", "--type=merge", "-p", tied, says="operator's account only")
        change = ("patch", "ledger", "ledger", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b"}}}')
        for actor in (mallory, world.admin):
            actor.may_not(guard, *change, says="operator's account only")
            actor.may_not(guard, "delete", "ledger", "ledger", says="go with their namespace")
            actor.may_not(
                guard, "delete", "--raw", f"/apis/nightorders.dev/v1alpha1/namespaces/{world.namespace}/ledgers", says="go with their"
            )
            actor.may("get", "ledger", "ledger")
        world.operator.may(*change)
        status = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": {"workloads": 7}}))
        for actor in (mallory, world.admin):
            actor.may_not(guard, "patch", "remediationpolicy", "orders", *status, says="status is written by")
        world.operator.may("patch", "remediationpolicy", "orders", *status)
        status = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": {"namespaces": 7}}))
        world.admin.may_not(guard, "patch", "clusterremediationpolicy", world.namespace, *status, says="status is written by")
        world.operator.may("patch", "clusterremediationpolicy", world.namespace, *status)
    finally:
        world.admin.may("delete", "clusterremediationpolicy", world.namespace)
