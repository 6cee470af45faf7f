"""How tests of the engine spell an answer: its first hypothesis in one line."""

from __future__ import annotations

from nightorders.diagnosis.claim import Claim
from nightorders.diagnosis.engine import diagnose
from nightorders.domain.diagnosis import Diagnosis
from nightorders.domain.snapshot import Point, Snapshot, Vector

from .build import MINUTE, NOW, TARGET


def answer(snap: Snapshot, *, claim: Claim | None = None, healthy: tuple = ()) -> Diagnosis:  # type: ignore[type-arg]
    """The diagnosis of Deployment/checkout; no specialist may have failed."""
    d = diagnose(snap, TARGET, healthy, NOW, claim)
    assert not [g for g in d.gaps if "specialist" in g.what], d.gaps
    return d


def top(snap: Snapshot, *, claim: Claim | None = None, healthy: tuple = ()) -> str:  # type: ignore[type-arg]
    """`Category Kind/name [rev N|Edit|Deletion] grade` of the first hypothesis that stands, `-` for none."""
    d = answer(snap, claim=claim, healthy=healthy)
    first = next((h for h in d.hypotheses if not h.refuted), None)
    if first is None:
        return "-"
    change = first.change
    how = "" if change is None or change.kind == "None" else f" rev {change.revision}" if change.kind == "Release" else f" {change.kind}"
    return f"{first.category} {first.object}{how} {first.grade}"


def firing(name: str = "CheckoutErrors", *, ago: float = 3, **labels: str) -> Claim:
    """A signal that its source confirms, begun that many minutes ago."""
    return Claim(
        name, {"alertname": name, "namespace": "shop", **labels}, starts_at=NOW - ago * MINUTE, firing=True, because="it fires now"
    )


def vector(*points: tuple[dict[str, str], float], because: str = "") -> Vector:
    return Vector("promql", NOW, tuple(Point(labels, value) for labels, value in points), because)
