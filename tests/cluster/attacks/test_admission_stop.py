"""Lifting a stop, and a leader who was replaced. The numbers are the rows of the design's table of threats."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.attacks.world import Actor, Json, World, deployment, until

pytestmark = pytest.mark.cluster
GUARD = "nightorders-resume"
STOP = ("create", "configmap", "nightorders-stop")
LIFT = ("delete", "configmap", "nightorders-stop", "--wait=false")
SYSTEM = "nightorders-system"


def _patch(body: Json, *more: str) -> tuple[str, ...]:
    return ("patch", "configmap", "nightorders-stop", "--type=merge", "-p", json.dumps(body), *more)


def _raw(world: World, name: str = "") -> tuple[str, ...]:
    return ("delete", "--raw", f"/api/v1/namespaces/{world.namespace}/configmaps{name}")


def test_16_anybody_with_configmaps_stops_but_lifting_needs_the_verb_stop(world: World) -> None:
    dev = world.user("dev", "edit")
    dev.may(*STOP)
    lacks = "lacks the verb stop on remediationpolicies"
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
    for attempt in (
        LIFT,
        (*LIFT, "--force", "--grace-period=0"),
        (*LIFT, "--cascade=foreground"),
        (*LIFT, "--cascade=orphan"),
        _raw(world),  # the collection, in which the request names no object
        _patch({"data": {"undo": "Deny"}}),  # neither weaker nor harder
        _patch({"metadata": {"ownerReferences": [owner]}}),  # the garbage collector would delete it
    ):
        dev.may_not(GUARD, *attempt, says=lacks)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nightorders-stop"}, "data": {"undo": "Allow"}}
    dev.may_not(GUARD, "replace", "-f", "-", document=document, says=lacks)
    dev.may_not(GUARD, "replace", "--force", "-f", "-", document=document, says=lacks)
    dev.may_not(GUARD, "apply", "--server-side", "--force-conflicts", "-f", "-", document=document, says=lacks)
    dev.may(*_patch({"metadata": {"labels": {"ticket": "4711"}}, "data": {"because": "it smokes"}}))
    oncall = world.user("oncall", "nightorders-stop-lifter")
    oncall.may(*_patch({"data": {"undo": "Deny"}}))
    oncall.may(*LIFT)
    dev.may(*STOP, "--from-literal=undo=Deny")
    boss = world.user("boss", "admin")  # admin of the namespace: not by itself
    boss.may_not(GUARD, *LIFT, says=lacks)
    elsewhere = world.user("elsewhere", "edit")
    world.admin.may(
        "create", "rolebinding", f"x-{world.namespace}", "-n", "default", "--clusterrole=nightorders-stop-lifter", "--user=elsewhere"
    )
    try:
        elsewhere.may_not(GUARD, *LIFT, says=lacks)
    finally:
        world.admin.may("delete", "rolebinding", f"x-{world.namespace}", "-n", "default")


def test_16_the_stop_of_everything_is_lifted_by_the_platform_only(world: World) -> None:
    """Whoever owns ConfigMaps of nightorders-system may stop everything; a role there does not lift it."""
    where = ("-n", SYSTEM)
    dev = Actor(world.cluster, SYSTEM, world.cluster.user("dev"), "dev")
    roles = ("edit", "nightorders-stop-lifter", "nightorders-platform", "cluster-admin")
    for role in roles:
        world.admin.may("create", "rolebinding", f"{world.namespace}-{role}", *where, f"--clusterrole={role}", "--user=dev")
    try:
        dev.may(*STOP)
        for attempt in (LIFT, _patch({"data": {"undo": "Deny"}})):
            dev.may_not(GUARD, *attempt, says="lacks the verb stop on clusterremediationpolicies")
        with world.everywhere(dev, "nightorders-platform"):
            dev.may(*LIFT)
    finally:
        for role in roles:
            world.admin.may("delete", "rolebinding", f"{world.namespace}-{role}", *where)
        world.admin.run(*LIFT, *where)


def test_16_other_configmaps_are_nobodys_business(world: World) -> None:
    dev = world.user("dev", "edit")
    for name in ("nightorders-stop-not", "stop", "nightorders"):
        dev.may("create", "configmap", name)
        dev.may("patch", "configmap", name, "--type=merge", "-p", '{"data":{"undo":"Deny"}}')
        dev.may("delete", "configmap", name)
    dev.may(*_raw(world))


def test_16_a_namespace_takes_its_stop_along(world: World) -> None:
    """Also with a finalizer of the foreground deletion; the namespace would stay Terminating for ever."""
    name = f"{world.namespace}-gone"
    world.admin.may("create", "namespace", name)
    world.admin.may(*STOP, "-n", name)
    world.admin.may("delete", "namespace", name, "--wait=false")
    until(lambda: world.admin.run("get", "namespace", name).returncode != 0, f"namespace {name} is gone", 60)
    dev, oncall = world.user("dev", "edit"), world.user("oncall", "nightorders-stop-lifter")
    dev.may(*STOP)
    oncall.may("delete", "configmap", "nightorders-stop", "--cascade=foreground", "--timeout=30s")
    dev.may("create", "configmap", "owner")  # an owner that the creator gave it: the garbage collector may follow
    uid = world.get("configmap", "owner")["metadata"]["uid"]
    owned: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nightorders-stop"}}
    owned["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
    dev.may("create", "-f", "-", document=owned)
    dev.may("delete", "configmap", "owner")
    until(lambda: world.admin.run("get", "configmap", "nightorders-stop").returncode != 0, "the garbage collector was let through")


LEADER = "nightorders-leader"
OPERATOR = {"kind": "ServiceAccount", "name": "nightorders", "namespace": SYSTEM}
OLD, NEW = "host-a_11111111-1111-4111-8111-111111111111", "host_b_22222222-2222-4222-8222-222222222222"


@pytest.fixture
def lease(world: World) -> Iterator[Json]:
    """The operator's Lease, held by OLD in term 3."""
    document: Json = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "nightorders", "namespace": SYSTEM},
        "spec": {"holderIdentity": OLD, "leaseTransitions": 3, "leaseDurationSeconds": 15},
    }  # fmt: skip
    world.grant(OPERATOR, "nightorders-action-rollbackworkload")
    world.cluster.apply(deployment("checkout", world.namespace), document)
    until(lambda: world.operator.run(*_effect("x-0", _term(OLD, 3))).returncode == 0, "the operator may act", 10)
    yield document
    world.admin.run("delete", "lease", "nightorders", "-n", SYSTEM)


