"""Incident: one thing that is wrong, and the whole record of what was done about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from ..meta import (
    UID,
    Column,
    ConditionedStatus,
    Count,
    Level,
    Line,
    Model,
    Name,
    Names,
    Percent,
    Resource,
    Sha256,
    ShortLine,
    Text,
    Time,
    Word,
)
from .common import ActionType, Category, ObjectRef

Severity = Literal["Critical", "Warning", "Info"]
ATOMIC = {"x-kubernetes-list-type": "atomic"}
EvidenceId = Annotated[str, Field(max_length=8, pattern=r"^e[0-9]{1,4}$")]
EvidenceIds = Annotated[tuple[EvidenceId, ...], Field(max_length=16)]
Username = Annotated[str, Field(min_length=1, max_length=256)]


class Phase(StrEnum):
    """One word for the eye; nothing decides by it."""

    TRIAGE = "Triage"
    DIAGNOSED = "Diagnosed"
    ADVISED = "Advised"
    AWAITING_APPROVAL = "AwaitingApproval"
    EXECUTING = "Executing"
    VERIFYING = "Verifying"
    UNDOING = "Undoing"
    RECOVERED = "Recovered"
    UNDONE = "Undone"
    ESCALATED = "Escalated"
    DISMISSED = "Dismissed"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    WAITING = "Waiting"


class Signal(Model):
    """What the operator was told. Only the operator's account may write it; its text is untrusted."""

    source: Annotated[
        Literal["Detector", "Alertmanager"],
        Field(description="Who reported: Detector is the operator's own watch on rollouts, Alertmanager came in over the webhook."),
    ]
    name: Annotated[Word, Field(description="Name of the signal, such as RolloutStuck, or of the alert.")]
    starts_at: Annotated[
        Time, Field(description="When the symptom was first seen: from the API's own transition times, or as the alert says.")
    ]
    labels: Annotated[
        dict[ShortLine, Line], Field(max_length=64, description="Labels of the alert: untrusted text, which only says where to look.")
    ] = Field(default_factory=dict)
    annotations: Annotated[dict[ShortLine, Line], Field(max_length=32, description="Annotations of the alert: untrusted text.")] = Field(
        default_factory=dict
    )
    fingerprints: Annotated[
        tuple[ShortLine, ...],
        Field(max_length=8, json_schema_extra=ATOMIC, description="Alertmanager's fingerprint of the alert that opened this Incident."),
    ] = ()


