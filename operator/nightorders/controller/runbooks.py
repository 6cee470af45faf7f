"""Keeps the status of Runbooks: what is wrong with each, and how often it matched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from ..actions import CATALOGUE
from ..api.meta import Condition, line, set_condition
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.runbook import Runbook, RunbookStatus
from ..domain import runbooks as rb
from ..domain.reasons import Reason
from ..ports import Clock, ConflictError, Metrics, NotFoundError, Runbooks, Unreadable

log = structlog.get_logger(__name__)
AGAIN = timedelta(minutes=5)  # series come and go
SOON = timedelta(seconds=1)
MOST_SERIES = 32  # of one runbook that Prometheus is asked about


class RunbookKeeper:
    """`note` and `listed` say which Incidents there are; `reconcile` is called for a namespace by a queue."""

    def __init__(self, clock: Clock, runbooks: Runbooks, metrics: Metrics) -> None:
        self._clock = clock
        self._runbooks = runbooks
        self._metrics = metrics
        self._matches: dict[str, tuple[str, dict[str, datetime]]] = {}
        self._complete = False

    def note(self, incident: Incident) -> str:
        """An Incident was written. Returns its namespace if a runbook's count changes by that, else nothing."""
        namespace, uid = incident.metadata.namespace, incident.metadata.uid
        now = {m.name: m.at for m in incident.status.runbooks}
        before = self._matches.get(uid, ("", {}))[1]
        if now == before:
            return ""
        self._matches[uid] = (namespace, {**before, **now})
        return namespace if {**before, **now} != before else ""

    def listed(self, incidents: Iterable[Incident | Unreadable]) -> set[str]:
        """All Incidents that there are. Returns the namespaces whose counts change by that."""
        found = list(incidents)
        before = self._matches
        self._matches = {}
        for i in found:
            if isinstance(i, Incident) and i.status.runbooks:
                uid = i.metadata.uid
                own = {m.name: m.at for m in i.status.runbooks}
                # What it matched earlier counts while the Incident is there; written since the list was made counts, too.
                self._matches[uid] = (i.metadata.namespace, {**before.get(uid, ("", {}))[1], **own})
            elif isinstance(i, Incident) and i.metadata.uid in before:
                self._matches[i.metadata.uid] = before[i.metadata.uid]
        first, self._complete = not self._complete, True
        changed = {uid for uid in {*before, *self._matches} if before.get(uid) != self._matches.get(uid)}
        return {(self._matches.get(uid) or before[uid])[0] for uid in (self._matches if first else changed)}

    async def reconcile(self, namespace: str) -> timedelta | None:
        """Looks at all runbooks of one namespace and saves what changed; returns when to look again (None: there are none)."""
        found = [r for r in await self._runbooks.of(namespace) if not _skipped(r)]
        made = await asyncio.gather(*(self._status(r) for r in found if isinstance(r, Runbook)))
        lost = False
        for runbook, status in zip((r for r in found if isinstance(r, Runbook)), made, strict=True):
            if status == runbook.status:
                continue
            try:
                await self._runbooks.save_status(runbook, status.wire())
            except ConflictError:
                lost = True
            except NotFoundError:
                continue
        return (SOON if lost else AGAIN) if found else None

    async def _status(self, runbook: Runbook) -> RunbookStatus:
        namespace, generation = runbook.metadata.namespace, runbook.metadata.generation
        wrong = rb.problems(runbook.spec, [t.value for t in CATALOGUE], namespace)
        wrong += await self._unknown_series(runbook)
        times = [names[runbook.metadata.name] for ns, names in self._matches.values() if ns == namespace and runbook.metadata.name in names]
        counted = self._complete
        told = tuple(str(p) for p in wrong[:32])
        message = f"{len(wrong)} problems: {'; '.join(told)}" if wrong else "every question is answered"
        condition = Condition(
            type="Ready",
            status="False" if wrong else "True",
            reason=(Reason.RUNBOOK_PROBLEMS if wrong else Reason.PASSED).value,
            message=line(message),
            observed_generation=generation,
            last_transition_time=self._clock.now(),
        )
        return RunbookStatus(
            observed_generation=generation,
            conditions=set_condition(runbook.status.conditions, condition),
            matched=len(times) if counted else runbook.status.matched,
            last_match_at=max([*times, *([runbook.status.last_match_at] if runbook.status.last_match_at else [])], default=None),
            problems=told,
        )

    async def _unknown_series(self, runbook: Runbook) -> list[rb.Problem]:
        """Series that Prometheus does not have in this namespace. Where it cannot be asked, nothing is said."""
        now, namespace = self._clock.now(), runbook.metadata.namespace
        named = list(rb.series_of(runbook.spec, namespace).items())[:MOST_SERIES]
        return [rb.not_there(name, at) for name, at in named if await self._is_unknown(name, now, namespace)]

    async def _is_unknown(self, name: str, now: datetime, namespace: str) -> bool:
        answer = await self._metrics.vector(f'count({{__name__="{name}"}})', now, namespace=namespace)
        return not answer.because and not answer.points


def _skipped(runbook: Runbook | Unreadable) -> bool:
    """An unreadable one has no status that this version could write; every level of its namespace says so (domain/runbooks.py)."""
    if isinstance(runbook, Unreadable):
        log.warning("runbook cannot be read", namespace=runbook.namespace, runbook=runbook.name, error=runbook.message)
        return True
    return False
