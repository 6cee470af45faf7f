"""kopf watches our own kinds; every event only puts a key into a queue. No handler decides anything, none keeps state in the object."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from ..api.meta import GROUP, VERSION

Key = tuple[str, str]


class Hearing:
    """Notices a watch that died in silence: what a list shows twice in a row and the watch never delivered."""

    def __init__(self) -> None:
        self._delivered: dict[Key, str] = {}
        self._missed: set[tuple[Key, str]] = set()
        self.deaf = False

    def delivered(self, key: Key, version: str) -> None:
        """The watch brought this version of an Incident."""
        self._delivered[key] = version

    def gone(self, key: Key) -> None:
        """The watch said that it was deleted."""
        self._delivered.pop(key, None)

    def compare(self, listed: Mapping[Key, str]) -> None:
        """A fresh list. One look may be ahead of the watch; the same version missing in two looks means that nobody hears."""
        missed = {(key, version) for key, version in listed.items() if self._delivered.get(key) != version}
        self.deaf = bool(missed & self._missed)
        self._missed = missed


class Subjects:
    """Which open Incidents are about which object, from the watch: a change of the object wakes them."""

    def __init__(self) -> None:
        self._about: dict[Key, Key] = {}

    def note(self, incident: Key, body: Mapping[str, Any], *, gone: bool) -> None:
        """An Incident as the watch brought it. `body` is untrusted: anything that is not as it should be is about nothing."""
        self._about.pop(incident, None)
        target = (body.get("spec") or {}).get("target") or {}
        conditions = (body.get("status") or {}).get("conditions") or ()
        if not gone and not any(c.get("type") == "Closed" and c.get("status") == "True" for c in conditions):
            self._about[incident] = (incident[0], f"{target.get('kind')}/{target.get('name')}")

    def others(self, namespace: str, title: str) -> int:
        """How many open Incidents of that namespace are about anything else than `Kind/name`."""
        return sum(where == namespace and what != title for where, what in self._about.values())

    def about(self, namespace: str, title: str) -> list[Key]:
        """The open Incidents about `Kind/name` in that namespace."""
        return [incident for incident, subject in self._about.items() if subject == (namespace, title)]


def registry(
    incident: Callable[[Key], None],
    orders: Callable[[str], None],
    hearing: Hearing,
    subjects: Subjects,
    is_own_write: Callable[[Key, str], Awaitable[bool]],
    runbooks: Callable[[str], None] = lambda _: None,
) -> kopf.OperatorRegistry:
    """Handlers for Incidents, policies and runbooks."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_via_client(**kwargs)

    @kopf.on.event(GROUP, VERSION, "incidents", registry=made)
    async def on_incident(event: Any, namespace: str | None, name: str | None, meta: Any, body: Any, **_: Any) -> None:
        key = (namespace or "", name or "")
        subjects.note(key, body, gone=event["type"] == "DELETED")
        if event["type"] == "DELETED":
            hearing.gone(key)
        else:
            version = str(meta.get("resourceVersion", ""))
            hearing.delivered(key, version)
            if await is_own_write(key, version):
                return
        incident(key)

    @kopf.on.event(GROUP, VERSION, "remediationpolicies", registry=made)
    async def on_policy(namespace: str | None, **_: Any) -> None:
        orders(namespace or "")

    @kopf.on.event(GROUP, VERSION, "clusterremediationpolicies", registry=made)
    async def on_cluster_policy(**_: Any) -> None:
        orders("")

    @kopf.on.event(GROUP, VERSION, "runbooks", registry=made)
    async def on_runbook(namespace: str | None, **_: Any) -> None:
        runbooks(namespace or "")

    return made


def settings() -> kopf.OperatorSettings:
    """No Events, no progress annotations, no scanning of other kinds, no peering; watches end by themselves and are made again."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.watching.server_timeout = 290
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = 10
    chosen.queueing.worker_limit = 20
    chosen.queueing.idle_timeout = 5
    return chosen


async def watch_own_kinds(made: kopf.OperatorRegistry, stop: asyncio.Event, ready: asyncio.Event) -> None:
    """Runs kopf inside our own event loop until `stop` is set."""
    await kopf.operator(registry=made, settings=settings(), clusterwide=True, standalone=True, stop_flag=stop, ready_flag=ready)
