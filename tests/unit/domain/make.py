"""Values for tests of the decisions: a Deployment `checkout` whose release 7 is broken and whose release 6 was healthy.

Every maker gives a case in which everything is allowed (L4, all gates open); a test takes one thing away.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nightorders.actions import CATALOGUE
from nightorders.actions.rollback import RollbackWorkload
from nightorders.api.meta import EXECUTION_LABEL, FINALIZER, Condition, Level, parse_duration
from nightorders.api.v1alpha1 import ActionType, Category, ClusterRemediationPolicy, Incident, IncidentStatus, Ledger, RemediationPolicy
from nightorders.api.v1alpha1.incident import (
    ApprovalNeeds,
    Autonomy,
    ChangeRef,
    DryRun,
    Execution,
    Hypothesis,
    Measurement,
    Plan,
    Signal,
    Verification,
)
from nightorders.api.v1alpha1.ledger import HealthyRevision, LedgerSpec, Outcome, Rejection, Reservation
from nightorders.domain import gates, verification
from nightorders.domain.autonomy import Voices
from nightorders.domain.diagnosis import Diagnosis, Finding
from nightorders.domain.digest import sha256, spec_sha256, template_sha256
from nightorders.domain.orders import Governing, Orders, governing_rule
from nightorders.domain.ownership import Owner
from nightorders.domain.plan import NoProposal, Proposal, execution_id, stage
from nightorders.domain.reasons import Reason
from nightorders.domain.situation import Operator, Proof, Situation
from nightorders.domain.snapshot import KubeObject, Listing, Snapshot
from nightorders.domain.verdict import passed

Json = dict[str, Any]
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
NAMESPACE = "shop"
SYSTEM = "nightorders-system"
OPERATOR = Operator("system:serviceaccount:nightorders-system:nightorders", SYSTEM)
ROLLBACK = ActionType.ROLLBACK_WORKLOAD
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


# ---------------------------------------------------------------- cluster objects


def template(tag: str = "7", **container: Any) -> Json:
    return {
        "metadata": {"labels": {"app": "checkout"}},
        "spec": {"containers": [{"name": "app", "image": f"registry.example/checkout:{tag}", **container}]},
    }


def deployment(
    pod: Json | None = None, *, labels: Mapping[str, str] | None = None, notes: Mapping[str, str] | None = None, **meta: Any
) -> KubeObject:
    """`spec=` and `status=` replace single keys of these."""
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "checkout"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": pod or template(),
        **meta.pop("spec", {}),
    }
    status = {
        "observedGeneration": 7,
        "replicas": 4,
        "updatedReplicas": 1,
        "availableReplicas": 3,
        "readyReplicas": 3,
        **meta.pop("status", {}),
    }
    raw = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "checkout",
            "namespace": NAMESPACE,
            "uid": "uid-checkout",
            "resourceVersion": "100",
            "generation": 7,
            "creationTimestamp": stamp(NOW - 30 * 24 * HOUR),
            "labels": {"app": "checkout", "tier": "web", **(labels or {})},
            "annotations": {"deployment.kubernetes.io/revision": "7", **(notes or {})},
            **meta,
        },
        "spec": spec,
        "status": status,
    }
    return KubeObject(raw, "Deployment", "apps/v1")


def replica_set(number: int, pod: Json | None = None, *, owner: str = "uid-checkout", ready: int = 0, **meta: Any) -> KubeObject:
    """The ReplicaSet of a revision, as the Deployment controller makes it (with a pod-template-hash)."""
    made = copy.deepcopy(pod or template(str(number)))
    made["metadata"]["labels"] = {**made["metadata"].get("labels", {}), "pod-template-hash": f"hash{number}"}
    notes = {"deployment.kubernetes.io/revision": str(number), **meta.pop("annotations", {})}
    raw = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"checkout-{number}",
            "namespace": NAMESPACE,
            "uid": f"uid-rs-{number}",
            "creationTimestamp": stamp(NOW - (10 - number) * HOUR),
            "annotations": notes,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout", "uid": owner, "controller": True}],
            **meta,
        },
        "spec": {"template": made},
        "status": {"availableReplicas": ready},
    }
    return KubeObject(raw, "ReplicaSet", "apps/v1")


def pod_of(rs: KubeObject, name: str, *, ready: bool) -> KubeObject:
    raw = {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "ownerReferences": [{"kind": "ReplicaSet", "name": rs.name, "uid": rs.uid, "controller": True}],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }
    return KubeObject(raw, "Pod", "v1")


def snapshot(*objects: KubeObject, at: datetime = NOW, unseen: tuple[str, ...] = ()) -> Snapshot:
    """A complete look at all kinds of `objects`, and at Pods, ReplicaSets, Deployments and ConfigMaps."""
    kinds = {"Pod", "ReplicaSet", "Deployment", "ConfigMap", *(o.kind for o in objects)}
    listings = {
        k: Listing(k, f"GET {k}", at, () if k in unseen else tuple(o for o in objects if o.kind == k), "forbidden" if k in unseen else "")
        for k in kinds
    }
    return Snapshot(NAMESPACE, at, listings)


def changed(target: KubeObject, path: tuple[str, ...], value: Any) -> KubeObject:
    """A copy with one value set (None: removed)."""
    raw = copy.deepcopy(dict(target.raw))
    here = raw
    for step in path[:-1]:
        here = here.setdefault(step, {})
    if value is None:
        here.pop(path[-1], None)
    else:
        here[path[-1]] = value
    return KubeObject(raw, target.kind, target.api_version)


# ---------------------------------------------------------------- our own kinds


def rule_json(name: str = "rollback", level: str = "L4", **fields: Any) -> Json:
    return {"name": name, "types": ["RollbackWorkload"], "level": level, **fields}


def policy(name: str = "web", *rules: Json, labels: Mapping[str, str] | None = None, **more: Any) -> RemediationPolicy:
    """`more`: further fields of the spec, such as freezes=."""
    spec = {"selector": {"matchLabels": dict(labels or {})}, "rules": list(rules) or [rule_json()], **more}
    return RemediationPolicy.model_validate(
        {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "RemediationPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
    )


def cluster_policy(name: str = "platform", **spec: Any) -> ClusterRemediationPolicy:
    return ClusterRemediationPolicy.model_validate(
        {"apiVersion": "nightorders.dev/v1alpha1", "kind": "ClusterRemediationPolicy", "metadata": {"name": name}, "spec": spec}
    )


def ceiling(level: str, name: str = "most", **fields: Any) -> ClusterRemediationPolicy:
    return cluster_policy(f"ceiling-{name}", ceilings=[{"name": name, "level": level, **fields}])


def orders(*policies: RemediationPolicy, cluster: tuple[ClusterRemediationPolicy, ...] = (), **unreadable: Any) -> Orders:
    return Orders(policies=policies or (policy(),), cluster=cluster, **unreadable)


def governing(found: Orders | None = None, target: KubeObject | None = None) -> Governing:
    answer = governing_rule(found or orders(), (target or deployment()).labels, ROLLBACK)
    assert isinstance(answer, Governing)
    return answer


def healthy_revision(rs: KubeObject, workload: KubeObject | None = None, at: datetime = NOW - 24 * HOUR) -> HealthyRevision:
    workload = workload or deployment()
    return HealthyRevision(
        workload_uid=workload.uid,
        workload=workload.title,
        revision_uid=rs.uid,
        template_sha256=template_sha256(rs.at("spec", "template")),
        at=at,
    )


def ledger(name: str = "ledger", **spec: Any) -> Ledger:
    spec.setdefault("healthy_revisions", (healthy_revision(replica_set(6)),))
    return Ledger.model_validate({"kind": "Ledger", "metadata": {"name": name, "resourceVersion": "7"}, "spec": LedgerSpec(**spec)})


def reservation(execution: str = "no-other", workload: str = "Deployment/other", at: datetime = NOW - MINUTE, **fields: Any) -> Reservation:
    base: Json = {"namespace": NAMESPACE, "incident": "other", "incident_uid": "uid-other", "action": ROLLBACK}
    return Reservation(**{**base, "execution": execution, "workload": workload, "at": at, **fields})


def outcome(execution: str = "no-before", workload: str = "Deployment/other", at: datetime = NOW - MINUTE, **fields: Any) -> Outcome:
    base: Json = {"namespace": NAMESPACE, "action": ROLLBACK, "ended_at": at + SECOND, "result": "Recovered"}
    return Outcome(**{**base, "execution": execution, "workload": workload, "at": at, **fields})


def rejection(by: str = "bob", at: datetime = NOW - HOUR, **fields: Any) -> Rejection:
    base: Json = {"plan": sha256(by), "action": ROLLBACK, "workload": "Deployment/checkout"}
    return Rejection(**{**base, "by": by, "at": at, **fields})


def incident(status: IncidentStatus | None = None, *, annotations: Mapping[str, str] | None = None, **fields: Any) -> Incident:
    """Opened by the operator itself, unless `signal=None`. `meta=` adds to the metadata."""
    spec: Json = {
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"},
        "signal": Signal(source="Detector", name="RolloutStuck", starts_at=NOW - HOUR),
        **{k: v for k, v in fields.items() if k not in ("meta",)},
    }
    metadata = {
        "name": "checkout-rolloutstuck-0123456789-1",
        "namespace": NAMESPACE,
        "uid": "uid-incident",
        "resourceVersion": "5",
        "generation": 1,
        "creationTimestamp": stamp(NOW - HOUR),
        "annotations": dict(annotations or {}),
        **fields.get("meta", {}),
    }
    return Incident.model_validate({"kind": "Incident", "metadata": metadata, "spec": spec, "status": status or IncidentStatus()})


def hypothesis(grade: str = "A", **fields: Any) -> Hypothesis:
    base: Json = {
        "category": Category.IMAGE_ACCESS,
        "object": "Deployment/checkout",
        "change": ChangeRef(kind="Release", revision="7"),
        "statement": "release 7 names an image that does not exist",
    }
    return Hypothesis(**{**base, "grade": grade, **fields})


def diagnosis(*hypotheses: Hypothesis, finding: Finding = Finding.FAULT, **fields: Any) -> Diagnosis:
    base: Json = {
        "reason": "OriginShown",
        "message": "release 7 fails",
        "summary": "Release 7 of checkout names an image that does not exist.",
        "terminal_since": NOW - HOUR,
        "failing_revision": "uid-rs-7",
    }
    return Diagnosis(finding=finding, hypotheses=hypotheses or (hypothesis(),), **{**base, **fields})


def proposal(target: KubeObject | None = None, books: Ledger | None = None, **fields: Any) -> Proposal:
    """The real action's proposal for revision 6; `fields` replace what it says."""
    target = target or deployment()
    seen = snapshot(target, replica_set(6, ready=0), replica_set(7))
    answer = RollbackWorkload().propose(incident(), seen, target, diagnosis(), books or ledger(), NOW)
    assert isinstance(answer, Proposal), answer
    return replace(answer, **fields)


