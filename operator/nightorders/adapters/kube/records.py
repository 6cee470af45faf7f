"""What `nightorders audit` reads, with the user's own rights: Incidents and Ledgers of one namespace or all, and one ConfigMap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ...api.meta import API_VERSION, AUDIT_LEDGER_NAME
from ...api.meta import Resource as Kind
from ...api.v1alpha1 import Incident, Ledger
from ...ports import Unreadable
from ..errors import translated
from .client import KubeClient, parse
from .resources import KNOWN
from .stores import read_as

K = TypeVar("K", bound=Kind)


class Records:
    """Reads only. Namespace empty: all of them. Raises PortError."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def incidents(self, namespace: str) -> list[Incident | Unreadable]:
        """All Incidents there."""
        return await self._list(Incident, namespace)

    async def books(self, namespace: str) -> list[Ledger | Unreadable]:
        """The Ledgers that hold heads of records."""
        return [
            found
            for found in await self._list(Ledger, namespace)
            if (found.name if isinstance(found, Unreadable) else found.metadata.name) == AUDIT_LEDGER_NAME
        ]

    async def configmap(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Its data. Raises NotFoundError."""
        found = await self._get(KNOWN[("v1", "ConfigMap")].path(namespace, name))
        return dict(found.get("data") or {})

    async def _list(self, model: type[K], namespace: str) -> list[K | Unreadable]:
        answer = await self._get(KNOWN[(API_VERSION, model.__name__)].path(namespace))
        return [read_as(model, raw) for raw in answer.get("items") or ()]

    async def _get(self, path: str) -> dict[str, Any]:
        with translated(f"GET {path}"):
            return await parse(await self._client.request("GET", path))
