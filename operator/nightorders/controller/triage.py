"""What a signal claims and what Prometheus says of it now; and the answers of Prometheus that a diagnosis of a namespace may use."""

from __future__ import annotations

import asyncio
from datetime import datetime

from ..api.v1alpha1.incident import Gap, Incident, Signal
from ..diagnosis.claim import Claim
from ..diagnosis.questions import QUESTIONS, answers
from ..domain.alerts import BAD_TARGET, LEFT_OUT, state_of
from ..domain.redaction import MARK
from ..domain.snapshot import Vector
from ..ports import Metrics, StillFiring

_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"})
_CUT = "…"


async def claim_of(incident: Incident, metrics: Metrics, now: datetime) -> Claim | None:
    """The Incident's signal, with the answer of its source on being asked again. None: nobody signalled, a human asks.

    Never raises. `firing` is False only where Prometheus evaluated the alert's own rule and found nothing although the series are there.
    """
    signal = incident.spec.signal
    if signal is None:
        return None
    if signal.source == "Detector":
        return Claim(
            signal.name,
            dict(signal.labels),
            dict(signal.annotations),
            signal.starts_at,
            because="the operator saw it itself",
            seen_itself=True,
        )
    resolved = is_resolved(incident)
    state = await _ask_again(incident, signal, metrics, now)
    told = "Alertmanager says that it is resolved; " if resolved else ""
    return Claim(
        name=signal.labels.get("alertname", signal.name),
        labels=dict(signal.labels),
        annotations=dict(signal.annotations),
        starts_at=signal.starts_at,
        firing=state.firing,
        resolved=resolved,
        because=told + state.because,
    )


def is_resolved(incident: Incident) -> bool:
    """Whether Alertmanager said of every alert behind the Incident that it is over."""
    first = incident.spec.signal.fingerprints if incident.spec.signal is not None else ()
    known = {*first, *(a.fingerprint for a in incident.status.alerts)}
    return bool(known) and all(state_of(incident, f) == "Resolved" for f in known)


async def _ask_again(incident: Incident, signal: Signal, metrics: Metrics, now: datetime) -> StillFiring:
    # What was redacted or cut is not what Prometheus knows.
    labels = {k: v for k, v in signal.labels.items() if MARK not in v and not v.endswith(_CUT)}
    target = incident.spec.target
    return await metrics.alert_state(labels, now, pods_of=target.name if target.kind in _WORKLOADS else "")


def gaps_of_signal(incident: Incident) -> tuple[Gap, ...]:
    """What the alerts' way in noted as not known; a new diagnosis keeps these beside its own gaps."""
    return tuple(g for g in incident.status.gaps if g.what in (LEFT_OUT, BAD_TARGET))


async def ask_metrics(metrics: Metrics, namespace: str, now: datetime) -> dict[str, Vector]:
    """The answers to all questions of `diagnosis.questions`, by name, in a few queries side by side. Never raises; ends within seconds."""
    vectors = await asyncio.gather(*(metrics.vector(q.promql, now, namespace=namespace) for q in QUESTIONS))
    return answers(list(zip(QUESTIONS, vectors, strict=True)), now)