def needs_of(found: Governing, **fields: Any) -> ApprovalNeeds:
    """What the rule alone asks for: no ClusterRemediationPolicy, no freeze."""
    spec = found.rule.approval
    base: Json = {
        "count": spec.count,
        "expires_seconds": int(parse_duration(spec.expires_after).total_seconds()),
        "separation_of_duties": spec.separated,
    }
    return ApprovalNeeds(**{**base, **fields})


def plan(
    level: Level = Level.L3, *, of: Incident | None = None, found: Governing | None = None, at: datetime = NOW - MINUTE, **fields: Any
) -> Plan:
    """Staged a minute ago at `level`, ordered L4; `fields` replace what it says."""
    dry_run = DryRun(at=at, diff="")
    found = found or governing()
    made = stage(of or incident(), proposal(), found, level, Level.L4, dry_run, at, needs=needs_of(found))
    return made.model_copy(update=fields)


AFTER = template("6")


def after_target(execution: str = "", base: KubeObject | None = None) -> KubeObject:
    """The Deployment as the plan leaves it, stamped if `execution` is given."""
    target = changed(base or deployment(), ("spec", "template"), template("6"))
    return changed(target, ("metadata", "labels", EXECUTION_LABEL), execution) if execution else target


# ---------------------------------------------------------------- what decisions look at


