"""The watch on Deployments: opens Incidents for stuck rollouts without any alert, and records which revisions were seen healthy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from .. import metrics
from ..api.meta import API_VERSION, LEDGER_NAME, line
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.ledger import LedgerSpec, Preexisting
from ..diagnosis import engine
from ..diagnosis.engine import StuckRollout
from ..domain import ledger as books
from ..domain.digest import template_sha256
from ..domain.gates import PROTECTED_NAMESPACES
from ..domain.record import is_closed
from ..domain.snapshot import KubeObject, Snapshot
from ..domain.verification import rollout_complete
from ..ports import AlreadyExistsError, Book, Clock, ClusterReader, Incidents, Ledgers, PermanentError
from .gatherer import Gatherer, current_revision

log = structlog.get_logger(__name__)
SETTLE = timedelta(seconds=0.3)
ORDERS_SETTLE = timedelta(seconds=1)
WHILE_ILL = timedelta(seconds=5)
SOON_ILL = timedelta(seconds=1)  # pods of a release fail within its first seconds
YOUNG = timedelta(seconds=1)
FRESHLY = timedelta(seconds=20)
SOONEST = timedelta(seconds=0.2)
EPISODES = 50


class Watchman:
    """Keeps the Deployments in memory (from the watch) and inspects a namespace when something in it changed.

    `add(namespace, after)` puts a namespace into the queue that calls `inspect`.
    """

    def __init__(
        self,
        clock: Clock,
        reader: ClusterReader,
        incidents: Incidents,
        ledgers: Ledgers,
        gatherer: Gatherer,
        book: Book,
        *,
        detect: bool,
        detect_after: timedelta,
        operator_namespace: str,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._incidents = incidents
        self._ledgers = ledgers
        self._gatherer = gatherer
        self._book = book
        self._detect = detect
        self._detect_after = detect_after
        self._skip = PROTECTED_NAMESPACES | {operator_namespace}
        self._deployments: dict[tuple[str, str], KubeObject] = {}
        self._opened: dict[tuple[str, str], str] = {}
        self._changed: dict[tuple[str, str], datetime] = {}

    async def watch(
        self, add: Callable[[str, timedelta], None], orders: Callable[[str, timedelta], None], touched: Callable[[str, str], None]
    ) -> None:
        """Follows the Deployments of the whole cluster, for ever.

        `orders` hears of namespaces whose policies may match otherwise now, `touched` of every Deployment (namespace, Kind/name).
        """
        async for event, deployment in self._reader.watch("apps/v1", "Deployment"):
            key = (deployment.namespace, deployment.name)
            if event == "BOOKMARK" or deployment.namespace in self._skip:
                continue
            known = self._deployments.pop(key, None)
            if known is None or event == "DELETED" or known.at("metadata", "generation") != deployment.at("metadata", "generation"):
                self._changed[key] = self._clock.now()
            if event == "DELETED":
                self._changed.pop(key)
            else:
                self._deployments[key] = deployment
                add(deployment.namespace, SETTLE)
            touched(deployment.namespace, deployment.title)
            if event == "DELETED" or known is None or known.labels != deployment.labels:
                orders(deployment.namespace, ORDERS_SETTLE)

    async def inspect(self, namespace: str) -> timedelta | None:
        """Looks at one namespace: remembers what is healthy, opens Incidents for what is stuck. None: wait for the next event."""
        mine = [d for (ns, _), d in self._deployments.items() if ns == namespace]
        if not mine:
            return None
        ledger = await self._ledgers.get(namespace, LEDGER_NAME)
        known = ledger.spec if ledger else LedgerSpec()
        now = self._clock.now()
        ill = [d for d in mine if not rollout_complete(d)[0]]
        for well in (d for d in mine if d not in ill):
            self._opened.pop((namespace, well.name), None)  # a fault that comes back opens its next episode
        news = [d for d in mine if d not in ill and self._unrecorded(known, d)]
        relabelled = [d for d in mine if books.remember_labels(known, d, now) is not known]
        if not (ledger is None or ill or news or relabelled):
            return None
        max_age = timedelta(0) if news else YOUNG
        snapshot = await self._gatherer.snapshot(namespace, None, max_age=max_age) if ledger is None or ill or news else None
        again = await self._remember(namespace, ledger is None, mine, news, snapshot, now)
        if ledger is None:
            return SOON_ILL if ill else again  # what is broken at the first look is on the list now
        if ill and self._detect and snapshot is not None:
            due = await self._open_incidents(namespace, snapshot, known, now)
            again = due if again is None else min(due, again)
        return again

    def _unrecorded(self, known: LedgerSpec, deployment: KubeObject) -> bool:
        recorded = {h.template_sha256 for h in known.healthy_revisions if h.workload_uid == deployment.uid}
        return template_sha256(deployment.at("spec", "template", default={})) not in recorded

    async def _remember(
        self, namespace: str, first: bool, mine: list[KubeObject], healthy: list[KubeObject], snapshot: Snapshot | None, now: datetime
    ) -> timedelta | None:
        """One write for everything new: labels, healthy revisions, and at the first look what is broken already.

        What is recorded as healthy is what the very snapshot shows so. It may be older than the watch: then there is a next look.
        """
        broken = tuple(_preexisting(r, now) for r in engine.stuck_rollouts(snapshot, now)) if first and snapshot is not None else ()

        proven = [pair for d in healthy if snapshot is not None and (pair := _proven(snapshot, d)) is not None]

        def change(spec: LedgerSpec) -> LedgerSpec:
            for d in mine:
                spec = books.remember_labels(spec, d, now)
            for deployment, revision in proven:
                spec = books.remember_healthy(spec, deployment, revision, now)
            return books.remember_broken(spec, broken) if broken else spec

        try:
            await self._book(namespace, LEDGER_NAME, change)
        except PermanentError as refused:
            log.warning("cannot keep the ledger of a namespace", namespace=namespace, error=str(refused))
        if broken:
            log.warning(
                "already broken at the first look; listed, not acted on", namespace=namespace, workloads=[b.workload for b in broken]
            )
        return WHILE_ILL if len(proven) < len(healthy) else None

    async def _open_incidents(self, namespace: str, snapshot: Snapshot, known: LedgerSpec, now: datetime) -> timedelta:
        """Opens what is due; returns when to look again while something is ill."""
        before = {(p.uid, p.revision_uid) for p in known.preexisting}
        again = self._pace(namespace, now)
        for rollout in engine.stuck_rollouts(snapshot, now):
            if (rollout.uid, rollout.revision_uid) in before or self._opened.get((namespace, rollout.target.name)) == rollout.revision_uid:
                continue
            if (left := rollout.since + self._detect_after - now) > timedelta(0):
                again = min(again, left + SOONEST)
                continue
            await self._open(namespace, rollout)
            self._opened[(namespace, rollout.target.name)] = rollout.revision_uid
        return again

    def _pace(self, namespace: str, now: datetime) -> timedelta:
        """Looks again soon while something has just begun to change, and slowly at what has been ill for long."""
        since = [at for (ns, _), at in self._changed.items() if ns == namespace]
        return SOON_ILL if since and now - max(since) < FRESHLY else WHILE_ILL

    async def _open(self, namespace: str, rollout: StuckRollout) -> None:
        """A deterministic name for each episode: an open one absorbs the signal, a closed one leads to the next number."""
        for episode in range(1, EPISODES + 1):
            name = incident_name(namespace, rollout, episode)
            try:
                await self._incidents.create(namespace, manifest(name, rollout, nothing_serves=self._nothing_serves(namespace, rollout)))
            except AlreadyExistsError:
                found = await self._incidents.get(namespace, name)
                if isinstance(found, Incident) and absorbs(found, rollout):
                    return
                continue
            metrics.INCIDENTS_OPENED.inc()
            log.info("incident opened", namespace=namespace, incident=name, reason=rollout.reason)
            return
        log.error("too many episodes", namespace=namespace, workload=rollout.target.title)

    def _nothing_serves(self, namespace: str, rollout: StuckRollout) -> bool:
        deployment = self._deployments.get((namespace, rollout.target.name))
        return deployment is not None and not deployment.at("status", "availableReplicas", default=0)


def _proven(snapshot: Snapshot, deployment: KubeObject) -> tuple[KubeObject, KubeObject] | None:
    """The Deployment and the ReplicaSet of its revision, if the snapshot itself shows it complete and available."""
    listed = snapshot.find("Deployment", deployment.name)
    if not isinstance(listed, KubeObject) or listed.uid != deployment.uid or not rollout_complete(listed)[0]:
        return None
    revision = current_revision(snapshot, listed)
    return None if revision is None else (listed, revision)


def _preexisting(r: StuckRollout, now: datetime) -> Preexisting:
    return Preexisting(uid=r.uid, workload=r.target.title, revision_uid=r.revision_uid, reason=line(r.reason, 256), at=now)


def incident_name(namespace: str, rollout: StuckRollout, episode: int) -> str:
    """`<workload>-rolloutstuck-<10 hex of the key>-<episode>`, at most 63 characters."""
    key = hashlib.sha256(f"{namespace}/{rollout.target.kind}/{rollout.target.name}/RolloutStuck".encode()).hexdigest()[:10]
    return f"{rollout.target.name[:30].rstrip('-.')}-rolloutstuck-{key}-{episode}"


def manifest(name: str, rollout: StuckRollout, *, nothing_serves: bool) -> Mapping[str, Any]:
    """The Incident as it is created."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Incident",
        "metadata": {"name": name},
        "spec": {
            "target": rollout.target.wire(),
            "severity": "Critical" if nothing_serves else "Warning",
            "title": line(f"Rollout of {rollout.target.name} makes no progress: {rollout.reason}", 256),
            "signal": {"source": "Detector", "name": "RolloutStuck", "startsAt": rollout.since.isoformat().replace("+00:00", "Z")},
        },
    }


def absorbs(found: Incident, rollout: StuckRollout) -> bool:
    """Whether that Incident is ours (only the operator may write a signal: threats.md 26), about the same object, and open.

    One that a human suspended absorbs, too: the next episode would act in spite of it.
    """
    ours = found.spec.signal is not None and found.spec.target == rollout.target
    return ours and not is_closed(found.status)
