"""Kubernetes Events on an Incident: for people, never for decisions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ...api.meta import API_VERSION, line
from ...api.v1alpha1 import Incident
from ...ports import AlreadyExistsError, Clock
from ..errors import translated
from .client import MERGE_PATCH, STRICT, KubeClient
from .resources import KNOWN

COMPONENT = "nightorders"


class EventAnnouncer:
    """Implements `Announcer`. `on_lost(why)` is called for every Event that could not be written.

    The same Incident, reason and message make the same Event, so a pass that runs again after a crash does not say things twice.
    """

    def __init__(self, client: KubeClient, clock: Clock, *, instance: str = "", on_lost: Callable[[str], None] = lambda _: None) -> None:
        self._client = client
        self._clock = clock
        self._instance = instance or COMPONENT
        self._on_lost = on_lost

    async def announce(self, incident: Incident, reason: str, message: str, *, warning: bool) -> None:
        try:
            await self._announce(incident, reason, message, warning)
        except Exception as error:  # noqa: BLE001  an Event is never worth an execution
            self._on_lost(line(f"{type(error).__name__}: {error}", 256))

    async def _announce(self, incident: Incident, reason: str, message: str, warning: bool) -> None:
        events = KNOWN[("v1", "Event")]
        namespace = incident.metadata.namespace
        now = _seconds(self._clock.now())
        event = self._event(incident, line(reason, 128), line(message, 1024), warning, now)
        path = events.path(namespace)
        try:
            with translated(f"POST {path}", write="create"):
                await self._client.request("POST", path, query=STRICT, body=event)
        except AlreadyExistsError:
            path = events.path(namespace, event["metadata"]["name"])
            with translated(f"PATCH {path}", write="update"):
                await self._client.request("PATCH", path, query=STRICT, body={"lastTimestamp": now}, content_type=MERGE_PATCH)

    def _event(self, incident: Incident, reason: str, message: str, warning: bool, now: str) -> dict[str, Any]:
        about = incident.metadata
        same = hashlib.sha256(f"{about.uid}\n{reason}\n{message}".encode()).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about.name[:200].rstrip('.-')}.{same}", "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "Incident",
                "name": about.name,
                "namespace": about.namespace,
                "uid": about.uid,
                "resourceVersion": about.resource_version,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


class LaterAnnouncer:
    """Implements `Announcer`: puts Events into a queue, so that no pass waits for one. Their order is kept.

    `run` writes them, for ever; `flush` writes what is left when it is over. More than `limit` waiting ones are lost, and counted.
    """

    def __init__(self, inner: EventAnnouncer, *, on_lost: Callable[[str], None] = lambda _: None, limit: int = 1024) -> None:
        self._inner = inner
        self._on_lost = on_lost
        self._waiting: asyncio.Queue[tuple[Incident, str, str, bool]] = asyncio.Queue(limit)

    async def announce(self, incident: Incident, reason: str, message: str, *, warning: bool) -> None:
        try:
            self._waiting.put_nowait((incident, reason, message, warning))
        except asyncio.QueueFull:
            self._on_lost("too many Events are waiting to be written")

    async def run(self) -> None:
        """Writes one after the other."""
        while True:
            await self._write(await self._waiting.get())

    async def flush(self) -> None:
        """Writes what is waiting now."""
        while not self._waiting.empty():
            await self._write(self._waiting.get_nowait())

    async def _write(self, item: tuple[Incident, str, str, bool]) -> None:
        incident, reason, message, warning = item
        await self._inner.announce(incident, reason, message, warning=warning)


def _seconds(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