def voices(**fields: Any) -> Voices:
    base: Json = {
        "namespace": NAMESPACE,
        "action": ROLLBACK,
        "incident": incident(),
        "orders": orders(),
        "target": deployment(),
        "namespace_object": KubeObject({"metadata": {"name": NAMESPACE}}, "Namespace", "v1"),
        "ledger": ledger(),
        "fleet": ledger("fleet"),
        "hypothesis": hypothesis(),
        "evidence_at": NOW,
        "workload_pods": 3,
        "caps": (),
        "plan": None,
        "guard_proven": True,
        "guard_message": "",
        "schemas_current": True,
        "schemas_message": "",
        "unknown": (),
    }
    return Voices(**{**base, **fields})


ARGO = Owner("Argo CD")
FLUX = Owner("Flux Kustomization apps")
STILL = gates.Rollout(under_way=False, past_deadline=False, own_change=False, terminal_since=None, progress="3 of 3 updated")


def question(**fields: Any) -> gates.Question:
    target = fields.get("target", deployment())
    found = fields.get("orders", orders())
    base: Json = {
        "namespace": NAMESPACE,
        "operator_namespace": SYSTEM,
        "action": ROLLBACK,
        "level": Level.L4,
        "incident": incident(),
        "orders": found,
        "governing": governing_rule(found, target.labels, ROLLBACK),
        "target": target,
        "before_sha256": spec_sha256(deployment().at("spec")),
        "target_sha256": spec_sha256(target.at("spec")),
        "hypothesis": hypothesis(),
        "rollout": STILL,
        "risk": gates.Risk(0, 3, passed("not paused")),
        "stop": gates.Stop(),
        "ledger": ledger(),
        "fleet": ledger("fleet"),
        "execution": "",
        "owner": None,
    }
    return gates.Question(**{**base, **fields})