class IncidentSpec(Model):
    """The wish: look at this. An Incident is a question, never an order."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.requestedBy) == has(oldSelf.requestedBy) && (!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy)",
                    "message": "spec.requestedBy is immutable",
                },
                {
                    "rule": "has(self.signal) == has(oldSelf.signal) && (!has(self.signal) || self.signal == oldSelf.signal)",
                    "message": "spec.signal is immutable",
                },
            ]
        }
    )

    target: Annotated[
        ObjectRef,
        Field(
            description="The object in trouble, in the Incident's own namespace. Immutable.",
            json_schema_extra={
                "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "spec.target is immutable: create a new Incident for another object"}
                ]
            },
        ),
    ]
    requested_by: Annotated[
        Username | None,
        Field(
            description=(
                "Username of whoever asks; admission requires it to be the creator's own. Absent: nobody can be told apart "
                "from the approver, so where separationOfDuties holds the plan stays at L2. Immutable."
            )
        ),
    ] = None
    severity: Annotated[Severity, Field(description="How much it hurts: Critical, Warning or Info.")] = "Warning"
    title: Annotated[ShortLine, Field(description="One line for people.")] = ""
    signal: Annotated[Signal | None, Field(description="Written by the operator only: the signal that opened this Incident.")] = None
    suspend: Annotated[
        bool, Field(description="true: the operator starts nothing new here; a running execution is still verified and, if needed, undone.")
    ] = False


class AlertState(Model):
    """An alert that this Incident stands for, as Alertmanager last told."""

    fingerprint: ShortLine
    state: Literal["Firing", "Resolved"]
    at: Time


class Evidence(Model):
    """One observation: the exact query, when it was made, and a redacted excerpt with its digest."""

    id: EvidenceId
    source: Literal["Kubernetes", "Prometheus", "Logs", "Ledger"]
    query: Line
    at: Time
    excerpt: Line
    sha256: Annotated[Sha256, Field(description="Digest of the redacted text that the excerpt was cut from.")]


class Fact(Model):
    """Something known, with the evidence it stands on."""

    text: Line
    evidence: EvidenceIds


class Guess(Model):
    """Something believed, and what would settle it."""

    text: Line
    evidence: EvidenceIds = ()
    settled_by: Line = ""


class ChangeRef(Model):
    """What brought a fault in."""

    kind: Annotated[Literal["Release", "Edit", "Deletion", "Expiry", "None"], Field(description="None: no change was seen.")]
    revision: ShortLine = ""
    at: Time | None = None
    by: Annotated[ShortLine, Field(description="Claimed author; field managers are chosen by the client, so this proves nothing.")] = ""


class Hypothesis(Model):
    """Object + category + change, and how strongly the evidence supports it."""

    category: Category
    object: Annotated[ShortLine, Field(description="Kind/name of what one would edit or recreate to be rid of the fault.")]
    change: ChangeRef | None = None
    grade: Annotated[
        Literal["A", "B", "C", "D"],
        Field(
            description=(
                "A: every link from the faulty field to the symptom was observed and a counterfactual computed; B: one link inferred; "
                "C: chain plus timing; D: timing or similarity only."
            )
        ),
    ]
    confidence: Annotated[
        Percent | None,
        Field(
            description="Percent of answers of this grade that were right on generated faults (docs/evaluation.md); absent: not counted yet."
        ),
    ] = None
    basis: Annotated[ShortLine, Field(description="The count behind the percent, such as 187 of 199.")] = ""
    statement: Line
    supported_by: EvidenceIds = ()
    contradicted_by: EvidenceIds = ()
    refuted: Annotated[Line, Field(description="Why this explanation was given up; empty while it stands.")] = ""

    @property
    def title(self) -> str:
        """`ImageAccess Deployment/checkout · rev 7`."""
        release = (
            f" · rev {self.change.revision}" if self.change is not None and self.change.kind == "Release" and self.change.revision else ""
        )
        return f"{self.category} {self.object}{release}"


class Gap(Model):
    """Something that could not be looked at, why, and the command that would fix it."""

    what: ShortLine
    because: Line
    fix: Line = ""


class BlastRadius(Model):
    """Whom the fault hurts."""

    workloads: Annotated[tuple[ShortLine, ...], Field(max_length=32)] = ()
    victims: Annotated[tuple[ShortLine, ...], Field(max_length=32)] = ()
    pods_percent: Annotated[Percent, Field(description="Share of the target's desired pods that do not serve.")] = 0


class Owner(Model):
    """Somebody who is likely to be responsible, and why we think so."""

    who: ShortLine
    because: ShortLine


class Change(Model):
    """A recent change near the target."""

    object: ShortLine
    at: Time
    by: ShortLine = ""
    what: Line
    seconds_before_symptom: int | None = None


class PlanTarget(Model):
    """The object that the plan changes, as it was when it was diagnosed."""

    api_version: ShortLine
    kind: ShortLine
    name: Name
    uid: UID
    before_sha256: Annotated[Sha256, Field(description="Digest of the normalised spec that the plan was made for.")]
    after_sha256: Annotated[Sha256, Field(description="Digest of the normalised spec that the plan leads to.")]
    scaled_by: Annotated[
        ShortLine,
        Field(
            description=(
                "The HorizontalPodAutoscaler that owns spec.replicas, which the digests then leave out: its scaling neither voids an "
                "approval nor counts as somebody else's change. Empty: none."
            )
        ),
    ] = ""


class RollbackParameters(Model):
    """Parameters of RollbackWorkload. The uid and digest bind the plan: a revision number alone is renumbered by the next undo."""

    revision_uid: Annotated[UID, Field(description="uid of the ReplicaSet that holds the template.")]
    revision_name: Name
    to_revision: ShortLine
    template_sha256: Annotated[Sha256, Field(description="Digest of the pod template that will be put back.")]
    proven_healthy: Annotated[
        bool,
        Field(
            description="The operator itself recorded this very template while it was complete and available, or pods of it still serve."
        ),
    ]


class Inverse(Model):
    """Where the bytes are that undo the plan."""

    ref: ShortLine
    uid: UID
    sha256: Sha256


class DryRun(Model):
    """What the API server said to the very patch that will be sent."""

    at: Time
    diff: Annotated[Text, Field(description="Unified diff of the object before and after, redacted and bounded.")]


class Alternative(Model):
    """An action that was considered and turned down."""

    action: ShortLine
    why: Line


class CheckSpec(Model):
    """A check of the plan's verification, as the policy said when the plan was staged."""

    name: Word
    promql: Line | None = None
    max: ShortLine | None = None
    min: ShortLine | None = None
    condition: ShortLine | None = None
    runbook: Annotated[Name | None, Field(description="The runbook that added it; absent: the policy's own.")] = None


