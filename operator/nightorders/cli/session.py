"""One command's connection: the user's own credentials and nothing more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from ..adapters.clock import SystemClock
from ..adapters.errors import translated
from ..adapters.kube import IncidentStore, KubeClient, LedgerStore, PolicyStore, Reader, Resources, Watcher
from ..adapters.kube.client import MERGE_PATCH, aio_config, parse
from ..adapters.kube.resources import KNOWN
from ..api.meta import API_VERSION, STOP_CONFIGMAP
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.ledger import Ledger
from ..api.v1alpha1.policy import RemediationPolicy
from ..domain.redaction import redact
from ..ports import Clock, ClusterReader, ForbiddenError, PermanentError, PortError, Unreadable
from .errors import explained, not_installed, usage

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_FIELD_MANAGER = "kubectl-nightorders"
_STRICT = (("fieldValidation", "Strict"), ("fieldManager", _FIELD_MANAGER))
_STOPS = KNOWN[("v1", "ConfigMap")]


@dataclass(frozen=True)
class Where:
    """What the user said about the cluster; None where nothing was said."""

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The same for the commands that we print, so that they reach the same cluster."""
        pairs = (("--kubeconfig", self.kubeconfig), ("--context", self.context))
        return tuple(f"{flag}={value}" for flag, value in pairs if value)


class IncidentSource(Protocol):
    """Reads Incidents; `adapters.kube.IncidentStore` does."""

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None: ...

    async def of(self, namespace: str) -> list[Incident | Unreadable]:
        """Those of one namespace, which is all that most people may list."""
        ...


class PolicySource(Protocol):
    """Reads orders; `adapters.kube.PolicyStore` does."""

    async def of(self, namespace: str) -> list[RemediationPolicy | Unreadable]: ...

    async def cluster(self) -> list[ClusterRemediationPolicy | Unreadable]: ...


class LedgerSource(Protocol):
    """Reads Ledgers; `adapters.kube.LedgerStore` does."""

    async def get(self, namespace: str, name: str) -> Ledger | None: ...


class Discovery(Protocol):
    """What the API server serves."""

    async def installed(self) -> bool:
        """Whether nightorders' kinds are there. True where nothing can tell."""
        ...


class Person(Protocol):
    """What needs to know who the user is."""

    async def username(self) -> str:
        """As the API server knows it."""
        ...

    async def annotate(self, incident: Incident, annotations: Mapping[str, str | None]) -> None:
        """Sets these annotations on that very Incident, in one request; None removes one."""
        ...

    async def suspend(self, incident: Incident, suspended: bool) -> None:
        """Sets `spec.suspend` of that very Incident."""
        ...

    async def stop(self, namespace: str, data: Mapping[str, str]) -> None:
        """Creates the ConfigMap that is the stop. Raises AlreadyExistsError."""
        ...

    async def change_stop(self, namespace: str, data: Mapping[str, str]) -> None:
        """Changes what the stop says."""
        ...

    async def resume(self, namespace: str) -> None:
        """Deletes it. Raises NotFoundError."""
        ...


@dataclass(frozen=True)
class Session:
    """Everything a command reads and writes through."""

    clock: Clock
    reader: ClusterReader
    incidents: IncidentSource
    policies: PolicySource
    ledgers: LedgerSource
    person: Person
    discovery: Discovery
    namespace: str
    flags: Sequence[str] = ()


class _Incidents(IncidentStore):
    """Implements `IncidentSource`."""

    async def of(self, namespace: str) -> list[Incident | Unreadable]:
        return await self._list(Incident, namespace)


