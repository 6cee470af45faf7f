"""What humans say was the cause: annotations judge.nightorders.dev/<any> → status.judgement and the Ledger. Pure.

The value is `<text>|<username>`, and admission has held the name against the writer (docs/runbooks.md). The text is
`right` or `cause=Kind/name category=Category`, each with an optional ` because=…` up to its end.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from ..api.meta import JUDGE_PREFIX, line
from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import Hypothesis, Incident, IncidentStatus, Judgement
from ..api.v1alpha1.ledger import JudgementRecord
from .record import Record

MOST = 4  # judgements that an Incident keeps, one for each user
MOST_NOTES = 64  # annotations that are looked at: as many as admission lets anybody write
BECAUSE_LIMIT = 400
# Admission has the same one (manifests/admission/incidents.yaml), so that who mistypes hears of it at once.
TEXT = re.compile(
    r"(?:right|cause=(?P<cause>[A-Z][A-Za-z0-9]*(?:/[A-Za-z0-9][A-Za-z0-9.:_-]*){1,2}) category=(?P<category>[A-Za-z]+))"
    r"(?: because=(?P<because>[^|]{1,400}))?"
)


@dataclass(frozen=True)
class Said:
    """One annotation as it is meant. `cause` empty: what stands first is right."""

    by: str
    cause: str
    category: Category | None
    because: str


@dataclass(frozen=True)
class Recorded:
    """The status with one more judgement, what goes into the Ledger, and what is told. `entry` None: the annotation says nothing."""

    status: IncidentStatus
    entry: JudgementRecord | None
    told: str


def text(cause: str, category: str, because: str = "") -> str:
    """The annotation's text for that cause. Empty cause: what stands first is right."""
    said = f"cause={cause} category={category}" if cause else "right"
    why = line(because.replace("|", "/"), BECAUSE_LIMIT)
    return said + (f" because={why}" if why else "")


def read(value: str) -> Said | str:
    """What an annotation says, or why it cannot be told."""
    words, bar, by = value.partition("|")
    if not bar or not 0 < len(by) <= 256:
        return "it has no username behind a |"
    found = TEXT.fullmatch(words)
    if found is None:
        return "it is neither `right` nor `cause=Kind/name category=Category`"
    category = found["category"]
    if category is not None and category not in set(Category):
        return f"there is no category {category}"
    return Said(by, found["cause"] or "", Category(category) if category else None, line(found["because"] or "", BECAUSE_LIMIT))


def first(status: IncidentStatus) -> Hypothesis | None:
    """What stands first, NoFault and Unknown included; None: nothing was diagnosed."""
    return next((h for h in status.hypotheses if not h.refuted), None)


def recorded(incident: Incident, now: datetime) -> Recorded | None:
    """The next judgement that is not in the status yet; None: there is none, or nothing that it could be about."""
    status, notes = incident.status, incident.metadata.annotations
    top = first(status)
    if top is None:
        return None
    there = {_seal(k, notes[k]): k for k in sorted(k for k in notes if k.startswith(JUDGE_PREFIX))[:MOST_NOTES]}
    new = next((seal for seal in there if seal not in status.judgements_seen), None)
    if new is None:
        return None
    seen = (*(s for s in status.judgements_seen if s in there), new)
    record = Record(incident, now).set(judgements_seen=seen[-MOST_NOTES:])
    said = read(notes[there[new]])
    if isinstance(said, Said) and not said.cause and top.category is Category.UNKNOWN:
        said = "no origin is shown that could be right; cause=Kind/name category=Category names one"
    if isinstance(said, str):
        told = f"{there[new]} is no judgement: {said}"
        return Recorded(record.story(told).done(), None, line(told))
    return _record(incident, record, said, top, now)


def _record(incident: Incident, record: Record, said: Said, top: Hypothesis, now: datetime) -> Recorded:
    cause, category = said.cause or top.object, said.category or top.category
    namespace = incident.metadata.namespace
    right = category is top.category and same_object(cause, top.object, namespace)
    judgement = Judgement(
        by=said.by,
        at=now,
        verdict="Right" if right else "Wrong",
        cause=line(cause, 256),
        category=category,
        because=said.because,
        first_category=top.category,
        first_object=top.object,
        first_grade=top.grade,
    )
    others = tuple(j for j in incident.status.judgement if j.by != said.by)
    told = f"judges {judgement.verdict}: the cause was {category} {cause}" + ("" if right else f", not {top.title}")
    record.set(judgement=(*others, judgement)[-MOST:])
    record.story(told + (f": {said.because}" if said.because else ""), actor=said.by, kind="Decision")
    entry = JudgementRecord(
        incident=incident.metadata.name,
        incident_uid=incident.metadata.uid,
        category=top.category,
        grade=top.grade,
        right=right,
        by=line(said.by, 256),
        at=now,
    )
    return Recorded(record.done(), entry, line(f"{said.by} {told}"))


def same_object(one: str, other: str, namespace: str) -> bool:
    """Whether `Kind/name` and `Kind/namespace/name` mean the same object."""

    def whole(title: str) -> tuple[str, ...]:
        parts = tuple(title.split("/"))
        return (parts[0], namespace, *parts[1:]) if len(parts) == 2 else parts

    return whole(one) == whole(other)


def _seal(key: str, value: str) -> str:
    return hashlib.sha256(f"{key}={value}".encode()).hexdigest()[:16]
