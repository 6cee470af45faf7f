"""Runbook: what a team knows about one kind of trouble, written so that it can be checked: symptom, cause, action, verification."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..meta import Column, ConditionedStatus, Count, LabelSelector, Line, Model, Names, Resource, ShortLine, Time, Word
from .common import Category
from .policy import BY_NAME, SET, Check

NO_ACTION = "None"  # spec.action: nothing that the operator could do helps


class Match(Model):
    """Which Incidents a runbook is about. All parts that are written must fit; of a list, any one entry."""

    alerts: Annotated[
        tuple[Word, ...],
        Field(max_length=32, description="Names of alerts; the operator's own detector signals RolloutStuck.", json_schema_extra=SET),
    ] = ()
    categories: Annotated[
        tuple[Category, ...],
        Field(
            max_length=24,
            description="Mechanisms: one of the explanations that still stand, and that evidence speaks for, has one of them.",
            json_schema_extra=SET,
        ),
    ] = ()
    selector: Annotated[LabelSelector, Field(description="Labels of the Incident's target; empty: any.")] = LabelSelector()

    @property
    def empty(self) -> bool:
        """Whether it says nothing, and so fits every Incident of the namespace."""
        return not (self.alerts or self.categories or self.selector.match_labels or self.selector.match_expressions)


class Symptom(Check):
    """What one sees when this is the trouble: PromQL with a bound that the value lies within, or a condition of the target."""

    name: Annotated[Word, Field(description="Unique in the runbook.")]
    condition: Annotated[  # a check's condition must be True, a symptom's may be asked for the other way
        Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*(=(True|False|Unknown))?$")] | None,
        Field(description="Condition of the target, such as Available=False; without a status: True."),
    ] = None


class RunbookHypothesis(Model):
    """What the trouble usually is."""

    category: Annotated[
        Category,
        Field(
            description=(
                "An explanation of this category moves one place up among those that the evidence supports, past one of no better grade. "
                "That never raises a grade, and what is first only because of a runbook needs a human (L3 at most)."
            )
        ),
    ]
    statement: Annotated[Line, Field(description="The usual cause in one sentence, for people.")] = ""


class RunbookVerify(Model):
    """How one sees that it helped."""

    checks: Annotated[
        tuple[Check, ...],
        Field(
            max_length=4,
            description="Added to the checks of the policy that governs; they never replace one, and never count towards `earn`.",
            json_schema_extra=BY_NAME,
        ),
    ] = ()


class RunbookSpec(Model):
    """A runbook may rank within a bound, add checks, inform and lower; it never gives a right or a level."""

    match: Annotated[Match, Field(description="Which Incidents it is about.")] = Match()
    symptoms: Annotated[
        tuple[Symptom, ...],
        Field(
            max_length=4,
            description=(
                "Asked whenever it matches, and shown with their values. One that is measured and not there takes the runbook out of the "
                "ranking; what it lowers stays."
            ),
            json_schema_extra=BY_NAME,
        ),
    ] = ()
    hypothesis: Annotated[RunbookHypothesis | None, Field(description="Absent: it ranks nothing.")] = None
    action: Annotated[
        Annotated[str, Field(max_length=63, pattern=r"^[A-Z][A-Za-z]*$")] | None,
        Field(
            description=(
                "The action type that helps, or None: nothing that the operator could do. A plan with another action needs a human (L3 at "
                "most). It never makes the operator choose an action."
            )
        ),
    ] = None
    safe_during_rollout: Annotated[
        Literal["Deny", "Allow"] | None,
        Field(description="Deny: advice only (L2 at most) while the target's rollout is under way. Absent: as the policy says."),
    ] = None
    approvers: Annotated[ShortLine, Field(description="Whom to ask, for people: shown to those who are called. It grants nothing.")] = ""
    verify: Annotated[RunbookVerify, Field(description="How one sees that it helped.")] = RunbookVerify()
    never_automatic: Annotated[
        bool | None, Field(description="true: a human must approve (L3 at most). Absent and false: as the policy says.")
    ] = None
    url: Annotated[
        Annotated[str, Field(max_length=512, pattern=r"^(https?://[!-;=?-~]+)?$")], Field(description="Where the long version is; shown.")
    ] = ""


class RunbookStatus(ConditionedStatus):
    """What it amounts to."""

    matched: Annotated[Count, Field(description="Incidents of this namespace, of those that are kept, that it matched.")] = 0
    last_match_at: Time | None = None
    problems: Annotated[
        tuple[Line, ...],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}, description="Field, what is wrong, what to write."),
    ] = ()


class Runbook(Resource):
    """Runbook as code: which trouble, how it shows, what it usually is, what helps, and how one sees that it did."""

    served: ClassVar[Names] = Names(
        plural="runbooks",
        short=("rb",),
        columns=(
            Column("Category", ".spec.hypothesis.category"),
            Column("Action", ".spec.action"),
            Column("Matched", ".status.matched", type="integer", description="Incidents that it matched, of those that are kept."),
            Column("Last-Match", ".status.lastMatchAt", type="date"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=1),
        ),
    )

    kind: Literal["Runbook"] = "Runbook"
    spec: RunbookSpec
    status: RunbookStatus = Field(default_factory=RunbookStatus)
