"""Takes alerts in: each one opens an Incident or joins the open one of its key, and is stored before anybody says thanks.

Two replicas may do this side by side, and Alertmanagers deliver twice: names are deterministic, every write is conditional, and what is
there already is success.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog

from .. import metrics
from ..api.meta import find_condition
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.incident import Incident
from ..domain.alerts import (
    ALERT_LABEL,
    CLUSTER_SCOPED,
    TARGET_ANNOTATIONS,
    Alert,
    Candidate,
    Notification,
    Place,
    Subject,
    belongs,
    episode_of,
    gaps_of,
    makers_of,
    manifest,
    noted,
    place,
    state_of,
    subject_of,
    without_namespace,
)
from ..domain.gates import PROTECTED_NAMESPACES
from ..domain.record import is_closed
from ..domain.snapshot import KubeObject, NotLooked
from ..ports import (
    AlertIncidents,
    AlreadyExistsError,
    Clock,
    ClusterReader,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ObjectKey,
    PermanentError,
    TransientError,
)

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
log = structlog.get_logger(__name__)

SECONDS = 10.0  # for one notification; Alertmanager itself waits longer
WAITING = 2000  # alerts that are being stored; more is back-pressure
SIDE_BY_SIDE = 16
TRIES = 8
# An alert that goes on for a moment after its Incident was closed is the same one; after this it says that closing was wrong.
LINGERS = timedelta(minutes=10)
# A storm is answered from what was read a moment ago. That is safe: whatever is news is written under the version that was read, and an
# alert that is no news is told by its Incident for `LINGERS` after the end as well.
FRESH = timedelta(seconds=10)
REMEMBERED = 10_000
OWNERS_DEEP = 4
NOWHERE = (
    "names no namespace, node or persistentvolume, so there is nothing to look at: give the rule such a label, or the annotation "
    f"{TARGET_ANNOTATIONS[0]}, or route it elsewhere"
)


@dataclass(frozen=True)
class _Placed:
    """An alert and where it belongs; `where` None: it is not taken, and `problem` says why (empty: it is left alone on purpose)."""

    alert: Alert
    where: Place | None
    problem: str = ""


class AlertDesk:
    """`seconds`: limit of one notification. `waiting`: most alerts that are being stored at a time."""

    def __init__(
        self,
        clock: Clock,
        reader: ClusterReader,
        incidents: AlertIncidents,
        *,
        operator_namespace: str,
        seconds: float = SECONDS,
        waiting: int = WAITING,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._incidents = incidents
        self._operator_namespace = operator_namespace
        self._seconds = seconds
        self._room = waiting
        self._places: OrderedDict[tuple[object, ...], Place] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], Incident] = OrderedDict()
        self._read_at: dict[tuple[str, str], float] = {}
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()  # gone when nobody holds one
        self._side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def take(self, notification: Notification) -> tuple[str, ...]:
        """Returns once every alert that can be kept is kept; what cannot, by field and reason.

        Raises TransientError when it should be sent again (too many wait, the API server is slow or down), PermanentError when the API
        server refuses what we write.
        """
        count = len(notification.alerts)
        if count > self._room:
            raise TransientError("too many alerts are being stored already")
        self._room -= count
        try:
            async with asyncio.timeout(self._seconds):
                return await self._store(notification)
        except TimeoutError:
            metrics.ALERTS.labels(result="Failed").inc(count)
            raise TransientError(f"not stored within {self._seconds:g} s") from None
        finally:
            self._room += count

    async def _store(self, notification: Notification) -> tuple[str, ...]:
        placed = await _all([self._place(alert) for alert in notification.alerts])
        groups: dict[tuple[str, str], list[_Placed]] = {}
        problems = []
        for number, one in enumerate(placed):
            if one.where is not None:
                groups.setdefault((one.where.namespace, one.where.key), []).append(one)
            elif one.problem:
                metrics.ALERTS.labels(result="NowhereToLook").inc()
                problems.append(f"alerts[{number}].labels: {one.alert.name} {one.problem}")
            else:
                metrics.ALERTS.labels(result="Protected").inc()
                log.info("alert left alone: its namespace is protected", alert=one.alert.name, namespace=one.alert.labels.get("namespace"))
        await _all([self._settle(group, notification.truncated) for group in groups.values()])
        return tuple(problems)

    # ------------------------------------------------------------ where an alert belongs

    async def _place(self, alert: Alert) -> _Placed:
        known = (alert.name, *sorted(alert.labels.items()), *(alert.annotations.get(a, "") for a in TARGET_ANNOTATIONS))
        if (where := self._places.get(known)) is not None:
            self._places.move_to_end(known)
            return _Placed(alert, where)
        subject = subject_of(alert)
        async with self._side_by_side:
            target, sure = await self._target(subject)
        if target is None:
            return _Placed(alert, None, NOWHERE)
        where = place(alert, target, subject.namespace, self._operator_namespace)
        if not where.namespace:  # the annotation names what lives in a namespace, and the alert names none
            return _Placed(alert, None, f"is about {target.title} and has no label namespace")
        if where.namespace in PROTECTED_NAMESPACES or (where.namespace == self._operator_namespace and target.kind not in CLUSTER_SCOPED):
            return _Placed(alert, None)
        if sure:
            _remember(self._places, known, where)
        return _Placed(alert, where, subject.problem)

    async def _target(self, subject: Subject) -> tuple[ObjectRef | None, bool]:
        """(the target, whether another look would give the same)."""
        for candidate in subject.candidates:
            if not candidate.must_exist and not candidate.follow:
                return candidate.ref, True
            found = await self._read(candidate.ref, subject.namespace)
            if isinstance(found, KubeObject):
                if candidate.follow == "node":
                    if node := found.at("spec", "nodeName", default=""):
                        return ObjectRef(api_version="v1", kind="Node", name=str(node)), True
                    continue
                return (await self._root(found) if candidate.follow == "owner" else candidate.ref), True
            if candidate.must_exist:
                continue
            made = await self._maker(candidate, subject.namespace) if candidate.kind == "Pod" and not isinstance(found, NotLooked) else None
            return made or candidate.ref, made is not None
        return None, True

    async def _maker(self, pod: Candidate, namespace: str) -> ObjectRef | None:
        """The workload that a pod which is gone belonged to, by its name, if such a workload is there."""
        for maker in makers_of(pod.name):
            found = await self._read(maker.ref, namespace)
            if isinstance(found, KubeObject):
                return await self._root(found)
        return None

    async def _root(self, found: KubeObject) -> ObjectRef:
        """Of the object's controllers the last one that can be named."""
        ref = _ref(found.api_version, found.kind, found.name)
        for _ in range(OWNERS_DEEP):
            owner: Mapping[str, object] = found.controller or {}
            if owner.get("kind") == "Node":  # a static pod's mirror: the machine did not make it wrong
                break
            try:
                above = _ref(str(owner.get("apiVersion", "")), str(owner.get("kind", "")), str(owner.get("name", "")))
            except ValueError:
                break
            ref = above
            if not isinstance(read := await self._read(above, found.namespace), KubeObject):
                break
            found = read
        return ref

    async def _read(self, ref: ObjectRef, namespace: str) -> object:
        """An exact read. Raises TransientError where it failed: guessing would put the alert under another key."""
        found = await self._reader.get(ObjectKey(ref.api_version, ref.kind, "" if ref.kind in CLUSTER_SCOPED else namespace, ref.name))
        if isinstance(found, NotLooked) and found.because.startswith("failed"):
            raise TransientError(f"{ref.title} could not be read: {found.because}")
        return found

    # ------------------------------------------------------------ keeping it

    async def _settle(self, group: list[_Placed], truncated: int) -> None:
        where = group[0].where
        assert where is not None
        lock = self._locks.setdefault((where.namespace, where.key), asyncio.Lock())
        elsewhere = where.namespace != self._operator_namespace
        try:
            async with lock, self._side_by_side:
                told = await self._keep(where, group, truncated)
        except _RefusedThereError as refused:  # no tenant holds up the alerts of others (threats.md 27)
            if not elsewhere:
                raise PermanentError(str(refused)) from None
            log.warning(
                "the namespace of an alert takes no Incident; kept in the operator's own", alert=group[0].alert.name, why=str(refused)
            )
            told = False
        if told:
            return
        if not elsewhere:
            metrics.ALERTS.labels(result="Over").inc(len(group))
            return
        # What fires and was refused is kept there, and what ends may have been.
        moved = without_namespace(group[0].alert, where.namespace, self._operator_namespace)
        await self._settle([replace(p, where=moved) for p in group], truncated)

    async def _keep(self, where: Place, group: list[_Placed], truncated: int) -> bool:
        """Whether an Incident there tells of these alerts now; False: nothing fires, and there is none."""
        for attempt in range(TRIES):
            try:
                return await self._once(where, group, truncated, fresh=attempt == 0)
            except ConflictError:  # the reconciler wrote as well: look again
                await asyncio.sleep(0.02 * attempt)
        raise TransientError(f"the Incident of {where.target.title} changes all the time")

    async def _once(self, where: Place, group: list[_Placed], truncated: int, *, fresh: bool) -> bool:
        current, last = await self._current(where, fresh=fresh)
        alerts = [p.alert for p in group]
        news = [a for a in alerts if a.firing and not self._absorbs(current, a)]
        opened = None
        if news:
            opened = current = await self._open(where, last + 1, news[0])
        if current is None:
            return False
        mine = alerts if not is_closed(current.status) else [a for a in alerts if not a.firing]
        problem = next((p.problem for p in group if p.problem), "")
        status = current.status.model_copy(
            update={
                "alerts": noted(current, mine, self._clock.now()),
                "gaps": gaps_of(current, truncated if any(a.firing for a in alerts) else 0, problem),
            }
        )
        _count(current, alerts, opened is not None)
        saved = current if status == current.status else await self._incidents.save_status(current, status)
        self._note(where, saved)
        return True

    async def _current(self, where: Place, *, fresh: bool) -> tuple[Incident | None, int]:
        """(the Incident of the latest episode, the latest episode's number). An open one is the latest, whatever its number."""
        key = (where.namespace, where.key)
        if fresh and (seen := self._seen.get(key)) is not None and _monotonic() - self._read_at[key] < FRESH.total_seconds():
            return seen, episode_of(seen.metadata.name)
        found = await self._incidents.episodes(where.namespace, ALERT_LABEL, where.key)
        last = max((episode_of(i.metadata.name if isinstance(i, Incident) else i.name) for i in found), default=0)
        ours = [i for i in found if isinstance(i, Incident) and belongs(i, where)]
        ours.sort(key=lambda i: (not is_closed(i.status), episode_of(i.metadata.name)))
        if ours:
            self._note(where, ours[-1])
        return (ours[-1] if ours else None), last

    def _note(self, where: Place, incident: Incident) -> None:
        key = (where.namespace, where.key)
        _remember(self._seen, key, incident)
        self._read_at[key] = _monotonic()
        if len(self._read_at) > 2 * REMEMBERED:
            self._read_at = {k: at for k, at in self._read_at.items() if k in self._seen}

    def _absorbs(self, current: Incident | None, alert: Alert) -> bool:
        """Whether a firing alert is told by that Incident: it is open, or it was closed just now and this very alert still lingers.

        One that a human suspended absorbs, too: the next episode would act in spite of it.
        """
        if current is None:
            return False
        closed = find_condition(current.status.conditions, "Closed")
        if closed is None or not is_closed(current.status):
            return True
        ended = closed.last_transition_time
        same = state_of(current, alert.fingerprint) == "Firing" and alert.starts_at <= ended
        return same and self._clock.now() - ended < LINGERS

    async def _open(self, where: Place, episode: int, alert: Alert) -> Incident:
        """A new Incident, or the open one that somebody else made under that name at the same moment."""
        for number in range(episode, episode + TRIES):
            wanted = manifest(where, number, alert, self._clock.now())
            name = where.incident(number)
            try:
                made = await self._incidents.create(where.namespace, wanted)
            except AlreadyExistsError:
                found = await self._incidents.get(where.namespace, name)
                if isinstance(found, Incident) and belongs(found, where) and not is_closed(found.status):
                    return found
                log.warning(
                    "the name of an Incident is taken by another; the next number is used", namespace=where.namespace, incident=name
                )
                continue
            except (NotFoundError, ForbiddenError) as error:
                raise _RefusedThereError(str(error)) from None
            log.info("incident opened by an alert", namespace=where.namespace, incident=name, alert=alert.name)
            return made
        raise TransientError(f"the names of Incidents after {where.incident(episode)} are all taken")


class _RefusedThereError(Exception):
    """The namespace of an alert takes no Incident: it is not there, goes away, or its quota is used up."""


async def _all(work: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Everything is tried, side by side, before the first failure is raised: one bad alert must not cost the others."""
    done = await asyncio.gather(*work, return_exceptions=True)
    failures = [d for d in done if isinstance(d, BaseException)]
    if failures:
        metrics.ALERTS.labels(result="Failed").inc(len(failures))
        raise next((f for f in failures if not isinstance(f, TransientError)), failures[0])
    return [d for d in done if not isinstance(d, BaseException)]


def _count(before: Incident, alerts: Iterable[Alert], opened: bool) -> None:
    """Counts what becomes of each alert, by what was noted `before`. The Incident was `opened` by the first that fires."""
    for alert in alerts:
        state = state_of(before, alert.fingerprint)
        if not alert.firing:
            result = "Resolved" if state == "Firing" else "Over"
        elif opened:
            result, opened = "Opened", False
        else:
            result = "Repeated" if state == "Firing" else "Joined"
        metrics.ALERTS.labels(result=result).inc()


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


def _ref(api_version: str, kind: str, name: str) -> ObjectRef:
    return ObjectRef(api_version=api_version, kind=kind, name=name)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
