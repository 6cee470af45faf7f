"""What is held against what: the end state of a run against that of a run without a fault, and the effects that the API server's audit log
shows against what was allowed. Pure; it reads what it is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import audit
from nightorders.api.meta import APPROVE_PREFIX, EXECUTION_LABEL
from nightorders.domain.digest import spec_sha256
from tools.operator_process import ACCOUNT, NAMESPACE

Json = dict[str, Any]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
# Not Healthy: it comes and goes with the seconds.
CONDITIONS = ("Triaged", "Diagnosed", "Planned", "Approved", "Executed", "Verified", "Closed", "Stalled")
NOBODY = "no approval and no policy that allows it alone"


@dataclass(frozen=True)
class Effect:
    """A change outside the operator's own kinds that the API server committed for it."""

    at: str
    what: str
    execution: str


@dataclass(frozen=True)
class Approval:
    """An approval that the API server accepted from `user`."""

    at: str
    digest: str
    user: str


@dataclass(frozen=True)
class Audited:
    """What the audit log says about one namespace."""

    effects: tuple[Effect, ...] = ()
    approvals: tuple[Approval, ...] = ()

    @classmethod
    def read(cls, rows: Iterable[str], namespace: str) -> Audited:
        """From lines of the log, in order."""
        effects, approvals = [], []
        for row in rows:
            request = audit.parse(row)
            if request is None or request.namespace != namespace or request.code >= 300:
                continue
            if _changes(request):
                effects.append(Effect(request.at, request.what, _labels(json.loads(row)).get(EXECUTION_LABEL, "")))
            elif _writes_incident(request):
                approvals += [Approval(request.at, *claim) for claim in _claims(json.loads(row), request.user)]
        return cls(tuple(effects), tuple(approvals))


class AuditLog:
    """Follows the API server's audit log, which is renamed and begun anew at 100 MB, and keeps what the oracle asks for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""
        self._rows: dict[str, list[str]] = {}

    def close(self) -> None:
        """No more reading."""
        self._file.close()

    def of(self, namespace: str) -> Audited:
        """What it says about that namespace up to now."""
        self.follow()
        return Audited.read(self._rows.get(namespace, ()), namespace)

    def follow(self) -> None:
        """Reads what is new. To be called more often than the log is begun anew."""
        self._take()
        if self._path.exists() and self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            self._take()  # written between the last reading and the renaming
            self._file.close()
            self._file, self._rest = self._path.open("rb"), b""
            self._take()

    def _take(self) -> None:
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for raw in whole:
            row = raw.decode(errors="replace")
            request = audit.parse(row)
            if request is not None and request.verb not in audit.READS and (_writes_incident(request) or _changes(request)):
                self._rows.setdefault(request.namespace, []).append(row)


def _changes(request: audit.Request) -> bool:
    return request.user == OPERATOR and audit.classify(request) is audit.Class.CHANGE


def _writes_incident(request: audit.Request) -> bool:
    return request.user != OPERATOR and request.resource == "incidents" and not request.subresource and not request.dry_run


def _metadata(event: Json) -> Json:
    return (event.get("requestObject") or {}).get("metadata") or {}


def _labels(event: Json) -> Json:
    return _metadata(event).get("labels") or {}


def _claims(event: Json, user: str) -> list[tuple[str, str]]:
    notes = _metadata(event).get("annotations") or {}
    claims = [str(v).partition("|") for k, v in notes.items() if k.startswith(APPROVE_PREFIX) and v]
    return [(digest, who) for digest, _, who in claims if who == user]


@dataclass(frozen=True)
class Facts:
    """How a run ended. `end` is its end state (see `end_state`), `plans` says which plan each execution carried out."""

    level: str
    end: Json
    audited: Audited
    plans: Mapping[str, str]
    injected: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One plan judged. It converged if nothing at all is wrong."""

    injected: bool
    effects: int
    duplicated: int = 0
    lost: int = 0
    unapproved: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def converged(self) -> bool:
        return not (self.duplicated or self.lost or self.unapproved or self.differences)


