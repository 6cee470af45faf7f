"""List and watch, for ever: of a kind in the whole cluster, through cuts, stalls, expired versions and missing rights.

`kubernetes.aio.watch` is not used: it deserialises, asks for no bookmarks, does not list again and has no clock of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from ...domain.snapshot import KubeObject
from ...ports import PermanentError, PortError
from ..errors import EXTERNAL, port_error, status_of
from . import grants
from .client import KubeClient, Query, next_chunk, parse, parse_now
from .resources import Resource, Resources, Unserved

# Stands on the BOOKMARK that follows a list, as Kubernetes itself marks it with sendInitialEvents.
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
# Times in managedFields date the changes of ConfigMaps and workloads; on these kinds they are half of the bytes and of no use.
DROP_MANAGED_FIELDS = frozenset({"Pod", "Event", "EndpointSlice"})

_LARGEST_LINE = 16 * 1024 * 1024
_SHORT_WATCH = 1.0
_HOPELESS = 5

OnState = Callable[[str, bool, str], None]
Event = tuple[str, KubeObject]


@dataclass(frozen=True)
class Patience:
    """Times in seconds. The API server sends a bookmark about once a minute, and closes a watch after `server_timeout`."""

    stall_after: float = 150.0
    server_timeout: int = 290
    backoff: tuple[float, float] = (0.5, 30.0)
    forbidden_backoff: tuple[float, float] = (5.0, 60.0)


class _ExpiredError(Exception):
    """410: the version that we know is compacted away; list again."""


@dataclass
class _Progress:
    """How far one watch has come. `seen`: uid → what a DELETED needs, for objects that vanish while nobody watches."""

    resource: Resource
    version: str = ""
    expired: bool = False
    failures: int = 0
    state: tuple[bool, str] | None = None
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)


def _nobody(kind: str, healthy: bool, message: str) -> None:
    """An `on_state` for those who do not care."""


class Watcher:
    """All watches of one process.

    `on_state(kind, healthy, message)` is called when a kind's watch begins or ceases to work, and when the reason changes.
    `last_heard`: (apiVersion, kind) → `time.monotonic()` of the last answer (a refusal too), event or bookmark; for liveness.
    """

    def __init__(self, client: KubeClient, resources: Resources, *, on_state: OnState = _nobody, patience: Patience = Patience()) -> None:
        self._client = client
        self._resources = resources
        self._on_state = on_state
        self._patience = patience
        self.last_heard: dict[tuple[str, str], float] = {}

    def silence(self) -> Mapping[tuple[str, str], float]:
        """(apiVersion, kind) → seconds since its watch was last heard."""
        now = time.monotonic()
        return {key: now - at for key, at in self.last_heard.items()}

    async def watch(self, api_version: str, kind: str) -> AsyncGenerator[Event, None]:
        """Events of a kind, for ever. Starts with ADDED for everything that is there and a BOOKMARK annotated INITIAL_EVENTS_END.

        After an expired version all of that comes again, with DELETED for what vanished in between: so an ADDED may be old news.
        """
        progress = _Progress(Resource(api_version, kind, ""))
        while True:
            try:
                async with aclosing(self._once(progress)) as events:
                    async for event in events:
                        yield event
            except _ExpiredError:
                progress.version, progress.expired = "", True
                progress.failures += 1
                if progress.failures > 1:
                    await asyncio.sleep(_delay(self._patience.backoff, progress.failures - 1))
            except (*EXTERNAL, PortError) as error:
                progress.failures += 1
                await asyncio.sleep(self._failed(progress, error))

    async def _once(self, progress: _Progress) -> AsyncGenerator[Event, None]:
        """One list, if the version is not known, and one watch until the server ends it."""
        resource = progress.resource
        if not resource.plural:
            found = await self._resources.find(resource.api_version, resource.kind)
            if isinstance(found, Unserved):
                raise PermanentError(found.because)
            progress.resource = resource = found
        if not progress.version:
            for event in await self._list(progress):
                yield event
        began = time.monotonic()
        heard_any = False
        response = await self._client.stream(resource.path(), self._watch_query(progress))
        try:
            self._heard(resource)
            self._report(progress, True, "")
            async for raw in self._lines(resource, response):
                heard_any = True
                yield self._event(progress, raw)
        finally:
            response.close()
        if not heard_any and time.monotonic() - began < _SHORT_WATCH:
            raise ConnectionError("the watch was closed at once")

    async def _list(self, progress: _Progress) -> list[Event]:
        resource = progress.resource
        # After a 410 the cache of another API server may be older than what we saw: only an exact list does not go back in time.
        query: Query = () if progress.expired else (("resourceVersion", "0"),)
        content = await self._client.request("GET", resource.path(), query=query)
        self._heard(resource)
        answer = await parse(content, drop_managed_fields=resource.kind in DROP_MANAGED_FIELDS)
        objects = [self._object(resource, raw) for raw in answer.get("items") or ()]
        now = {o.uid: _tombstone(resource, o.raw) for o in objects}
        gone = [("DELETED", self._object(resource, raw)) for uid, raw in progress.seen.items() if uid not in now]
        progress.seen = now
        progress.version = str((answer.get("metadata") or {}).get("resourceVersion") or "")
        if not progress.version:
            raise ValueError("a list without a resourceVersion")
        end = {"metadata": {"resourceVersion": progress.version, "annotations": {INITIAL_EVENTS_END: "true"}}}
        return [*gone, *(("ADDED", o) for o in objects), ("BOOKMARK", self._object(resource, end))]

    def _watch_query(self, progress: _Progress) -> Query:
        return (
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", progress.version),
            ("timeoutSeconds", str(self._patience.server_timeout)),
        )

    async def _lines(self, resource: Resource, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Whole lines. Raises ConnectionError on a stall, and on an end in the middle of a line."""
        parts: list[bytes] = []
        while True:
            try:
                async with asyncio.timeout(self._patience.stall_after):
                    chunk = await next_chunk(response)
            except TimeoutError:
                raise ConnectionError(f"no event and no bookmark for {self._patience.stall_after:g} s") from None
            if not chunk:
                break
            self._heard(resource)
            first, *rest = chunk.split(b"\n")
            parts.append(first)
            for piece in rest:
                if whole := b"".join(parts).strip():
                    yield whole
                parts = [piece]
            if sum(map(len, parts)) > _LARGEST_LINE:
                raise ConnectionError("an event without an end")
        if b"".join(parts).strip():
            raise ConnectionError("cut in the middle of an event")

    def _event(self, progress: _Progress, raw: bytes) -> Event:
        parsed = parse_now(raw, progress.resource.kind in DROP_MANAGED_FIELDS)
        kind, body = str(parsed.get("type")), parsed.get("object")
        if not isinstance(body, dict):
            raise ValueError("an event without an object")
        if kind == "ERROR":
            if body.get("code") == 410:
                raise _ExpiredError
            raise ApiException(status=int(body.get("code") or 500), body=json.dumps(body))
        seen = self._object(progress.resource, body)
        progress.failures = 0
        progress.version = seen.resource_version or progress.version
        if kind == "DELETED":
            progress.seen.pop(seen.uid, None)
        elif kind in ("ADDED", "MODIFIED"):
            progress.seen[seen.uid] = _tombstone(progress.resource, body)
        return kind, seen

    def _failed(self, progress: _Progress, error: Exception) -> float:
        """Reports the failure; how long to wait."""
        if progress.failures >= _HOPELESS and not isinstance(error, (OSError, aiohttp.ClientError)):
            progress.version, progress.expired = "", True  # something at this version cannot be read: begin anew behind it
        if not isinstance(error, ApiException):
            self._report(progress, False, f"failed: {port_error(error, 'watch')}")
            return _delay(self._patience.backoff, progress.failures)
        self._heard(progress.resource)
        status = status_of(error)
        if status.code == 410:
            progress.version, progress.expired = "", True
            return 0.0 if progress.failures == 1 else _delay(self._patience.backoff, progress.failures - 1)
        if status.code == 403:
            fix = grants.fix(status, progress.resource, "")
            self._report(progress, False, grants.because(status) + (f". To grant it: {fix}" if fix else ""))
            return _delay(self._patience.forbidden_backoff, progress.failures)
        if status.kind_missing:  # its CRD may be gone, and come back under another plural
            progress.resource = Resource(progress.resource.api_version, progress.resource.kind, "")
            self._report(progress, False, "no such kind on this cluster")
            return _delay(self._patience.forbidden_backoff, progress.failures)
        self._report(progress, False, f"failed: {port_error(error, 'watch')}")
        return max(_delay(self._patience.backoff, progress.failures), _retry_after(error))

    def _report(self, progress: _Progress, healthy: bool, message: str) -> None:
        if progress.state != (healthy, message):
            progress.state = (healthy, message)
            self._on_state(progress.resource.kind, healthy, message)

    def _heard(self, resource: Resource) -> None:
        self.last_heard[(resource.api_version, resource.kind)] = time.monotonic()

    @staticmethod
    def _object(resource: Resource, raw: Mapping[str, Any]) -> KubeObject:
        return KubeObject(raw, resource.kind, resource.api_version)


def _tombstone(resource: Resource, raw: Mapping[str, Any]) -> dict[str, Any]:
    metadata = raw.get("metadata") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {key: metadata[key] for key in kept if key in metadata},
    }


def _delay(bounds: tuple[float, float], failures: int) -> float:
    least, most = bounds
    return float(min(most, least * 2.0 ** min(failures - 1, 16)) * random.uniform(0.75, 1.25))  # noqa: S311  spreads load, hides nothing


def _retry_after(error: ApiException) -> float:
    try:
        return min(60.0, float((error.headers or {}).get("Retry-After", 0)))
    except (TypeError, ValueError):
        return 0.0
