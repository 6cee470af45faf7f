"""What would hold if: a Situation made up from a few numbers, for policy tests and explanations. The decision itself is `judgement.judge`.

Everything that is not said is fine: a grade-A diagnosis made just now, nothing at risk, a proven guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from ..api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, WHY_PREFIX, Level, ObjectMeta
from ..api.v1alpha1.common import ActionType, Category, ObjectRef
from ..api.v1alpha1.incident import (
    Approval,
    ChangeRef,
    Evidence,
    Gap,
    Hypothesis,
    Incident,
    IncidentSpec,
    Inverse,
    Plan,
    RollbackParameters,
    Signal,
    Speaker,
)
from . import approval, autonomy
from .diagnosis import Diagnosis, Finding
from .digest import sha256, spec_sha256
from .gates import Rollout
from .judgement import Judgement
from .orders import Governing, governing_rule
from .plan import Proposal, stage
from .reasons import Reason
from .situation import BudgetAnswer, Situation
from .snapshot import KubeObject
from .verdict import Verdict, passed, refused

Grade = Literal["A", "B", "C", "D"]
Outcome = Literal["Acts", "AwaitsApproval", "Rejected", "Advises", "ReadOnly", "Shadow", "Refused"]
QUIET = Rollout(under_way=False, past_deadline=False, own_change=True, terminal_since=None, progress="no rollout under way")


def workload(
    name: str, kind: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str], replicas: int, note: str = ""
) -> KubeObject:
    """A workload that is only written down. `note` changes its spec's digest and nothing else."""
    raw: dict[str, Any] = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{kind}-{name}".lower(),
            "labels": dict(labels),
            "annotations": dict(annotations),
        },
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": dict(labels)}, "spec": {"note": note}}},
    }
    return KubeObject(raw, kind, "apps/v1")


def incident(target: KubeObject, namespace: str, now: datetime, annotations: Mapping[str, str] | None = None) -> Incident:
    """An Incident as the operator's own detector opens it."""
    return Incident(
        kind="Incident",
        metadata=ObjectMeta(name="what-if", namespace=namespace, uid="what-if", annotations=dict(annotations or {})),
        spec=IncidentSpec(
            target=ObjectRef(api_version=target.api_version, kind=target.kind, name=target.name),
            signal=Signal(source="Detector", name="WhatIf", starts_at=now - timedelta(minutes=10)),
        ),
    )


def diagnosis(
    target: KubeObject,
    now: datetime,
    *,
    grade: Grade | None = "A",
    category: Category = Category.IMAGE_ACCESS,
    origin: str = "",
    gaps: Sequence[str] = (),
    source: Literal["Kubernetes", "Prometheus", "Logs", "Ledger"] = "Kubernetes",
) -> Diagnosis:
    """A fault with that much evidence. `grade` None: no origin can be shown. `origin`: `Kind/name`; empty: the workload itself."""
    seen = Evidence(id="e1", source=source, query="what if", at=now, excerpt="", sha256=sha256(""))
    top = None
    if grade is not None:
        top = Hypothesis(
            category=category,
            object=origin or target.title,
            change=ChangeRef(kind="Release"),
            grade=grade,
            statement="what if",
            supported_by=("e1",),
        )
    return Diagnosis(
        finding=Finding.FAULT,
        reason=Reason.ORIGIN_SHOWN.value,
        message="what if",
        summary="what if",
        hypotheses=(top,) if top else (),
        evidence=(seen,),
        gaps=tuple(Gap(what=g, because="what if") for g in gaps),
        terminal_since=now - timedelta(hours=1),
        failing_revision="uid-newest-revision",
    )


def proposal(
    target: KubeObject,
    *,
    pods_at_risk: int = 0,
    workload_pods: int = 0,
    at_once: int | None = None,
    scaled_by: str = "",
    undo: Literal["Exact", "SelfHealing", "None"] = "Exact",
    at_most: Level | None = None,
    preflight: str = "",
) -> Proposal:
    """What an action would ask for. `at_most`: a ceiling that its preflight found; `preflight`: why it must not run at all."""
    spec = target.at("spec", default={})
    before = spec_sha256(spec, scaled=bool(scaled_by))
    ok: Verdict = refused(Reason.PREFLIGHT, preflight) if preflight else passed("the action's own checks are taken to pass")
    caps = (Speaker(who="preflight", level=at_most, because="what the action found"),) if at_most else ()
    return Proposal(
        action=ActionType.ROLLBACK_WORKLOAD,
        target=target,
        before_sha256=before,
        after_sha256=sha256("after"),
        parameters=RollbackParameters(
            revision_uid="uid-earlier", revision_name="earlier", to_revision="1", template_sha256=sha256("earlier"), proven_healthy=True
        ),
        inverse=Inverse(ref="ReplicaSet/present", uid="uid-present", sha256=sha256("present")),
        patch={},
        impact="what if",
        pods_at_risk=pods_at_risk,
        workload_pods=workload_pods,
        preflight=ok,
        caps=caps,
        command=(),
        json_patch="",
        alternatives=(),
        at_once=pods_at_risk if at_once is None else at_once,
        scaled_by=scaled_by,
        undo=undo,
    )


