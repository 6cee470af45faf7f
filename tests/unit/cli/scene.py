"""A cluster that is not there, a user, and an Incident in every state, at a fixed moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from nightorders.api.v1alpha1 import ClusterRemediationPolicy, RemediationPolicy
from nightorders.api.v1alpha1.incident import Incident
from nightorders.api.v1alpha1.ledger import Ledger
from nightorders.cli.session import Session, Where
from nightorders.domain.digest import bare_template, spec_sha256, template_sha256
from nightorders.domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked
from nightorders.ports import AlreadyExistsError, NotFoundError, ObjectKey, PortError, Unreadable

T = TypeVar("T")
Json = dict[str, Any]
NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
NAME = "checkout-rolloutstuck-5c1f09ab22-1"
DIGEST = "sha256:" + "1f3c" * 16
OTHER = "sha256:" + "0b0b" * 16
ZERO = "sha256:" + "0" * 64


def at(seconds: float) -> str:
    """That many seconds after NOW, as the API writes it."""
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


# ---------------------------------------------------------------- objects


def template(image: str, env: Json | None = None) -> Json:
    container: Json = {"name": "main", "image": image}
    if env:
        container["env"] = [{"name": k, "value": v} for k, v in env.items()]
    return {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [container]}}


def deployment(pod: Json, **metadata: Any) -> KubeObject:
    raw = {
        "metadata": {"name": "checkout", "namespace": "shop", "uid": "u-checkout", **metadata},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "checkout"}}, "template": pod},
    }
    return KubeObject(raw, "Deployment", "apps/v1")


def replica_set(number: int, pod: Json, *, owner: str = "u-checkout") -> KubeObject:
    made = bare_template(pod)
    made["metadata"]["labels"]["pod-template-hash"] = f"h{number}"
    raw = {
        "metadata": {
            "name": f"checkout-{number}",
            "namespace": "shop",
            "uid": f"u-rs-{number}",
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
            "ownerReferences": [{"kind": "Deployment", "name": "checkout", "uid": owner, "controller": True}],
        },
        "spec": {"template": made},
    }
    return KubeObject(raw, "ReplicaSet", "apps/v1")


GOOD, BAD = template("registry.example/checkout:2.4.0"), template("registry.example/checkout:2.4.O")


DIFF = (
    "--- now",
    "+++ planned",
    "@@ -5,3 +5,3 @@",
    "   containers:",
    "-  - image: registry.example/checkout:2.4.O",
    "+  - image: registry.example/checkout:2.4.0",
    "     name: main",
)
GRANT = "kubectl create clusterrolebinding nightorders-reader --clusterrole=nightorders-reader --user=ann"


def plan(**fields: Any) -> Json:
    """The plan from BAD back to GOOD."""
    before = deployment(BAD)
    return {
        "digest": DIGEST,
        "contentSha256": ZERO,
        "sequence": 1,
        "action": "RollbackWorkload",
        "target": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "checkout",
            "uid": "u-checkout",
            "beforeSha256": spec_sha256(before.at("spec")),
            "afterSha256": spec_sha256({**before.at("spec"), "template": GOOD}),
        },
        "parameters": {
            "revisionUid": "u-rs-6",
            "revisionName": "checkout-6",
            "toRevision": "6",
            "templateSha256": template_sha256(GOOD),
            "provenHealthy": True,
        },
        "undo": "Exact",
        "inverse": {"ref": "ReplicaSet/checkout-7", "uid": "u-rs-7", "sha256": template_sha256(BAD)},
        "verify": {
            "seconds": 300,
            "everySeconds": 15,
            "checks": [{"name": "errors", "promql": "up", "max": "1"}],
            "onWorse": "Undo",
            "onUnchanged": "Undo",
            "onNoData": "Escalate",
        },
        "impact": "revision 7 → 6 (proven); 3 pods wanted, 0 healthy ones replaced, at most 1 unavailable at a time",
        "dryRun": {
            "at": at(-60),
            "diff": "\n".join(DIFF),
        },
        "command": [
            ["kubectl", "get", "incident", NAME, "-n", "shop", "--no-headers", "-o", "custom-columns=:.status.plan.patch"],
            ["kubectl", "patch", "deployment", "checkout", "-n", "shop", "--type=json", "--patch-file=/dev/stdin"],
        ],
        "patch": "[]",
        "stagedAt": at(-60),
        "stagedLevel": "L3",
        "expiresAt": at(660),
        "rule": "RemediationPolicy/web rule rollback",
        "podsAtRisk": 0,
        "needs": {"count": 1, "expiresSeconds": 900},
        "alternatives": [
            {"action": "kubectl rollout restart deployment/checkout", "why": "new pods of the same revision fail in the same way"}
        ],
        **fields,
    }


def condition(kind: str, status: str, reason: str, message: str = "", since: float = -60) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(since)}


WAITING = condition("Approved", "False", "Waiting", "needs 1 more of 1 approvals for plan sha256:1f3c1f3c1f3c… until 10:11:00Z")


def line_of(number: int, seconds: float, what: str, kind: str = "Observation", **fields: Any) -> Json:
    """A line of the story."""
    return {"seq": number, "at": at(seconds), "kind": kind, "actor": "operator", "what": what, "sha256": ZERO, **fields}


def diagnosed() -> Json:
    """The part of a status that a diagnosis fills."""
    return {
        "cause": "ImageAccess Deployment/checkout · rev 7",
        "grade": "A",
        "summary": "Release 7 of checkout names an image that does not exist; release 6 serves with 3 pods, healthy for 6 d.",
        "diagnosedAt": at(-90),
        "facts": [{"text": "1 pod of release 7 cannot pull its image: the registry does not have it.", "evidence": ["e1"]}],
        "guesses": [{"text": "The tag was mistyped.", "evidence": ["e2"], "settledBy": "kubectl -n shop describe pod checkout-7-x"}],
        "evidence": [
            {
                "id": "e1",
                "source": "Kubernetes",
                "query": "GET /api/v1/namespaces/shop/pods?resourceVersion=0",
                "at": at(-90),
                "excerpt": "Pod/checkout-7-x waiting ErrImagePull",
                "sha256": ZERO,
            },
            {
                "id": "e2",
                "source": "Kubernetes",
                "query": "GET /apis/apps/v1/namespaces/shop/replicasets?resourceVersion=0",
                "at": at(-90),
                "excerpt": "2.4.0 → 2.4.O",
                "sha256": ZERO,
            },
        ],
        "hypotheses": [
            {
                "category": "ImageAccess",
                "object": "Deployment/checkout",
                "change": {"kind": "Release", "revision": "7", "at": at(-120), "by": "ci"},
                "grade": "A",
                "statement": "Container main names an image that the registry does not have.",
                "supportedBy": ["e1", "e2"],
            },
            {
                "category": "Unknown",
                "object": "Deployment/checkout",
                "grade": "D",
                "statement": "An origin that the evidence does not show.",
            },
            {
                "category": "NoFault",
                "object": "Deployment/checkout",
                "grade": "A",
                "statement": "Nothing is wrong, or it is over.",
                "contradictedBy": ["e1"],
                "refuted": "1 pod fails now",
            },
        ],
        "gaps": [
            {
                "what": "Node objects",
                "because": "forbidden: nodes is forbidden",
                "fix": f"{GRANT}  # can be run by a cluster admin",
            }
        ],
        "blastRadius": {"workloads": ["Deployment/checkout"], "victims": ["Deployment/cart"], "podsPercent": 25},
        "owners": [{"who": "team-checkout", "because": "label team on Deployment/checkout"}],
        "changes": [{"object": "Deployment/checkout", "at": at(-120), "by": "ci", "what": "release 7", "secondsBeforeSymptom": 3}],
    }


def incident(status: Json | None = None, *, annotations: Mapping[str, str] | None = None, **metadata: Any) -> Incident:
    """An Incident that waits for approval, unless `status` says otherwise (it is laid over that)."""
    base: Json = {
        **diagnosed(),
        "phase": "AwaitingApproval",
        "action": "RollbackWorkload",
        "plan": plan(),
        "planSequence": 1,
        "autonomy": {
            "level": "L3",
            "detectedLevel": "L4",
            "trust": {"value": 100, "level": "L4"},
            "risk": {
                "value": 25,
                "level": "L3",
                "components": [{"name": "tier", "points": 25, "because": "ClusterRemediationPolicy/platform tier gold"}],
            },
            "decidedBy": [
                {
                    "who": "risk",
                    "level": "L3",
                    "value": "risk 25",
                    "threshold": "L4 at most 20, L3 at most 50, L2 at most 80",
                    "because": "ClusterRemediationPolicy/platform tier gold (25)",
                },
                {"who": "ledger", "level": "L3", "because": "no Ledger in this namespace yet"},
                {"who": "RemediationPolicy/web rule rollback", "level": "L4"},
            ],
        },
        "gates": [
            {"gate": "policy", "allowed": True, "reason": "Passed", "message": ""},
            {"gate": "rollout", "allowed": True, "reason": "Passed", "message": ""},
        ],
        "conditions": [condition("Planned", "True", "Staged", "RollbackWorkload of Deployment/checkout"), WAITING],
        "timeline": [line_of(1, -90, "Release 7 of checkout names an image that does not exist.")],
        **(status or {}),
    }
    raw = {
        "metadata": {
            "name": NAME,
            "namespace": "shop",
            "uid": "u-inc",
            "resourceVersion": "1",
            "creationTimestamp": at(-100),
            "annotations": dict(annotations or {}),
            **metadata,
        },
        "kind": "Incident",
        "spec": {
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"},
            "severity": "Critical",
            "title": "Rollout of checkout makes no progress",
            "signal": {"source": "Detector", "name": "RolloutStuck", "startsAt": at(-110)},
        },
        "status": base,
    }
    return Incident.model_validate(raw)


# ---------------------------------------------------------------- the cluster


class FixedClock:
    def now(self) -> datetime:
        return NOW


@dataclass
class FakeCluster:
    """What the fake ports answer, and what they were asked to write."""

    objects: dict[tuple[str, str], KubeObject | NotLooked] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    incident: Incident | Unreadable | PortError | None = None
    ledger: Ledger | PortError | None = None
    user: str = "ann"
    there: bool = True
    refuse: PortError | None = None
    written: list[dict[str, str | None]] = field(default_factory=list)
    policies: list[RemediationPolicy | Unreadable] | PortError = field(default_factory=list)
    cluster_policies: list[ClusterRemediationPolicy | Unreadable] | PortError = field(default_factory=list)
    fleet: Ledger | PortError | None = None
    open_incidents: list[Incident | Unreadable] | PortError = field(default_factory=list)
    stops: dict[str, dict[str, str]] = field(default_factory=dict)
    suspended: bool | None = None
    where: Where | None = None

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        title = f"{key.kind}/{key.name}"
        return self.objects.get((key.kind, key.name)) or Absent(title, f"GET {title}", NOW)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        own = tuple(o for (k, _), o in self.objects.items() if k == kind and isinstance(o, KubeObject))
        return self.listings.get(kind) or Listing(kind, f"GET {kind}", NOW, own)

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        return LogExcerpt(key, "GET logs", NOW)

    def watch(self, api_version: str, kind: str) -> AsyncIterator[tuple[str, KubeObject]]:
        raise AssertionError("no command watches")

    async def installed(self) -> bool:
        return self.there

    async def username(self) -> str:
        return self.user

    async def annotate(self, incident: Incident, annotations: Mapping[str, str | None]) -> None:
        if self.refuse:
            raise self.refuse
        self.written.append(dict(annotations))

    async def suspend(self, incident: Incident, suspended: bool) -> None:
        if self.refuse:
            raise self.refuse
        self.suspended = suspended

    async def stop(self, namespace: str, data: Mapping[str, str]) -> None:
        if self.refuse:
            raise self.refuse
        if namespace in self.stops:
            raise AlreadyExistsError("POST /x: configmaps nightorders-stop already exists (409)")
        self.stops[namespace] = dict(data)

    async def change_stop(self, namespace: str, data: Mapping[str, str]) -> None:
        self.stops[namespace].update(data)

    async def resume(self, namespace: str) -> None:
        if self.refuse:
            raise self.refuse
        if self.stops.pop(namespace, None) is None:
            raise NotFoundError("DELETE /x: configmaps nightorders-stop not found (404)")

    async def of(self, namespace: str) -> list[RemediationPolicy | Unreadable]:
        return answered(self.policies)

    async def cluster(self) -> list[ClusterRemediationPolicy | Unreadable]:
        return answered(self.cluster_policies)

    async def count(self, api_version: str, kind: str) -> int | None:
        return 10


def answered(found: T | PortError) -> T:
    """What was found, or the error that stands for it."""
    if isinstance(found, PortError):
        raise found
    return found


@dataclass
class _Incidents:
    cluster: FakeCluster

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None:
        return answered(self.cluster.incident)

    async def of(self, namespace: str) -> list[Incident | Unreadable]:
        return answered(self.cluster.open_incidents)


@dataclass
class _Ledgers:
    cluster: FakeCluster

    async def get(self, namespace: str, name: str) -> Ledger | None:
        return answered(self.cluster.fleet if name == "fleet" else self.cluster.ledger)


HERE = Where()


def session(cluster: FakeCluster, where: Where = HERE) -> Session:
    return Session(
        clock=FixedClock(),
        reader=cluster,
        incidents=_Incidents(cluster),
        policies=cluster,
        ledgers=_Ledgers(cluster),
        person=cluster,
        discovery=cluster,
        namespace=where.namespace or "shop",
        flags=where.flags,
    )
