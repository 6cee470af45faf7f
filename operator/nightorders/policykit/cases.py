"""The format of policy tests. The reference page is made of these descriptions (docs/reference/policy-test.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..api.meta import Count, Duration, KindName, Level, Model, Name, Number, Percent, ShortLine, Time, Word
from ..api.v1alpha1.common import ActionType, Category
from ..domain.gates import CHAIN
from ..domain.reasons import Reason

Labels = dict[str, Annotated[str, Field(max_length=63)]]
Notes = dict[str, Annotated[str, Field(max_length=1024)]]
Title = Annotated[
    str,
    Field(
        max_length=256, pattern=r"^[A-Z][A-Za-z0-9]*/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="`Kind/name`, such as Deployment/web."
    ),
]


class WorkloadIn(Model):
    """The workload in trouble."""

    name: Name = "checkout"
    kind: KindName = "Deployment"
    namespace: Annotated[Name, Field(description="Also of every policy here that says none.")] = "shop"
    labels: Labels = Field(default_factory=dict, description="What the policies' selectors look at.")
    annotations: Annotated[Notes, Field(description="Such as nightorders.dev/max-level.")] = Field(default_factory=dict)
    namespace_annotations: Annotated[Notes, Field(description="Annotations of its namespace.")] = Field(default_factory=dict)
    replicas: Annotated[int, Field(ge=0, le=10000)] = 3
    changed: Annotated[bool, Field(description="Its spec is no longer the one that was diagnosed.")] = False


class ApprovalIn(Model):
    """Somebody's yes to the plan."""

    by: Annotated[str, Field(min_length=1, max_length=256, description="Username, such as ann or system:serviceaccount:shop:bot.")]
    ago: Annotated[Duration, Field(description="When the operator first saw it.")] = "1m"
    emergency: Annotated[bool, Field(description="Given for a freeze.")] = False
    because: Annotated[ShortLine, Field(description="Its reason; an emergency approval without one does not count.")] = ""


class IncidentIn(Model):
    """What is known about the fault, and what people did."""

    grade: Annotated[
        Literal["A", "B", "C", "D", "None"], Field(description="How well the diagnosis is supported; None: no origin can be shown.")
    ] = "A"
    category: Annotated[Category, Field(description="The mechanism of the fault.")] = Category.IMAGE_ACCESS
    origin: Annotated[
        Title | None, Field(description="The object that is the origin; absent: the workload itself. Another one makes it a victim.")
    ] = None
    logs_only: Annotated[bool, Field(description="The diagnosis stands on log text alone.")] = False
    gaps: Annotated[tuple[ShortLine, ...], Field(max_length=8, description="What could not be looked at, such as `logs of checkout`.")] = ()
    evidence_age: Annotated[Duration, Field(description="How old the evidence is.")] = "5s"
    opened_by: Annotated[
        Literal["operator", "human"], Field(description="Who opened the Incident; one that the operator did not open stops at L3.")
    ] = "operator"
    requested_by: Annotated[
        str | None, Field(min_length=1, max_length=256, description="The human's username; absent: not said. Only with openedBy: human.")
    ] = None
    taken: Annotated[ShortLine, Field(description="Username of whoever said `nightorders take`.")] = ""
    suspend: Annotated[bool, Field(description="spec.suspend of the Incident.")] = False
    annotations: Annotated[Notes, Field(description="More annotations of the Incident.")] = Field(default_factory=dict)
    detected_level: Annotated[Level | None, Field(description="What was ordered when it was first diagnosed; absent: the same as now.")] = (
        None
    )
    staged_level: Annotated[
        Level | None, Field(description="A plan waits that was staged while this was ordered; absent: no plan waits.")
    ] = None
    others: Annotated[Count, Field(description="Other open Incidents in the namespace, about other objects.")] = 0
    human_change: Annotated[
        Duration | None, Field(description="So long ago somebody changed the workload after the failing release; absent: nobody did.")
    ] = None
    approvals: Annotated[tuple[ApprovalIn, ...], Field(max_length=16, description="Who said yes to the plan.")] = ()
    rejected_by: Annotated[ShortLine, Field(description="Somebody rejected this very plan.")] = ""


class OutcomeIn(Model):
    """How earlier executions of the action ended. `times` of them, `every` apart, the last one `ago`."""

    result: Literal["Recovered", "Undone", "Superseded", "Escalated", "NotApplied"]
    ago: Annotated[Duration, Field(description="When the last one ended.")] = "24h"
    times: Annotated[int, Field(ge=1, le=200)] = 1
    every: Annotated[Duration, Field(description="Time from one to the next.")] = "24h"
    workload: Annotated[Title | None, Field(description="Absent: another workload of the same kind, Kind/other.")] = None
    confirmed: Annotated[
        Literal["No", "Human", "Signal"], Field(description="What makes a recovery count towards earn: an approver, a query of the policy.")
    ] = "No"