def faulty(s: Situation, target: KubeObject, looked: Diagnosis, offered: Proposal, now: datetime, rollout: Rollout = QUIET) -> Situation:
    """The same situation with that fault in it."""
    return replace(s, target=target, diagnosis=looked, proposal=offered, rollout=rollout, looked_at=s.looked_at or now)


# ------------------------------------------------------------ what follows from a judgement


@dataclass(frozen=True)
class Answer:
    """Somebody's approval, given `at`; one for a freeze needs a reason."""

    by: str
    at: datetime
    emergency: bool = False
    because: str = ""


def staged(s: Situation, offered: Proposal, found: Governing, j: Judgement, now: datetime) -> Plan:
    """The plan that would be waiting."""
    return stage(s.incident, offered, found, j.level.level, j.ordered, None, now, needs=j.needs, pause=j.pause)


def approvals(plan: Plan, answers: Sequence[Answer]) -> tuple[Approval, ...]:
    """The answers as the operator records them."""
    found: list[Approval] = []
    for i, a in enumerate(answers):
        prefix = EMERGENCY_PREFIX if a.emergency else APPROVE_PREFIX
        notes = {f"{prefix}k{i}": f"{plan.digest}|{a.by}", f"{WHY_PREFIX}k{i}": a.because}
        found += approval.seen(notes, plan, (), a.at)
    return tuple(found)


def approved(s: Situation, offered: Proposal, j: Judgement, answers: Sequence[Answer], now: datetime) -> approval.Answer | None:
    """Whether these answers let the plan run; None where no rule governs, so that there is none."""
    if not isinstance(j.governing, Governing):
        return None
    plan = staged(s, offered, j.governing, j, now)
    return approval.judge({}, plan, approvals(plan, answers), j.needs, s.incident.spec.requested_by, s.operator.username, now)


def emergency_would_pass(s: Situation, offered: Proposal, j: Judgement, now: datetime) -> bool:
    """Whether the plan would run in the freeze that holds now if enough people gave an emergency approval with a reason."""
    people = [Answer(f"somebody-{i + 1}", now, emergency=True, because="what if") for i in range(j.needs.count)]
    if j.needs.frozen_by == "None" or not j.verdict.allowed or j.level.level != Level.L3:
        return False
    return isinstance(approved(s, offered, j, people, now), approval.Approved)


def outcome(verdict: Verdict, level: Level, answer: approval.Answer | None) -> Outcome:
    """What the operator would do, in one word."""
    if verdict.reason is Reason.SHADOW:
        return "Shadow"
    if level == Level.L1:
        return "ReadOnly"
    if not verdict.allowed:
        return "Refused"
    match level:
        case Level.L4:
            return "Acts"
        case Level.L3:
            match answer:
                case approval.Approved():
                    return "Acts"
                case approval.Rejected():
                    return "Rejected"
                case _:
                    return "AwaitsApproval"
        case _:
            return "Advises"


def deciders(j: Judgement) -> tuple[Speaker, ...]:
    """Those who speak for the level that holds."""
    return tuple(s for s in j.level.decided_by if s.level == j.level.level)


def with_plan(s: Situation, plan: Plan) -> Situation:
    """The same with that plan waiting."""
    status = s.incident.status.model_copy(update={"plan": plan, "plan_sequence": plan.sequence})
    return replace(s, incident=s.incident.model_copy(update={"status": status}))


def asked_for_budget(s: Situation, target: KubeObject, offered: Proposal, answer: BudgetAnswer) -> Situation:
    """The same with that answer to the error budget's query, if the governing rule asks one."""
    found = governing_rule(s.orders, autonomy.own_labels(target.labels), offered.action)
    if not isinstance(found, Governing) or found.rule.error_budget is None:
        return s
    return replace(s, error_budget=replace(answer, least=float(found.rule.error_budget.min)))
