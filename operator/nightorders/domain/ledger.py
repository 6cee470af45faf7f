"""Changes to a Ledger, as pure functions: spec in, spec out. The caller saves under compare-and-swap and asks again on conflict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import Execution, Incident, Pause
from ..api.v1alpha1.ledger import (
    HealthyRevision,
    JudgementRecord,
    LedgerSpec,
    Outcome,
    PauseRecord,
    Preexisting,
    Rejection,
    Reservation,
    ShadowScore,
    WorkloadRecord,
)
from .autonomy import RELABEL_MEMORY, own_labels
from .digest import template_sha256
from .snapshot import KubeObject

KEEP_OUTCOMES = 512
KEEP_REVISIONS_PER_WORKLOAD = 4
KEEP_REVISIONS = 1024
KEEP_WORKLOADS = 512
SLOT_GRACE = timedelta(minutes=2)


def reserve(spec: LedgerSpec, slot: Reservation) -> LedgerSpec:
    """Takes a slot. Doing it twice for one execution is doing it once."""
    others = tuple(r for r in spec.reservations if r.execution != slot.execution)
    return spec.model_copy(update={"reservations": (*others, slot)})


def settle(spec: LedgerSpec, outcome: Outcome) -> LedgerSpec:
    """Frees the execution's slot and remembers how it ended. Doing it twice is doing it once."""
    if any(o.execution == outcome.execution for o in spec.outcomes):
        return release(spec, outcome.execution)
    return release(spec, outcome.execution).model_copy(update={"outcomes": (*spec.outcomes, outcome)[-KEEP_OUTCOMES:]})


def release(spec: LedgerSpec, execution: str) -> LedgerSpec:
    """Frees the execution's slot."""
    return spec.model_copy(update={"reservations": tuple(r for r in spec.reservations if r.execution != execution)})


def reclaim(spec: LedgerSpec, runs: Callable[[Reservation], bool], now: datetime) -> LedgerSpec:
    """Frees the slots whose Incident is gone or ended: a crash between two writes leaves no slot taken.

    A young slot is left alone: its Incident's own write may still be on its way.
    """
    kept = tuple(r for r in spec.reservations if now - r.at < SLOT_GRACE or runs(r))
    return spec if kept == spec.reservations else spec.model_copy(update={"reservations": kept})


def remember_healthy(spec: LedgerSpec, workload: KubeObject, revision: KubeObject, now: datetime) -> LedgerSpec:
    """Records that this revision was seen complete and available; unchanged if that is known."""
    sha = template_sha256(revision.at("spec", "template", default={}))
    if any(h.revision_uid == revision.uid and h.template_sha256 == sha for h in spec.healthy_revisions):
        return spec
    entry = HealthyRevision(workload_uid=workload.uid, workload=workload.title, revision_uid=revision.uid, template_sha256=sha, at=now)
    own = [h for h in spec.healthy_revisions if h.workload_uid == workload.uid and h.revision_uid != revision.uid]
    others = [h for h in spec.healthy_revisions if h.workload_uid != workload.uid]
    kept = (*others, *own[-(KEEP_REVISIONS_PER_WORKLOAD - 1) :], entry)
    return spec.model_copy(update={"healthy_revisions": kept[-KEEP_REVISIONS:]})


def remember_labels(spec: LedgerSpec, workload: KubeObject, now: datetime) -> LedgerSpec:
    """Keeps the workload's labels, when they changed last, and the ones before.

    "Before" is before the first of a row of changes: else a second, harmless change would make a fresh relabelling look old.
    """
    labels = dict(sorted(own_labels(workload.labels).items())[:64])
    old = next((w for w in spec.workloads if w.uid == workload.uid), None)
    if old is not None and old.labels == labels:
        return spec
    in_a_row = old is not None and old.changed_at is not None and now - old.changed_at < RELABEL_MEMORY
    new = WorkloadRecord(
        uid=workload.uid,
        workload=workload.title,
        labels=labels,
        previous_labels={} if old is None else old.previous_labels if in_a_row else old.labels,
        changed_at=now if old else None,
    )
    return spec.model_copy(update={"workloads": (*(w for w in spec.workloads if w.uid != workload.uid), new)[-KEEP_WORKLOADS:]})


def remember_broken(spec: LedgerSpec, broken: tuple[Preexisting, ...]) -> LedgerSpec:
    """Lists what was already broken when the operator first looked."""
    return spec.model_copy(update={"preexisting": broken[:512]})


