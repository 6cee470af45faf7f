"""From a Situation to a judgement: level, gates and whose approval is needed. What the loop does and what `policy explain` shows is the same call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from ..api.meta import Level, parse_duration
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import ApprovalNeeds, Autonomy, GateResult, Hypothesis, Pause, Plan, Speaker
from ..api.v1alpha1.policy import Rule
from . import autonomy, freezes, gates
from .digest import spec_sha256
from .orders import Governing, Ungoverned, governing_rule
from .plan import Proposal, execution_id
from .reasons import Reason
from .situation import Situation
from .snapshot import KubeObject
from .verdict import Verdict
from .verification import wanted_pods


@dataclass(frozen=True)
class Judgement:
    """What holds for one proposal. `otherwise`: the verdict as it would be if the policy did not say Shadow."""

    governing: Governing | Ungoverned
    level: Autonomy
    ordered: Level
    results: tuple[GateResult, ...]
    verdict: Verdict
    otherwise: Verdict
    needs: ApprovalNeeds
    pause: Pause | None

    @property
    def shadow(self) -> bool:
        return isinstance(self.governing, Governing) and self.governing.policy.spec.enforcement == "Shadow"


def judge(s: Situation, target: KubeObject, top: Hypothesis | None, p: Proposal, plan: Plan | None, now: datetime) -> Judgement:
    """Level first, then every gate at that level. `plan`: the staged plan, while it is the very same one."""
    found = governing_rule(s.orders, autonomy.own_labels(target.labels), p.action)
    spoken = voices(s, target, top, p.caps, plan, p)
    level = autonomy.effective(spoken, now)
    asked = question(s, target, top, p, level.level, execution_id(plan.digest) if plan else "")
    results, verdict = gates.judge(asked, now)
    otherwise = gates.judge(replace(asked, shadow=False), now)[1] if verdict.reason is Reason.SHADOW else verdict
    needs = approval_needs(s, found, p.action, now)
    pause = pause_of(s, found)
    return Judgement(found, level, autonomy.ordered(spoken, now), results, verdict, otherwise, needs, pause)


def voices(
    s: Situation,
    target: KubeObject,
    top: Hypothesis | None,
    caps: Iterable[Speaker],
    plan: Plan | None,
    proposal: Proposal | None,
    *,
    evidence_at: datetime | None = None,
    execution: str = "",
) -> autonomy.Voices:
    """All that the speakers look at. `evidence_at`: when the evidence was gathered, where this pass did not gather any."""
    action = proposal.action if proposal else plan.action if plan else ActionType.ROLLBACK_WORKLOAD
    looked = s.diagnosis
    return autonomy.Voices(
        namespace=s.incident.metadata.namespace,
        action=action,
        incident=s.incident,
        orders=s.orders,
        target=target,
        namespace_object=s.namespace_object,
        ledger=s.ledger,
        fleet=s.fleet,
        hypothesis=top,
        gaps=tuple(g.what for g in (looked.gaps if looked else s.incident.status.gaps)),
        evidence_at=evidence_at or (s.looked_at if looked else None),
        evidence_sources=tuple(
            {e.source for e in (looked.evidence if looked else s.incident.status.evidence) if top and e.id in top.supported_by}
        ),
        pods_at_risk=proposal.pods_at_risk if proposal else plan.pods_at_risk if plan else 0,
        workload_pods=proposal.workload_pods if proposal else wanted_pods(target),
        undo=proposal.undo if proposal else plan.undo if plan else "Exact",
        scaled_by=proposal.scaled_by if proposal else plan.target.scaled_by if plan else "",
        owner=s.owner,
        neighbours=s.neighbours,
        changed_at=s.changed_at,
        error_budget=s.error_budget,
        runbooks=s.runbooks,
        rollout_under_way=s.rollout is not None and s.rollout.under_way,
        caps=tuple(caps),
        plan=plan,
        execution=execution or (execution_id(plan.digest) if plan else ""),
        guard_proven=s.guard.holds,
        guard_message=s.guard.message,
        schemas_current=s.schemas.holds,
        schemas_message=s.schemas.message,
        unknown=s.unknown,
    )


def question(s: Situation, target: KubeObject, top: Hypothesis | None, p: Proposal, level: Level, execution: str) -> gates.Question:
    """All that the gates look at."""
    assert s.rollout is not None, "the gatherer looks at the rollout whenever it looks at all"
    return gates.Question(
        namespace=s.incident.metadata.namespace,
        operator_namespace=s.operator.namespace,
        action=p.action,
        level=level,
        incident=s.incident,
        orders=s.orders,
        governing=governing_rule(s.orders, autonomy.own_labels(target.labels), p.action),
        target=target,
        before_sha256=p.before_sha256,
        target_sha256=spec_sha256(target.at("spec", default={}), scaled=bool(p.scaled_by)) if target.uid == p.target.uid else "made anew",
        hypothesis=top,
        rollout=s.rollout,
        risk=gates.Risk(p.pods_at_risk, p.workload_pods, p.preflight, p.at_once, s.namespace_pods, s.disruption_budgets),
        stop=s.stop,
        ledger=s.ledger,
        fleet=s.fleet,
        fleet_workloads=s.fleet_workloads,
        execution=execution,
        owner=s.owner,
    )


def approval_needs(s: Situation, found: Governing | Ungoverned, action: ActionType, now: datetime) -> ApprovalNeeds:
    """Whose approval a plan needs now: the rule's wishes within the platform's bounds."""
    if not isinstance(found, Governing):
        return ApprovalNeeds()
    spec = found.rule.approval
    over = list(s.orders.over(s.incident.metadata.namespace))
    bounds = [c.spec.approval for c in over if c.spec.approval is not None]
    may = bool(bounds) and all(b.service_accounts == "TeamDecides" for b in bounds)
    cluster = freezes.in_force([f for c in over for f in c.spec.freezes], action, now)
    own = freezes.in_force(found.policy.spec.freezes, action, now)
    return ApprovalNeeds(
        count=max([spec.count, *(b.min_count for b in bounds)]),
        expires_seconds=int(parse_duration(spec.expires_after).total_seconds()),
        separation_of_duties=autonomy.separated(found.rule, s.orders, s.incident.metadata.namespace),
        service_accounts="Allow" if may and spec.service_accounts == "Allow" else "Deny",
        frozen_by="Cluster" if cluster else "Namespace" if own else "None",
    )


def stricter(before: ApprovalNeeds | None, now: ApprovalNeeds) -> ApprovalNeeds:
    """A waiting plan keeps the strictest of what the orders said since it was staged; a freeze holds while it is in force."""
    if before is None:
        return now
    return ApprovalNeeds(
        count=max(before.count, now.count),
        expires_seconds=min(before.expires_seconds, now.expires_seconds),
        separation_of_duties=before.separation_of_duties or now.separation_of_duties,
        service_accounts="Allow" if before.service_accounts == now.service_accounts == "Allow" else "Deny",
        frozen_by=now.frozen_by,
    )


def pause_of(s: Situation, found: Governing | Ungoverned) -> Pause | None:
    """What is to be paused around the action, if anything owns the target and the orders allow it."""
    if s.owner is None or not isinstance(found, Governing) or not gates.may_pause(found.rule, s.orders, s.incident.metadata.namespace):
        return None
    return s.owner.pause and s.owner.pause.model_copy(update={"hold_seconds": hold_seconds(found.rule)})


def hold_seconds(rule: Rule) -> int:
    """How long a pause holds after an action that helped."""
    return int(parse_duration(rule.pause_for).total_seconds())
