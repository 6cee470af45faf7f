"""Calls humans: a queue of its own beside the reconciler, so that no slow channel ever holds up an Incident."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from .. import metrics
from ..api.meta import FINALIZER, LEDGER_NAME
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import Incident, IncidentStatus
from ..api.v1alpha1.policy import Escalate, RemediationPolicy
from ..domain import breaker, escalation
from ..domain.autonomy import own_labels
from ..domain.orders import Governing, Orders, governing_rule
from ..domain.reasons import Reason
from ..domain.snapshot import KubeObject, NotLooked
from ..ports import Announcer, Clock, ClusterReader, ConflictError, Incidents, Ledgers, Notifier, ObjectKey, Policies, PortError, Unreadable

log = structlog.get_logger(__name__)
Key = tuple[str, str]
RECHECK = timedelta(seconds=60)
RARELY = timedelta(minutes=5)  # where no policy names a channel: one may later, and its event is about the policy
SOON = timedelta(seconds=0.2)
BUSY = timedelta(seconds=1)
BOOKS = timedelta(seconds=10)


class Caller:
    """One pass over one Incident: who is to be called, save that, send, save what became of it. Level-triggered, as the reconciler.

    At least once: a crash between sending and saving sends again, and no crash loses a call. Every status write is conditional; after
    a lost race the answer goes onto a fresh read.
    """

    def __init__(
        self,
        clock: Clock,
        reader: ClusterReader,
        incidents: Incidents,
        policies: Policies,
        ledgers: Ledgers,
        notifier: Notifier,
        announcer: Announcer,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._incidents = incidents
        self._policies = policies
        self._ledgers = ledgers
        self._notifier = notifier
        self._announcer = announcer
        self._busy: set[str] = set()  # channels with a message under way: others never wait for them
        self._unsaved: dict[Key, tuple[datetime, dict[str, str]]] = {}  # sent, and not yet in the status

    async def look(self, key: Key) -> timedelta | None:
        """One pass; returns when the next one is due (None: at the next event)."""
        incident = await self._incidents.get(*key)
        if incident is None or isinstance(incident, Unreadable):
            self._unsaved.pop(key, None)
            return None
        if key in self._unsaved:
            await self._save_answers(key)
            return SOON
        wait = escalation.waiting(incident)
        if wait is None:
            return None
        now = self._clock.now()
        if wait.at_once and FINALIZER in incident.metadata.finalizers and now - wait.since < BOOKS:
            return wait.since + BOOKS - now  # the books are being closed: only then is known whether it opened the breaker
        spec, governing, sure = await self._escalate(incident)
        if spec is None:
            return RARELY if sure else RECHECK
        note = await self._breaker(incident, governing) if wait.at_once else ""
        answer = escalation.due(incident, spec, now, note)
        if isinstance(answer, escalation.Call):
            try:
                incident = await self._incidents.save_status(incident, escalation.begun(incident, answer, now))
            except ConflictError:
                return SOON
        called = incident.status.escalation
        open_ = escalation.retries(incident, spec)
        ready = [channel for channel, at in open_.items() if at <= now and channel not in self._busy]
        if called is None or not ready:
            return self._next(incident, spec, now)
        self._busy.update(ready)  # at once: the tasks that send begin later, and another pass looks meanwhile
        await self._deliver(key, called.at, ready, *escalation.words(incident, wait, now, note))
        return SOON

    # ------------------------------------------------------------ sending

    async def _deliver(self, key: Key, at: datetime, channels: list[str], title: str, body: str) -> None:
        """Sends side by side, and saves each answer as it comes."""
        pending: set[asyncio.Task[tuple[str, str]]] = {asyncio.create_task(self._send(channel, title, body)) for channel in channels}
        lost: PortError | None = None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                self._unsaved.setdefault(key, (at, {}))[1].update(task.result() for task in done)
                try:
                    await self._save_answers(key)
                except PortError as error:  # the next pass saves it; what is under way is not cut off for that
                    lost = error
        finally:
            for task in pending:
                task.cancel()
        if lost is not None and key in self._unsaved:
            raise lost

    async def _send(self, channel: str, title: str, body: str) -> tuple[str, str]:
        """(channel, why it failed; empty: delivered)."""
        try:
            await self._notifier.send(channel, title, body)
        except PortError as error:
            return channel, str(error)
        finally:
            self._busy.discard(channel)
        return channel, ""

    async def _save_answers(self, key: Key) -> None:
        """Onto a fresh read until it wins. Remembered until then: a write that fails is no reason to send again."""
        at, answers = self._unsaved[key]
        saved = await self._update(key, lambda i: escalation.answered(i, at, answers, self._clock.now()))
        del self._unsaved[key]
        for channel, why in answers.items():
            metrics.CALLS.labels(result="Failed" if why else "Delivered").inc()
            log.info("called", incident=key[1], namespace=key[0], channel=channel, delivered=not why, problem=why)
            if saved is None or saved.status.escalation is None:
                continue
            reason = Reason.CALL_FAILED if why else Reason.CALLED
            message = f"call {saved.status.escalation.times} to {channel} failed: {why}; tried again" if why else f"called {channel}"
            await self._announcer.announce(saved, reason.value, message, warning=bool(why))

    async def _update(self, key: Key, change: Callable[[Incident], IncidentStatus | None]) -> Incident | None:
        """A change of the status on whatever it is now. None: there is nothing to change any more."""
        while True:
            fresh = await self._incidents.get(*key)
            status = change(fresh) if isinstance(fresh, Incident) else None
            if status is None or not isinstance(fresh, Incident) or status == fresh.status:
                return None
            try:
                return await self._incidents.save_status(fresh, status)
            except ConflictError:
                continue

    def _next(self, incident: Incident, spec: Escalate, now: datetime) -> timedelta:
        """When to look again: the next retry or call, a channel that is free again, and at least every minute."""
        times = [BUSY if at <= now else at - now for at in escalation.retries(incident, spec).values()]
        answer = escalation.due(incident, spec, now)
        if isinstance(answer, datetime):
            times.append(answer - now)
        return max(SOON, min([RECHECK, *times]))

    # ------------------------------------------------------------ who says whom to call

    async def _escalate(self, incident: Incident) -> tuple[Escalate | None, Governing | None, bool]:
        """What the governing policy says; else the first policy (by name) whose selector matches the target and that names channels.

        Of a target that is not there the labels are not known: then only policies for every workload match. The last is False where
        it could not be read: another look may find more.
        """
        t, namespace = incident.spec.target, incident.metadata.namespace
        target, own = await asyncio.gather(
            self._reader.get(ObjectKey(t.api_version, t.kind, namespace, t.name)), self._policies.of(namespace)
        )
        policies = tuple(p for p in own if isinstance(p, RemediationPolicy))
        labels = own_labels(target.labels) if isinstance(target, KubeObject) else {}
        action = incident.status.plan.action if incident.status.plan else last_action(incident)
        found = governing_rule(Orders(policies=policies), labels, action)
        governing = found if isinstance(found, Governing) else None
        if governing is not None and governing.policy.spec.escalate is not None:
            return governing.policy.spec.escalate, governing, True
        matching = sorted((p for p in policies if p.spec.escalate and p.spec.selector.matches(labels)), key=lambda p: p.metadata.name)
        return (matching[0].spec.escalate if matching else None), governing, not isinstance(target, NotLooked)

    async def _breaker(self, incident: Incident, governing: Governing | None) -> str:
        """How the breaker stands that the failure opened; empty if it did not."""
        if governing is None:
            return ""
        ledger = await self._ledgers.get(incident.metadata.namespace, LEDGER_NAME)
        action, kind = last_action(incident), incident.spec.target.kind
        b = breaker.state(governing.policy.spec.breaker, ledger, action, kind, self._clock.now())
        return b.because if b.state == "Open" else ""


def last_action(incident: Incident) -> ActionType:
    """Of the latest execution; of an Incident without one, what the first action of the catalogue would be."""
    executions = incident.status.executions
    return executions[-1].action if executions else ActionType.ROLLBACK_WORKLOAD
