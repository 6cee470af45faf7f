"""ClusterRemediationPolicy: the platform's orders. They only lower, except where they allow what is refused by default."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..meta import Column, ConditionedStatus, Count, KindName, LabelSelector, Level, Line, Model, Name, Names, Percent, Resource, Word
from .common import ActionType
from .policy import BY_NAME, SET, Freeze


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
    namespace_share: Annotated[
        Percent,
        Field(
            description="Most of maxConcurrent and of perHour that one namespace may take, in percent, rounded up: nobody spends it all."
        ),
    ] = 50
    max_percent_of_workloads: Annotated[
        Percent,
        Field(
            description="Most workloads (Deployments, StatefulSets, DaemonSets) of the cluster that executions may be working on, in percent."
        ),
    ] = 100


class Tier(Model):
    """Stricter limits for workloads that matter more; the strictest of all that match counts."""

    name: Annotated[Word, Field(description="Unique in the policy.")]
    selector: Annotated[LabelSelector, Field(description="Labels of the workload; empty: every workload of the governed namespaces.")]
    max_pods: Annotated[int | None, Field(ge=0, le=10000, description="Most healthy pods that an action may disrupt in total.")] = None
    max_percent: Annotated[int | None, Field(ge=0, le=100, description="The same as a share of the workload's pods.")] = None
    max_percent_of_namespace: Annotated[
        int | None, Field(ge=0, le=100, description="The same as a share of all Ready pods of the namespace.")
    ] = None
    risk: Annotated[
        int,
        Field(
            ge=0, le=100, description="Added to the risk of every action here. Above 20 a human must approve, above 50 a human must act."
        ),
    ] = 0


class ApprovalBounds(Model):
    """What teams may not loosen."""

    min_count: Annotated[int, Field(ge=1, le=5, description="Fewest different people who must approve.")] = 1
    separation_of_duties: Annotated[
        Literal["Required", "TeamDecides"],
        Field(description="Required: whoever opened the Incident never counts as an approver, whatever a team's policy says."),
    ] = "TeamDecides"
    service_accounts: Annotated[
        Literal["Deny", "TeamDecides"],
        Field(description="TeamDecides: a team's policy may let ServiceAccounts approve. Deny, also the default without any policy."),
    ] = "Deny"


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
    freezes: Annotated[
        tuple[Freeze, ...],
        Field(max_length=16, description="Times in which nothing is changed; no team can lift them.", json_schema_extra=BY_NAME),
    ] = ()
    tiers: Annotated[tuple[Tier, ...], Field(max_length=16, description="Stricter limits by label.", json_schema_extra=BY_NAME)] = ()
    approval: Annotated[ApprovalBounds | None, Field(description="Bounds of every team's approval settings.")] = None
    git_ops_pause: Annotated[
        Literal["Deny", "TeamDecides"] | None,
        Field(
            description=(
                "TeamDecides: a team's rule may pause Argo CD or Flux around an action. Deny wins over TeamDecides; where no "
                "policy speaks, it is denied."
            )
        ),
    ] = None
    fleet: Annotated[
        Fleet | None, Field(description="Limits over all namespaces; the lowest of all ClusterRemediationPolicies counts.")
    ] = None


class ClusterRemediationPolicyStatus(ConditionedStatus):
    """Whether the orders were understood."""

    namespaces: Annotated[Count | None, Field(description="Existing namespaces that are governed.")] = None
    frozen_by: Annotated[Line, Field(description="The freeze that is in force, and until when; empty: none.")] = ""


class ClusterRemediationPolicy(Resource):
    """Orders of the platform team: ceilings that nobody may exceed, objects that nothing may touch, budgets of the whole fleet."""

    served: ClassVar[Names] = Names(
        plural="clusterremediationpolicies",
        short=("crempol",),
        namespaced=False,
        columns=(
            Column("Frozen", ".status.frozenBy", priority=1),
            Column("Namespaces", ".status.namespaces", type="integer", description="Existing namespaces that are governed."),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
        ),
    )

    kind: Literal["ClusterRemediationPolicy"] = "ClusterRemediationPolicy"
    spec: ClusterRemediationPolicySpec
    status: ClusterRemediationPolicyStatus = Field(default_factory=ClusterRemediationPolicyStatus)
