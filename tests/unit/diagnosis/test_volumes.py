"""Claims, volumes and classes: what is absent, what does not bind, what cannot be mounted, what is full."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from nightorders.diagnosis.anomalies.storage import storage
from nightorders.diagnosis.world import World

from .between import made, told, world, written
from .build import DAY, HOUR, MINUTE, Raw, container, crashing, deployment, event, pod, replicaset, steady, template, waiting
from .test_created import asked
from .test_kinds import member, stateful
from .test_scheduling import node, nodes, pending, rollout

UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
NOT_FOUND = '0/3 nodes are available: persistentvolumeclaim "data" not found.'
NO_VOLUME = "0/3 nodes are available: 3 node(s) didn't find available persistent volumes to bind."


def using(claim: str = "data", **more: object) -> Raw:
    mounts = container(volumeMounts=[{"name": "v", "mountPath": "/data"}])
    return template(mounts, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim}}], **more)


def claim(
    name: str = "data",
    phase: str = "Pending",
    *,
    klass: str | None = "fast",
    size: str = "5Gi",
    volume: str = "",
    modes: Iterable[str] = ("ReadWriteOnce",),
    age: timedelta = HOUR,
    annotations: Raw | None = None,
    **more: object,
) -> Raw:
    spec: Raw = {"accessModes": list(modes), "resources": {"requests": {"storage": size}}, **more}
    if klass is not None:
        spec["storageClassName"] = klass
    if volume:
        spec["volumeName"] = volume
    return made("PersistentVolumeClaim", name, age=age, spec=spec, status={"phase": phase}, annotations=annotations or {})


def storage_class(
    name: str = "fast", *, provisioner: str = "disk.example", mode: str = "Immediate", managed: Iterable[Raw] = (), default: str = ""
) -> Raw:
    annotations = {"storageclass.kubernetes.io/is-default-class": default} if default else {}
    return made("StorageClass", name, provisioner=provisioner, volumeBindingMode=mode, annotations=annotations, managed=managed)


def volume(
    name: str = "pv-1",
    phase: str = "Available",
    *,
    klass: str = "fast",
    size: str = "10Gi",
    owner: tuple[str, str] | None = None,
    host: str = "",
    provisioned: str = "",
    modes: Iterable[str] = ("ReadWriteOnce",),
) -> Raw:
    spec: Raw = {"storageClassName": klass, "capacity": {"storage": size}, "accessModes": list(modes)}
    if owner:
        spec["claimRef"] = {"namespace": "shop", "name": owner[0], "uid": owner[1]}
    if host:
        terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    notes = {"pv.kubernetes.io/provisioned-by": provisioned} if provisioned else {}
    return made("PersistentVolume", name, spec=spec, status={"phase": phase}, annotations=notes)


def waits(message: str = UNBOUND, t: Raw | None = None) -> list[Raw]:
    """A workload of which one pod waits for its claim, and whose template has run before."""
    return pending(t or using(), message, placed=["n0"])


def of(*objects: Raw | list[Raw], message: str = UNBOUND) -> list[str]:
    return asked(world(waits(message), nodes(), *objects))


# -- references ---------------------------------------------------------------------------------------------------------------------


def test_a_claim_that_a_release_names_and_that_never_was() -> None:
    found = asked(world(rollout(template(), using(), NOT_FOUND), nodes()))
    assert found[0] == "Storage Deployment/checkout Release A"


def test_a_claim_that_is_gone() -> None:
    assert of(message=NOT_FOUND)[0] == "Storage PersistentVolumeClaim/data Deletion A"


def test_a_claim_that_nobody_looked_at() -> None:
    found = asked(world(waits(NOT_FOUND), nodes(), unread=["PersistentVolumeClaim"]))
    assert found[0] == "Storage PersistentVolumeClaim/data Deletion B"


def test_a_claim_that_is_there_by_now_is_nothing() -> None:
    assert of(claim(phase="Bound", volume="pv-1"), volume(phase="Bound"), message=NOT_FOUND) == []


# -- classes ------------------------------------------------------------------------------------------------------------------------


def test_a_class_that_is_gone() -> None:
    other = claim("older", "Bound", volume="pv-1")
    assert of(claim(), other, volume(phase="Bound", provisioned="disk.example"))[0] == "Storage StorageClass/fast Deletion A"
    assert of(claim(), other, volume(phase="Bound"))[0] == "Storage StorageClass/fast Deletion B"


def test_a_class_that_never_was_is_named_by_the_claim() -> None:
    assert of(claim(klass="fsat"), storage_class()) == ["Storage PersistentVolumeClaim/data B", "Storage StorageClass/fsat B"]


def test_a_class_that_a_stateful_set_names_in_its_template() -> None:
    t = using("data-checkout-0")
    owner, revisions = stateful(new=t, old=None, replicas=1, updated=1, available=0)
    owner["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": {"storageClassName": "fsat"}}]
    stuck = member(owner, 0, 2, age=10 * MINUTE, ready=False, scheduled=UNBOUND, phase="Pending")
    w = world(owner, revisions, stuck, nodes(), claim("data-checkout-0", klass="fsat"), storage_class())
    assert asked(w, "StatefulSet/checkout")[0] == "Storage StatefulSet/checkout B"


def test_no_class_and_no_default() -> None:
    assert of(claim(klass=None), storage_class(default="false")) == ["Storage PersistentVolumeClaim/data A"]
    assert of(claim(klass=None), storage_class(default="true")) == []


def test_a_class_that_was_the_default_until_lately() -> None:
    was = storage_class(default="false", managed=[written(HOUR, "metadata", "annotations")])
    assert of(claim(klass=None), was, claim("older", "Bound", volume="x"))[0] == "Storage StorageClass/fast Edit B"


def test_a_claim_that_waits_for_its_first_consumer_is_no_fault() -> None:
    lazy = storage_class(mode="WaitForFirstConsumer")
    assert told(storage(world(nodes(), claim(), lazy))) == []
    busy = "0/3 nodes are available: 3 Insufficient cpu."
    assert all("Storage" not in x for x in of(claim(), lazy, message=busy))


def test_a_provisioner_that_fails_and_one_that_is_silent() -> None:
    c = claim()
    said = event(c, "ProvisioningFailed", "rpc error: out of capacity", first=MINUTE)
    assert of(c, storage_class(), said) == ["Storage StorageClass/fast C", "Storage PersistentVolumeClaim/data C"]
    assert of(c, storage_class(), said, claim("older", "Bound", volume="x"))[0] == "Storage PersistentVolumeClaim/data C"
    assert of(claim(), storage_class()) == ["Storage StorageClass/fast C"]
    assert of(claim(age=MINUTE), storage_class()) == []


# -- volumes that are made by hand --------------------------------------------------------------------------------------------------

STATIC = storage_class(provisioner="kubernetes.io/no-provisioner")


@pytest.mark.parametrize(
    ("asked_for", "there"),
    [
        ({"size": "50Gi"}, {}),
        ({"modes": ["ReadWriteMany"]}, {}),
        ({"selector": {"matchLabels": {"tier": "gold"}}}, {}),
        ({}, {"klass": "slow"}),
    ],
)
def test_the_nearest_volume_says_what_is_asked_too_much(asked_for: Raw, there: Raw) -> None:
    assert of(claim(**asked_for), STATIC, volume(**there), message=NO_VOLUME) == ["Storage PersistentVolumeClaim/data A"]


def test_a_volume_that_an_earlier_claim_of_that_name_released() -> None:
    left = volume(phase="Released", owner=("data", "uid-of-before"))
    assert of(claim(), STATIC, left, message=NO_VOLUME) == ["Storage PersistentVolume/pv-1 A"]


def test_no_volume_at_all_and_one_that_will_do() -> None:
    assert of(claim(), STATIC, message=NO_VOLUME) == ["Storage PersistentVolumeClaim/data B"]
    assert of(claim(), STATIC, volume(), message=NO_VOLUME) == []


def test_a_claim_that_names_its_volume() -> None:
    assert of(claim(volume="pv-9"), STATIC) == ["Storage PersistentVolume/pv-9 B", "Storage PersistentVolumeClaim/data B"]
    assert of(claim(volume="pv-1"), STATIC, volume(phase="Bound", owner=("other", "x"))) == ["Storage PersistentVolumeClaim/data A"]


def test_a_bound_claim_whose_volume_is_gone_or_failed_or_nowhere() -> None:
    bound = claim(phase="Bound", volume="pv-1")
    assert of(bound) == ["Storage PersistentVolume/pv-1 Deletion A"]
    assert of(claim(phase="Lost", volume="pv-1")) == ["Storage PersistentVolume/pv-1 Deletion A"]
    assert of(bound, volume(phase="Failed")) == ["Storage PersistentVolume/pv-1 B"]
    message = "0/3 nodes are available: 3 node(s) had volume node affinity conflict."
    assert of(bound, volume(phase="Bound", host="n9"), message=message) == ["Storage PersistentVolume/pv-1 B"]


def test_a_volume_on_a_cordoned_node_is_the_nodes() -> None:
    message = "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had volume node affinity conflict."
    parts = pending(using(), message, placed=[])
    w = world(parts, nodes(node("n1", cordoned=HOUR)), claim(phase="Bound", volume="pv-1"), volume(phase="Bound", host="n1"))
    assert asked(w) == ["Unschedulable Node/n1 Edit A"]


# -- mounts -------------------------------------------------------------------------------------------------------------------------


def starting(t: Raw, reason: str, message: str, *, placed: Iterable[str] = ("n0",), old: Raw | None = None) -> list[Raw]:
    """A pod on n2 whose volumes are not made, beside others that run."""
    where = list(placed)
    owner = deployment(t, updated=1, available=len(where), progressing=("True", "ReplicaSetUpdated" if old else "NewReplicaSetAvailable"))
    rs = replicaset(owner, 7, t, age=HOUR, replicas=1)
    before = replicaset(owner, 6, old or t, age=6 * DAY, replicas=len(where), ready=len(where))
    stuck = pod(rs, 9, age=5 * MINUTE, node="n2", ready=False, states=[waiting("ContainerCreating")], phase="Pending")
    return [
        owner,
        before,
        rs,
        *(pod(before, i, age=6 * DAY, node=n) for i, n in enumerate(where)),
        stuck,
        event(stuck, reason, message, first=4 * MINUTE),
    ]


MULTI = 'Multi-Attach error for volume "pv-1" Volume is already used by pod(s) checkout-0006-0'
BOUND = (claim(phase="Bound", volume="pv-1"), volume(phase="Bound"))


def test_one_volume_on_two_nodes() -> None:
    w = world(starting(using(), "FailedAttachVolume", MULTI), nodes(), *BOUND)
    assert asked(w) == ["Storage PersistentVolumeClaim/data B", "Storage Deployment/checkout B"]


def test_a_volume_that_a_dead_node_holds_is_the_nodes() -> None:
    down = node("n0")
    down["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    assert asked(world(starting(using(), "FailedAttachVolume", MULTI), nodes(down), *BOUND)) == ["Node Node/n0 B"]


def test_a_volume_for_many_nodes_is_not_it() -> None:
    wide = claim(phase="Bound", volume="pv-1", modes=["ReadWriteMany"])
    assert asked(world(starting(using(), "FailedAttachVolume", MULTI), nodes(), wide, BOUND[1])) == []


def test_what_kubelet_says_of_a_mount_is_weak() -> None:
    said = 'MountVolume.MountDevice failed for volume "pv-1" : mount failed: exit status 32: wrong fs type, bad superblock'
    w = world(starting(using(), "FailedMount", said), nodes(), *BOUND)
    assert asked(w) == ["Storage PersistentVolumeClaim/data C", "Storage PersistentVolume/pv-1 C"]


def test_a_volume_that_a_release_describes_and_that_is_no_directory() -> None:
    def with_path(path: str) -> Raw:
        return template(container(), volumes=[{"name": "v", "hostPath": {"path": path, "type": "Directory"}}])

    said = 'MountVolume.SetUp failed for volume "v" : hostPath type check failed: /dta is not a directory'
    parts = starting(with_path("/dta"), "FailedMount", said, old=with_path("/data"))
    assert asked(world(parts, nodes())) == ["Storage Deployment/checkout Release B"]
    assert asked(world(starting(with_path("/dta"), "FailedMount", said), nodes())) == ["Storage Deployment/checkout C"]


def test_an_event_about_a_volume_that_the_pod_does_not_have_names_nothing() -> None:
    assert asked(world(starting(using(), "FailedMount", 'MountVolume.SetUp failed for volume "payroll" : x'), nodes(), *BOUND)) == []


# -- full ---------------------------------------------------------------------------------------------------------------------------

FULL = "write /data/segment-9: no space left on device"


def filled(ratio: float | None, *lines: str, claims: int = 1) -> World:
    t = using()
    if claims > 1:
        t["spec"]["volumes"].append({"name": "w", "persistentVolumeClaim": {"claimName": "other"}})
    owner, rs, pods = steady(t, pods=1)
    series = {"pvc_free_ratio": [({"namespace": "shop", "persistentvolumeclaim": "data"}, ratio)]} if ratio is not None else {}
    return world(owner, rs, pods, *BOUND, nodes(), metrics=series, logs={"checkout-0006-0": lines})


@pytest.mark.parametrize(
    ("ratio", "lines", "expected"),
    [
        (0.001, [FULL], ["Storage PersistentVolumeClaim/data B"]),
        (0.001, [], ["Storage PersistentVolumeClaim/data B"]),
        (None, [FULL], ["Storage PersistentVolumeClaim/data C"]),
        (0.4, [FULL], []),
        (None, ["write /var/log/x: no space left on device"], []),
        (None, ['FATAL:  could not write to file "pg_wal/xlogtemp.29": No space left on device'], ["Storage PersistentVolumeClaim/data C"]),
        (None, [], []),
    ],
)
def test_a_full_claim(ratio: float | None, lines: list[str], expected: list[str]) -> None:
    found = list(storage(filled(ratio, *lines)))
    assert told(found) == expected
    assert all(c.hits == ("Deployment/checkout", "PersistentVolumeClaim/data") for c in found)


def test_a_full_disk_without_a_path_says_nothing_where_two_claims_may_be_meant() -> None:
    assert told(storage(filled(None, "no space left on device", claims=2))) == []


def test_a_claim_that_nobody_uses_and_that_does_not_bind() -> None:
    (found,) = storage(world(claim(volume="pv-1"), STATIC, volume(phase="Bound", owner=("x", "y"))))
    assert (found.object, found.hits) == ("PersistentVolumeClaim/data", ("PersistentVolumeClaim/data",))


def damaged(line: str, *, kept: Raw | None = None, serving: bool = True) -> list[str]:
    """One member of three exits; each has data of its own."""
    mounts = container(volumeMounts=[{"name": "v", "mountPath": "/data"}])
    t = template(mounts, volumes=[{"name": "v", **(kept or {"hostPath": {"path": "/srv"}})}])
    owner, revisions = stateful(new=t, old=None, updated=3, available=2)
    broken = member(owner, 1, 2, ready=False, states=[crashing()])
    others = [member(owner, i, 2) for i in (0, 2)] if serving else []
    return asked(world(owner, revisions, broken, others, logs={"checkout-1": [line]}), "StatefulSet/checkout")


TORN = '{"level":"fatal","msg":"failed to recover the write-ahead log","error":"walpb: crc mismatch"}'


def test_data_that_cannot_be_read_back() -> None:
    assert "Storage StatefulSet/checkout B" in damaged(TORN)
    claimed: Raw = {"persistentVolumeClaim": {"claimName": "data-checkout-1"}}
    assert "Storage PersistentVolumeClaim/data-checkout-1 B" in damaged(TORN, kept=claimed)
    assert "Storage StatefulSet/checkout C" in damaged(TORN, serving=False)


@pytest.mark.parametrize(("line", "kept"), [("connection refused", None), (TORN, {"emptyDir": {}})])
def test_other_words_and_scratch_space_are_no_damaged_volume(line: str, kept: Raw | None) -> None:
    assert all("Storage" not in x for x in damaged(line, kept=kept))


# -- evictions ----------------------------------------------------------------------------------------------------------------------


def evicted(message: str, old: Raw | None = None) -> list[str]:
    def limited(size: str) -> Raw:
        return template(container(resources={"limits": {"ephemeral-storage": size}}))

    owner, rs, pods = steady(limited("10Mi"), progressing=("True", "ReplicaSetUpdated"), number=7)
    before = [replicaset(owner, 6, old, age=30 * DAY)] if old else []
    gone = pod(rs, 9, age=5 * MINUTE, ready=False, phase="Failed")
    gone["status"] |= {"reason": "Evicted", "message": message}
    return told(storage(world(owner, rs, before, pods, gone)))


def test_pods_evicted_over_their_own_limit() -> None:
    own = 'Container app exceeded its local ephemeral storage limit "10Mi". '
    assert evicted(own) == ["ResourceLimit Deployment/checkout B"]
    assert evicted(own, template(container(resources={"limits": {"ephemeral-storage": "1Gi"}})))[0].startswith(
        "ResourceLimit Deployment/checkout Release"
    )
    assert evicted("The node was low on resource: memory.") == []


@pytest.mark.parametrize("junk", [None, [], "x", {"accessModes": 3, "resources": [], "storageClassName": 7, "selector": "x"}])
def test_malformed_claims_and_volumes_raise_nothing(junk: object) -> None:
    odd = made("PersistentVolumeClaim", "data", spec=junk, status=junk)
    pv = made("PersistentVolume", "pv-1", spec=junk, status=junk)
    klass = made("StorageClass", "fast", provisioner=junk)
    w = world(waits(), nodes(), odd, pv, klass)
    asked(w)
    tuple(storage(w))
