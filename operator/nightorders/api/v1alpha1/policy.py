"""RemediationPolicy and ClusterRemediationPolicy: the night orders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from ..meta import (
    Column,
    ConditionedStatus,
    Count,
    Duration,
    KindName,
    LabelSelector,
    Level,
    Line,
    Model,
    Names,
    Number,
    Resource,
    ShortLine,
    Time,
    Word,
)
from .common import ActionType
from .incident import ATOMIC

BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
SET = {"x-kubernetes-list-type": "set"}


class ApprovalSpec(Model):
    """Who must agree before an L3 plan runs."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "duration(self.expiresAfter) >= duration('1s')", "message": "approval.expiresAfter must be at least 1s"}
            ]
        }
    )

    count: Annotated[int, Field(ge=1, le=5, description="How many different people must approve.")] = 1
    expires_after: Annotated[Duration, Field(description="An approval, and a plan that waits for one, expires after this time.")] = "15m"
    separation_of_duties: Annotated[
        bool | None,
        Field(
            description=(
                "true: whoever opened the Incident does not count as an approver. Default: true when count is above 1; false for count 1, "
                "so that a lone on-call who opened the Incident may approve the operator's plan."
            )
        ),
    ] = None

    service_accounts: Annotated[
        Literal["Deny", "Allow"],
        Field(
            description=(
                "Allow: ServiceAccounts that hold the verb approve count as approvers, too; obeyed only where a ClusterRemediationPolicy "
                "allows it, since whoever may create tokens in a namespace speaks for all its accounts."
            )
        ),
    ] = "Deny"
    emergency: Annotated[
        Literal["Deny", "Allow"],
        Field(
            description=(
                "Allow: during a freeze a plan may run if enough holders of the verb approve-emergency approve it with a reason "
                "(`nightorders approve --emergency --because …`); each one is counted and shown. Deny: during a freeze there is advice only."
            )
        ),
    ] = "Deny"

    @property
    def separated(self) -> bool:
        """Whether the requester is barred from approving."""
        return self.count > 1 if self.separation_of_duties is None else self.separation_of_duties


class Limits(Model):
    """How much an action may put at risk, and how often."""

    max_pods: Annotated[
        int,
        Field(
            ge=0, le=10000, description="Most healthy pods that the action may disrupt in total. A pod that does not serve costs nothing."
        ),
    ] = 10
    max_percent: Annotated[int, Field(ge=0, le=100, description="The same as a share of the workload's pods, in percent.")] = 50
    cooldown: Annotated[Duration, Field(description="Least time between two executions of this action on the same workload.")] = "10m"
    per_hour: Annotated[int, Field(ge=1, le=100, description="Most executions of this action in the namespace within an hour.")] = 3
    during_rollout: Annotated[
        Literal["Deny", "Allow"],
        Field(
            description="Deny: a rollout that makes progress is left alone. A rollout that is itself the fault is not protected once stalledAfter has passed."
        ),
    ] = "Deny"
    stalled_after: Annotated[
        Duration,
        Field(
            description="How long a terminal reason (image not found, missing reference, three crashes) must have held without any new pod Ready."
        ),
    ] = "5m"


class Check(Model):
    """One question asked before and after acting: PromQL with a bound, or a condition of the workload."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.promql) != has(self.condition)",
                    "message": "a check has either promql or condition, not both and not neither",
                },
                {"rule": "!has(self.promql) || has(self.max) || has(self.min)", "message": "a promql check needs max or min, or both"},
                {"rule": "has(self.promql) || (!has(self.max) && !has(self.min))", "message": "max and min belong to promql checks only"},
                {
                    "rule": "!has(self.max) || !has(self.min) || double(self.min) <= double(self.max)",
                    "message": "min must not be above max",
                },
                {
                    "rule": "!has(self.promql) || "
                    "!self.promql.replace('$namespace', '$').replace('$name', '$').replace('$kind', '$').matches('[$][A-Za-z0-9_{]')",
                    "message": "promql knows the variables $namespace, $name and $kind only",
                },
            ]
        }
    )

    name: Annotated[Word, Field(description="Unique in the rule.")]
    promql: Annotated[
        Line | None,
        Field(
            description=(
                "Instant query with one numeric answer. $namespace, $name and $kind are replaced by the workload's, escaped; they may stand "
                "only inside a quoted label value."
            )
        ),
    ] = None
    max: Annotated[Number | None, Field(description="The check passes while the value is at most this.")] = None
    min: Annotated[Number | None, Field(description="The check passes while the value is at least this.")] = None
    condition: Annotated[Word | None, Field(description="Condition type of the workload that must be True.")] = None


class Verify(Model):
    """How the effect is judged. The operator's own checks (symptom gone, rollout complete, dependents not worse) always run beside these."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "duration(self.every) >= duration('1s')", "message": "verify.every must be at least 1s"},
                {"rule": "duration(self.every) <= duration(self.__for__)", "message": "verify.every must not be longer than verify.for"},
                {"rule": "duration(self.__for__) <= duration('24h')", "message": "verify.for must be at most 24h"},
            ]
        }
    )

    for_: Annotated[
        Duration, Field(alias="for", description="Length of the window. Recovered needs every check to pass without a break until its end.")
    ] = "5m"
    every: Annotated[Duration, Field(description="Time between two samples.")] = "15s"
    checks: Annotated[
        tuple[Check, ...],
        Field(max_length=8, description="Checks beside the operator's own.", json_schema_extra=BY_NAME),
    ] = ()
    on_worse: Annotated[Literal["Undo", "Escalate"], Field(description="What to do when the workload is worse than before.")] = "Undo"
    on_unchanged: Annotated[Literal["Undo", "Escalate"], Field(description="What to do when it did not help.")] = "Undo"
    on_no_data: Annotated[
        Literal["Undo", "Escalate"], Field(description="What to do when a check could not be answered. Never counted as success.")
    ] = "Escalate"


