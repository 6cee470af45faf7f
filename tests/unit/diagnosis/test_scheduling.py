"""Pods that find no node: what would have to change for one to take them, and whose that is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from nightorders.diagnosis.origins.placing import CORDON, FULL, SELECTOR, TAINT, Floor, need_of
from nightorders.diagnosis.supervisor import diagnose
from nightorders.diagnosis.world import World

from .between import made, world, written
from .build import DAY, HOUR, MINUTE, NOW, TARGET, Raw, at, container, deployment, pod, replicaset, template
from .test_created import asked
from .test_kinds import member, stateful

CPU = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
NOT_SELECTED = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
CORDONED = "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."
TAINTED = "0/3 nodes are available: 3 node(s) had untolerated taint {team: batch}."


def node(
    name: str,
    *,
    cpu: str = "8",
    labels: Raw | None = None,
    cordoned: timedelta | None = None,
    taints: Iterable[Raw] = (),
    annotations: Raw | None = None,
    managed: Iterable[Raw] = (),
) -> Raw:
    spec: Raw = {"taints": list(taints)} | ({"unschedulable": True} if cordoned is not None else {})
    written_by = [*managed, *([written(cordoned, "spec", "unschedulable", by="kubectl-cordon")] if cordoned is not None else [])]
    status = {"allocatable": {"cpu": cpu, "memory": "16Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}
    zone = {"topology.kubernetes.io/zone": f"z{name[1:]}", "kubernetes.io/hostname": name}
    return made(
        "Node",
        name,
        age=90 * DAY,
        labels=zone | (labels or {}),
        annotations=annotations or {},
        spec=spec,
        status=status,
        managed=written_by,
    )


def nodes(*changed: Raw) -> list[Raw]:
    """Three nodes, of which some are replaced."""
    named = {n["metadata"]["name"]: n for n in changed}
    return [named.get(f"n{i}", node(f"n{i}")) for i in range(3)]


def asking(cpu: str = "1", **spec: object) -> Raw:
    return template(container(resources={"requests": {"cpu": cpu}}), **spec)


def rollout(old: Raw, new: Raw, message: str, *, old_pods: int = 3, pending: int = 1, age: timedelta = 5 * MINUTE) -> list[Raw]:
    """From release 6, which serves on n0–n2, to 7, whose pods find no node."""
    owner = deployment(
        new, updated=pending, available=old_pods, total=old_pods + pending, progressing=("True", "ReplicaSetUpdated"), progressing_age=age
    )
    before = replicaset(owner, 6, old, age=6 * DAY, replicas=old_pods, ready=old_pods)
    after = replicaset(owner, 7, new, age=age, replicas=pending)
    return [
        owner,
        before,
        after,
        *(pod(before, i, age=6 * DAY, node=f"n{i % 3}") for i in range(old_pods)),
        *(pod(after, i, age=age, ready=False, scheduled=message, phase="Pending") for i in range(pending)),
    ]


def pending(
    t: Raw, message: str, *, placed: Iterable[str] = ("n0", "n1"), want: int = 3, age: timedelta = 5 * MINUTE, ready: bool = True
) -> list[Raw]:
    """A Deployment whose rollout was complete, with pods on these nodes and one that finds none."""
    where = list(placed)
    owner = deployment(t, replicas=want, available=len(where))
    rs = replicaset(owner, 6, t, age=6 * DAY, replicas=want, ready=len(where))
    each = [pod(rs, i, age=6 * DAY, node=n, ready=ready) for i, n in enumerate(where)]
    return [owner, rs, *each, pod(rs, 9, age=age, ready=False, scheduled=message, phase="Pending")]


def first_release(t: Raw, message: str) -> list[Raw]:
    owner = deployment(t, replicas=1, updated=1, available=0, progressing=("True", "ReplicaSetUpdated"), age=10 * MINUTE)
    rs = replicaset(owner, 1, t, age=10 * MINUTE, replicas=1)
    return [owner, rs, pod(rs, 0, age=10 * MINUTE, ready=False, scheduled=message, phase="Pending")]


# -- releases -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (asking("64"), CPU),
        (asking(nodeSelector={"disk": "nvme"}), NOT_SELECTED),
        (
            asking(
                affinity={
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z9"]}]}
                            ]
                        }
                    }
                }
            ),
            NOT_SELECTED,
        ),
        (
            asking(
                topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]
            ),
            "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required label).",
        ),
    ],
)
def test_a_release_that_asks_for_what_no_node_gives(new: Raw, message: str) -> None:
    assert asked(world(rollout(asking(), new, message), nodes())) == ["Unschedulable Deployment/checkout Release A"]


def test_a_release_onto_a_cordoned_node_is_the_release() -> None:
    new = asking(nodeSelector={"kubernetes.io/hostname": "n1"})
    assert asked(world(rollout(asking(), new, CORDONED), nodes(node("n1", cordoned=10 * DAY)))) == [
        "Unschedulable Deployment/checkout Release A"
    ]


def test_a_release_that_changed_something_else_is_not_it() -> None:
    new = template(
        container(image="registry.example/checkout:2.4.0", resources={"requests": {"cpu": "1"}}),
        nodeSelector={"kubernetes.io/hostname": "n1"},
    )
    old = asking(nodeSelector={"kubernetes.io/hostname": "n1"})
    found = asked(world(rollout(old, new, CORDONED), nodes(node("n1", cordoned=HOUR))))
    assert found == ["Unschedulable Node/n1 Edit A"]


def test_anti_affinity_that_a_release_brings_in() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "checkout"}}}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    new = asking(affinity={"podAntiAffinity": apart})
    message = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    assert asked(world(rollout(asking(), new, message), nodes())) == ["Unschedulable Deployment/checkout Release A"]


def test_a_template_without_history_that_asks_too_much() -> None:
    assert asked(world(first_release(asking("64"), CPU), nodes())) == ["Unschedulable Deployment/checkout A"]
    assert asked(world(first_release(asking(nodeSelector={"gpu": "yes"}), NOT_SELECTED), nodes())) == [
        "Unschedulable Deployment/checkout A"
    ]


def test_what_the_scheduler_does_not_say_is_inferred() -> None:
    assert asked(world(first_release(asking("64"), "0/3 nodes are available."), nodes())) == ["Unschedulable Deployment/checkout B"]


def test_a_stateful_set_gets_the_same_answer() -> None:
    owner, revisions = stateful(old=asking(), new=asking("64"), replicas=3, updated=1, available=2, current=1)
    stuck = member(owner, 2, 2, age=5 * MINUTE, ready=False, scheduled=CPU, phase="Pending")
    old = [member(owner, i, 1) for i in range(2)]
    for p in old:
        p["spec"] = {**asking()["spec"], "nodeName": p["spec"]["nodeName"]}
    w = world(owner, revisions, old, stuck, nodes())
    assert asked(w, "StatefulSet/checkout") == ["Unschedulable StatefulSet/checkout Release A"]


# -- nodes that changed -------------------------------------------------------------------------------------------------------------


def pinned(zone: str = "z1") -> Raw:
    return asking(nodeSelector={"topology.kubernetes.io/zone": zone})


def test_a_cordoned_node_where_such_pods_ran() -> None:
    w = world(pending(pinned(), CORDONED, placed=["n1"]), nodes(node("n1", cordoned=HOUR)))
    assert asked(w) == ["Unschedulable Node/n1 Edit A"]


def test_of_several_cordoned_nodes_the_first() -> None:
    all_out = [node(f"n{i}", cordoned=HOUR) for i in range(3)]
    w = world(pending(asking(), "0/3 nodes are available: 3 node(s) were unschedulable.", placed=["n0"]), all_out)
    assert asked(w) == ["Unschedulable Node/n0 Edit A"]


def test_a_node_that_was_cordoned_long_before_there_was_room_is_not_what_changed() -> None:
    parts = pending(asking("4"), "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.", placed=["n1", "n2"])
    w = world(parts, [node("n0", cordoned=60 * DAY), node("n1", cpu="7"), node("n2", cpu="7")])
    found = asked(w)
    first = diagnose(w.scene.snapshot, TARGET, (), NOW).hypotheses[0]
    assert (first.category, first.object) == ("Unschedulable", "Deployment/checkout")
    assert found == ["Unschedulable Node/n0 Edit C", "Unschedulable Deployment/checkout B"]


@pytest.mark.parametrize("own_taint", [False, True])
def test_a_node_out_of_use_for_announced_maintenance_is_refuted(own_taint: bool) -> None:
    taints = [{"key": "maintenance.example/change", "value": "4711", "effect": "NoSchedule"}] if own_taint else []
    out = node("n1", cordoned=HOUR, annotations={"maintenance.example/reason": "firmware"}, taints=taints)
    assert asked(world(pending(pinned(), CORDONED, placed=[]), nodes(out))) == ["[Unschedulable Node/n1 Edit D]"]


def test_a_taint_that_came_after_the_pods_is_the_nodes() -> None:
    taint = {"key": "team", "value": "batch", "effect": "NoSchedule"}
    changed = [node(f"n{i}", taints=[taint], managed=[written(HOUR, "spec", "taints")]) for i in range(3)]
    assert asked(world(pending(asking(), TAINTED), changed)) == ["Unschedulable Node/n0 Edit A"]


def test_a_taint_of_old_is_the_workloads_to_tolerate() -> None:
    taint = {"key": "team", "value": "batch", "effect": "NoSchedule"}
    all_tainted = [node(f"n{i}", taints=[taint]) for i in range(3)]
    assert asked(world(first_release(asking(), TAINTED), all_tainted)) == ["Unschedulable Deployment/checkout A"]


def test_a_toleration_that_a_release_dropped() -> None:
    taint = {"key": "team", "value": "batch", "effect": "NoSchedule"}
    tolerant = asking(tolerations=[{"key": "team", "operator": "Exists"}])
    w = world(rollout(tolerant, asking(), TAINTED), [node(f"n{i}", taints=[taint]) for i in range(3)])
    assert asked(w) == ["Unschedulable Deployment/checkout Release A"]


def test_a_label_that_is_gone_from_the_node_where_such_pods_run() -> None:
    wants = asking(nodeSelector={"disk": "nvme"})
    lost = node("n2", managed=[written(HOUR, "metadata", "labels", "disk")])
    assert asked(world(pending(wants, NOT_SELECTED, placed=["n2"]), nodes(lost))) == ["Unschedulable Node/n2 Edit A"]


def test_a_node_under_its_own_condition_is_a_node_fault() -> None:
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule", "timeAdded": at(HOUR)}
    down = node("n1", taints=[taint])
    message = "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 2 node(s) didn't match Pod's node affinity/selector."
    assert asked(world(pending(pinned(), message, placed=[]), nodes(down))) == ["Node Node/n1 A"]


# -- room ---------------------------------------------------------------------------------------------------------------------------


def test_who_came_later_and_took_the_room() -> None:
    t = template(container(resources={"requests": {"cpu": "6"}}), labels={"app": "batch"})
    owner = deployment(t, name="batch", replicas=3, age=HOUR)
    rs = replicaset(owner, 1, t, age=HOUR, replicas=3, ready=3)
    batch = [owner, rs, *(pod(rs, i, age=HOUR, node=f"n{i}") for i in range(3))]
    found = asked(world(pending(asking("2"), CPU), batch, [node(f"n{i}", cpu="7") for i in range(3)]))
    assert found == ["Unschedulable Deployment/batch B", "Unschedulable Deployment/checkout C"]


def test_full_nodes_without_anybody_new_are_the_workloads_own_demand() -> None:
    found = asked(world(pending(asking("4"), CPU, placed=["n0", "n1", "n2"], want=4), [node(f"n{i}", cpu="7") for i in range(3)]))
    assert found == ["Unschedulable Deployment/checkout B"]


def test_room_that_only_the_scheduler_misses_is_a_weak_answer() -> None:
    assert asked(world(pending(asking(), CPU), nodes())) == ["Unschedulable Deployment/checkout C"]


def test_a_pod_that_would_fit_and_of_which_nothing_is_said_names_nobody() -> None:
    assert asked(world(pending(asking(), "skip schedule deleting pod"), nodes())) == []


# -- no scheduler, no node ----------------------------------------------------------------------------------------------------------


def bound(t: Raw, old: Raw, *, present: bool = True) -> list[Raw]:
    parts = rollout(old, t, "x")
    stuck = parts.pop()
    stuck["status"] = {"phase": "Pending"}
    stuck["spec"]["nodeName"] = t["spec"].get("nodeName", "")
    return [*parts, *([stuck] if present else [])]


@pytest.mark.parametrize("present", [True, False])
def test_a_node_name_that_a_release_brings_in_and_that_is_no_node(present: bool) -> None:
    """Also between two tries, when the garbage collector has deleted the pods."""
    w = world(bound(asking(nodeName="edge-7"), asking(), present=present), nodes())
    assert asked(w) == ["Unschedulable Deployment/checkout Release A"]


def test_a_node_name_of_a_node_that_is_there_is_nothing() -> None:
    assert asked(world(bound(asking(nodeName="n1"), asking()), nodes())) == []


def test_a_node_name_without_a_list_of_nodes_is_nothing() -> None:
    assert asked(world(bound(asking(nodeName="edge-7"), asking()), unread=["Node"])) == []


def test_a_node_name_whose_kubelet_has_no_room() -> None:
    parts = rollout(asking(), asking("9", nodeName="n1"), "x")
    refused = pod(parts[2], 5, age=5 * MINUTE, node="n1", ready=False, phase="Failed", states=[{"name": "app"}])
    refused["status"] |= {"reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"}
    assert asked(world(*parts[:-1], refused, nodes())) == ["Unschedulable Deployment/checkout Release A"]
    plain = rollout(asking(), asking("9"), "x")[:-1]
    assert asked(world(*plain, refused, nodes())) == []


def test_a_scheduler_that_nobody_runs() -> None:
    w = world(bound(asking(schedulerName="fancy"), asking()), nodes())
    assert asked(w) == ["Unschedulable Deployment/checkout Release A"]
    assert asked(world(bound(asking(schedulerName="default-scheduler"), asking()), nodes())) == []


def test_gates_of_the_template_and_gates_of_a_queue() -> None:
    gated = rollout(asking(), asking(schedulingGates=[{"name": "example/wait"}]), "Scheduling is blocked due to non-empty scheduling gates")
    gated[-1]["status"]["conditions"][0]["reason"] = "SchedulingGated"
    assert asked(world(gated, nodes())) == ["Unschedulable Deployment/checkout Release A"]
    queued = rollout(asking(), asking("2"), "Scheduling is blocked due to non-empty scheduling gates")
    queued[-1]["status"]["conditions"][0]["reason"] = "SchedulingGated"
    assert asked(world(queued, nodes())) == []


# -- the computing itself -----------------------------------------------------------------------------------------------------------


def floor(*objects: Raw | list[Raw]) -> Floor:
    return Floor(world(*objects).scene)


def test_obstacles_are_told_apart() -> None:
    f = floor(nodes(node("n1", cordoned=HOUR), node("n2", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])))
    need = need_of(asking(nodeSelector={"topology.kubernetes.io/zone": "z0"})["spec"], {})
    assert [sorted(f.obstacles(need, n)) for n in f.nodes] == [[], sorted([CORDON, SELECTOR]), sorted([TAINT, SELECTOR])]


def test_room_counts_what_runs_and_a_daemon_set_pod_wants_its_own_node() -> None:
    w: World = world(pending(asking("5"), CPU), nodes())
    f = Floor(w.scene)
    assert [f.obstacles(need_of(asking("4")["spec"], {}), n) for n in f.nodes] == [{FULL}, {FULL}, set()]
    own = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}
    spec = asking(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": own}})["spec"]
    assert [n.name for n in f.fits(need_of(spec, {}))] == ["n2"]


def test_a_preferred_taint_keeps_nobody_away() -> None:
    f = floor(nodes(node("n0", taints=[{"key": "a", "effect": "PreferNoSchedule"}])))
    assert len(f.fits(need_of(asking()["spec"], {}))) == 3


def test_malformed_nodes_and_wishes_raise_nothing() -> None:
    junk = {"kind": "Node", "metadata": {"name": "x"}, "spec": {"taints": [1, {"key": 3}]}, "status": {"allocatable": {"cpu": []}}}
    odd = template(
        container(resources={"requests": {"cpu": "lots"}}), affinity=[1], tolerations={"a": 1}, topologySpreadConstraints=[{"maxSkew": "x"}]
    )
    asked(world(first_release(odd, "?"), junk))