class KubeDiscovery:
    """Implements `Discovery`. Everybody who is logged in may ask; a kind's own path answers 403 before 404 to whoever has no right."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def installed(self) -> bool:
        try:
            with translated("discovery"):
                await self._client.request("GET", f"/apis/{API_VERSION}")
        except PortError as error:
            return "(404)" not in str(error)
        return True


class KubePerson:
    """Implements `Person`: every request is the user's own, and admission decides."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def username(self) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        with translated("asking who you are"):
            answer = await parse(await self._client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review))
        name = ((answer.get("status") or {}).get("userInfo") or {}).get("username")
        if not isinstance(name, str) or not name:
            raise PermanentError("the API server does not say who you are")
        return name

    async def annotate(self, incident: Incident, annotations: Mapping[str, str | None]) -> None:
        await self._patch(incident, {"metadata": {"annotations": dict(annotations)}})

    async def suspend(self, incident: Incident, suspended: bool) -> None:
        await self._patch(incident, {"spec": {"suspend": suspended}})

    async def _patch(self, incident: Incident, body: dict[str, Any]) -> None:
        path = KNOWN[(API_VERSION, "Incident")].path(incident.metadata.namespace, incident.metadata.name)
        # The uid is the fence: an Incident deleted and made anew under this name answers 409. What is agreed to is in the digest.
        body = {**body, "metadata": {**body.get("metadata", {}), "uid": incident.metadata.uid}}
        with translated(f"PATCH {path}", write="update"):
            await self._client.request("PATCH", path, query=_STRICT, body=body, content_type=MERGE_PATCH)

    async def stop(self, namespace: str, data: Mapping[str, str]) -> None:
        path = _STOPS.path(namespace)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": STOP_CONFIGMAP}, "data": dict(data)}
        with translated(f"POST {path}", write="create"):
            await self._client.request("POST", path, query=_STRICT, body=body)

    async def change_stop(self, namespace: str, data: Mapping[str, str]) -> None:
        path = _STOPS.path(namespace, STOP_CONFIGMAP)
        with translated(f"PATCH {path}", write="update"):
            await self._client.request("PATCH", path, query=_STRICT, body={"data": dict(data)}, content_type=MERGE_PATCH)

    async def resume(self, namespace: str) -> None:
        path = _STOPS.path(namespace, STOP_CONFIGMAP)
        with translated(f"DELETE {path}", write="update"):
            await self._client.request("DELETE", path)


@asynccontextmanager
async def connect(where: Where) -> AsyncIterator[Session]:
    """A session that is closed at the end. Raises CommandError where there is nothing to connect to."""
    try:
        client = await KubeClient.connect(kubeconfig=where.kubeconfig, context=where.context)
    except (PortError, yaml.YAMLError) as error:
        raise usage(
            f"{error}. Name a kubeconfig with --kubeconfig FILE or KUBECONFIG, a context with --context NAME; "
            "to see what there is: kubectl config get-contexts"
        ) from None
    async with client:
        resources, clock = Resources(client), SystemClock()
        yield Session(
            clock=clock,
            reader=Reader(client, resources, clock, redact=redact, watcher=Watcher(client, resources)),
            incidents=_Incidents(client),
            policies=PolicyStore(client),
            ledgers=LedgerStore(client),
            person=KubePerson(client),
            discovery=KubeDiscovery(client),
            namespace=where.namespace or _default_namespace(where),
            flags=where.flags,
        )


def _default_namespace(where: Where) -> str:
    """The context's namespace, as kubectl takes it; inside a pod the pod's own."""
    try:
        contexts, active = aio_config.list_kube_config_contexts(config_file=_kubeconfig(where))
    except Exception:  # noqa: BLE001  the library raises whatever a missing file makes it stumble over; connecting worked, so we are in a pod
        return _OWN_NAMESPACE.read_text().strip() if _OWN_NAMESPACE.exists() else "default"
    chosen = next((c for c in contexts if c.get("name") == where.context), None) if where.context else active
    namespace = ((chosen or {}).get("context") or {}).get("namespace")
    return namespace if isinstance(namespace, str) and namespace else "default"


def _kubeconfig(where: Where) -> str:
    return where.kubeconfig or os.environ.get("KUBECONFIG") or str(aio_config.KUBE_CONFIG_DEFAULT_LOCATION)


async def incident(session: Session, name: str) -> Incident:
    """The Incident of that name. Raises CommandError, naming what to do."""
    doing = f"read Incident {name}"
    try:
        found = await session.incidents.get(session.namespace, name)
    except PortError as error:
        if isinstance(error, ForbiddenError) and not await session.discovery.installed():
            raise not_installed(doing) from None
        raise explained(error, doing) from None
    if found is None:
        raise usage(f"there is no Incident {name} in namespace {session.namespace}; to see those that are: kubectl get incidents -A")
    if isinstance(found, Unreadable):
        raise usage(f"this version of nightorders cannot read Incident {name} ({found.message}); use the version that the operator has")
    return found