class ApprovalNeeds(Model):
    """Whose approval the plan needs: the stricter of what the orders said when it was staged and what they say now."""

    count: Count = 1
    expires_seconds: Annotated[Count, Field(description="An approval counts for so long, from when the operator first saw it.")] = 900
    separation_of_duties: bool = False
    service_accounts: Annotated[Literal["Deny", "Allow"], Field(description="Whether ServiceAccounts may approve; admission reads it.")] = (
        "Deny"
    )
    frozen_by: Annotated[
        Literal["None", "Namespace", "Cluster"],
        Field(
            description=(
                "Other than None: a freeze is in force, and only emergency.nightorders.dev/* approvals count. During a freeze of the "
                "cluster the approver needs the verb approve-emergency on clusterremediationpolicies, else on this Incident."
            )
        ),
    ] = "None"


class Pause(Model):
    """The GitOps object that is paused around the action."""

    api_version: ShortLine
    kind: ShortLine
    namespace: Name
    name: Name
    hold_seconds: Annotated[Count, Field(description="How long the pause holds after an action that helped.")]

    @property
    def title(self) -> str:
        """`Kind/namespace/name`."""
        return f"{self.kind}/{self.namespace}/{self.name}"


class VerifySpec(Model):
    """The plan's verification."""

    seconds: Count
    every_seconds: Count
    checks: Annotated[tuple[CheckSpec, ...], Field(max_length=16)] = ()
    on_worse: Literal["Undo", "Escalate"]
    on_unchanged: Literal["Undo", "Escalate"]
    on_no_data: Literal["Undo", "Escalate"]


# An argument outside these characters is never put into a command to paste (threats.md 13).
Argument = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9._:/=@,-]+$")]


class Plan(Model):
    """One bounded, reversible action, ready to be judged by a human or a policy."""

    digest: Annotated[
        Sha256,
        Field(description="Over Incident uid, sequence, target uid and spec digests, action, parameters, inverse and verification."),
    ]
    sequence: Annotated[Count, Field(description="Counts the plans of this Incident, so that no old approval fits a new plan.")]
    action: ActionType
    target: PlanTarget
    parameters: RollbackParameters
    undo: Annotated[
        Literal["Exact", "SelfHealing", "None"],
        Field(description="Exact: the inverse puts back precisely what was there. SelfHealing: nothing is left to undo. None: L3 at most."),
    ]
    inverse: Inverse
    verify: VerifySpec
    needs: Annotated[ApprovalNeeds | None, Field(description="Whose approval it waits for; absent unless it waits.")] = None
    pause: Annotated[Pause | None, Field(description="What is paused around the action; absent: nothing owns the target.")] = None
    impact: Line
    dry_run: DryRun | None = None
    command: Annotated[
        tuple[Annotated[tuple[Argument, ...], Field(max_length=32)], ...],
        Field(
            max_length=4,
            description="The commands, piped into each other, that do exactly this with your own credentials; each one as argv.",
        ),
    ]
    patch: Annotated[
        Text,
        Field(
            description=(
                "JSON patch that the command sends: tests of what is there, then the change. Empty where its values might be secret; "
                "`nightorders patch` then makes it from the revision itself."
            )
        ),
    ] = ""
    content_sha256: Annotated[Sha256, Field(description="The digest without the sequence: equal for the same plan staged again.")]
    approve: Annotated[
        Text, Field(description="Ready to paste, for a holder of the verb approve. Empty unless an approval is awaited.")
    ] = ""
    reject: Annotated[Text, Field(description="Ready to paste: says no to this plan.")] = ""
    staged_at: Time
    staged_level: Annotated[Level, Field(description="What was ordered when it was staged; a waiting plan never rises above it.")]
    expires_at: Time | None = None
    rule: Annotated[ShortLine, Field(description="Policy and rule that governed when it was staged.")] = ""
    pods_at_risk: Annotated[Count, Field(description="Healthy pods that the action may disrupt in total.")] = 0
    alternatives: Annotated[tuple[Alternative, ...], Field(max_length=16)] = ()


