"""Many at once, two at once, and everybody in each other's way, on a real API server. Judged by its own audit log, in the order of commits."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.scene import BAD, CLOSED, GOOD, Json, Scene, condition, deployment, mutations, policy, until
from tools.cluster import Cluster, behaviour, kubeconfig
from tools.cluster.local import LocalCluster
from tools.faultproxy import Fault, FaultProxy, Plan, Trigger
from tools.operator_process import ACCOUNT, NAMESPACE, OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
QUICK = {"for": "2s", "every": "1s"}
AT_ONCE = 3


def commits(cluster: Cluster, resource: str, namespaces: set[str], sub: str = "") -> list[Json]:
    """Committed writes of that resource, in the order in which etcd took them: (audit event) with its object in `responseObject`."""
    assert cluster.audit_log is not None, "only a local cluster has an audit log"
    found = []
    for row in cluster.audit_log.read_text().splitlines():
        e = json.loads(row)
        ref = e.get("objectRef") or {}
        if ref.get("resource") != resource or ref.get("subresource", "") != sub or ref.get("namespace") not in namespaces:
            continue
        if (
            e["verb"] not in ("create", "update", "patch")
            or e.get("responseStatus", {}).get("code", 0) >= 300
            or "dryRun" in e["requestURI"]
        ):
            continue
        found.append(e)
    return sorted(found, key=version)


def version(event: Json) -> int:
    """The revision at which it was committed: the same count for all objects of one etcd."""
    return int(event["responseObject"]["metadata"]["resourceVersion"])


def running(incident: Json) -> set[str]:
    """Executions that have begun and not ended."""
    return {e["id"] for e in incident.get("status", {}).get("executions", []) if e["state"] != "Ended"}


def reserved(cluster: Cluster, namespace: str) -> dict[str, Json]:
    """Execution → the Incident as it was when its reservation was committed."""
    first: dict[str, Json] = {}
    for event in commits(cluster, "incidents", {namespace}, "status"):
        for execution in running(event["responseObject"]):
            first.setdefault(execution, event["responseObject"])
    return first


def effects(cluster: Cluster, namespace: str) -> list[Json]:
    """The operator's committed changes of Deployments, in order."""
    return [e for e in commits(cluster, "deployments", {namespace}) if e["user"]["username"] == OPERATOR]


def stamp(event: Json) -> str:
    """The execution that a change was stamped with."""
    return str(event["responseObject"]["metadata"]["labels"]["nightorders.dev/execution"])


def broken(scene: Scene, *names: str) -> None:
    """Healthy apps, then a release of each that cannot be pulled, all at the same time."""
    healthy(scene, *names)
    scene.kubectl("set", "image", *(f"deployment/{name}" for name in names), f"*={BAD}")


def healthy(scene: Scene, *names: str) -> None:
    """Apps that the operator has recorded as such."""
    scene.cluster.apply(*behaviour.image_missing(scene.namespace, BAD))
    scene.apply({"apiVersion": "v1", "kind": "List", "items": [deployment(name, GOOD, replicas=1) for name in names]})
    apps = json.loads(scene.kubectl("get", "deployments", "-o", "json"))["items"]
    uids = {d["metadata"]["uid"] for d in apps if d["metadata"]["name"] in names}
    until(
        lambda: uids <= {h["workloadUid"] for h in scene.get("ledger/ledger").get("spec", {}).get("healthyRevisions", [])},
        f"the ledger of {scene.namespace} has all healthy revisions",
        300,
    )


def by_target(scene: Scene) -> dict[str, Json]:
    """The latest Incident about each Deployment."""
    return {i["spec"]["target"]["name"]: i for i in sorted(scene.incidents(), key=lambda i: i["metadata"]["creationTimestamp"])}


def phases(scene: Scene) -> list[str]:
    """The phase of the latest Incident about each Deployment."""
    return [i.get("status", {}).get("phase", "") for i in by_target(scene).values()]


# ---------------------------------------------------------------- many


@pytest.fixture
def narrow(arena: Cluster) -> Iterator[None]:
    """The fleet's budget is three at a time, and one namespace may take it all."""
    fleet = {"maxConcurrent": AT_ONCE, "perHour": 10000, "namespaceShare": 100}
    kind = {"apiVersion": "nightorders.dev/v1alpha1", "kind": "ClusterRemediationPolicy"}
    arena.apply({**kind, "metadata": {"name": "races"}, "spec": {"fleet": fleet}})
    yield
    arena.kubectl("delete", "clusterremediationpolicy", "races")


