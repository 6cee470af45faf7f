"""One pass over one Incident: gather, decide, act."""

from __future__ import annotations

from datetime import timedelta

import structlog

from .. import metrics
from ..api.v1alpha1.incident import Incident
from ..domain.reasons import Reason
from ..domain.record import Record
from ..domain.steps import Idle, next_step
from ..ports import Clock, Incidents, PermanentError, TransientError, Unreadable
from .executor import Executor
from .gatherer import Gatherer

log = structlog.get_logger(__name__)
TELL_AFTER = 3
Key = tuple[str, str]


class Reconciler:
    """Owns Incidents from the first signal to the end. Level-triggered: a pass starts from a fresh read, never from an event."""

    def __init__(self, clock: Clock, incidents: Incidents, gatherer: Gatherer, executor: Executor) -> None:
        self._clock = clock
        self._incidents = incidents
        self._gatherer = gatherer
        self._executor = executor

    async def reconcile(self, key: Key) -> timedelta | None:
        """One pass; returns when the next one is due (None: at the next event)."""
        namespace, name = key
        incident = await self._incidents.get(namespace, name)
        if incident is None:
            return None
        if isinstance(incident, Unreadable):
            raise PermanentError(f"Incident {namespace}/{name} cannot be read by this version: {incident.message}")
        with metrics.PASS_SECONDS.time():
            situation = await self._gatherer.situation(incident)
            step = next_step(situation, self._clock.now())
            again = await self._executor.carry_out(situation, step)
        log.debug(
            "pass", incident=name, namespace=namespace, step=type(step).__name__, because=step.because if isinstance(step, Idle) else ""
        )
        return again

    async def failed(self, key: Key, error: Exception, attempts: int) -> None:
        """After a few failures in a row the Incident says so itself; it is never given up."""
        kind = "transient" if isinstance(error, TransientError) else "permanent" if isinstance(error, PermanentError) else "bug"
        metrics.FAILURES.labels(kind=kind).inc()
        if attempts != TELL_AFTER:
            return
        incident = await self._incidents.get(*key)
        if isinstance(incident, Incident):
            message = f"{attempts} passes in a row failed, the last with: {error}. Tried again with back-off"
            status = Record(incident, self._clock.now()).condition("Stalled", "True", Reason.TRY_AGAIN, message).done()
            await self._incidents.save_status(incident, status)
