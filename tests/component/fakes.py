"""An API server in memory, below the ports: uids, resourceVersions, conflicts, finalizers, strict status, RBAC, and faults at will.

Nothing here knows what the operator should do. Every request of the operator goes through `Api.request`, which is the one place where
a test lets it fail, die, wait or lose its answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nightorders.adapters.kube.stores import read_as
from nightorders.api.meta import API_VERSION, FINALIZER
from nightorders.api.v1alpha1 import ClusterRemediationPolicy, Incident, IncidentStatus, Ledger, LedgerSpec, RemediationPolicy
from nightorders.domain.mergepatch import apply_patch
from nightorders.domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked, Vector
from nightorders.ports import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GuardReport,
    NotFoundError,
    ObjectKey,
    PermanentError,
    PortError,
    Sample,
    StillFiring,
    TransientError,
    Unreadable,
)

Json = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name
START = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
HISTORY = timedelta(days=3)


def clone(value: Any) -> Any:
    """A deep copy of JSON, several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {k: clone(v) for k, v in value.items()}
    return [clone(v) for v in value] if isinstance(value, list) else value


class Died(BaseException):
    """The process ends here: nothing may catch this and go on."""


class Clock:
    """The wall clock of a test."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by


@dataclass(frozen=True)
class Call:
    """One request of an operator. `number` counts its writes (dry runs too); reads have none."""

    actor: str
    verb: str  # get | list | create | status | finalizer | ledger | patch | dry-run
    kind: str
    namespace: str
    name: str
    number: int = 0

    @property
    def writes(self) -> bool:
        return self.verb not in ("get", "list")


@dataclass(frozen=True)
class Committed:
    """One change of the store, by whomever. `world` is what else was there at that moment."""

    call: Call
    at: datetime
    before: Json | None
    after: Json | None
    world: Mapping[Key, Json] = field(repr=False, default_factory=dict)


Hook = Callable[[Call], Awaitable[None]]


async def nothing(_: Call) -> None:
    """No fault."""


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


class Api:
    """The store. `before` and `after` are asked around every request of the operator; `after` comes once a write is committed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[Key, Json] = {}
        self.journal: list[Committed] = []
        self.calls: list[Call] = []
        self.events: list[tuple[str, str, str]] = []
        self.before: Hook = nothing
        self.after: Hook = nothing
        self.forbidden: set[tuple[str, str]] = set()  # (verb, kind)
        self.mutating_webhook: Callable[[Json], None] | None = None
        self.careless = False  # as an API server is: without preconditions in a patch there are none
        self._version = 1000
        self._uid = 0
        self.writes = 0
        self.acting = Call("", "", "", "", "")  # whose change is being made right now

    # ------------------------------------------------------------ what tests and controllers do: no faults, no conflicts

    def version(self) -> str:
        self._version += 1
        return str(self._version)

    def put(self, kind: str, namespace: str, name: str, raw: Json, actor: str = "somebody") -> Json:
        """Creates or replaces. Bumps the generation where the spec changed; nothing happens where nothing changed."""
        key = (kind, namespace, name)
        old = self.objects.get(key)
        new = clone(raw)
        meta = new.setdefault("metadata", {})
        meta |= {"name": name, "namespace": namespace} if namespace else {"name": name}
        if old is None:
            self._uid += 1
            meta.setdefault("uid", f"uid-{self._uid:04}")
            meta.setdefault("creationTimestamp", stamp(self.clock.now()))
            meta.setdefault("generation", 1)
        else:
            meta |= {k: old["metadata"][k] for k in ("uid", "creationTimestamp", "generation", "resourceVersion") if k in old["metadata"]}
            if new == old:
                return old
            if new.get("spec") != old.get("spec"):
                meta["generation"] = old["metadata"]["generation"] + 1
        meta["resourceVersion"] = self.version()
        self._commit(Call(actor, "put", kind, namespace, name), key, new)
        return new

    def edit(self, kind: str, namespace: str, name: str, change: Callable[[Json], Any], actor: str = "somebody") -> Json:
        """Reads, changes, writes; `change` edits in place."""
        raw = clone(self.objects[(kind, namespace, name)])
        change(raw)
        return self.put(kind, namespace, name, raw, actor)

    def delete(self, kind: str, namespace: str, name: str, actor: str = "somebody") -> None:
        """Gone, or waiting for its finalizers."""
        key = (kind, namespace, name)
        raw = clone(self.objects[key])
        if raw["metadata"].get("finalizers"):
            raw["metadata"].setdefault("deletionTimestamp", stamp(self.clock.now()))
            raw["metadata"]["resourceVersion"] = self.version()
            self._commit(Call(actor, "delete", kind, namespace, name), key, raw)
        else:
            self._commit(Call(actor, "delete", kind, namespace, name), key, None)

    def all(self, kind: str, namespace: str | None = None) -> Iterator[Json]:
        return (raw for (k, ns, _), raw in sorted(self.objects.items()) if k == kind and namespace in (None, ns))

    def _commit(self, call: Call, key: Key, new: Json | None) -> None:
        before = self.objects.get(key)
        self.journal.append(Committed(call, self.clock.now(), before, new, dict(self.objects)))
        if new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = new

    # ------------------------------------------------------------ what the operator asks

    async def request(self, actor: str, verb: str, kind: str, namespace: str, name: str, act: Callable[[], Any] | None = None) -> Any:
        """One request: faults, permission, the act itself, faults again. Answers are copies."""
        if verb not in ("get", "list"):
            self.writes += 1
        call = Call(actor, verb, kind, namespace, name, self.writes if verb not in ("get", "list") else 0)
        self.calls.append(call)
        await self.before(call)
        plain = {"dry-run": "patch", "status": "update", "finalizer": "update", "ledger": "update"}.get(verb, verb)
        if (plain, kind) in self.forbidden or (verb, kind) in self.forbidden:
            raise ForbiddenError(f"{plain} {kind} is forbidden (403)")
        self.acting = call
        try:
            answer = act() if act is not None else None
        except PortError:
            await self.after(call)
            raise
        await self.after(call)
        return answer if verb == "list" else clone(answer)  # nobody changes what a list gave: it would be seen in the journal

    def found(self, kind: str, namespace: str, name: str) -> Json:
        raw = self.objects.get((kind, namespace, name))
        if raw is None:
            raise NotFoundError(f"{kind}/{name} not found (404)")
        return raw

    def replace(self, call: Call, key: Key, uid: str, version: str, change: Callable[[Json], None]) -> Json:
        """A conditional write."""
        old = self.found(*key)
        if self.careless:
            uid, version = uid or old["metadata"]["uid"], version or old["metadata"]["resourceVersion"]
        if not uid or not version:
            raise PermanentError("no precondition")
        if old["metadata"]["uid"] != uid or old["metadata"]["resourceVersion"] != version:
            raise ConflictError(f"{key[0]}/{key[2]} changed since it was read (409)")
        new = clone(old)
        change(new)
        if new == old:
            return old  # as the API server: no change, no new version
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        new["metadata"]["resourceVersion"] = self.version()
        gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers")
        self._commit(call, key, None if gone else new)
        return new


