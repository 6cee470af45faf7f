"""Ledger: what the operator must remember beyond any policy or Incident."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..meta import UID, Column, Model, Name, Names, Resource, Sha256, ShortLine, Time, Word
from .common import ActionType
from .incident import ATOMIC


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


class Ledger(Resource):
    """The operator's own book: running executions, outcomes, and revisions seen healthy. Nobody else may write it; it outlives policies."""

    served: ClassVar[Names] = Names(
        plural="ledgers",
        short=(),
        columns=(Column("Age", ".metadata.creationTimestamp", type="date"),),
    )

    kind: Literal["Ledger"] = "Ledger"
    spec: LedgerSpec = Field(default_factory=LedgerSpec)
