"""Asks the engine about pictures that `capture` took: no cluster, a second for all of them.

    python -m tools.scenarios replay FOLDER [--whole]

`--whole`: about the whole namespace and without the signal, as `nightorders diagnose -n NAMESPACE --from DIR` does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from nightorders.adapters.dump import DumpReader
from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.controller.gatherer import Gatherer, Ports
from nightorders.diagnosis import engine
from nightorders.diagnosis.claim import Claim
from nightorders.domain.alerts import Alert, subject_of
from nightorders.domain.diagnosis import Diagnosis
from nightorders.domain.redaction import redact
from nightorders.domain.situation import Operator
from nightorders.domain.snapshot import KubeObject, Point, Snapshot, Vector

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One picture and what the engine says of it."""

    id: str
    kind: str
    expected: tuple[tuple[str, str], ...]
    diagnosis: Diagnosis
    target: str
    right: bool
    grade: str

    @property
    def said(self) -> str:
        """`Category Kind/name (grade)` of the first hypothesis that stands."""
        first = next((h for h in self.diagnosis.hypotheses if not h.refuted), None)
        return f"{first.category} {first.object} ({first.grade})" if first else "nothing"


@dataclass(frozen=True)
class _Clock:
    at: datetime

    def now(self) -> datetime:
        return self.at


@dataclass(frozen=True)
class Picture:
    """What `capture` took, ready to be asked about. `expected`: right answers (category, object; no object: any)."""

    id: str
    kind: str
    snapshot: Snapshot
    target: ObjectRef
    claim: Claim | None
    expected: tuple[tuple[str, str], ...]


def open_picture(folder: Path, *, whole: bool = False) -> Picture:
    """Reads one picture, with the logs that the engine asks for; `whole`: about its namespace, without the signal."""
    signal = json.loads((folder / "signal.json").read_text())
    namespace, at = signal["namespace"], datetime.fromisoformat(signal["at"])
    reader = DumpReader(folder / "world", redact=redact)
    reader.at = at
    nothing = cast(Any, None)
    gatherer = Gatherer(Ports(_Clock(at), reader, nothing, nothing, nothing, nothing, nothing), Operator("", ""))
    everything = ObjectRef(api_version="v1", kind="Namespace", name=namespace)
    first = asyncio.run(gatherer.snapshot(namespace, everything))
    target, claim = (everything, None) if whole else (_target(signal, first), _claim(signal))
    # Logs are those that this target asks for, and no others.
    snapshot = asyncio.run(
        Gatherer(Ports(_Clock(at), reader, nothing, nothing, nothing, nothing, nothing), Operator("", "")).snapshot(namespace, target)
    )
    if not whole:
        snapshot = replace(snapshot, metrics=_vectors(signal, at))
    expected = tuple((c["category"], _own(c["object"] or "", namespace)) for c in signal["rootCause"])
    return Picture(folder.name, signal["kind"], snapshot, target, claim, expected)


def replay(folder: Path, *, whole: bool = False) -> Answer:
    """The engine's answer about one picture."""
    p = open_picture(folder, whole=whole)
    found = engine.diagnose(p.snapshot, p.target, (), p.snapshot.at, p.claim)
    first = next((h for h in found.hypotheses if not h.refuted), None)
    return Answer(
        p.id, p.kind, p.expected, found, p.target.title, right(found, p.expected, p.snapshot.namespace), first.grade if first else ""
    )


def right(found: Diagnosis, expected: tuple[tuple[str, str], ...], namespace: str) -> bool:
    """Whether the first hypothesis that stands is one of the right answers."""
    first = next((h for h in found.hypotheses if not h.refuted), None)
    return first is not None and any(first.category == c and (not o or _own(first.object, namespace) == o) for c, o in expected)


def _own(title: str, namespace: str) -> str:
    """`Kind/name` for what is spelled with its own namespace."""
    parts = title.split("/")
    return f"{parts[0]}/{parts[2]}" if len(parts) == 3 and parts[1] == namespace else title


def _target(signal: Json, snapshot: Snapshot) -> ObjectRef:
    """As the webhook resolves it: the first object of the labels that is there, else the first that need not be."""
    at = datetime.fromisoformat(signal["at"])
    subject = subject_of(Alert("0", True, signal["labels"], signal["annotations"], at))
    for c in subject.candidates:
        there = isinstance(snapshot.find(c.kind, c.name), KubeObject)
        if there or not c.must_exist:
            return ObjectRef(api_version=c.api_version, kind=c.kind, name=c.name)
    return ObjectRef(api_version="v1", kind="Namespace", name=signal["namespace"])


def _claim(signal: Json) -> Claim:
    return Claim(
        signal["labels"]["alertname"], signal["labels"], signal["annotations"], datetime.fromisoformat(signal["at"]), signal["firing"],
        because=signal["because"],
    )  # fmt: skip


def _vectors(signal: Json, at: datetime) -> Mapping[str, Vector]:
    return {
        name: Vector(v["promql"], at, tuple(Point(p["labels"], p["value"]) for p in v["points"]), v["because"])
        for name, v in signal["metrics"].items()
    }


def replay_all(folder: Path, only: tuple[str, ...] = (), *, whole: bool = False) -> list[Answer]:
    """All pictures below a folder, by name."""
    found = sorted(p.parent for p in folder.glob("*/signal.json"))
    return [replay(p, whole=whole) for p in found if not only or p.name in only or p.name.partition("--")[0] in only]
