"""(apiVersion, kind) → how the API server serves it. Known kinds cost no request; others are discovered once and remembered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubernetes.aio.client.exceptions import ApiException

from ...api.crdgen import KINDS
from ...api.meta import API_VERSION
from ...ports import PortError
from ..errors import EXTERNAL, port_error, status_of
from .client import KubeClient, parse, segment

READER_ROLE = "nightorders-reader"
BASE_ROLE = "nightorders"


@dataclass(frozen=True)
class Resource:
    """One kind as it is served. `role`: the shipped ClusterRole that grants reading it, if one does."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    role: str = ""

    @property
    def qualified(self) -> str:
        """As RBAC and `kubectl` name it: `pods`, `deployments.apps`."""
        group, _, version = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if group and version else self.plural

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """The URL path of the collection, the object or its subresource. Raises PermanentError for impossible names."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [root]
        if namespace and self.namespaced:
            parts += ["namespaces", segment(namespace)]
        parts.append(self.plural)
        if name:
            parts.append(segment(name))
        if sub:
            parts.append(sub)
        return "/".join(parts)


def _known() -> dict[tuple[str, str], Resource]:
    readable = {
        "v1": (
            "ConfigMap Event LimitRange PersistentVolumeClaim Pod ResourceQuota Service ServiceAccount Namespace! Node! PersistentVolume!"
        ),
        "events.k8s.io/v1": "Event",
        "apps/v1": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
        "batch/v1": "CronJob Job",
        "autoscaling/v2": "HorizontalPodAutoscaler",
        "policy/v1": "PodDisruptionBudget",
        "networking.k8s.io/v1": "Ingress NetworkPolicy IngressClass!",
        "discovery.k8s.io/v1": "EndpointSlice",
        "storage.k8s.io/v1": "StorageClass!",
        "scheduling.k8s.io/v1": "PriorityClass!",
        "node.k8s.io/v1": "RuntimeClass!",
        "rbac.authorization.k8s.io/v1": "Role RoleBinding ClusterRole! ClusterRoleBinding!",
        "admissionregistration.k8s.io/v1": "ValidatingWebhookConfiguration! MutatingWebhookConfiguration!",
        "apiregistration.k8s.io/v1": "APIService!",
        "coordination.k8s.io/v1": "Lease",
    }
    own = {
        "apiextensions.k8s.io/v1": "CustomResourceDefinition!",
        "admissionregistration.k8s.io/v1": "ValidatingAdmissionPolicy! ValidatingAdmissionPolicyBinding!",
    }
    found = [
        Resource(version, word.rstrip("!"), _plural(word.rstrip("!")), not word.endswith("!"), role)
        for table, role in ((readable, READER_ROLE), (own, BASE_ROLE))
        for version, words in table.items()
        for word in words.split()
    ]
    found += [Resource(API_VERSION, k.__name__, k.served.plural, k.served.namespaced, BASE_ROLE) for k in KINDS]
    return {(r.api_version, r.kind): r for r in found}


def _plural(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith("y"):
        return lower[:-1] + "ies"
    return lower + ("es" if lower.endswith("s") else "s")


KNOWN: Mapping[tuple[str, str], Resource] = _known()


@dataclass(frozen=True)
class Unserved:
    """Why a kind cannot be reached."""

    because: str


@dataclass
class Resources:
    """Cached discovery for one cluster. An unknown kind is asked for again after `retry_seconds`: its CRD may come later."""

    client: KubeClient
    retry_seconds: float = 60.0
    _found: dict[str, tuple[float, dict[str, Resource]]] = field(default_factory=dict)

    async def find(self, api_version: str, kind: str) -> Resource | Unserved:
        """How the kind is served. Never raises."""
        if known := KNOWN.get((api_version, kind)):
            return known
        read_at, kinds = self._found.get(api_version, (float("-inf"), {}))
        if kind not in kinds and time.monotonic() - read_at >= self.retry_seconds:
            discovered = await self._discover(api_version)
            if isinstance(discovered, Unserved):
                return discovered
            kinds = discovered
            self._found[api_version] = (time.monotonic(), kinds)
        return kinds.get(kind) or Unserved(no_such_kind(api_version, kind))

    async def _discover(self, api_version: str) -> dict[str, Resource] | Unserved:
        try:
            path = "/".join(["", "apis" if "/" in api_version else "api", *(segment(part) for part in api_version.split("/"))])
            answer = await parse(await self.client.request("GET", path))
        except (*EXTERNAL, PortError) as error:
            if isinstance(error, ApiException) and status_of(error).code == 404:
                return {}
            return Unserved(f"failed: {port_error(error, 'discovery')}")
        return {
            str(r["kind"]): Resource(api_version, str(r["kind"]), str(r["name"]), bool(r.get("namespaced")))
            for r in answer.get("resources") or []
            if "/" not in str(r.get("name", "/")) and "list" in (r.get("verbs") or [])
        }


def no_such_kind(api_version: str, kind: str) -> str:
    return f"no such kind on this cluster: {kind} in {api_version}"
