"""Where a run can die: its writes, named by what they mean, so that the same point is found again in a run whose times differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.scene import BAD
from tools.faultproxy import KILLS, Fault, Plan, Request, Trigger, What
from tools.operator_process import NAMESPACE

Json = dict[str, Any]
IN_EXECUTION = ("Executing", "Verifying", "Undoing", "Recovered")
_LEDGERS = {"fleet": "fleet Ledger", "audit": "audit Ledger"}


@dataclass(frozen=True)
class Point:
    """The `nth` write of that meaning in a run, counted from 1. `request` is how it looks on the wire: the first slot of a fleet creates
    the Ledger, all others change it."""

    label: str
    nth: int
    request: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.label if self.nth == 1 else f"{self.label} ({self.nth})"


@dataclass(frozen=True)
class Crash:
    """One plan: in a run that ends as `outcome`, the operator dies at `point` in the way that `fault` says."""

    outcome: str
    point: Point
    fault: What

    def __str__(self) -> str:
        return f"{self.outcome} · {self.point} · {self.fault}"

    def plan(self, namespace: str) -> Plan:
        """For the proxy, in a run in that namespace."""
        return Plan(Trigger(nth=self.point.nth, where=lambda r: belongs(r, namespace) and label(r) == self.point.label), Fault(self.fault))


def belongs(request: Request, namespace: str) -> bool:
    """Whether that write is part of the run in that namespace: runs are made one after the other, so the fleet's books are, too."""
    return request.namespace == namespace or (request.namespace == NAMESPACE and request.resource.startswith("ledgers"))


def label(request: Request) -> str:
    """What a write means."""
    body = request.json
    match request.resource:
        case "incidents" if request.method == "POST":
            return "Incident opened"
        case "incidents" if "finalizers" in body.get("metadata", {}):
            return "finalizer set" if body["metadata"]["finalizers"] else "finalizer removed"
        case "incidents/status":
            return _status(body.get("status") or {})
        case "ledgers":
            name = request.name or body.get("metadata", {}).get("name", "")
            return f"{_LEDGERS.get(name, 'namespace Ledger')}: {_entry(body.get('spec') or {})}"
        case "deployments":
            return "target: undo" if BAD.encode() in request.body else "target: change"
        case "remediationpolicies/status":
            return "policy status"
    return f"{request.method} {request.resource}"


def _status(status: Json) -> str:
    """Its phase; outside of an execution also what became of the plan."""
    phase = status.get("phase", "")
    planned = next((c["reason"] for c in status.get("conditions") or [] if c["type"] == "Planned"), "")
    return f"Incident {phase}, {planned}" if planned and phase not in IN_EXECUTION else f"Incident {phase}"


def _entry(spec: Json) -> str:
    if spec.get("reservations"):
        return "slot taken"
    if spec.get("outcomes"):
        return "outcome, slot free"
    if spec.get("healthyRevisions"):
        return "healthy revision"
    return ", ".join(sorted(k for k, v in spec.items() if v) or sorted(spec)) or "opened"


def points(writes: Iterable[Request], namespace: str) -> list[Point]:
    """The writes of a run, in order."""
    seen: Counter[str] = Counter()
    found = []
    for request in writes:
        if belongs(request, namespace):
            name = label(request)
            seen[name] += 1
            found.append(Point(name, seen[name], f"{request.method} {request.resource}"))
    return found


def crashes(outcome: str, runs: list[list[Point]]) -> list[Crash]:
    """Every point that all these runs of an outcome have, in the order of the first, with each way to die."""
    (first, *others) = runs
    common = [p for p in first if all(p in other for other in others)]
    return [Crash(outcome, point, fault) for point in common for fault in KILLS]
