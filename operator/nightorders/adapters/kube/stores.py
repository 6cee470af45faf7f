"""Our own kinds: every write is conditional on resourceVersion and strict about fields."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from ...api.meta import API_VERSION, FINALIZER, line
from ...api.meta import Resource as Kind
from ...api.v1alpha1 import ClusterRemediationPolicy, Incident, IncidentStatus, Ledger, LedgerSpec, RemediationPolicy, Runbook
from ...domain.mergepatch import replace_patch
from ...ports import NotFoundError, PermanentError, Unreadable
from ..errors import Write, translated
from .client import JSON_TYPE, MERGE_PATCH, STRICT, KubeClient, Query, parse
from .resources import KNOWN

K = TypeVar("K", bound=Kind)

_PARSE_APART = 50


def read_as(model: type[K], raw: Mapping[str, Any]) -> K | Unreadable:
    """The typed object, or what this version does not understand about it. Never shows a value, only where it stands."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        metadata = raw.get("metadata") or {}
        first, *more = error.errors(include_input=False, include_url=False, include_context=False)
        where = ".".join(str(step) for step in first["loc"])
        message = f"{where}: {first['msg']}" + (f" (and {len(more)} more)" if more else "")
        return Unreadable(str(metadata.get("name", "")), str(metadata.get("namespace", "")), line(message, 512))


class _Store:
    """Requests for our own kinds, with port errors."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON_TYPE,
        write: Write = "",
    ) -> dict[str, Any]:
        with translated(f"{method} {path}", write=write):
            return await parse(await self._client.request(method, path, query=query, body=body, content_type=content_type))

    async def _get(self, model: type[K], namespace: str, name: str) -> K | Unreadable | None:
        try:
            return read_as(model, await self._call("GET", _path(model, namespace, name)))
        except NotFoundError:
            return None

    async def _list(self, model: type[K], namespace: str = "") -> list[K | Unreadable]:
        """An exact list: no resourceVersion, so that not even the API server's cache is asked for something old."""
        answer = await self._call("GET", _path(model, namespace))
        items: Sequence[Mapping[str, Any]] = answer.get("items") or ()
        if len(items) < _PARSE_APART:
            return [read_as(model, raw) for raw in items]
        return await asyncio.to_thread(lambda: [read_as(model, raw) for raw in items])

    async def _patch(self, model: type[K], path: str, before: Kind, body: Mapping[str, Any]) -> K:
        metadata = {**body.get("metadata", {}), **_precondition(before)}
        raw = await self._call("PATCH", path, query=STRICT, body={**body, "metadata": metadata}, content_type=MERGE_PATCH, write="update")
        return _written(model, raw)


class IncidentStore(_Store):
    """Implements `Incidents`."""

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None:
        return await self._get(Incident, namespace, name)

    async def list(self) -> list[Incident | Unreadable]:
        return await self._list(Incident)

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Incident:
        raw = await self._call("POST", _path(Incident, namespace), query=STRICT, body=manifest, write="create")
        return _written(Incident, raw)

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        # PUT and not PATCH: fields that are gone from `status` must go, and of the rest of the body /status takes nothing.
        body = {
            "apiVersion": API_VERSION,
            "kind": "Incident",
            "metadata": {"name": incident.metadata.name, "namespace": incident.metadata.namespace, **_precondition(incident)},
            "spec": incident.spec.wire(),
            "status": status.wire(),
        }
        path = _path(Incident, incident.metadata.namespace, incident.metadata.name, "status")
        return _written(Incident, await self._call("PUT", path, query=STRICT, body=body, write="update"))

    async def set_finalizer(self, incident: Incident, present: bool) -> Incident:
        others = [f for f in incident.metadata.finalizers if f != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        if sorted(wanted) == sorted(incident.metadata.finalizers):
            return incident
        path = _path(Incident, incident.metadata.namespace, incident.metadata.name)
        return await self._patch(Incident, path, incident, {"metadata": {"finalizers": wanted}})


class PolicyStore(_Store):
    """Implements `Policies`."""

    async def of(self, namespace: str) -> list[RemediationPolicy | Unreadable]:
        if not namespace:  # would ask for every namespace's
            raise PermanentError("policies of which namespace?")
        return await self._list(RemediationPolicy, namespace)

    async def cluster(self) -> list[ClusterRemediationPolicy | Unreadable]:
        return await self._list(ClusterRemediationPolicy)

    async def save_status(self, policy: RemediationPolicy | ClusterRemediationPolicy, status: Mapping[str, Any]) -> None:
        # A patch, because the role has no more; under resourceVersion, so what was read is what gets replaced.
        patch = replace_patch(policy.status.wire(), status)
        if patch:
            path = _path(type(policy), policy.metadata.namespace, policy.metadata.name, "status")
            await self._patch(type(policy), path, policy, {"status": patch})


class RunbookStore(_Store):
    """Implements `Runbooks`."""

    async def of(self, namespace: str) -> list[Runbook | Unreadable]:
        if not namespace:  # would ask for every namespace's
            raise PermanentError("runbooks of which namespace?")
        return await self._list(Runbook, namespace)

    async def save_status(self, runbook: Runbook, status: Mapping[str, Any]) -> None:
        # As with policies: a patch, under the version that was read.
        if patch := replace_patch(runbook.status.wire(), status):
            path = _path(Runbook, runbook.metadata.namespace, runbook.metadata.name, "status")
            await self._patch(Runbook, path, runbook, {"status": patch})


class LedgerStore(_Store):
    """Implements `Ledgers`."""

    async def get(self, namespace: str, name: str) -> Ledger | None:
        """Raises PermanentError for a Ledger that this version cannot read: that is not "no Ledger"."""
        found = await self._get(Ledger, namespace, name)
        if isinstance(found, Unreadable):
            raise PermanentError(f"Ledger {namespace}/{name} cannot be read by this version: {found.message}")
        return found

    async def save(self, namespace: str, name: str, ledger: Ledger | None, spec: LedgerSpec) -> Ledger:
        if ledger is None:
            body = {"apiVersion": API_VERSION, "kind": "Ledger", "metadata": {"name": name, "namespace": namespace}, "spec": spec.wire()}
            return _written(Ledger, await self._call("POST", _path(Ledger, namespace), query=STRICT, body=body, write="create"))
        # A patch, because PUT would drop labels and owners that others put into metadata; lists are replaced whole.
        return await self._patch(Ledger, _path(Ledger, namespace, name), ledger, {"spec": replace_patch(ledger.spec.wire(), spec.wire())})


def _path(model: type[Kind], namespace: str = "", name: str = "", sub: str = "") -> str:
    return KNOWN[(API_VERSION, model.__name__)].path(namespace, name, sub)


def _precondition(before: Kind) -> dict[str, str]:
    """Without these the write would win over whoever was faster."""
    if not before.metadata.resource_version or not before.metadata.uid:
        raise PermanentError(f"{before.kind}/{before.metadata.name} was not read from the API server: no resourceVersion")
    return {"resourceVersion": before.metadata.resource_version, "uid": before.metadata.uid}


def _written(model: type[K], raw: Mapping[str, Any]) -> K:
    result = read_as(model, raw)
    if isinstance(result, Unreadable):
        raise PermanentError(f"{model.__name__}/{result.name} was written, and cannot be read by this version: {result.message}")
    return result