class Earn(Model):
    """Begin lower and let recorded outcomes carry the rule up to its `level`, never beyond."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [{"rule": "duration(self.over) >= duration('1h')", "message": "earn.over must be at least 1h"}]
        }
    )

    from_: Annotated[Level, Field(alias="from", description="Where it begins, and where it falls back to after a wrong or undone action.")]
    successes: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description=(
                "Confirmed successes of this action type on this class of workload that carry it up one level; at most one per workload "
                "and day counts."
            ),
        ),
    ] = 10
    over: Annotated[Duration, Field(description="The time within which they must lie.")] = "336h"


class ErrorBudget(Model):
    """A question about the service's error budget, asked before every decision."""

    promql: Annotated[
        Line,
        Field(
            description=(
                "Instant query whose answer is the share of the error budget that is left, from 0 to 1. $namespace, $name and $kind are "
                "replaced by the workload's, escaped; they may stand only inside a quoted label value."
            )
        ),
    ]
    min: Annotated[Number, Field(description="Below this, or without an answer, a human must approve (L3 at most).")]


class Rule(Model):
    """The orders for some action types."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "!has(self.earn) || self.earn.from <= self.level", "message": "earn.from must not be above level"},
                {"rule": "duration(self.pauseFor) <= duration('24h')", "message": "pauseFor must be at most 24h"},
            ]
        }
    )

    name: Annotated[Word, Field(description="Unique in the policy.")]
    types: Annotated[
        tuple[ActionType, ...],
        Field(min_length=1, max_length=8, description="Action types that this rule governs.", json_schema_extra=SET),
    ]
    selector: Annotated[LabelSelector, Field(description="Narrows the policy's selector.")] = LabelSelector()
    level: Annotated[
        Level,
        Field(
            description=(
                "The most that may ever happen: L1 read-only, L2 advised (you run the command), L3 approval-gated, L4 autonomous within the limits. "
                "Everything else that speaks can only lower it."
            )
        ),
    ]
    earn: Annotated[Earn | None, Field(description="Absent: the rule's level holds from the first day.")] = None
    approval: ApprovalSpec = ApprovalSpec()
    limits: Limits = Limits()
    error_budget: Annotated[ErrorBudget | None, Field(description="Act alone only while enough of the error budget is left.")] = None
    git_ops: Annotated[
        Literal["Refuse", "Pause"],
        Field(
            description=(
                "For objects that Argo CD or Flux owns. Refuse: they are never changed here. Pause: the owner is paused, the action runs, and "
                "the pause is lifted again after pauseFor, or at once if the action did not help; only where a ClusterRemediationPolicy "
                "allows it."
            )
        ),
    ] = "Refuse"
    pause_for: Annotated[
        Duration, Field(description="How long a pause holds after an action that helped: the time to bring the same change into Git.")
    ] = "1h"
    verify: Verify = Verify()


class Freeze(Model):
    """A time in which nothing is changed. Diagnosis and advice go on."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.schedule) ? (has(self.duration) && !has(self.from) && !has(self.until)) "
                    ": (has(self.from) && has(self.until) && !has(self.duration))",
                    "message": "a freeze has either schedule and duration, or from and until",
                },
                {"rule": "!has(self.from) || !has(self.until) || self.from < self.until", "message": "until must be after from"},
            ]
        }
    )

    name: Annotated[Word, Field(description="Unique in the policy.")]
    schedule: Annotated[
        ShortLine | None,
        Field(
            description="Cron expression of five fields: when the freeze begins, in timeZone, such as `0 18 * * 5` for Fridays at 18:00."
        ),
    ] = None
    duration: Annotated[Duration | None, Field(description="How long it holds, in elapsed time, such as 62h.")] = None
    time_zone: Annotated[
        Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_+/-]*$")],
        Field(description="Time zone of the schedule, by its name in the IANA database, such as Europe/Berlin."),
    ] = "UTC"
    from_: Annotated[Time | None, Field(alias="from", description="Beginning of a freeze that happens once.")] = None
    until: Annotated[Time | None, Field(description="End of a freeze that happens once.")] = None
    allow: Annotated[
        tuple[ActionType, ...],
        Field(max_length=16, description="Action types that the freeze does not hold back.", json_schema_extra=SET),
    ] = ()


