"""The one port through which anything outside our own kinds is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...domain.snapshot import KubeObject
from ...ports import ObjectKey, PermanentError, TransientError
from ..errors import translated
from .client import MERGE_PATCH, STRICT, KubeClient, parse
from .resources import Resources, Unserved


class Target:
    """Implements `ActionTarget`."""

    def __init__(self, client: KubeClient, resources: Resources) -> None:
        self._client = client
        self._resources = resources

    async def patch(self, key: ObjectKey, patch: Mapping[str, Any], *, dry_run: bool) -> KubeObject:
        """See `ActionTarget.patch`. A TransientError's message says when the outcome is unknown."""
        metadata = patch.get("metadata")
        fence = metadata if isinstance(metadata, Mapping) else {}
        missing = [f"metadata.{name}" for name in ("uid", "resourceVersion") if not (isinstance(fence.get(name), str) and fence[name])]
        if missing:
            raise PermanentError(f"refused here: a patch without {' and '.join(missing)} could hit another object than the one judged")
        resource = await self._resources.find(key.api_version, key.kind)
        if isinstance(resource, Unserved):
            raise (TransientError if resource.because.startswith("failed") else PermanentError)(resource.because)
        if resource.namespaced != bool(key.namespace):
            raise PermanentError(f"{key.kind} {'needs a' if resource.namespaced else 'has no'} namespace")
        path = resource.path(key.namespace, key.name)
        query = (*STRICT, ("dryRun", "All")) if dry_run else STRICT
        with translated(f"PATCH {path}{' (dry run)' if dry_run else ''}", write="update"):
            content = await self._client.request("PATCH", path, query=query, body=patch, content_type=MERGE_PATCH)
            return KubeObject(await parse(content), key.kind, key.api_version)
