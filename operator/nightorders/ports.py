"""What the operator needs from outside, as Protocols. Adapters implement them; tests put fakes below them.

Adapters raise `TransientError` (try again later) or `PermanentError` (trying again will not help); nothing else crosses this line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from .api.v1alpha1 import ClusterRemediationPolicy, Incident, IncidentStatus, Ledger, LedgerSpec, RemediationPolicy, Runbook
from .domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked, Vector


class PortError(Exception):
    """Base of everything that an adapter raises."""


class TransientError(PortError):
    """The same call may succeed later: time-out, 429, 5xx, connection refused."""


class PermanentError(PortError):
    """The same call will fail again: refused by admission, invalid, too large."""


class ConflictError(TransientError):
    """The object changed since it was read (409)."""


class NotFoundError(PermanentError):
    """The object is gone (404)."""


class ForbiddenError(PermanentError):
    """RBAC or an admission policy refused (403). `policy` names the admission policy, if one did."""

    def __init__(self, message: str, policy: str = "") -> None:
        super().__init__(message)
        self.policy = policy


class AlreadyExistsError(PermanentError):
    """An object of that name exists (409 on create)."""


@dataclass(frozen=True)
class ObjectKey:
    """Where an object lives. `namespace` is empty for cluster-scoped kinds."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Unreadable:
    """A custom resource that this version cannot parse: it may carry a guardrail that we would not obey."""

    name: str
    namespace: str
    message: str


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> datetime: ...


class ClusterReader(Protocol):
    """Reads. Refusals are answers (`NotLooked`, a Listing with `because`), not exceptions."""

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        """An exact (quorum) read."""
        ...

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        """All objects of a kind in one request, from the API server's cache (resourceVersion=0); namespace None: the whole cluster."""
        ...

    async def count(self, api_version: str, kind: str) -> int | None:
        """How many objects of a kind the whole cluster holds, in one small request; None: cannot tell."""
        ...

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        """The last lines of a container's log, redacted."""
        ...

    def watch(self, api_version: str, kind: str) -> AsyncIterator[tuple[str, KubeObject]]:
        """Events (ADDED | MODIFIED | DELETED | BOOKMARK, object) of a kind in the whole cluster, for ever; restarts by itself, and on 403 backs off."""
        ...


class Incidents(Protocol):
    """Our own Incidents. Every write is conditional on resourceVersion and strict about fields."""

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None: ...

    async def list(self) -> list[Incident | Unreadable]: ...

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Incident:
        """Raises AlreadyExistsError."""
        ...

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        """Replaces the status. Raises ConflictError when the Incident changed since `incident` was read."""
        ...

    async def set_finalizer(self, incident: Incident, present: bool) -> Incident:
        """Adds or removes `nightorders.dev/execution`. Raises ConflictError."""
        ...


class AlertIncidents(Protocol):
    """The Incidents that alerts opened, as whoever takes the alerts in needs them. Every write is conditional on resourceVersion."""

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None: ...

    async def episodes(self, namespace: str, label: str, value: str) -> list[Incident | Unreadable]:
        """Every Incident of that namespace whose label has that value, read exactly."""
        ...

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Incident:
        """Raises AlreadyExistsError; NotFoundError when there is no such namespace; ForbiddenError when it goes away."""
        ...

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        """Raises ConflictError when the Incident changed since `incident` was read."""
        ...


class Policies(Protocol):
    """The night orders, read fresh."""

    async def of(self, namespace: str) -> list[RemediationPolicy | Unreadable]:
        """Raises TransientError when they cannot be read: cannot tell is not "none"."""
        ...

    async def cluster(self) -> list[ClusterRemediationPolicy | Unreadable]: ...

    async def save_status(self, policy: RemediationPolicy | ClusterRemediationPolicy, status: Mapping[str, Any]) -> None: ...


class Runbooks(Protocol):
    """What teams wrote down about their troubles, read fresh."""

    async def of(self, namespace: str) -> list[Runbook | Unreadable]:
        """Raises TransientError when they cannot be read: cannot tell is not "none"."""
        ...

    async def save_status(self, runbook: Runbook, status: Mapping[str, Any]) -> None: ...