class Breaker(Model):
    """Stop acting when acting does not help. Per action type and class of workload (its kind, in this namespace)."""

    failures: Annotated[int, Field(ge=1, le=20, description="So many undone or escalated actions open it.")] = 3
    within: Annotated[Duration, Field(description="The time within which they must lie.")] = "1h"
    open_for: Annotated[
        Duration,
        Field(description="How long it stays open: advice only. Then one trial is allowed, at L3; its success closes the breaker."),
    ] = "1h"


class Escalate(Model):
    """Whom to call, and when."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "duration(self.repeat) >= duration('1m')", "message": "escalate.repeat must be at least 1m"}
            ]
        }
    )

    after: Annotated[
        Duration,
        Field(description="Call when an Incident has waited for a human for so long. An action that failed or was undone calls at once."),
    ] = "15m"
    repeat: Annotated[Duration, Field(description="Call again after this time, until somebody takes the Incident or it is over.")] = "1h"
    to: Annotated[
        tuple[Word, ...],
        Field(min_length=1, max_length=8, description="Names of channels that the platform defined.", json_schema_extra=SET),
    ]


class RemediationPolicySpec(Model):
    """Night orders of one team for the workloads of its namespace."""

    selector: Annotated[LabelSelector, Field(description="Workloads that this policy governs; empty: every workload of the namespace.")] = (
        LabelSelector()
    )
    enforcement: Annotated[
        Literal["Enforce", "Shadow"],
        Field(
            description=(
                "Shadow: the operator decides and records what it would have done, scores that later against what really happened, "
                "and touches nothing."
            )
        ),
    ] = "Enforce"
    rules: Annotated[
        tuple[Rule, ...],
        Field(
            min_length=1,
            max_length=16,
            description="Exactly one rule may govern a workload and an action type; two make it Ambiguous, and L1.",
            json_schema_extra=BY_NAME,
        ),
    ]
    freezes: Annotated[
        tuple[Freeze, ...], Field(max_length=16, description="Times in which nothing is changed.", json_schema_extra=BY_NAME)
    ] = ()
    breaker: Breaker = Breaker()
    escalate: Annotated[Escalate | None, Field(description="Absent: nobody is called; the Incident itself and its Events tell.")] = None


class RuleStatus(Model):
    """What a rule amounts to right now."""

    name: Word
    actions: ShortLine
    workloads: Count
    effective_level: Level
    lowered_by: Line = ""
    earned: Annotated[ShortLine, Field(description="Where recorded outcomes have carried it, such as `L3, 4 of 10 successes to L4`.")] = ""


class BreakerStatus(Model):
    """The breaker of one action type on one class of workload."""

    action: ActionType
    workload_class: Annotated[KindName, Field(description="Kind of the workloads.")]
    state: Literal["Closed", "Open", "HalfOpen"]
    failures: Count
    until: Time | None = None


class ShadowStatus(Model):
    """How the decisions of a policy in Shadow compare with what really happened."""

    decided: Annotated[Count, Field(description="Incidents that it decided about and that are over.")] = 0
    agreed: Annotated[Count, Field(description="A human did the same, and it helped.")] = 0
    differed: Annotated[Count, Field(description="A human did something else, and that helped.")] = 0
    needless: Annotated[Count, Field(description="It recovered without anybody doing anything.")] = 0


class RemediationPolicyStatus(ConditionedStatus):
    """What the orders amount to."""

    workloads: Annotated[Count | None, Field(description="Workloads that the selector matches.")] = None
    actions: Annotated[ShortLine, Field(description="Action=level, for the printer column.")] = ""
    breakers: Annotated[ShortLine, Field(description="closed, or which ones are not, for the printer column.")] = ""
    breaker_states: Annotated[tuple[BreakerStatus, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    frozen_by: Annotated[Line, Field(description="The freeze that is in force, and until when; empty: none.")] = ""
    emergency_approvals: Annotated[Count, Field(description="Executions during a freeze that emergency approvals let through.")] = 0
    shadow: ShadowStatus | None = None
    rules: Annotated[tuple[RuleStatus, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()


class RemediationPolicy(Resource):
    """Night orders: what the watch may do alone, what it must call for, what it never does; per action type, for the workloads of one namespace."""

    served: ClassVar[Names] = Names(
        plural="remediationpolicies",
        short=("rempol",),
        columns=(
            Column("Enforcement", ".spec.enforcement"),
            Column("Workloads", ".status.workloads", type="integer", description="Workloads that the selector matches."),
            Column("Actions", ".status.actions", description="Action=level that may happen at most."),
            Column("Breakers", ".status.breakers"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
        ),
    )

    kind: Literal["RemediationPolicy"] = "RemediationPolicy"
    spec: RemediationPolicySpec
    status: RemediationPolicyStatus = Field(default_factory=RemediationPolicyStatus)