class RejectionIn(Model):
    """A plan for a workload that a human rejected."""

    by: ShortLine = "bob"
    ago: Duration = "1h"
    workload: Annotated[Title | None, Field(description="Absent: the workload itself.")] = None


class RunningIn(Model):
    """An execution that runs now."""

    workload: Annotated[Title | None, Field(description="Absent: another workload, Kind/other.")] = None
    ago: Duration = "1m"


class LedgerIn(Model):
    """What the operator remembers in this namespace."""

    state: Annotated[
        Literal["Kept", "New", "Gone"], Field(description="New: there is none yet. Gone: there was one, and it was deleted.")
    ] = "Kept"
    outcomes: Annotated[tuple[OutcomeIn, ...], Field(max_length=32, description="How earlier executions of the action ended.")] = ()
    rejections: Annotated[tuple[RejectionIn, ...], Field(max_length=16, description="Plans that humans rejected.")] = ()
    running: Annotated[tuple[RunningIn, ...], Field(max_length=16, description="Executions that run now.")] = ()
    labels_before: Annotated[
        Labels | None, Field(description="Labels that the workload had until a moment ago; absent: the same as now.")
    ] = None


class FleetIn(Model):
    """What happens in the whole cluster."""

    running: Annotated[int, Field(ge=0, le=1000, description="Executions that run now in other namespaces.")] = 0
    running_here: Annotated[int, Field(ge=0, le=1000, description="Executions that run now in this namespace, on other workloads.")] = 0
    last_hour: Annotated[int, Field(ge=0, le=10000, description="Executions that ended within the hour in other namespaces.")] = 0
    last_hour_here: Annotated[int, Field(ge=0, le=10000, description="The same in this namespace.")] = 0
    workloads: Annotated[Count, Field(description="Workloads of the cluster.")] = 1000
    cluster_policies_seen: Annotated[
        bool, Field(description="There once was a ClusterRemediationPolicy; with none left, L2 holds everywhere.")
    ] = False


class DisruptionBudgetIn(Model):
    """A PodDisruptionBudget over the workload's pods."""

    name: Name = "workload"
    allowed: Annotated[Count, Field(description="How many more pods may be down right now (status.disruptionsAllowed).")] = 0


class RiskIn(Model):
    """What the action would put at risk."""

    healthy_pods: Annotated[
        Count, Field(description="Healthy pods that it may disrupt in total. A pod that does not serve costs nothing.")
    ] = 0
    at_once: Annotated[Count | None, Field(description="Of these, down at the same time; absent: all of them.")] = None
    namespace_pods: Annotated[Count, Field(description="Ready pods of the namespace.")] = 100
    uncounted: Annotated[
        bool, Field(description="Neither the pods of the namespace nor the workloads of the cluster could be counted.")
    ] = False
    disruption_budgets: Annotated[
        tuple[DisruptionBudgetIn, ...], Field(max_length=8, description="PodDisruptionBudgets over its pods.")
    ] = ()
    autoscaler: Annotated[ShortLine, Field(description="The HorizontalPodAutoscaler that scales it, by its name.")] = ""
    error_budget_left: Annotated[
        Number, Field(description="Answer to the rule's errorBudget query, from 0 to 1. Asked only where a rule asks.")
    ] = "1"
    error_budget_unanswered: Annotated[bool, Field(description="That query has no answer.")] = False
    undo: Annotated[Literal["Exact", "SelfHealing", "None"], Field(description="Whether the action can be undone.")] = "Exact"
    at_most: Annotated[Level | None, Field(description="A ceiling that the action itself found, such as an unproven revision (L3).")] = None
    preflight: Annotated[ShortLine, Field(description="Why the action itself refuses to run; empty: it does not.")] = ""


class RolloutIn(Model):
    """How the workload's rollout stands."""

    under_way: Annotated[bool, Field(description="Not complete.")] = False
    own_fault: Annotated[bool, Field(description="The rollout is itself the diagnosed fault.")] = True
    terminal_for: Annotated[Duration, Field(description="So long its terminal reason (image not found, crash loop) has held.")] = "1h"
    past_deadline: Annotated[bool, Field(description="It is past its progress deadline.")] = False


class OwnerIn(Model):
    """The GitOps tool that would revert a live edit."""

    who: Annotated[ShortLine, Field(description="Such as `Argo CD Application shop`.")]
    confirmed: Annotated[bool, Field(description="Its own inventory lists the workload.")] = True
    governs: Annotated[Count, Field(description="How many objects it governs.")] = 1
    can_pause: Annotated[bool, Field(description="It can be paused around the action.")] = True