def sample(check: str, verdict: str = "Pass", value: str = "", at: datetime = NOW) -> Measurement:
    return Measurement(check=check, at=at, verdict=verdict, value=value, message=f"{check} {verdict}")  # type: ignore[arg-type]


def samples(at: datetime = NOW, **verdicts: str) -> tuple[Measurement, ...]:
    """One round of the built-in checks, all passing but those named; more names are further checks."""
    names = dict.fromkeys(verification.BUILT_IN, "Pass") | verdicts
    return tuple(sample(n, v, at=at) for n, v in names.items())


def condition(kind: str, status: str, reason: Reason, at: datetime = NOW - MINUTE) -> Condition:
    return Condition(type=kind, status=status, reason=reason.value, last_transition_time=at)  # type: ignore[arg-type]


def autonomy(level: Level = Level.L4, detected: Level = Level.L4) -> Autonomy:
    return Autonomy(level=level, detected_level=detected)


def approved_by(reason: Reason) -> Condition:
    status = "True" if reason in (Reason.APPROVED, Reason.NOT_REQUIRED) else "False"
    return condition("Approved", status, reason)


def staged_status(level: Level = Level.L3, p: Plan | None = None, **fields: Any) -> IncidentStatus:
    """A plan is staged and waits in the way of `level`."""
    p = p or plan(level)
    waits = {Level.L2: Reason.ADVISED, Level.L3: Reason.WAITING, Level.L4: Reason.NOT_REQUIRED}[level]
    base: Json = {
        "plan": p,
        "plan_sequence": p.sequence,
        "hypotheses": (hypothesis(),),
        "autonomy": autonomy(level),
        "conditions": (condition("Planned", "True", Reason.STAGED), approved_by(waits)),
        "summary": diagnosis().summary,
        "diagnosed_at": NOW - MINUTE,
    }
    return IncidentStatus(**{**base, **fields})