@dataclass
class Reader:
    """Implements `ClusterReader`. `unread` names kinds (or Kind/name) whose reads fail for the moment."""

    api: Api
    actor: str = "operator"
    unread: dict[str, str] = field(default_factory=dict)
    _seen: dict[Key, str] = field(default_factory=dict)

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        title = f"{key.kind}/{key.name}"
        try:
            raw = await self.api.request(
                self.actor, "get", key.kind, key.namespace, key.name, lambda: self.api.objects.get((key.kind, key.namespace, key.name))
            )
        except ForbiddenError as error:
            return NotLooked(title, f"forbidden: {error}", "kubectl create rolebinding …")
        except TransientError as error:
            return NotLooked(title, f"failed: {error}")
        if why := self.unread.get(key.kind) or self.unread.get(title):
            return NotLooked(title, why)
        return Absent(title, f"GET {title}", self.api.clock.now()) if raw is None else KubeObject(raw, key.kind, key.api_version)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        now = self.api.clock.now()
        query = f"GET {kind} in {namespace or 'the cluster'}"
        try:
            items = await self.api.request(self.actor, "list", kind, namespace or "", "", lambda: list(self.api.all(kind, namespace)))
        except ForbiddenError as error:
            return Listing(kind, query, now, because=f"forbidden: {error}")
        except TransientError as error:
            return Listing(kind, query, now, because=f"failed: {error}")
        if why := self.unread.get(kind):
            return Listing(kind, query, now, because=why)
        return Listing(kind, query, now, tuple(KubeObject(raw, kind, api_version) for raw in items))

    async def count(self, api_version: str, kind: str) -> int | None:
        try:
            items = await self.api.request(self.actor, "list", kind, "", "", lambda: list(self.api.all(kind)))
        except (ForbiddenError, TransientError):
            return None
        return None if kind in self.unread else len(items)

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        return LogExcerpt(key, f"GET logs of {key.pod}", self.api.clock.now())

    async def watch(self, api_version: str, kind: str) -> AsyncIterator[tuple[str, KubeObject]]:
        """What happened since the last call, then ends (a real one goes on for ever); the first call gives everything."""
        here = {(k, ns, n): raw for (k, ns, n), raw in self.api.objects.items() if k == kind}
        for key, raw in here.items():
            version = raw["metadata"]["resourceVersion"]
            if (old := self._seen.get(key)) != version:
                self._seen[key] = version
                yield ("ADDED" if old is None else "MODIFIED", KubeObject(clone(raw), kind, api_version))
        for key in [k for k in self._seen if k not in here]:
            del self._seen[key]
            yield "DELETED", KubeObject({"metadata": {"namespace": key[1], "name": key[2]}}, kind, api_version)


