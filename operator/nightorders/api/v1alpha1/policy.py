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
    Name,
    Names,
    Number,
    Resource,
    ShortLine,
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


class Rule(Model):
    """The orders for some action types."""

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
    approval: ApprovalSpec = ApprovalSpec()
    limits: Limits = Limits()
    verify: Verify = Verify()


class RemediationPolicySpec(Model):
    """Night orders of one team for the workloads of its namespace."""

    selector: Annotated[LabelSelector, Field(description="Workloads that this policy governs; empty: every workload of the namespace.")] = (
        LabelSelector()
    )
    rules: Annotated[
        tuple[Rule, ...],
        Field(
            min_length=1,
            max_length=16,
            description="Exactly one rule may govern a workload and an action type; two make it Ambiguous, and L1.",
            json_schema_extra=BY_NAME,
        ),
    ]


class RuleStatus(Model):
    """What a rule amounts to right now."""

    name: Word
    actions: ShortLine
    workloads: Count
    effective_level: Level
    lowered_by: Line = ""


class RemediationPolicyStatus(ConditionedStatus):
    """What the orders amount to."""

    workloads: Annotated[Count | None, Field(description="Workloads that the selector matches.")] = None
    actions: Annotated[ShortLine, Field(description="Action=level, for the printer column.")] = ""
    rules: Annotated[tuple[RuleStatus, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()


class RemediationPolicy(Resource):
    """Night orders: what the watch may do alone, what it must call for, what it never does; per action type, for the workloads of one namespace."""

    served: ClassVar[Names] = Names(
        plural="remediationpolicies",
        short=("rempol",),
        columns=(
            Column("Workloads", ".status.workloads", type="integer", description="Workloads that the selector matches."),
            Column("Actions", ".status.actions", description="Action=level that may happen at most."),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
        ),
    )

    kind: Literal["RemediationPolicy"] = "RemediationPolicy"
    spec: RemediationPolicySpec
    status: RemediationPolicyStatus = Field(default_factory=RemediationPolicyStatus)


class Ceiling(Model):
    """A level that nobody below may exceed."""

    name: Annotated[Word, Field(description="Unique in the policy.")]
    types: Annotated[
        tuple[ActionType, ...], Field(max_length=16, description="Action types; empty: every action type.", json_schema_extra=SET)
    ] = ()
    level: Annotated[Level, Field(description="The most that any rule can reach in the governed namespaces.")]


class Protected(Model):
    """Objects that no action ever touches."""

    name: Annotated[Word, Field(description="Unique in the policy.")]
    kinds: Annotated[tuple[KindName, ...], Field(max_length=16, description="Kinds; empty: every kind.", json_schema_extra=SET)] = ()
    selector: Annotated[LabelSelector, Field(description="Labels of the object; empty: every object of the governed namespaces.")] = (
        LabelSelector()
    )


class Fleet(Model):
    """How much may happen at the same time, over all namespaces."""

    max_concurrent: Annotated[int, Field(ge=0, le=1000, description="Most executions that may run at once. 0: none.")] = 5
    per_hour: Annotated[int, Field(ge=0, le=10000, description="Most executions within an hour. 0: none.")] = 20


class ClusterRemediationPolicySpec(Model):
    """Orders of the platform: they only lower."""

    namespaces: Annotated[
        tuple[Name, ...],
        Field(
            max_length=256,
            description=(
                "Names of the governed namespaces; empty: every namespace. Names and not labels, because a team that may write its own "
                "Namespace could relabel itself out of a ceiling."
            ),
            json_schema_extra=SET,
        ),
    ] = ()
    ceilings: Annotated[
        tuple[Ceiling, ...], Field(max_length=16, description="Levels that nobody below may exceed.", json_schema_extra=BY_NAME)
    ] = ()
    protected: Annotated[
        tuple[Protected, ...], Field(max_length=32, description="Objects that no action ever touches.", json_schema_extra=BY_NAME)
    ] = ()
    fleet: Annotated[
        Fleet | None, Field(description="Limits over all namespaces; the lowest of all ClusterRemediationPolicies counts.")
    ] = None


class ClusterRemediationPolicyStatus(ConditionedStatus):
    """Whether the orders were understood."""

    namespaces: Annotated[Count | None, Field(description="Existing namespaces that are governed.")] = None


class ClusterRemediationPolicy(Resource):
    """Orders of the platform team: ceilings that nobody may exceed, objects that nothing may touch, budgets of the whole fleet."""

    served: ClassVar[Names] = Names(
        plural="clusterremediationpolicies",
        short=("crempol",),
        namespaced=False,
        columns=(
            Column("Namespaces", ".status.namespaces", type="integer", description="Existing namespaces that are governed."),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
        ),
    )

    kind: Literal["ClusterRemediationPolicy"] = "ClusterRemediationPolicy"
    spec: ClusterRemediationPolicySpec
    status: ClusterRemediationPolicyStatus = Field(default_factory=ClusterRemediationPolicyStatus)
