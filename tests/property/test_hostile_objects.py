"""The engine over arbitrary JSON as objects of every kind that it lists, and targets of every kind: it never raises, and stays bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.api.v1alpha1.incident import IncidentStatus
from nightorders.diagnosis.claim import Claim
from nightorders.diagnosis.engine import (
    BESIDE_KINDS,
    CLUSTER_KINDS,
    KINDS,
    diagnose,
    stuck_rollouts,
    symptom_holds,
    wanted_logs,
    wanted_namespaces,
)
from nightorders.diagnosis.focus import KINDS as TARGETS
from nightorders.domain.snapshot import KubeObject, Listing, LogExcerpt, LogKey, Point, Snapshot, Vector
from tests.unit.diagnosis.build import MINUTE, NOW, NS, at

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EVERY = tuple(dict.fromkeys((*KINDS, *CLUSTER_KINDS, *BESIDE_KINDS)))
NAMES = st.sampled_from(["a", "b", "checkout", "n0", "kube-dns", "coredns", "x.y", "", "UPPER", "a\x00b", "\ud800"])
# The words of the API, so that what is generated is looked into; each kind of object reads some of them.
FIELDS = st.sampled_from(
    """
    metadata spec status data name namespace uid labels annotations ownerReferences controller kind apiVersion creationTimestamp
    deletionTimestamp finalizers managedFields manager time fieldsV1 operation subresource f:spec f:data generation observedGeneration
    replicas selector matchLabels matchExpressions key operator values template containers initContainers image imagePullPolicy env envFrom
    value valueFrom configMapKeyRef secretKeyRef configMapRef secretRef optional volumes volumeMounts mountPath subPath configMap secret
    persistentVolumeClaim claimName items ports containerPort port targetPort protocol resources requests limits cpu memory pods storage
    livenessProbe readinessProbe startupProbe httpGet tcpSocket exec command args path initialDelaySeconds failureThreshold
    serviceAccountName nodeName nodeSelector affinity nodeAffinity podAntiAffinity requiredDuringSchedulingIgnoredDuringExecution
    nodeSelectorTerms topologySpreadConstraints tolerations taints effect unschedulable allocatable conditions type reason message
    lastTransitionTime lastProbeTime phase containerStatuses initContainerStatuses state lastState waiting terminated running exitCode
    restartCount ready started startedAt finishedAt imageID podIP hostNetwork dnsPolicy dnsConfig nameservers updatedReplicas
    availableReplicas readyReplicas unavailableReplicas progressDeadlineSeconds paused strategy rollingUpdate maxUnavailable maxSurge
    involvedObject count firstTimestamp lastTimestamp series eventTime source component externalName clusterIP sessionAffinity
    internalTrafficPolicy loadBalancer ingress rules host http paths backend service number pathType tls secretName hosts ingressClassName
    defaultBackend podSelector namespaceSelector policyTypes egress from to ipBlock cidr except endpoints addresses targetRef minReplicas
    maxReplicas metrics resource target averageUtilization scaleTargetRef currentMetrics desiredReplicas disruptionsAllowed
    minAvailable currentHealthy desiredHealthy expectedPods hard used scopes scopeSelector min max default defaultRequest storageClassName
    accessModes capacity volumeName volumeMode claimRef nodeAffinity provisioner volumeBindingMode parameters webhooks clientConfig caBundle
    failurePolicy objectSelector operations apiGroups apiVersions roleRef subjects verbs resourceNames holderIdentity renewTime
    leaseDurationSeconds schedule suspend jobTemplate backoffLimit activeDeadlineSeconds completions parallelism failed succeeded active
    lastScheduleTime revision currentRevision updateRevision volumeClaimTemplates priorityClassName runtimeClassName schedulingGates
    preemptionPolicy globalDefault insecureSkipTLSVerify versionPriority Corefile app tls.crt
    """.split()  # noqa: SIM905  (250 words in quotes would be no list that anybody reads)
)
WORDS = st.sampled_from(
    [
        "True", "False", "Unknown", "Ready", "Available", "Progressing", "ReplicaFailure", "PodScheduled", "Unschedulable", "Failed", "Running",
        "CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError", "OOMKilled", "FailedCreate", "ProgressDeadlineExceeded",
        "exceeded quota: team, requested: cpu=1, used: cpu=3, limited: cpu=3", "0/3 nodes are available: 3 Insufficient cpu.",
        'configmap "a" not found', "Liveness probe failed: connection refused", "dial tcp: lookup b: no such host", "1Gi", "500m", "-1e9999",
        "0.1.2.3.4", "10%", "*", "http://b:80", "b.other.svc.cluster.local:5432", "/etc/x", "9999-12-31T23:59:59Z", "sha256:" + "0" * 64,
        "Deployment", "Pod", "ConfigMap", "apps/v1", "x" * 3000, "\x00\x1b[31m\u202e\u200b", "\ud800", "{", "a=b,c!=d", "((((((((((a+)+)+$",
        at(5 * MINUTE), at(MINUTE),
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 5),
    st.floats(),
    WORDS,
    NAMES,
    st.text(max_size=12),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(FIELDS, JSON, max_size=6)


@st.composite
def objects(draw: st.DrawFn) -> KubeObject:
    """An object of some kind: mostly with a usable name and owners, at times with nothing usable at all."""
    version, kind = draw(st.sampled_from(EVERY))
    raw: dict[str, Any] = draw(OBJECTS)
    if draw(st.integers(0, 9)):
        meta = {"name": draw(NAMES), "namespace": NS, "uid": f"uid-{draw(st.integers(0, 5))}", "creationTimestamp": at(5 * MINUTE)}
        if draw(st.booleans()):
            owner = {
                "kind": draw(st.sampled_from(EVERY))[1],
                "name": draw(NAMES),
                "uid": f"uid-{draw(st.integers(0, 5))}",
                "controller": True,
            }
            meta["ownerReferences"] = [owner]
        raw = {**raw, "metadata": {**draw(OBJECTS), **meta}, "spec": draw(OBJECTS | JSON), "status": draw(OBJECTS | JSON)}
    return KubeObject(raw, kind, version)


@st.composite
def snapshots(draw: st.DrawFn, beside: bool = True) -> Snapshot:
    """Any objects in complete and incomplete lists, with logs, series and other namespaces."""
    found = draw(st.lists(objects(), max_size=12))
    unread = draw(st.sets(st.sampled_from([k for _, k in EVERY]), max_size=3))
    absent = draw(st.sets(st.sampled_from([k for _, k in EVERY]), max_size=3))
    kinds = [k for _, k in EVERY if k not in absent]
    listings = {
        k: Listing(k, f"GET {k}", NOW, () if k in unread else tuple(o for o in found if o.kind == k), "forbidden" if k in unread else "")
        for k in kinds
    }
    lines = draw(st.lists(WORDS | st.text(max_size=40), max_size=4))
    keys = [LogKey(o.name, c, p) for o in found if o.kind == "Pod" for c in ("app", "") for p in (True, False)]
    points = tuple(Point({"service": draw(NAMES), "pod": draw(NAMES)}, draw(st.floats())) for _ in range(draw(st.integers(0, 2))))
    series = draw(st.sampled_from(["error_ratio_by_service", "requests_by_service", "series"]))
    others = {"kube-system": draw(snapshots(beside=False))} if beside and draw(st.booleans()) else {}
    logs = {k: LogExcerpt(k, "GET log", NOW, tuple(lines)) for k in keys}
    return Snapshot(NS, NOW, listings, logs, others, {series: Vector(series, NOW, points)})


CLAIMS = st.one_of(
    st.none(),
    st.builds(
        Claim,
        st.sampled_from(["KubePodCrashLooping", "HttpErrorBudgetBurn", "KubeHpaReplicasMismatch", "\x1b[31m", "NodeNotReady"]),
        st.dictionaries(st.sampled_from(["service", "pod", "node", "namespace", "severity"]), NAMES, max_size=3),
        firing=st.none() | st.booleans(),
        resolved=st.booleans(),
    ),
)


@st.composite
def targets(draw: st.DrawFn, snapshot: Snapshot) -> ObjectRef:
    """Any object of the snapshot, the whole namespace, or an object of any kind that may not be there."""
    there = [o for v in snapshot.listings.values() for o in v.objects]
    if there and draw(st.booleans()):
        o = draw(st.sampled_from(there))
        return ObjectRef.model_construct(api_version=o.api_version, kind=o.kind, name=o.name)
    version, kind = draw(st.sampled_from([*EVERY, ("example.com/v1", "Widget"), *((v, k) for v, k in EVERY if k in TARGETS)]))
    name = NS if kind == "Namespace" else draw(NAMES)
    return ObjectRef.model_construct(api_version=version, kind=kind, name=name)


@pytest.mark.threat(24)
@QUICK
@given(st.data())
def test_nothing_raises_on_any_json(data: st.DataObject) -> None:
    snapshot = data.draw(snapshots())
    target = data.draw(targets(snapshot))
    d = diagnose(snapshot, target, (), NOW, data.draw(CLAIMS))
    assert not [g for g in d.gaps if "specialist" in g.what], d.gaps
    status = IncidentStatus(
        summary=d.summary,
        hypotheses=d.hypotheses,
        facts=d.facts,
        guesses=d.guesses,
        evidence=d.evidence,
        unexplained=d.unexplained,
        gaps=d.gaps,
        blast_radius=d.blast_radius,
        owners=d.owners,
        changes=d.changes,
    )
    assert len(json.dumps(IncidentStatus.model_validate(status.wire()).wire())) < 100_000
    assert len(wanted_logs(snapshot, target)) <= 20
    assert len(wanted_namespaces(snapshot)) <= 4
    assert symptom_holds(snapshot, target, NOW) in (True, False, None)
    stuck_rollouts(snapshot, NOW)


@QUICK
@given(snapshots(), st.sampled_from([k for k in EVERY if k[1] in TARGETS]))
def test_a_target_of_every_kind(snapshot: Snapshot, kind: tuple[str, str]) -> None:
    """Targets that are there, whatever they hold."""
    for o in snapshot.all(kind[1])[:2]:
        target = ObjectRef.model_construct(api_version=kind[0], kind=kind[1], name=o.name)
        d = diagnose(snapshot, target, (), NOW)
        assert not [g for g in d.gaps if "specialist" in g.what], d.gaps
        wanted_logs(snapshot, target)
        symptom_holds(snapshot, target, NOW)