def execution(state: str = "Reserved", p: Plan | None = None, **fields: Any) -> Execution:
    p = p or plan()
    base: Json = {
        "id": execution_id(p.digest),
        "action": ROLLBACK,
        "by": "operator",
        "plan_digest": p.digest,
        "reserved_at": NOW - MINUTE,
        "before": p.target.before_sha256,
        "after": p.target.after_sha256,
    }
    return Execution(**{**base, "state": state, **fields})


def running_status(state: str = "Reserved", level: Level = Level.L4, **fields: Any) -> IncidentStatus:
    """An execution is in `state`; its verification window of 300 s began a minute ago."""
    p = fields.pop("p", None) or plan(level)
    reason = Reason.NOT_REQUIRED if level == Level.L4 else Reason.APPROVED
    v = verification.begin(p.verify, samples(NOW - MINUTE, symptom="Fail", rollout="Fail"), NOW - MINUTE)
    return staged_status(
        level,
        p,
        **{
            "executions": (execution(state, p),),
            "verification": v,
            "conditions": (condition("Planned", "True", Reason.STAGED), approved_by(reason)),
            **fields,
        },
    )


def verifying(*, started: datetime = NOW - 4 * MINUTE, seconds: int = 300, **fields: Any) -> Verification:
    base: Json = {"verdict": "Pending", "started_at": started, "until": started + timedelta(seconds=seconds)}
    return Verification(**{**base, **fields})


def situation(status: IncidentStatus | None = None, **fields: Any) -> Situation:
    """Everything allowed: a fault of grade A, L4 ordered, nothing in the way. `inc=` replaces the Incident."""
    target = fields.get("target", deployment())
    made = fields.pop("inc", None) or incident(status)
    own = target if isinstance(target, KubeObject) else deployment()
    base: Json = {
        "operator": OPERATOR,
        "incident": made,
        "target": target,
        "orders": orders(),
        "namespace_object": KubeObject({"metadata": {"name": NAMESPACE}}, "Namespace", "v1"),
        "ledger": ledger(),
        "fleet": ledger("fleet"),
        "stop": gates.Stop(),
        "guard": Proof(True, "proven"),
        "schemas": Proof(True, "current"),
        "diagnosis": diagnosis(),
        "proposal": proposal(own)
        if own.uid == "uid-checkout" and own.at("spec") == deployment().at("spec")
        else NoProposal(Reason.NO_ACTION_FITS, "no"),
        "rollout": STILL,
        "looked_at": NOW,
        "samples": samples(symptom="Fail", rollout="Fail"),
    }
    return Situation(**{**base, **fields})


def in_execution(state: str = "Reserved", level: Level = Level.L4, **fields: Any) -> Situation:
    """A Situation within an execution, with its finalizer and patches."""
    status = fields.pop("status", None) or running_status(state, level)
    p = status.plan
    assert p is not None
    action = CATALOGUE[p.action]
    target = fields.pop("target", None) or (deployment() if state == "Reserved" else after_target(execution_id(p.digest)))
    notes = fields.pop("annotations", {})
    meta = {"finalizers": [FINALIZER], **fields.pop("meta", {})}
    spec = fields.pop("spec", {})
    patches: Json = {"diagnosis": None, "proposal": None, "rollout": None, "samples": ()}
    if isinstance(target, KubeObject):
        patches["forward"] = action.forward(p, target, replica_set(6)) if state == "Reserved" else None
        patches["backward"] = action.backward(p, target, replica_set(7)) if state == "Undoing" else None
    return situation(inc=incident(status, annotations=notes, meta=meta, **spec), target=target, **{**patches, **fields})