@dataclass
class Incidents:
    """Implements `Incidents`."""

    api: Api
    actor: str = "operator"

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None:
        raw = await self.api.request(
            self.actor, "get", "Incident", namespace, name, lambda: self.api.objects.get(("Incident", namespace, name))
        )
        return None if raw is None else read_as(Incident, raw)

    async def list(self) -> list[Incident | Unreadable]:
        items = await self.api.request(self.actor, "list", "Incident", "", "", lambda: list(self.api.all("Incident")))
        return [read_as(Incident, raw) for raw in items]

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Incident:
        name = manifest["metadata"]["name"]

        def act() -> Json:
            if ("Incident", namespace, name) in self.api.objects:
                raise AlreadyExistsError(f"Incident/{name} exists (409)")
            return self.api.put("Incident", namespace, name, clone(dict(manifest)), self.actor)

        return written(Incident, await self.api.request(self.actor, "create", "Incident", namespace, name, act))

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        strict = IncidentStatus.model_validate(status.wire()).wire()
        return await self._write(incident, "status", lambda raw: raw.update(status=strict))

    async def set_finalizer(self, incident: Incident, present: bool) -> Incident:
        others = [f for f in incident.metadata.finalizers if f != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        if sorted(wanted) == sorted(incident.metadata.finalizers):
            return incident

        def change(raw: Json) -> None:
            if present and raw["metadata"].get("deletionTimestamp"):
                raise PermanentError("no new finalizers can be added if the object is being deleted (422)")
            raw["metadata"]["finalizers"] = wanted

        return await self._write(incident, "finalizer", change)

    async def _write(self, incident: Incident, verb: str, change: Callable[[Json], None]) -> Incident:
        m = incident.metadata
        key = ("Incident", m.namespace, m.name)

        def act() -> Json:
            return self.api.replace(self.api.acting, key, m.uid, m.resource_version, change)

        return written(Incident, await self.api.request(self.actor, verb, *key, act))


@dataclass
class Policies:
    """Implements `Policies`."""

    api: Api
    actor: str = "operator"

    async def of(self, namespace: str) -> list[RemediationPolicy | Unreadable]:
        assert namespace
        items = await self.api.request(
            self.actor, "list", "RemediationPolicy", namespace, "", lambda: list(self.api.all("RemediationPolicy", namespace))
        )
        return [read_as(RemediationPolicy, raw) for raw in items]

    async def cluster(self) -> list[ClusterRemediationPolicy | Unreadable]:
        kind = "ClusterRemediationPolicy"
        items = await self.api.request(self.actor, "list", kind, "", "", lambda: list(self.api.all(kind)))
        return [read_as(ClusterRemediationPolicy, raw) for raw in items]

    async def save_status(self, policy: RemediationPolicy | ClusterRemediationPolicy, status: Mapping[str, Any]) -> None:
        raise NotImplementedError


@dataclass
class Ledgers:
    """Implements `Ledgers`."""

    api: Api
    actor: str = "operator"

    async def get(self, namespace: str, name: str) -> Ledger | None:
        raw = await self.api.request(
            self.actor, "get", "Ledger", namespace, name, lambda: self.api.objects.get(("Ledger", namespace, name))
        )
        return None if raw is None else written(Ledger, raw)

    async def save(self, namespace: str, name: str, ledger: Ledger | None, spec: LedgerSpec) -> Ledger:
        strict = LedgerSpec.model_validate(spec.wire()).wire()

        def act() -> Json:
            key = ("Ledger", namespace, name)
            if ledger is not None:
                m = ledger.metadata
                return self.api.replace(self.api.acting, key, m.uid, m.resource_version, lambda raw: raw.update(spec=strict))
            if key in self.api.objects:
                raise AlreadyExistsError(f"Ledger/{name} exists (409)")
            return self.api.put("Ledger", namespace, name, {"apiVersion": API_VERSION, "kind": "Ledger", "spec": strict}, self.actor)

        return written(Ledger, await self.api.request(self.actor, "ledger", "Ledger", namespace, name, act))


@dataclass
class Target:
    """Implements `ActionTarget`."""

    api: Api
    actor: str = "operator"

    async def patch(self, key: ObjectKey, patch: Mapping[str, Any], *, dry_run: bool) -> KubeObject:
        fence = patch.get("metadata") or {}
        where = (key.kind, key.namespace, key.name)

        def change(raw: Json) -> None:
            body = {**patch, "metadata": {k: v for k, v in fence.items() if k not in ("uid", "resourceVersion")}}
            new = apply_patch(raw, body)
            raw.clear()
            raw.update(clone(new))
            if self.api.mutating_webhook is not None:
                self.api.mutating_webhook(raw)

        def act() -> Json:
            if not dry_run:
                return self.api.replace(self.api.acting, where, fence.get("uid", ""), fence.get("resourceVersion", ""), change)
            old = self.api.found(*where)
            here = (old["metadata"]["uid"], old["metadata"]["resourceVersion"])
            if here != (fence.get("uid"), fence.get("resourceVersion")) and not (self.api.careless and "uid" not in fence):
                raise ConflictError(f"{key.kind}/{key.name} changed since it was read (409)")
            new = clone(old)
            change(new)
            return new

        raw = await self.api.request(self.actor, "dry-run" if dry_run else "patch", *where, act)
        return KubeObject(raw, key.kind, key.api_version)


@dataclass
class Guard:
    """Implements `ApprovalGuard`."""

    clock: Clock
    proven: bool = True
    asked: list[str] = field(default_factory=list)

    async def prove(self, incident: Incident | None) -> GuardReport:
        self.asked.append(incident.metadata.name if incident else "")
        return GuardReport(
            self.proven, "refused by nightorders-approvals" if self.proven else "the forged approval was let in", self.clock.now()
        )


@dataclass
class Metrics:
    """Implements `Metrics`: every query has the one answer."""

    value: float | None = 0.0

    async def query(self, promql: str, at: datetime, *, namespace: str) -> Sample:
        return Sample(self.value, "" if self.value is not None else "Prometheus answered, series absent")

    async def vector(self, promql: str, at: datetime, *, namespace: str) -> Vector:
        return Vector(promql, at)

    async def alert_state(self, labels: Mapping[str, str], at: datetime, *, pods_of: str = "") -> StillFiring:
        return StillFiring(None, "no rule of that name")


@dataclass
class Announcer:
    """Implements `Announcer`."""

    api: Api

    async def announce(self, incident: Incident, reason: str, message: str, *, warning: bool) -> None:
        self.api.events.append((incident.metadata.name, reason, message))


def written(model: Any, raw: Json) -> Any:
    """As the adapter: an object that cannot be read after writing is an error."""
    found = read_as(model, raw)
    if isinstance(found, Unreadable):
        raise PermanentError(found.message)
    return found