class ExpectNeeds(Model):
    """Whose approval the plan needs; what is left out is not compared."""

    count: Annotated[Count | None, Field(description="Different people.")] = None
    separation_of_duties: Annotated[bool | None, Field(description="Whoever opened the Incident does not count.")] = None
    service_accounts: Literal["Deny", "Allow"] | None = None
    expires_after: Annotated[Duration | None, Field(description="How long an approval counts.")] = None
    frozen_by: Annotated[
        Literal["None", "Namespace", "Cluster"] | None, Field(description="Other than None: only emergency approvals count.")
    ] = None


class Expect(Model):
    """What must come out; what is left out is not compared, and at least one thing must be said."""

    level: Annotated[Level | None, Field(description="The effective level.")] = None
    decided_by: Annotated[
        ShortLine | None,
        Field(
            description="A speaker for that level, by its name or a part of it, such as `freeze weekend`, `risk`, `ceiling humans-decide`."
        ),
    ] = None
    speakers: Annotated[
        dict[str, Level] | None, Field(description="Further speakers, each by its name or a part of it, and its level.")
    ] = None
    gates: Annotated[
        dict[str, str] | None,
        Field(description=f"Gate → Passed, or the reason of its refusal. The gates: {', '.join(g.name for g in CHAIN)}."),
    ] = None
    verdict: Annotated[
        Word | None, Field(description="Passed, or the reason of the first refusal that counts at that level (docs/reference/reasons.md).")
    ] = None
    outcome: Annotated[
        Literal["Acts", "AwaitsApproval", "Rejected", "Advises", "ReadOnly", "Shadow", "Refused"] | None,
        Field(description="What the operator would do."),
    ] = None
    shadow_would: Annotated[
        Literal["Acts", "AwaitsApproval", "Rejected", "Advises", "ReadOnly", "Refused"] | None,
        Field(description="For a policy in Shadow: the outcome if it were enforced."),
    ] = None
    needs: ExpectNeeds | None = None
    approval: Annotated[
        Literal["Approved", "Waiting", "Rejected"] | None, Field(description="Whether incident.approvals suffice for the plan.")
    ] = None
    emergency_would_pass: Annotated[
        bool | None, Field(description="Whether the plan would run in the freeze that holds if enough people gave an emergency approval.")
    ] = None
    trust: Annotated[Percent | None, Field(description="100: nothing speaks against the diagnosis.")] = None
    risk: Annotated[Percent | None, Field(description="0: nothing is at risk.")] = None
    breaker: Annotated[Literal["Closed", "Open", "HalfOpen"] | None, Field(description="How the policy's breaker stands.")] = None
    earned: Annotated[Level | None, Field(description="Where recorded outcomes have carried a rule with earn.")] = None


class Situation(Model):
    """Everything that a case may say about the world. Defaults: everything is fine."""

    policies: Annotated[
        tuple[Any, ...],
        Field(
            description=(
                "Paths of files and directories, seen from this file, and whole RemediationPolicies and ClusterRemediationPolicies written "
                "in place. In a case: instead of the file's."
            )
        ),
    ] = ()
    more_policies: Annotated[tuple[Any, ...], Field(description="In a case: besides the file's.")] = ()
    action: Annotated[ActionType, Field(description="The action that would help.")] = ActionType.ROLLBACK_WORKLOAD
    at: Annotated[Time | None, Field(description="The moment of the decision; absent: 2026-01-14T10:00:00Z, a Wednesday.")] = None
    workload: WorkloadIn = WorkloadIn()
    incident: IncidentIn = IncidentIn()
    ledger: LedgerIn = LedgerIn()
    fleet: FleetIn = FleetIn()
    risk: RiskIn = RiskIn()
    rollout: RolloutIn = RolloutIn()
    git_ops: Annotated[OwnerIn | None, Field(description="Absent: nothing owns the workload.")] = None
    stop: Annotated[
        Literal["No", "Namespace", "Everything", "Unknown"],
        Field(description="Whether a ConfigMap nightorders-stop holds; Unknown: it could not be read."),
    ] = "No"
    guard: Annotated[
        Literal["Proven", "NotProven"], Field(description="Whether the admission policies that protect approvals are proven.")
    ] = "Proven"
    schemas: Annotated[
        Literal["Current", "Older"], Field(description="Whether the cluster's custom resource schemas are the operator's.")
    ] = "Current"
    unreadable: Annotated[
        tuple[ShortLine, ...], Field(max_length=8, description="What the operator could not read, such as `Namespace/shop`.")
    ] = ()


class Case(Situation):
    """One test."""

    name: Annotated[ShortLine, Field(min_length=1, description="Unique in the file.")]
    expect: Expect


class TestFile(Model):
    """A file of policy tests."""

    __test__ = False  # no test class of pytest

    policies: Annotated[tuple[Any, ...], Field(description="For every case that names none itself.")] = ()
    defaults: Annotated[Situation, Field(description="For every case that says nothing else; mappings are merged, lists replaced.")] = (
        Situation()
    )
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=1000)]


REASONS = frozenset(r.value for r in Reason)
GATES = tuple(g.name for g in CHAIN)