@pytest.fixture
def patient(arena: Cluster, no_operator: None) -> Iterator[OperatorProcess]:
    """An operator that does not give up its leadership because two processors are busy with ten namespaces."""
    process = OperatorProcess(arena, name="patient", environment={"NIGHTORDERS_LEASE_SECONDS": "60"})
    yield process.start().wait_ready(120)
    process.stop()


@pytest.mark.promise(1, 2)
@pytest.mark.threat(28)
def test_fifty_incidents_at_once_never_take_more_than_the_budget(
    patient: OperatorProcess, arena: Cluster, new_scene: Callable[[], Scene], narrow: None
) -> None:
    """Five Deployments in each of ten namespaces break in the same moment. On a busy machine a rollout may take longer than its
    verification waits, and is undone then; the breaker is out of the way, so that every one ends."""
    scenes = [new_scene() for _ in range(10)]
    names = [f"app-{n}" for n in range(5)]
    orders = policy("L4", verify={"for": "5s", "every": "1s"})
    orders["spec"]["breaker"] = {"failures": 20}
    for scene in scenes:
        scene.apply(orders)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda scene: healthy(scene, *names), scenes))
        list(pool.map(lambda scene: scene.kubectl("set", "image", *(f"deployment/{n}" for n in names), f"*={BAD}"), scenes))

    def ended() -> bool:
        if patient.process is not None and patient.process.poll() is not None:
            patient.start()  # as the kubelet would
        latest = [i.get("status", {}) for scene in scenes for i in by_target(scene).values()]
        return len(latest) == 50 and all(s.get("phase") in CLOSED and s.get("executions") for s in latest)

    until(ended, "all 50 have ended", 900)
    spaces = {scene.namespace for scene in scenes}
    most, at_the_same_time = 0, dict[str, set[str]]()
    for event in commits(arena, "incidents", spaces, "status"):
        at_the_same_time[event["responseObject"]["metadata"]["uid"]] = running(event["responseObject"])
        most = max(most, sum(map(len, at_the_same_time.values())))
    fleet = [e["responseObject"] for e in commits(arena, "ledgers", {NAMESPACE}) if e["objectRef"]["name"] == "fleet"]
    slots = max(len(book["spec"].get("reservations", [])) for book in fleet)
    assert 0 < most <= AT_ONCE, f"{most} executions at the same time"
    assert 0 < slots <= AT_ONCE, f"{slots} slots of the fleet at the same time"
    for scene in scenes:
        results = [e["result"] for i in scene.incidents() for e in i["status"]["executions"]]
        assert set(results) <= {"Recovered", "Undone"}, results
        done = [(e["objectRef"]["name"], stamp(e)) for e in effects(arena, scene.namespace)]
        assert {name for name, _ in done} == set(names)
        assert len(set(done)) == len(results), "as many executions as Incidents had"
        assert len(done) == len(results) + results.count("Undone"), "one effect each, and one more to undo it"
        until(lambda scene=scene: not scene.get("ledger/ledger")["spec"].get("reservations"), "its slots are free")


@pytest.mark.promise(2)
def test_two_operators_at_once_over_many_incidents_act_once_on_each(two_operators: list[OperatorProcess], scene: Scene) -> None:
    names = [f"app-{n}" for n in range(6)]
    scene.apply(policy("L4", verify=QUICK))
    broken(scene, *names)
    until(lambda: phases(scene) == ["Recovered"] * 6, "all six recovered")
    done = effects(scene.cluster, scene.namespace)
    assert sorted(e["objectRef"]["name"] for e in done) == names
    assert all(len(i["status"]["executions"]) == 1 for i in scene.incidents())
    assert len(scene.incidents()) == 6
    assert len(scene.get("ledger/ledger")["spec"]["outcomes"]) == 6


# ---------------------------------------------------------------- people against the operator


