"""`ClusterReader`: bulk lists from the API server's cache, exact reads, logs. It answers "not looked" where others would raise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime

from kubernetes.aio.client.exceptions import ApiException

from ...api.meta import line
from ...domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked
from ...ports import Clock, ObjectKey, PortError
from ..errors import EXTERNAL, port_error, readable, status_of
from . import grants
from .client import KubeClient, Query, parse, target_of
from .resources import KNOWN, Resource, Resources, Unserved, no_such_kind
from .watch import DROP_MANAGED_FIELDS, Watcher

# The API server answers from its cache, and ignores `limit` when asked like this: pages and cache exclude each other.
_FROM_CACHE: Query = (("resourceVersion", "0"),)
_LOG_LINE_LIMIT = 1024


class Reader:
    """Implements `ClusterReader`. `redact` sees every byte of a log before anything else does."""

    def __init__(
        self,
        client: KubeClient,
        resources: Resources,
        clock: Clock,
        *,
        redact: Callable[[str], str],
        watcher: Watcher,
        log_bytes: int = 65536,
    ) -> None:
        self._client = client
        self._resources = resources
        self._clock = clock
        self._redact = redact
        self._watcher = watcher
        self._log_bytes = log_bytes

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        """An exact (quorum) read. Never raises."""
        title = f"{key.kind}/{key.name}"
        resource = await self._resources.find(key.api_version, key.kind)
        if isinstance(resource, Unserved):
            return NotLooked(title, resource.because)
        if resource.namespaced and not key.namespace:
            return NotLooked(title, f"{key.kind} lives in a namespace, and none was named")
        try:
            path = resource.path(key.namespace, key.name)
            raw = await parse(await self._client.request("GET", path))
        except (*EXTERNAL, PortError) as error:
            if isinstance(error, ApiException) and (status := status_of(error)).code == 404 and not status.kind_missing:
                return Absent(title, f"GET {path}", self._clock.now())
            because, fix = _why_not(error, resource, key.namespace)
            return NotLooked(title, because, fix)
        return KubeObject(raw, key.kind, key.api_version)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        """All objects of a kind in one request; `namespace` None: of the whole cluster. Never raises."""
        resource = await self._resources.find(api_version, kind)
        if isinstance(resource, Unserved):
            return Listing(kind, f"LIST {api_version} {kind}", self._clock.now(), because=resource.because)
        query = f"LIST {api_version} {kind}"
        try:
            path = resource.path(namespace or "")
            query = f"GET {target_of(path, _FROM_CACHE)}"
            content = await self._client.request("GET", path, query=_FROM_CACHE)
            at = self._clock.now()
            answer = await parse(content, drop_managed_fields=kind in DROP_MANAGED_FIELDS)
        except (*EXTERNAL, PortError) as error:
            because, fix = _why_not(error, resource, namespace or "")
            return Listing(kind, query, self._clock.now(), because=because, fix=fix)
        objects = tuple(KubeObject(raw, kind, api_version) for raw in answer.get("items") or ())
        return Listing(kind, query, at, objects, size=len(content))

    async def count(self, api_version: str, kind: str) -> int | None:
        """How many there are in the cluster: one object and `remainingItemCount`. None where that cannot be told. Never raises."""
        resource = await self._resources.find(api_version, kind)
        if isinstance(resource, Unserved):
            return None
        try:
            answer = await parse(await self._client.request("GET", resource.path(""), query=(("limit", "1"),)))
        except (*EXTERNAL, PortError):
            return None
        more = (answer.get("metadata") or {}).get("remainingItemCount", 0)
        return len(answer.get("items") or ()) + (more if isinstance(more, int) else 0)

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        """The last lines, redacted. Never raises."""
        pods = KNOWN[("v1", "Pod")]
        query = f"GET logs of {key.pod}"
        try:
            path = pods.path(namespace, key.pod, "log")
            query, content = await self._newest(path, key, lines)
        except (*EXTERNAL, PortError) as error:
            because, fix = _why_not(error, pods, namespace, role=grants.LOGS_ROLE)
            return LogExcerpt(key, query, self._clock.now(), because=because, fix=fix)
        return self._excerpt(key, query, self._clock.now(), content)

    def watch(self, api_version: str, kind: str) -> AsyncIterator[tuple[str, KubeObject]]:
        """See `Watcher.watch`."""
        return self._watcher.watch(api_version, kind)

    async def _newest(self, path: str, key: LogKey, lines: int) -> tuple[str, bytes]:
        # limitBytes counts from the *oldest* of the last `lines` lines: an answer that fills it has lost the newest, so ask for fewer.
        while True:
            query: list[tuple[str, str]] = [("container", key.container), ("tailLines", str(lines)), ("limitBytes", str(self._log_bytes))]
            if key.previous:
                query.append(("previous", "true"))
            content = await self._client.request("GET", path, query=query)
            if len(content) < self._log_bytes or lines <= 1:
                return f"GET {target_of(path, query)}", content
            lines = max(1, lines // 4)

    def _excerpt(self, key: LogKey, query: str, at: datetime, content: bytes) -> LogExcerpt:
        try:
            redacted = self._redact(content.decode("utf-8", "replace"))
        except Exception as error:  # noqa: BLE001  whatever a redaction rule does wrong, the raw text must not get out
            return LogExcerpt(key, query, at, because=f"failed: the log could not be redacted ({type(error).__name__})")
        lines = (line(text, _LOG_LINE_LIMIT) for text in redacted.split("\n"))
        return LogExcerpt(key, query, at, tuple(text for text in lines if text))


def _why_not(error: Exception, resource: Resource, namespace: str, *, role: str = "") -> tuple[str, str]:
    """(because, fix) for a read that gave nothing."""
    if isinstance(error, ApiException):
        status = status_of(error)
        if status.code == 403:
            return grants.because(status), grants.fix(status, resource, namespace, role=role)
        if status.kind_missing:
            return no_such_kind(resource.api_version, resource.kind), ""
        return f"failed: {readable(status)} ({status.code})", ""
    return f"failed: {port_error(error, 'the request')}", ""
