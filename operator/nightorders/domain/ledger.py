"""Changes to a Ledger, as pure functions: spec in, spec out. The caller saves under compare-and-swap and asks again on conflict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from ..api.v1alpha1.ledger import HealthyRevision, LedgerSpec, Outcome, Preexisting, Reservation, WorkloadRecord
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