@pytest.mark.promise(1)
@pytest.mark.threat(3, 28)
def test_an_approval_that_comes_and_goes_counts_only_if_it_stood_at_the_reservation(operator: OperatorProcess, scene: Scene) -> None:
    """Ann approves and takes it back as fast as she can. Both orders are fine; an execution without her approval is not."""
    scene.apply(policy("L3", verify=QUICK))
    names = ["one", "two", "three"]
    broken(scene, *names)
    until(lambda: phases(scene) == ["AwaitingApproval"] * 3, "three plans wait")
    ann = scene.approver()
    plans = {n: (i["metadata"]["name"], i["status"]["plan"]["digest"]) for n, i in by_target(scene).items()}
    chance = random.Random(7)

    def toggle(name: str) -> None:
        incident, digest = plans[name]
        for _ in range(12):
            scene.kubectl("annotate", "incident", incident, f"approve.nightorders.dev/ann={digest}|ann", who=ann, check=False)
            time.sleep(chance.choice((0, 0, 0.05, 0.2)))
            said = scene.kubectl("annotate", "incident", incident, "approve.nightorders.dev/ann-", who=ann, check=False)
            if "carried out already" in said:
                return

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(toggle, names))
    time.sleep(3)
    acted = reserved(scene.cluster, scene.namespace)
    for incident in acted.values():
        digest = incident["status"]["plan"]["digest"]
        assert f"{digest}|ann" in incident["metadata"].get("annotations", {}).values(), "an execution without an approval"
    assert {stamp(e) for e in effects(scene.cluster, scene.namespace)} <= set(acted)
    for name in set(plans) - {i["spec"]["target"]["name"] for i in acted.values()}:
        incident = by_target(scene)[name]
        assert incident["status"]["phase"] == "AwaitingApproval"
        scene.approve(incident, ann, "ann", key="stays")
    until(lambda: phases(scene) == ["Recovered"] * 3, "approvals that stay are obeyed")
    assert len(effects(scene.cluster, scene.namespace)) == 3


@pytest.mark.promise(1, 6)
@pytest.mark.threat(8)
def test_nothing_is_begun_after_the_policy_was_lowered(operator: OperatorProcess, scene: Scene) -> None:
    """Bob lowers the level in the moment in which ann approves. What was reserved before may still be carried out, nothing else."""
    names = [f"app-{n}" for n in range(6)]
    scene.apply(policy("L3", verify=QUICK))
    broken(scene, *names)
    until(lambda: phases(scene) == ["AwaitingApproval"] * 6, "six plans wait")
    ann = scene.approver()
    waiting = list(by_target(scene).values())
    half = threading.Barrier(2)

    def lower() -> None:
        half.wait()
        scene.apply(policy("L1"))

    def approve() -> None:
        for n, incident in enumerate(waiting):
            if n == 2:
                half.wait()
            scene.approve(incident, ann, "ann", check=False)

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(lower), pool.submit(approve)]:
            job.result()
    until(lambda: all((not running(i) and "plan" not in i["status"]) or condition(i, "Closed") for i in scene.incidents()), "it is over")
    time.sleep(2)
    (lowered,) = [
        version(e)
        for e in commits(scene.cluster, "remediationpolicies", {scene.namespace})
        if e["responseObject"]["spec"]["rules"][0]["level"] == "L1"
    ][:1]
    begun = {x: int(i["metadata"]["resourceVersion"]) for x, i in reserved(scene.cluster, scene.namespace).items()}
    late = [stamp(e) for e in effects(scene.cluster, scene.namespace) if begun[stamp(e)] > lowered]
    assert not late, f"begun after the level was lowered at {lowered}: {late} of {begun}"
    untouched = set(names) - {e["objectRef"]["name"] for e in effects(scene.cluster, scene.namespace)}
    assert untouched, "the policy was lowered too late for this test to say anything"
    assert {scene.image(n) for n in untouched} == {BAD}