class Speaker(Model):
    """One voice in the level: the effective level is the minimum of all."""

    who: ShortLine
    level: Level
    value: Annotated[ShortLine, Field(description="What it found, such as `risk 35`.")] = ""
    threshold: Annotated[ShortLine, Field(description="What it is held against, such as `20 for L4`.")] = ""
    because: Line = ""


class Component(Model):
    """One part of a score."""

    name: Word
    points: Annotated[int, Field(ge=0, le=100, description="What it takes from trust, or adds to risk.")]
    because: Line = ""


class Score(Model):
    """Trust (100: nothing speaks against it) or risk (0: nothing is at risk)."""

    value: Percent
    level: Annotated[Level, Field(description="The most that this score allows.")]
    components: Annotated[tuple[Component, ...], Field(max_length=16)] = ()


class Autonomy(Model):
    """The level that holds here, and because of what."""

    level: Level
    trust: Annotated[Score | None, Field(description="How far the diagnosis can be relied on.")] = None
    risk: Annotated[Score | None, Field(description="What the action puts at risk.")] = None
    detected_level: Annotated[
        Level, Field(description="What was ordered when the Incident was first diagnosed; a later raise stops at L3.")
    ]
    decided_by: Annotated[tuple[Speaker, ...], Field(max_length=32)] = ()


class GateResult(Model):
    """One gate's verdict, in the order of the chain."""

    gate: Word
    allowed: bool
    reason: Word
    message: Line


class Approval(Model):
    """An approval that admission let through, as the operator first saw it."""

    user: Username
    key: Annotated[str, Field(max_length=128)]
    digest: Annotated[Sha256, Field(description="Digest of the plan that it is bound to.")]
    plan: Annotated[ShortLine, Field(description="That plan in words.")] = ""
    at: Annotated[Time, Field(description="When the operator first saw it; expiry counts from here.")]
    emergency: Annotated[bool, Field(description="Given for a freeze, with the verb approve-emergency.")] = False
    why: Annotated[Line, Field(description="The reason that was given; an emergency approval must have one.")] = ""


class Execution(Model):
    """A transaction: Reserved → Applied → Verifying → Recovered | Undoing → Undone | Escalated."""

    id: Annotated[Word, Field(description="Deterministic; stamped on the target as label nightorders.dev/execution.")]
    action: ActionType
    by: Annotated[ShortLine, Field(description="operator, or human when somebody ran the plan's command.")]
    state: Literal["Reserved", "Applied", "Undoing", "Ended"]
    plan_digest: Sha256
    reserved_at: Time
    applied_at: Time | None = None
    undo_started_at: Time | None = None
    undone_at: Annotated[Time | None, Field(description="When the target was found as it was before; its verification begins here.")] = None
    approved_by: Annotated[tuple[Username, ...], Field(max_length=16)] = ()
    emergency: Annotated[bool, Field(description="Emergency approvals let it through a freeze.")] = False
    level: Annotated[Level | None, Field(description="The level that it ran at.")] = None
    ended_at: Time | None = None
    before: Sha256
    after: Sha256
    result: Literal["Recovered", "Undone", "Superseded", "Escalated", "NotApplied"] | None = None
    message: Line = ""


class Measurement(Model):
    """One sample of one check."""

    check: Word
    at: Time
    verdict: Literal["Pass", "Fail", "NoData"]
    value: ShortLine = ""
    message: Line = ""


class Verification(Model):
    """Whether it helped, measured against a baseline from before."""

    verdict: Literal["Pending", "Recovered", "Worse", "Unchanged", "NoData", "Superseded"]
    started_at: Time
    until: Time
    message: Line = ""
    samples: Count = 0
    passing_since: Annotated[Time | None, Field(description="Since when every check passed without a break.")] = None
    baseline: Annotated[tuple[Measurement, ...], Field(max_length=32)] = ()
    measurements: Annotated[
        tuple[Measurement, ...], Field(max_length=64, description="The latest sample of each check, and the first that failed.")
    ] = ()


