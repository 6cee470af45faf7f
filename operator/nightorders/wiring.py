"""The composition root: builds adapters, controller and handlers, and runs them. May import everything; nothing imports it but __main__."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from . import metrics, shipped
from .adapters.alerts import AlertIncidentStore, AlertServer, TokenGate
from .adapters.clock import SystemClock
from .adapters.crds import compare_crds
from .adapters.guard import AdmissionGuard
from .adapters.health import HealthServer
from .adapters.kube import (
    EventAnnouncer,
    IncidentStore,
    KubeClient,
    LaterAnnouncer,
    LedgerStore,
    PolicyStore,
    Reader,
    Resources,
    RunbookStore,
    Target,
    Watcher,
)
from .adapters.lease import LeaderLease
from .adapters.lines import print_lines
from .adapters.notifier import AppriseNotifier
from .adapters.prometheus import PrometheusMetrics, PrometheusSettings
from .adapters.signer import FileSigner
from .api.v1alpha1.incident import Incident, IncidentStatus
from .controller.alerts import AlertDesk
from .controller.archivist import Archivist
from .controller.audited import AuditedIncidents
from .controller.caller import Caller
from .controller.executor import Executor
from .controller.gatherer import Gatherer, Ports
from .controller.janitor import Janitor, every
from .controller.orders import OrderBook
from .controller.pauses import EVERY as PAUSES_EVERY
from .controller.pauses import Pauses
from .controller.queue import WorkQueue
from .controller.reconciler import Key, Reconciler
from .controller.runbooks import RunbookKeeper
from .controller.watchman import Watchman
from .domain import escalation
from .domain.redaction import redact
from .domain.situation import Operator, Proof
from .handlers.events import Hearing, Subjects, registry, watch_own_kinds
from .ports import PortError
from .settings import Settings

log = structlog.get_logger(__name__)
QUEUE_SILENCE = 60.0
WATCH_SILENCE = 330.0
REMEMBERED_WRITES = 10_000
ANSWER_SECONDS = 0.05
COALESCE = timedelta(seconds=0.5)
RUNBOOKS_SETTLE = timedelta(seconds=0.2)
CALL_WORKERS = 16  # a slow channel holds at most one of them


def configure_logging(settings: Settings) -> None:
    """JSON lines (or key=value on a terminal) on standard error, also for kopf and other libraries."""
    level = getattr(logging, settings.log_level.upper(), logging.INFO)
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=[*shared]))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


@dataclass(frozen=True)
class Connection:
    """What needs the API server and nothing else: enough for `nightorders diagnose`."""

    client: KubeClient
    clock: SystemClock
    reader: Reader
    resources: Resources
    watcher: Watcher


@asynccontextmanager
async def connect(kubeconfig: str | None, context: str | None) -> AsyncIterator[Connection]:
    """A connection that is closed at the end. Raises PermanentError without a usable configuration."""

    def on_state(kind: str, healthy: bool, message: str) -> None:
        metrics.WATCH_HEALTHY.labels(kind=kind).set(1 if healthy else 0)
        (log.info if healthy else log.warning)("watch", kind=kind, healthy=healthy, message=message)

    clock = SystemClock()
    async with await KubeClient.connect(kubeconfig=kubeconfig, context=context) as client:
        resources = Resources(client)
        watcher = Watcher(client, resources, on_state=on_state)
        yield Connection(client, clock, Reader(client, resources, clock, redact=redact, watcher=watcher), resources, watcher)


def on_signing(signing: bool, message: str) -> None:
    """The audit key came, changed or went."""
    metrics.AUDIT_SIGNING.set(1 if signing else 0)
    (log.info if signing else log.warning)("the records are signed" if signing else "the records are chained, but not signed", why=message)


class OwnWrites(IncidentStore):
    """Remembers the version of our own last write of each Incident, whose event needs no pass of the reconciler.

    `written` is called with what each of them led to: others beside the reconciler wait for what it decides.
    """

    def __init__(self, client: KubeClient, written: Callable[[Incident], None] = lambda _: None) -> None:
        super().__init__(client)
        self._on_written = written
        self._written: dict[Key, str] = {}
        self._in_flight: set[Key] = set()

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        return await self._noted(incident, super().save_status(incident, status))

    async def set_finalizer(self, incident: Incident, present: bool) -> Incident:
        return await self._noted(incident, super().set_finalizer(incident, present))

    async def _noted(self, incident: Incident, write: Awaitable[Incident]) -> Incident:
        key = (incident.metadata.namespace, incident.metadata.name)
        self._in_flight.add(key)
        try:
            saved = await write
        finally:
            self._in_flight.discard(key)
        if len(self._written) > REMEMBERED_WRITES:
            self._written.clear()
        self._written[key] = saved.metadata.resource_version
        self._on_written(saved)
        return saved

    async def is_own(self, key: Key, version: str) -> bool:
        """Whether that version of the Incident is our own write. Its event may come before the answer to the write."""
        if key in self._in_flight:
            await asyncio.sleep(ANSWER_SECONDS)
        return self._written.get(key) == version


class Run:
    """The operator as a process."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings = settings
        operator = Operator(settings.username, settings.namespace)
        c = connection
        self._client = c.client
        self._watcher = c.watcher
        self._own = OwnWrites(c.client, self._decided)
        signer = FileSigner(Path(settings.audit_key_file) if settings.audit_key_file else None, on_signing)
        signer.look()
        self._incidents = AuditedIncidents(self._own, signer, c.clock, print_lines)
        policies, ledgers = PolicyStore(c.client), LedgerStore(c.client)
        guard = AdmissionGuard(c.client, c.clock, shipped.admission(), namespace=settings.namespace, username=settings.username)
        prometheus = PrometheusMetrics(
            PrometheusSettings(
                url=settings.prometheus_url or "",
                token_file=Path(settings.prometheus_token_file) if settings.prometheus_token_file else None,
                ca_file=Path(settings.prometheus_ca_file) if settings.prometheus_ca_file else None,
            )
        )

        def lost(_: str) -> None:
            metrics.EVENTS_LOST.inc()

        announcer = LaterAnnouncer(EventAnnouncer(c.client, c.clock, instance=settings.identity, on_lost=lost), on_lost=lost)
        self._announcer = announcer
        runbooks = RunbookStore(c.client)
        ports = Ports(c.clock, c.reader, self._incidents, policies, ledgers, prometheus, guard, runbooks)
        self._subjects = Subjects()
        gatherer = Gatherer(ports, operator, neighbours=self._subjects.others)
        executor = Executor(
            c.clock,
            self._incidents,
            ledgers,
            Target(c.client, c.resources),
            announcer,
            operator,
            redact,
            self._policies_of_changed,
            self._term,
            lambda namespace: self._pauses.expect(namespace),
        )
        self._pauses = Pauses(
            c.clock, c.reader, self._incidents, ledgers, Target(c.client, c.resources), announcer, executor.book, operator
        )
        reconciler = Reconciler(c.clock, self._incidents, gatherer, executor)
        self.incident_queue: WorkQueue[Key] = WorkQueue(
            "incidents", reconciler.reconcile, workers=settings.workers, failed=reconciler.failed
        )
        watchman = Watchman(
            c.clock,
            c.reader,
            self._incidents,
            ledgers,
            gatherer,
            executor.book,
            detect=settings.detect,
            detect_after=settings.detect_after,
            operator_namespace=settings.namespace,
        )
        self._watchman = watchman
        self.namespace_queue: WorkQueue[str] = WorkQueue("namespaces", watchman.inspect, workers=2)
        self._notifier = AppriseNotifier(Path(settings.channels_dir) if settings.channels_dir else None)
        caller = Caller(c.clock, c.reader, self._incidents, policies, ledgers, self._notifier, announcer)
        self.call_queue: WorkQueue[Key] = WorkQueue("calls", caller.look, workers=CALL_WORKERS)
        orders = OrderBook(c.clock, c.reader, policies, ledgers, executor.book, settings.namespace, self._notifier)
        self.order_queue: WorkQueue[str] = WorkQueue("orders", orders.reconcile, workers=1)
        self._runbooks = RunbookKeeper(c.clock, runbooks, prometheus)
        self.runbook_queue: WorkQueue[str] = WorkQueue("runbooks", self._runbooks.reconcile, workers=1)
        self._archivist = Archivist(
            c.clock, self._incidents, ledgers, announcer, signer, print_lines, lambda n, t: self.audit_queue.add(n, t)
        )
        self.audit_queue: WorkQueue[str] = WorkQueue("audit", self._archivist.publish, workers=2)
        self._janitor = Janitor(
            c.clock, self._incidents, ledgers, guard, gatherer, executor.book, self._compare_schemas, settings.namespace
        )
        # A store of its own: what it writes is news for the reconciler, unlike the reconciler's own writes.
        desk = AlertDesk(c.clock, c.reader, AlertIncidentStore(c.client), operator_namespace=settings.namespace)
        self._alerts = AlertServer(TokenGate(c.client).look, desk.take)
        self._hearing = Hearing()
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._leading = not settings.leader_election
        self._lease: LeaderLease | None = None
        self.waiting_for = "starting"

    def _policies_of_changed(self, namespace: str) -> None:
        """An outcome is in that namespace's Ledger: breakers and earned levels may stand differently."""
        self.order_queue.add(namespace)

    def _term(self) -> str:
        """Stamped on every effect; admission refuses the one of a leader who has been replaced (threats 17)."""
        return self._lease.term if self._lease is not None and self.settings.leader_election else ""

    async def _compare_schemas(self) -> Proof:
        report = await compare_crds(self._client)
        return Proof(report.current, "; ".join(report.messages))

    # ------------------------------------------------------------ health

    def live(self) -> list[str]:
        """What only a restart would cure: a worker loop that stands still, a watch that is silent although things change."""
        if not self._leading or not self._ready.is_set():
            return []
        now = asyncio.get_running_loop().time()
        wrong = [
            f"queue {q.name} has not turned for {now - q.last_turn:.0f} s" for q in self._queues() if now - q.last_turn > QUEUE_SILENCE
        ]
        wrong += [
            f"the watch on {kind} has been silent for {s:.0f} s" for (_, kind), s in self._watcher.silence().items() if s > WATCH_SILENCE
        ]
        if self._hearing.deaf:
            wrong.append("the watch on Incidents does not deliver what a list shows")
        return wrong

    def ready(self) -> list[str]:
        """Why it would not act at the moment. A standby is ready: it takes over when the leader goes."""
        return [self.waiting_for] if self.waiting_for else self.live()

    async def _relist(self) -> None:
        """All open Incidents again; and whether the watch has delivered what the list shows, two lists in a row."""
        listed: dict[Key, str] = {}

        def add(key: Key) -> None:
            self.incident_queue.add(key)

        try:
            found = await self._incidents.list()
            await self._archivist.compare(found)
            for namespace in self._runbooks.listed(found):
                self.runbook_queue.add(namespace, RUNBOOKS_SETTLE)
            for incident in found:
                if isinstance(incident, Incident):
                    listed[(incident.metadata.namespace, incident.metadata.name)] = incident.metadata.resource_version
        except PortError as error:  # the janitor's own list right below reports it; here it only means: cannot compare
            log.debug("cannot compare the watch with a list", error=str(error))
        if self._ready.is_set():
            self._hearing.compare(listed)
        await self._janitor.relist(add)

    # ------------------------------------------------------------ running

    async def run(self) -> int:
        """Until a signal (0) or until the leadership is lost (1)."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, self._stop.set)
        health = HealthServer(self.live, self.ready, metrics.REGISTRY)
        s = self.settings
        await health.start(s.listen, s.health_port, s.metrics_port)
        lost: list[str] = []

        def on_lost(why: str) -> None:
            lost.append(why)
            self._stop.set()

        lease = self._lease = LeaderLease(
            self._client,
            namespace=s.namespace,
            lease=s.lease_seconds,
            renew_deadline=s.lease_seconds * 2 / 3,
            retry=s.lease_seconds / 7.5,
            on_lost=on_lost,
        )
        try:
            if not await self._unless_stopped(self._schemas_served()):
                return 0
            if s.webhook_port:  # a standby takes alerts in as well: while the leader changes, none may be lost
                await self._alerts.start(s.listen, s.webhook_port)
            if s.leader_election:
                self.waiting_for = ""
                log.info("standing by", identity=lease.identity)
                if not await self._unless_stopped(lease.acquire()):
                    return 0
                self._leading = True
            metrics.LEADER.set(1)
            log.info("leading", identity=lease.identity)
            await self._lead(lease)
        finally:
            metrics.LEADER.set(0)
            await lease.release()
            await self._alerts.stop()
            await health.stop()
        if lost:
            log.error("leadership lost; ending, so that nothing runs without it", why=lost[0])
        return 1 if lost else 0

    async def _unless_stopped(self, work: object) -> bool:
        """Whether `work` ended before the stop signal."""
        tasks = {asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())}  # type: ignore[call-overload]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
        return not self._stop.is_set()

    async def _schemas_served(self) -> None:
        """Waits until the CRDs are there; kopf would give up and exit."""
        while True:
            report = await compare_crds(self._client)
            missing = [m for m in report.messages if "is missing" in m or "is not served" in m]
            if not missing:
                return
            self.waiting_for = "; ".join(missing)
            log.error("waiting for the custom resources", problem=self.waiting_for)
            await asyncio.sleep(5)

    async def _lead(self, lease: LeaderLease) -> None:
        await asyncio.to_thread(self._notifier.channels)  # loads what it needs while nothing waits for the loop
        made = registry(self._heard, self.order_queue.add, self._hearing, self._subjects, self._own.is_own, self._runbook_changed)
        self.waiting_for = "the watches on our own kinds are starting"
        await asyncio.gather(self._janitor.prove(), self._first_comparison())
        jobs = [
            self.incident_queue.run(),
            self.namespace_queue.run(),
            self.order_queue.run(),
            self.runbook_queue.run(),
            self.audit_queue.run(),
            self.call_queue.run(),
            self._watchman.watch(self.namespace_queue.add, self.order_queue.add, self._wake),
            watch_own_kinds(made, self._stop, self._ready),
            self._announce_ready(),
            every(self.settings.recheck, self._relist),
            every(self.settings.guard_every, self._janitor.prove),
            every(timedelta(seconds=5), self._gauges),
            every(PAUSES_EVERY, self._pauses.look),
            self._announcer.run(),
        ]
        if self.settings.leader_election:
            jobs.append(lease.keep())
        tasks = [asyncio.create_task(job) for job in jobs]
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, stop, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._announcer.flush(), 2)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _first_comparison(self) -> None:
        """What the books say of each record, before the first pass writes on in any of them."""
        try:
            found = await self._incidents.list()
            self._runbooks.listed(found)
            await self._archivist.compare(found)
        except PortError as error:
            log.warning("cannot compare the records with the books of heads yet", error=str(error))

    async def _announce_ready(self) -> None:
        await self._ready.wait()
        self.waiting_for = ""
        log.info("ready")
        await asyncio.Event().wait()

    def _wake(self, namespace: str, title: str) -> None:
        """An object changed: its open Incidents look at it soon, once for all the events of one change."""
        for key in self._subjects.about(namespace, title):
            self.incident_queue.add(key, COALESCE)

    def _heard(self, key: Key) -> None:
        """Somebody else changed an Incident, or it is seen for the first time."""
        self.incident_queue.add(key)
        self.call_queue.add(key, COALESCE)

    def _decided(self, incident: Incident) -> None:
        """We wrote an Incident ourselves: whom it waits for may have to be called, and a runbook may have matched."""
        if namespace := self._runbooks.note(incident):
            self.runbook_queue.add(namespace, RUNBOOKS_SETTLE)
        if escalation.waiting(incident) is not None:
            self.call_queue.add((incident.metadata.namespace, incident.metadata.name), COALESCE)

    def _runbook_changed(self, namespace: str) -> None:
        """A runbook came, changed or went (or we wrote its status: then there is nothing to write)."""
        self.runbook_queue.add(namespace, RUNBOOKS_SETTLE)

    def _queues(self) -> tuple[WorkQueue[Any], ...]:
        return (self.incident_queue, self.namespace_queue, self.order_queue, self.runbook_queue, self.call_queue, self.audit_queue)

    async def _gauges(self) -> None:
        metrics.CHANNELS.labels(state="Usable").set(len(self._notifier.channels()))
        metrics.CHANNELS.labels(state="Refused").set(len(self._notifier.problems()))
        for queue in self._queues():
            metrics.QUEUE_DEPTH.labels(queue=queue.name).set(len(queue))


def tune_garbage_collector() -> None:
    """A list of a thousand pods is half a million young dicts, none of them in a cycle: by default the collector walks them again and
    again, which took two thirds of the parsing (541 → 214 ms of CPU for a diagnosis at 1,000 pods)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def run(settings: Settings) -> int:
    """Runs the operator; returns the exit status."""
    configure_logging(settings)
    tune_garbage_collector()
    if settings.kubeconfig:
        os.environ["KUBECONFIG"] = settings.kubeconfig  # kopf finds its own way to the API server
    async with connect(settings.kubeconfig, settings.context) as connection:
        return await Run(settings, connection).run()
