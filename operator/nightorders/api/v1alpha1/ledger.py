"""Ledger: what the operator must remember beyond any policy or Incident."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..meta import UID, Column, Count, Level, Model, Name, Names, Resource, Sha256, ShortLine, Time, Word
from .common import ActionType, Category
from .incident import ATOMIC, Head, Pause


class Reservation(Model):
    """A slot taken by a running execution. It is reclaimed when its Incident is gone or ended."""

    execution: Word
    action: ActionType
    namespace: Name
    incident: Name
    incident_uid: UID
    workload: ShortLine
    at: Time


class Outcome(Model):
    """How an execution ended; cooldowns and rates are counted from `at`, the moment of its reservation."""

    execution: Word
    action: ActionType
    namespace: Name
    workload: ShortLine
    at: Time
    ended_at: Time
    result: Literal["Recovered", "Undone", "Superseded", "Escalated", "NotApplied"]
    by: ShortLine = "operator"
    level: Annotated[Level | None, Field(description="The level that it ran at.")] = None
    confirmed: Annotated[
        Literal["No", "Human", "Signal"],
        Field(
            description=(
                "What makes a recovery count towards `earn`. Human: somebody else than the requester approved it, or ran it. Signal: a "
                "query of the policy passed at the end. No: only the symptom went away, or the Incident was made by hand."
            )
        ),
    ] = "No"
    emergency: Annotated[bool, Field(description="It ran during a freeze.")] = False


class Rejection(Model):
    """A human said no to a plan."""

    plan: Sha256
    action: ActionType
    workload: ShortLine
    by: ShortLine
    at: Time


class JudgementRecord(Model):
    """A human's judgement of a diagnosis: one for each Incident and user, the latest."""

    incident: Name
    incident_uid: UID
    category: Annotated[Category, Field(description="Of what stood first.")]
    grade: Annotated[Literal["A", "B", "C", "D"], Field(description="Of what stood first.")]
    right: bool
    by: ShortLine
    at: Time


class ShadowScore(Model):
    """How a decision of a policy in Shadow compared with what really happened."""

    incident_uid: UID
    policy: Name
    action: ActionType
    workload: ShortLine
    at: Time
    score: Literal["Agreed", "Differed", "Needless"]


class PauseRecord(Model):
    """A pause of a GitOps object that is to be lifted, written before it is made."""

    execution: Word
    namespace: Annotated[Name, Field(description="Of the Incident.")]
    incident: Name
    incident_uid: UID
    pause: Pause
    at: Time
    until: Annotated[Time | None, Field(description="When it is lifted; absent while the execution runs.")] = None


class IncidentHead(Model):
    """Where an Incident's chain stood when it was last published here."""

    incident: Name
    uid: UID
    head: Head
    at: Annotated[Time, Field(description="When its last line was written.")]
    closed: bool = False


class AuditBook(Model):
    """Heads of all chains of this namespace; the sequence and sha256 chain every version of this list to the one before.

    Heads of closed Incidents beyond the newest 256 roll up into `rolledUp` and `rolledUpSha256`; so do open ones beyond as many.
    """

    sequence: Count = 0
    previous_sha256: Annotated[
        str, Field(max_length=71, pattern=r"^(sha256:[0-9a-f]{64})?$", description="Of the version before; empty in the first.")
    ] = ""
    sha256: Annotated[
        str, Field(max_length=71, pattern=r"^(sha256:[0-9a-f]{64})?$", description="Over the version before and everything in this one.")
    ] = ""
    heads: Annotated[tuple[IncidentHead, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    rolled_up: Annotated[Count, Field(description="Heads that are no longer listed.")] = 0
    rolled_up_sha256: Annotated[
        str, Field(max_length=71, pattern=r"^(sha256:[0-9a-f]{64})?$", description="Over all of them, each chained to the one before.")
    ] = ""
    rolled_up_until: Annotated[Time | None, Field(description="The newest last line among them.")] = None
    signed_at: Time | None = None
    key_id: Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]*$")] = ""
    signature: Annotated[
        str,
        Field(
            max_length=128, pattern=r"^[A-Za-z0-9+/=]*$", description="Ed25519 over namespace, sequence, sha256 and signedAt, in base64."
        ),
    ] = ""


class HealthyRevision(Model):
    """A revision that the operator itself saw complete and available."""

    workload_uid: UID
    workload: ShortLine
    revision_uid: UID
    template_sha256: Sha256
    at: Time


class WorkloadRecord(Model):
    """Labels of a workload, so that relabelling it into a more permissive policy is noticed."""

    uid: UID
    workload: ShortLine
    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(default_factory=dict)
    previous_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(default_factory=dict)
    changed_at: Time | None = None


class Preexisting(Model):
    """Already broken when the operator first looked: listed, never acted on, until its revision changes or a human asks."""

    uid: UID
    workload: ShortLine
    revision_uid: UID
    reason: ShortLine
    at: Time


class LedgerSpec(Model):
    """In spec and not in status, because backups often do not restore status, and a forgotten record must not raise autonomy."""

    reservations: Annotated[tuple[Reservation, ...], Field(max_length=256, json_schema_extra=ATOMIC)] = ()
    outcomes: Annotated[tuple[Outcome, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    healthy_revisions: Annotated[tuple[HealthyRevision, ...], Field(max_length=1024, json_schema_extra=ATOMIC)] = ()
    workloads: Annotated[tuple[WorkloadRecord, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    preexisting: Annotated[tuple[Preexisting, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    rejections: Annotated[tuple[Rejection, ...], Field(max_length=128, json_schema_extra=ATOMIC)] = ()
    shadows: Annotated[tuple[ShadowScore, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    judgements: Annotated[tuple[JudgementRecord, ...], Field(max_length=512, json_schema_extra=ATOMIC)] = ()
    pauses: Annotated[tuple[PauseRecord, ...], Field(max_length=64, json_schema_extra=ATOMIC)] = ()
    audit: AuditBook = Field(default_factory=AuditBook)
    namespaces: Annotated[
        tuple[Name, ...],
        Field(
            max_length=4096, json_schema_extra=ATOMIC, description="In the fleet's Ledger: namespaces that have had a Ledger of their own."
        ),
    ] = ()
    cluster_policies: Annotated[
        bool, Field(description="In the fleet's Ledger: a ClusterRemediationPolicy has been seen; with none left, L2 holds everywhere.")
    ] = False


class Ledger(Resource):
    """The operator's own book: running executions, outcomes, and revisions seen healthy. Nobody else may write it; it outlives policies."""

    served: ClassVar[Names] = Names(
        plural="ledgers",
        short=(),
        columns=(Column("Age", ".metadata.creationTimestamp", type="date"),),
    )

    kind: Literal["Ledger"] = "Ledger"
    spec: LedgerSpec = Field(default_factory=LedgerSpec)