class TimelineEntry(Model):
    """One line of the story, chained to the one before: sha256 covers this line and the sha256 of the line before it.

    Decisions, approvals and executions stay for ever. When the story grows long, neighbouring observations roll up into one line that
    says how many they were and carries the sha256 of the last of them, so that the chain goes on.
    """

    seq: Annotated[Count, Field(description="Counts the lines of this Incident from 1; a roll-up carries the number of its last line.")]
    at: Time
    kind: Annotated[Literal["Observation", "Decision", "Approval", "Execution", "RollUp"], Field(description="RollUp: older observations.")]
    actor: Annotated[ShortLine, Field(description="operator, or a username.")]
    what: Line
    count: Annotated[Count, Field(description="Lines that a roll-up stands for.")] = 1
    sha256: Annotated[Sha256, Field(description="Over the line before and this one; of a roll-up: of its last line.")]


class Head(Model):
    """The signed end of a chain."""

    seq: Count
    sha256: Sha256
    signed_at: Time | None = None
    key_id: Annotated[
        str, Field(max_length=32, pattern=r"^[0-9a-f]*$", description="First 16 hex digits of the SHA-256 of the public key.")
    ] = ""
    signature: Annotated[
        str,
        Field(
            max_length=128,
            pattern=r"^[A-Za-z0-9+/=]*$",
            description="Ed25519 over uid, seq, sha256 and signedAt, in base64; empty: no key is installed, or the record was tampered with.",
        ),
    ] = ""


class Shadow(Model):
    """What a policy in Shadow would have done here, and what really happened."""

    at: Time
    action: ActionType
    level: Level
    would: Annotated[Line, Field(description="What would have happened, or which gate would have refused.")]
    before: Sha256
    after: Sha256
    rule: ShortLine = ""
    score: Annotated[
        Literal["Open", "Agreed", "Differed", "Needless"],
        Field(description="Agreed: a human did the same and it helped. Differed: something else helped. Needless: it recovered by itself."),
    ] = "Open"
    message: Line = ""


class Delivery(Model):
    """One message to one channel."""

    channel: Word
    state: Literal["Pending", "Delivered", "Failed"]
    attempts: Count = 0
    at: Time
    message: Annotated[Line, Field(description="Why it failed; never the address.")] = ""


class Escalation(Model):
    """Who was called, why, and whether the message went out."""

    reason: Word
    message: Line
    times: Annotated[Count, Field(description="How often was called, this time included.")] = 1
    at: Time
    next_at: Annotated[Time | None, Field(description="When it calls again, unless somebody takes the Incident.")] = None
    deliveries: Annotated[tuple[Delivery, ...], Field(max_length=8)] = ()


class Taken(Model):
    """A human is on it."""

    by: Username
    at: Time


class SymptomReading(Model):
    """What came back when a runbook's symptom was asked for."""

    name: Word
    state: Annotated[
        Literal["Present", "Absent", "NoData"], Field(description="Present: as the runbook says; NoData: nothing can tell, and why.")
    ]
    value: ShortLine = ""
    message: Line = ""
    at: Time


class RunbookMatch(Model):
    """A runbook of the team that is about this Incident."""

    name: Name
    because: Annotated[Line, Field(description="What of it fits here.")]
    statement: Annotated[Line, Field(description="The usual cause, as the runbook says; no evidence of this Incident.")] = ""
    category: Category | None = None
    action: ShortLine = ""
    approvers: Annotated[ShortLine, Field(description="Whom to ask, as the runbook says; it grants nothing.")] = ""
    url: Annotated[str, Field(max_length=512)] = ""
    symptoms: Annotated[tuple[SymptomReading, ...], Field(max_length=4)] = ()
    ranked: Annotated[Line, Field(description="What it moved up, past what; empty: nothing.")] = ""
    at: Annotated[Time, Field(description="When it first matched.")]


class Judgement(Model):
    """What a human says was the cause. Admission has held the name against the writer."""

    by: Username
    at: Time
    verdict: Annotated[
        Literal["Right", "Wrong"], Field(description="Whether what stood first then names this cause: category and object, both.")
    ]
    cause: Annotated[ShortLine, Field(description="Kind/name, as the human says.")]
    category: Category
    because: Line = ""
    first_category: Annotated[Category, Field(description="What stood first then.")]
    first_object: ShortLine
    first_grade: Annotated[Literal["A", "B", "C", "D"], Field(description="How strongly the evidence supported that.")]


class Cost(Model):
    """What the diagnosis cost."""

    reads: Count = 0
    bytes: Count = 0
    queries: Count = 0
    milliseconds: Count = 0