def judge(facts: Facts, reference: Facts) -> Verdict:
    """`duplicated`: effects beyond those of the reference. `lost`: effects that are missing, or 1 for an end state that was not reached.
    `unapproved`: effects that nobody allowed."""
    expected, found = reference.audited.effects, facts.audited.effects
    differences = compare(reference.end, facts.end)
    unapproved = [f"{e.what} at {e.at}: {why}" for e in found if (why := unallowed(e, facts))]
    missing = max(0, len(expected) - len(found))
    if missing or len(found) > len(expected):
        differences.append(f"effects: {len(expected)} expected, {len(found)} found: {'; '.join(f'{e.at} {e.what}' for e in found)}")
    return Verdict(
        injected=facts.injected,
        effects=len(found),
        duplicated=max(0, len(found) - len(expected)),
        lost=missing or int(bool(compare(reference.end, facts.end))),
        unapproved=len(unapproved),
        differences=[*differences, *unapproved],
    )


def unallowed(effect: Effect, facts: Facts) -> str:
    """Why nothing allowed that effect; empty if something did: at L4 the policy, at L3 an approval of exactly that plan, given before."""
    digest = facts.plans.get(effect.execution)
    if digest is None:
        return f"no execution of an Incident ({effect.execution or 'unstamped'})"
    if facts.level == "L4" or any(a.digest == digest and a.at <= effect.at for a in facts.audited.approvals):
        return ""
    return NOBODY


def compare(expected: Json, found: Json) -> list[str]:
    """What differs, by name."""
    return [
        f"{name}: {json.dumps(expected.get(name))} expected, {json.dumps(found.get(name))} found"
        for name in {**expected, **found}
        if expected.get(name) != found.get(name)
    ]


# ---------------------------------------------------------------- the end state


def end_state(incidents: list[Json], deployment: Json, ledger: Json, fleet: Json, namespace: str) -> Json:
    """All that must be the same however often the operator died: no times, ids, versions, counters, texts."""
    incident = incidents[-1] if incidents else {}
    status = incident.get("status") or {}
    executions = status.get("executions") or []
    ids = [e["id"] for e in executions]
    stamp = (deployment.get("metadata", {}).get("labels") or {}).get(EXECUTION_LABEL)
    return {
        "incidents": len(incidents),
        "phase": status.get("phase"),
        "conditions": {c["type"]: [c["status"], c["reason"]] for c in status.get("conditions") or [] if c["type"] in CONDITIONS},
        "plan": "plan" in status,
        "executions": [[e["action"], e.get("by"), e["state"], e.get("result")] for e in executions],
        "verdict": (status.get("verification") or {}).get("verdict"),
        "approved by": sorted({a["user"] for a in status.get("approvals") or []}),
        "finalizers": incident.get("metadata", {}).get("finalizers") or [],
        "target": spec_sha256(deployment.get("spec") or {})[:15],
        "stamped by": None if stamp is None else ids.index(stamp) if stamp in ids else "somebody else",
        "outcomes in the namespace": _outcomes(ledger, namespace, ids),
        "outcomes in the fleet": _outcomes(fleet, namespace, ids),
        "rejections in the namespace": len((ledger.get("spec") or {}).get("rejections") or []),
        "slots taken in the namespace": _slots(ledger, namespace),
        "slots taken in the fleet": _slots(fleet, namespace),
    }


def _outcomes(ledger: Json, namespace: str, ids: list[str]) -> list[list[Any]]:
    rows = [o for o in (ledger.get("spec") or {}).get("outcomes") or [] if o.get("namespace") == namespace]
    return [[ids.index(o["execution"]) if o["execution"] in ids else "unknown", o["action"], o["result"], o.get("by")] for o in rows]


def _slots(ledger: Json, namespace: str) -> int:
    return len([r for r in (ledger.get("spec") or {}).get("reservations") or [] if r.get("namespace") == namespace])