class Ledgers(Protocol):
    """The operator's books, changed by compare-and-swap."""

    async def get(self, namespace: str, name: str) -> Ledger | None: ...

    async def save(self, namespace: str, name: str, ledger: Ledger | None, spec: LedgerSpec) -> Ledger:
        """Creates (`ledger` None) or replaces under the resourceVersion of `ledger`. Raises ConflictError, AlreadyExistsError."""
        ...


# Changes a Ledger (namespace, name) by a pure function, asked again on a fresh copy until the write wins.
Book = Callable[[str, str, Callable[[LedgerSpec], LedgerSpec]], Awaitable[None]]


class ActionTarget(Protocol):
    """The one port through which anything outside our own kinds is changed."""

    async def patch(self, key: ObjectKey, patch: Mapping[str, Any], *, dry_run: bool) -> KubeObject:
        """One JSON merge patch; it must carry metadata.uid and metadata.resourceVersion. Strict field validation.

        Raises ConflictError (409), NotFoundError, ForbiddenError, PermanentError (422 and the like), TransientError (outcome unknown).
        """
        ...


@dataclass(frozen=True)
class GuardReport:
    """Whether the admission policies that protect approvals are alive and ours."""

    proven: bool
    message: str
    at: datetime


class ApprovalGuard(Protocol):
    """Proves the approval guard by attacking it."""

    async def prove(self, incident: Incident | None) -> GuardReport:
        """Compares the live admission policies with the shipped ones and tries to forge an approval (dryRun=All), on that Incident if given."""
        ...


@dataclass(frozen=True)
class Sample:
    """The answer to one PromQL query. `value` None means no data; `message` says why."""

    value: float | None
    message: str = ""


class StillFiring(NamedTuple):
    """Whether an alert's rule holds now. `firing` None: nobody can tell; False only if Prometheus evaluated the rule and found nothing.

    `because`: what was asked and what came back, one safe line.
    """

    firing: bool | None
    because: str


class Metrics(Protocol):
    """Prometheus."""

    async def query(self, promql: str, at: datetime, *, namespace: str) -> Sample:
        """One number, of series of that namespace only: a query that asks for others is not sent.

        Never raises: refused, unreachable, empty, NaN or many series are no data, and the message says which.
        """
        ...

    async def vector(self, promql: str, at: datetime, *, namespace: str) -> Vector:
        """Every series of the answer, of that namespace only. Never raises: what could not be asked is not looked (`because`)."""
        ...

    async def alert_state(self, labels: Mapping[str, str], at: datetime, *, pods_of: str = "") -> StillFiring:
        """Whether the rule behind an alert with these labels holds as of `at`, by evaluating the rule's own expression. Never raises.

        `pods_of`: name of a workload; then any of its pods counts, not only the one in `labels`.
        """
        ...


class Announcer(Protocol):
    """Kubernetes Events on an Incident: for people, never for decisions."""

    async def announce(self, incident: Incident, reason: str, message: str, *, warning: bool) -> None:
        """Never raises; a lost Event is counted."""
        ...


class Notifier(Protocol):
    """Messages to humans outside the cluster, over channels that the platform defined (threats.md 22)."""

    def channels(self) -> tuple[str, ...]:
        """Names of the channels that can be used now."""
        ...

    def problem(self, channel: str) -> str:
        """Why this channel cannot be used, and what to do; empty: it can. Never holds an address."""
        ...

    async def send(self, channel: str, title: str, body: str) -> None:
        """One message, plain text; returns when the service took it. Ends within seconds, one at a time per channel.

        Raises TransientError or PermanentError, whose texts never hold the address.
        """
        ...


@dataclass(frozen=True)
class Signed:
    """A signature, in base64, and the key that made it."""

    key_id: str
    signature: str


class Signer(Protocol):
    """The key that vouches for the record."""

    def sign(self, message: bytes) -> Signed | None:
        """None: no usable key is installed."""
        ...

    def fits(self, key_id: str, message: bytes, signature: str) -> bool | None:
        """Whether that key made the signature; None: that key is not at hand."""
        ...