class IncidentStatus(ConditionedStatus):
    """What was observed, decided and done. Admission lets only the operator's account write it."""

    phase: Annotated[Phase | None, Field(description="For the eye only; conditions are the truth.")] = None
    cause: Annotated[ShortLine, Field(description="The first hypothesis in short, for the printer column.")] = ""
    grade: Annotated[str, Field(max_length=1)] = ""
    action: Annotated[ShortLine, Field(description="The planned action, for the printer column.")] = ""
    summary: Line = ""
    first_summary_at: Time | None = None
    diagnosed_at: Time | None = None
    facts: Annotated[tuple[Fact, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    guesses: Annotated[tuple[Guess, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    evidence: Annotated[tuple[Evidence, ...], Field(max_length=64, json_schema_extra=ATOMIC)] = ()
    hypotheses: Annotated[tuple[Hypothesis, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    unexplained: Annotated[tuple[Fact, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    gaps: Annotated[tuple[Gap, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    blast_radius: BlastRadius | None = None
    owners: Annotated[tuple[Owner, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    changes: Annotated[tuple[Change, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    plan: Plan | None = None
    plan_sequence: Annotated[Count, Field(description="Sequence of the latest plan, also after it was withdrawn.")] = 0
    autonomy: Autonomy | None = None
    gates: Annotated[tuple[GateResult, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    approvals: Annotated[tuple[Approval, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    rejected_plans: Annotated[
        tuple[Sha256, ...],
        Field(max_length=16, json_schema_extra=ATOMIC, description="What was rejected (digest without the sequence); not proposed again."),
    ] = ()
    executions: Annotated[tuple[Execution, ...], Field(max_length=4, json_schema_extra=ATOMIC)] = ()
    verification: Verification | None = None
    shadow: Shadow | None = None
    alerts: Annotated[
        tuple[AlertState, ...], Field(max_length=64, json_schema_extra=ATOMIC, description="The alerts behind this Incident, newest last.")
    ] = ()
    taken: Annotated[Taken | None, Field(description="Somebody said `nightorders take`: advice only, nobody else is called.")] = None
    escalation: Escalation | None = None
    runbooks: Annotated[
        tuple[RunbookMatch, ...], Field(max_length=8, json_schema_extra=ATOMIC, description="Runbooks that match, the first eight by name.")
    ] = ()
    judgement: Annotated[
        tuple[Judgement, ...],
        Field(
            max_length=4, json_schema_extra=ATOMIC, description="What humans say was the cause: one for each, the last four, newest last."
        ),
    ] = ()
    judgements_seen: Annotated[
        tuple[Annotated[str, Field(max_length=16, pattern=r"^[0-9a-f]{16}$")], ...],
        Field(max_length=64, json_schema_extra=ATOMIC, description="Digests of the judge.nightorders.dev/* annotations that are recorded."),
    ] = ()
    timeline: Annotated[
        tuple[TimelineEntry, ...],
        Field(max_length=192, json_schema_extra=ATOMIC, description="The story, as a chain that can be verified."),
    ] = ()
    head: Annotated[Head | None, Field(description="End of the timeline's chain, signed; also kept in the Ledger and printed.")] = None
    cost: Cost | None = None


class Incident(Resource):
    """One thing that is wrong: what is known and guessed about it, what may be done, what was done, and whether it helped."""

    served: ClassVar[Names] = Names(
        plural="incidents",
        short=("inc",),
        columns=(
            Column("Severity", ".spec.severity"),
            Column("Phase", ".status.phase"),
            Column("Cause", ".status.cause", description="The most likely origin: category, object and change."),
            Column("Grade", ".status.grade", description="A: every link observed, down to D: similarity only."),
            Column("Action", ".status.action"),
            Column("Level", ".status.autonomy.level"),
            Column("Age", ".metadata.creationTimestamp", type="date"),
            Column("Target", ".spec.target.name", priority=1),
            Column(
                "Hurt",
                ".status.blastRadius.podsPercent",
                type="integer",
                priority=1,
                description="Percent of the target's pods that do not serve.",
            ),
            Column("Verdict", ".status.verification.verdict", priority=1),
            Column("Rule", ".status.plan.rule", priority=1),
            Column("Owner", ".status.owners[0].who", priority=1),
            Column("Summary", ".status.summary", priority=1),
        ),
    )

    kind: Literal["Incident"] = "Incident"
    spec: IncidentSpec
    status: IncidentStatus = Field(default_factory=IncidentStatus)