@pytest.mark.promise(1)
@pytest.mark.threat(3, 7)
def test_an_incident_that_is_deleted_and_made_anew_keeps_nothing(operator: OperatorProcess, scene: Scene) -> None:
    """Somebody prepares the name. Neither the approval nor the digest of the first one is worth anything for the second."""
    scene.apply(policy("L3", approval={"count": 2}, verify=QUICK))
    broken(scene, "checkout")
    first = scene.incident("AwaitingApproval")
    ann, name, digest = scene.approver(), first["metadata"]["name"], first["status"]["plan"]["digest"]
    scene.kubectl("create", "rolebinding", "author-ann", "--clusterrole=nightorders-incident-author", "--user=ann")
    scene.approve(first, ann, "ann")
    until(lambda: scene.one()["status"].get("approvals"), "the operator saw it")
    operator.signal(signal.SIGSTOP)
    try:
        scene.kubectl("delete", "incident", name, who=ann)
        again = {
            "apiVersion": "nightorders.dev/v1alpha1", "kind": "Incident",
            "metadata": {"name": name, "namespace": scene.namespace},
            "spec": {"target": first["spec"]["target"], "title": "as before"}, "status": first["status"],
        }  # fmt: skip
        carried = {**again, "metadata": {**again["metadata"], "annotations": {"approve.nightorders.dev/one": f"{digest}|ann"}}}
        refused = scene.kubectl("create", "-f", "-", stdin=json.dumps(carried), who=ann, check=False)
        assert "created without approvals" in refused
        scene.kubectl("create", "-f", "-", stdin=json.dumps(again), who=ann)
        late = scene.approve(again, scene.approver("bob"), "bob", digest=digest, check=False)
        assert "No plan of this Incident waits" in late
    finally:
        operator.signal(signal.SIGCONT)

    def second() -> Json | None:
        return next((i for i in scene.incidents() if i["metadata"]["name"] == name and i.get("status", {}).get("plan")), None)

    plan = until(second, "the second one has a plan of its own")["status"]["plan"]
    assert plan["digest"] != digest
    refused = scene.approve(again, scene.approver("bob"), "bob", digest=digest, check=False)
    assert "nightorders-approvals' with binding" in refused
    assert not second()["status"].get("approvals")  # type: ignore[index]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.promise(1)
@pytest.mark.threat(3)
def test_an_edit_of_the_target_voids_the_plan_that_waits_and_its_approval(operator: OperatorProcess, scene: Scene) -> None:
    """Of two that are needed, one had approved: she saw another question."""
    scene.apply(policy("L3", approval={"count": 2}, verify=QUICK))
    broken(scene, "checkout")
    first = scene.incident("AwaitingApproval")
    scene.approve(first, scene.approver("ann"), "ann", key="ann")
    until(lambda: scene.one()["status"].get("approvals"), "the operator saw it")
    scene.kubectl("patch", "deployment", "checkout", "--type=merge", "-p", '{"spec":{"minReadySeconds":1}}')
    digest = first["status"]["plan"]["digest"]
    until(lambda: scene.one()["status"].get("plan", {}).get("digest") not in (None, digest), "another plan")
    bob = scene.approver("bob")
    assert "exactly" in scene.approve(first, bob, "bob", key="bob", check=False)
    scene.approve(scene.one(), bob, "bob", key="bob")
    until(lambda: "counted: bob" in condition(scene.one(), "Approved").get("message", ""), "only bob counts")
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.promise(5)
@pytest.mark.threat(3)
def test_an_approval_by_impersonation_names_both_in_the_api_servers_audit_log(operator: OperatorProcess, scene: Scene) -> None:
    """Admission sees the impersonated user only; who really sent it, the audit log says."""
    scene.apply(policy("L3", verify=QUICK))
    broken(scene, "checkout")
    incident = scene.incident("AwaitingApproval")
    note = f"approve.nightorders.dev/one={incident['status']['plan']['digest']}|ann"
    name = incident["metadata"]["name"]
    scene.approver("ann")
    mallory = scene.approver("mallory")
    refused = scene.kubectl("annotate", "incident", name, note, "--as=ann", who=mallory, check=False)
    assert "cannot impersonate" in refused
    assert "exactly" in scene.kubectl("annotate", "incident", name, note.replace("|ann", "|kubernetes-admin"), "--as=ann", check=False)
    scene.kubectl("annotate", "incident", name, note, "--as=ann")
    assert [a["user"] for a in scene.incident("Recovered")["status"]["approvals"]] == ["ann"]
    (event,) = [
        e for e in commits(scene.cluster, "incidents", {scene.namespace}) if note.split("=", 1)[1] in json.dumps(e.get("requestObject", {}))
    ]
    assert event["impersonatedUser"]["username"] == "ann"
    assert event["user"]["username"] not in ("ann", "")


# ---------------------------------------------------------------- a leader who was replaced