def note(spec: LedgerSpec, entry: Rejection | ShadowScore | JudgementRecord) -> LedgerSpec:
    """Remembers a rejection, the score of a decision made in Shadow, or a human's judgement. Doing it twice is doing it once."""
    match entry:
        case Rejection():
            if any((r.plan, r.by) == (entry.plan, entry.by) for r in spec.rejections):
                return spec
            return spec.model_copy(update={"rejections": (*spec.rejections, entry)[-128:]})
        case ShadowScore():
            others = tuple(s for s in spec.shadows if (s.incident_uid, s.action) != (entry.incident_uid, entry.action))
            return spec.model_copy(update={"shadows": (*others, entry)[-512:]})
        case JudgementRecord():
            rest = tuple(j for j in spec.judgements if (j.incident_uid, j.by) != (entry.incident_uid, entry.by))
            return spec.model_copy(update={"judgements": (*rest, entry)[-512:]})


def judged(spec: LedgerSpec) -> dict[tuple[Category, str], tuple[int, int]]:
    """(category, grade) of what stood first → (right, wrong), as humans say. An Incident counts once, with its latest judgement."""
    latest = {j.incident_uid: j for j in spec.judgements}
    counts: dict[tuple[Category, str], tuple[int, int]] = {}
    for j in latest.values():
        right, wrong = counts.get((j.category, j.grade), (0, 0))
        counts[(j.category, j.grade)] = (right + j.right, wrong + (not j.right))
    return counts


def remember_namespace(spec: LedgerSpec, namespace: str) -> LedgerSpec:
    """In the fleet's Ledger: this namespace has a Ledger; should it be missing one day, that is known."""
    if namespace in spec.namespaces or len(spec.namespaces) >= 4096:
        return spec
    return spec.model_copy(update={"namespaces": tuple(sorted((*spec.namespaces, namespace)))})


def remember_cluster_orders(spec: LedgerSpec) -> LedgerSpec:
    """In the fleet's Ledger: a ClusterRemediationPolicy exists; should none be left one day, that is known."""
    return spec if spec.cluster_policies else spec.model_copy(update={"cluster_policies": True})


def remember_pause(spec: LedgerSpec, slot: Reservation, pause: Pause) -> LedgerSpec:
    """A pause that is about to be made, so that it is lifted whatever happens."""
    record = PauseRecord(
        execution=slot.execution, namespace=slot.namespace, incident=slot.incident, incident_uid=slot.incident_uid, pause=pause, at=slot.at
    )
    return spec.model_copy(update={"pauses": (*(p for p in spec.pauses if p.execution != slot.execution), record)})


def hold_pause(spec: LedgerSpec, execution: str, until: datetime) -> LedgerSpec:
    """Notes until when a pause holds, so that it is lifted then also if the Incident is gone."""
    held = tuple(p.model_copy(update={"until": until}) if p.execution == execution and p.until is None else p for p in spec.pauses)
    return spec if held == spec.pauses else spec.model_copy(update={"pauses": held})


def forget_pauses(spec: LedgerSpec, executions: frozenset[str]) -> LedgerSpec:
    """These pauses are lifted."""
    kept = tuple(p for p in spec.pauses if p.execution not in executions)
    return spec if kept == spec.pauses else spec.model_copy(update={"pauses": kept})


def confirmed(incident: Incident, e: Execution) -> Literal["No", "Human", "Signal"]:
    """Whether a recovery may count towards earned autonomy, and by what.

    An Incident that a person made by hand counts only if somebody else approved: nobody earns trust for the operator alone. A
    ServiceAccount that may approve is no human.
    """
    if e.result != "Recovered":
        return "No"
    requester = incident.spec.requested_by
    made_by_hand = incident.spec.signal is None
    if any(user != requester and not user.startswith("system:") for user in e.approved_by) and (requester is not None or not made_by_hand):
        return "Human"
    if made_by_hand:
        return "No"
    if e.by == "human":
        return "Human"
    v = incident.status.verification
    # Those of the policy: whoever writes a runbook must not be able to earn trust with a query that always passes.
    queries = {c.name for c in incident.status.plan.verify.checks if c.promql and not c.runbook} if incident.status.plan else set()
    passed = {m.check for m in v.measurements if m.verdict == "Pass"} if v else set()
    return "Signal" if queries & passed else "No"