def _term(holder: str, transitions: int) -> str:
    return f"{transitions}.{holder.rpartition('_')[2]}"


def _effect(execution: str, term: str | None, *, dry: bool = True) -> tuple[str, ...]:
    labels = {"nightorders.dev/execution": execution, "nightorders.dev/term": term}
    body = {"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"annotations": {"effect": execution}}}}}
    return ("patch", "deployment", "checkout", "--type=merge", "-p", json.dumps(body), *(("--dry-run=server",) if dry else ()))


@pytest.mark.promise(2)
def test_17_a_leader_who_was_replaced_is_refused(world: World, lease: Json) -> None:
    """It was frozen between its last look and its write; another took the Lease meanwhile. Its undo is refused, too: the other one's now."""
    operator = world.operator
    operator.may_not(LEADER, *_effect("x-1", _term(OLD, 2)), says="another operator leads")
    operator.may_not(LEADER, *_effect("x-1", None), says="term (none)")
    operator.may_not(LEADER, *_effect("x-1", _term(NEW, 3)), says="another operator leads")
    operator.may(*_effect("x-1", _term(OLD, 3), dry=False))
    lease["spec"] |= {"holderIdentity": NEW, "leaseTransitions": 4}
    world.cluster.apply(lease)
    until(lambda: operator.run(*_effect("x-2", _term(OLD, 3))).returncode != 0, "the API server has heard of it", 10)
    operator.may_not(LEADER, *_effect("x-2", _term(OLD, 3)), says=f"says {_term(NEW, 4)}")
    operator.may_not(LEADER, *_effect("x-1", _term(OLD, 3)), says="another operator leads")  # the stamp that is there: an undo
    operator.may_not(LEADER, *_effect("x-2", "4"), says="another operator leads")
    operator.may(*_effect("x-2", _term(NEW, 4)))
    # Given back: nobody leads, and nobody who led may write.
    lease["spec"] |= {"holderIdentity": ""}
    world.cluster.apply(lease)
    until(lambda: operator.run(*_effect("x-2", _term(NEW, 4))).returncode != 0, "the API server has heard of it", 10)
    operator.may_not(LEADER, *_effect("x-2", _term(NEW, 4)), says="nobody leads")
    operator.may(*_effect("x-2", None))
    # Deleted and made anew: the transitions begin again, and do not revive the first leader of all.
    world.admin.may("delete", "lease", "nightorders", "-n", SYSTEM)
    lease["spec"] = {"holderIdentity": NEW, "leaseTransitions": 3, "leaseDurationSeconds": 15}
    world.cluster.apply(lease)
    until(lambda: operator.run(*_effect("x-2", _term(OLD, 3))).returncode != 0, "the API server has heard of it", 10)
    operator.may(*_effect("x-2", _term(NEW, 3)))


def test_17_people_and_clusters_without_leader_election_are_not_held_up(world: World, lease: Json) -> None:
    dev = world.user("dev", "edit")
    for term in (None, _term(OLD, 1), "nonsense"):
        dev.may(*_effect("x-1", term))
    world.admin.may("delete", "lease", "nightorders", "-n", SYSTEM)
    until(lambda: world.operator.run(*_effect("x-1", None)).returncode == 0, "without a Lease nothing is compared", 10)
    world.operator.may(*_effect("x-1", _term(OLD, 3)))
    # A Lease of that name elsewhere is none of ours, and other people's Leases are not either.
    for namespace, name in ((world.namespace, "nightorders"), (SYSTEM, f"other-{world.namespace}")):
        stray = {**lease, "metadata": {"name": name, "namespace": namespace}, "spec": {"holderIdentity": NEW, "leaseTransitions": 9}}
        world.cluster.apply(stray)
    world.operator.may(*_effect("x-1", _term(OLD, 3)))
    world.admin.may("delete", "lease", f"other-{world.namespace}", "-n", SYSTEM)