@pytest.fixture
def proxied(arena: Cluster, no_operator: None) -> Iterator[tuple[OperatorProcess, FaultProxy]]:
    """An operator that reaches the API server through a proxy, with leader election."""
    if not isinstance(arena, LocalCluster):
        pytest.skip("needs a local cluster")
    proxy = FaultProxy(arena.state.server, arena.directory / "pki" / "ca.crt").start()
    token = json.loads(arena.service_account(NAMESPACE, ACCOUNT).read_text())["users"][0]["user"]["token"]
    place: Path = arena.directory / "users" / "races.kubeconfig"
    config = kubeconfig.with_token(place, kubeconfig.Endpoint({"server": proxy.url}), ACCOUNT, token)
    process = OperatorProcess(arena, name="proxied", environment={"KUBECONFIG": str(config)}).start()
    process.wait_ready()
    yield process, proxy
    process.signal(signal.SIGCONT)
    process.stop()
    proxy.stop()


@pytest.mark.promise(2)
@pytest.mark.threat(17)
def test_a_leader_who_is_frozen_on_the_way_to_its_effect_is_refused_when_another_leads(
    arena: Cluster, proxied: tuple[OperatorProcess, FaultProxy], scene: Scene
) -> None:
    """Everything is decided and reserved, and nothing has changed since: only the leadership has. The write says whose it is."""
    stale, proxy = proxied
    scene.apply(policy("L3", verify=QUICK))
    broken(scene, "checkout")
    incident = scene.incident("AwaitingApproval")
    held = proxy.arm(Plan(Trigger(method="PATCH", resource="deployments", namespace=scene.namespace), Fault("delay", seconds=3)))
    scene.approve(incident, scene.approver(), "ann")
    assert held.fired.wait(30), "the effect was on its way"
    stale.signal(signal.SIGSTOP)
    lease = json.loads(arena.kubectl("-n", NAMESPACE, "get", "lease", "nightorders", "-o", "json").stdout)["spec"]
    taken = {"holderIdentity": "other_33333333", "leaseTransitions": lease["leaseTransitions"] + 1, "leaseDurationSeconds": 1}
    arena.kubectl("-n", NAMESPACE, "patch", "lease", "nightorders", "--type=merge", "-p", json.dumps({"spec": taken}))
    (request,) = held.hits
    until(lambda: request.status, "the API server answered it", 20)
    assert request.status == 403
    assert request.json["metadata"]["labels"]["nightorders.dev/term"].startswith(f"{lease['leaseTransitions']}.")
    assert scene.image() == BAD
    (refused,) = mutations(arena, OPERATOR, scene.namespace)
    assert "ValidatingAdmissionPolicy 'nightorders-leader'" in refused["responseStatus"]["message"]
    stale.signal(signal.SIGCONT)
    assert stale.process is not None
    assert stale.process.wait(30) == 1, "it notices that it leads no more, and ends"
    assert running(scene.one()), "what it had reserved is left to the next one"
    fresh = OperatorProcess(arena, name="fresh").start()
    try:
        fresh.wait_ready()
        scene.incident("Recovered")
    finally:
        fresh.stop()
    assert scene.image() == GOOD
    (done,) = effects(arena, scene.namespace)
    assert done["responseObject"]["metadata"]["labels"]["nightorders.dev/term"].startswith(f"{taken['leaseTransitions'] + 1}.")


@pytest.mark.promise(2)
@pytest.mark.threat(17)
def test_a_leader_who_slept_through_the_approval_and_the_repair_does_nothing_more(arena: Cluster, no_operator: None, scene: Scene) -> None:
    first = OperatorProcess(arena, name="sleeper").start().wait_ready()
    second = OperatorProcess(arena, name="successor").start().wait_ready(leading=False)
    try:
        scene.apply(policy("L3", verify=QUICK))
        broken(scene, "checkout")
        incident = scene.incident("AwaitingApproval")
        first.signal(signal.SIGSTOP)
        scene.approve(incident, scene.approver(), "ann")
        second.wait_ready()
        scene.incident("Recovered")
        first.signal(signal.SIGCONT)
        assert first.process is not None
        assert first.process.wait(30) == 1
        assert len(mutations(arena, OPERATOR, scene.namespace)) == 1
        terms = itertools.pairwise(
            e["responseObject"]["metadata"]["labels"]["nightorders.dev/term"] for e in effects(arena, scene.namespace)
        )
        assert all(before == after for before, after in terms)
    finally:
        first.signal(signal.SIGCONT)
        first.stop()
        second.stop()
