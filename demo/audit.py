"""Counts what an account changed, from the API server's audit log and not from what anybody says about themselves.

Every request that is not a read is in exactly one class. What is in no class that is known to be harmless counts as a change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

READS = frozenset({"get", "list", "watch"})
_GROUP = "nightorders.dev"
# (group, resource, subresource). A policy is nobody's own: the operator may write its status only.
_OWN = frozenset(
    {
        (_GROUP, "incidents", ""),
        (_GROUP, "incidents", "status"),
        (_GROUP, "ledgers", ""),
        (_GROUP, "remediationpolicies", "status"),
        (_GROUP, "clusterremediationpolicies", "status"),
        (_GROUP, "runbooks", "status"),
        ("", "events", ""),
        ("events.k8s.io", "events", ""),
        ("coordination.k8s.io", "leases", ""),
    }
)
_QUESTIONS = frozenset(
    {
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
    }
)


class Class(Enum):
    """What a request that is not a read means."""

    CHANGE = "a change outside its own resources"
    REFUSED = "a change that the API server refused"
    DRY_RUN = "a dry run: the API server says what would happen, and nothing does"
    OWN = "its own resources (Incidents, Ledgers, status of policies, Leases, Events), with the tests of its approval guard"
    QUESTION = "a question about its own rights; stores nothing"


@dataclass(frozen=True)
class Request:
    """One request that has ended."""

    id: str
    at: str
    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    dry_run: bool

    @property
    def what(self) -> str:
        """`patch deployments/checkout`."""
        name = f"/{self.name}" if self.name else ""
        return f"{self.verb} {self.resource}{name}" + (f" ({self.subresource})" if self.subresource else "")


def parse(line: str) -> Request | None:
    """A line of the log as a request; None for what has not ended. Raises ValueError for what is no audit event."""
    event = json.loads(line)
    if not isinstance(event, dict) or "auditID" not in event:
        raise ValueError(f"no audit event: {line[:120]}")
    if event.get("stage") not in ("ResponseComplete", "Panic"):
        return None
    ref = event.get("objectRef") or {}
    acting = event.get("impersonatedUser") or event.get("user") or {}
    return Request(
        id=event["auditID"],
        at=event.get("requestReceivedTimestamp", ""),
        user=acting.get("username", ""),
        verb=event.get("verb", ""),
        group=ref.get("apiGroup", ""),
        resource=ref.get("resource", ""),
        subresource=ref.get("subresource", ""),
        namespace=ref.get("namespace", ""),
        name=ref.get("name", ""),
        code=int((event.get("responseStatus") or {}).get("code", 0)),
        dry_run="dryRun=" in event.get("requestURI", ""),
    )


def read(path: Path, offset: int = 0) -> Iterator[Request]:
    """The requests in the log from that byte on. A last line that is still being written is left alone."""
    with path.open("rb") as log:
        log.seek(offset)
        for raw in log:
            if not raw.endswith(b"\n"):
                return
            found = parse(raw.decode(errors="replace"))
            if found is not None:
                yield found


def classify(request: Request) -> Class | None:
    """What a request means; None for a read."""
    if request.verb in READS:
        return None
    if (request.group, request.resource, request.subresource) in _OWN:
        return Class.OWN
    if (request.group, request.resource) in _QUESTIONS:
        return Class.QUESTION
    if request.dry_run:
        return Class.DRY_RUN
    return Class.CHANGE if request.code < 300 else Class.REFUSED


@dataclass(frozen=True)
class Tally:
    """What one account did in one namespace (empty: outside of all namespaces)."""

    changes: tuple[Request, ...] = ()
    refused: tuple[Request, ...] = ()
    dry_runs: int = 0
    own: int = 0
    questions: int = 0


def tally(requests: Iterable[Request], user: str) -> dict[str, Tally]:
    """What that account did, by namespace."""
    found: dict[str, dict[Class, list[Request]]] = {}
    seen: set[str] = set()
    for request in requests:
        meaning = classify(request)
        if request.user != user or meaning is None or request.id in seen:
            continue
        seen.add(request.id)
        found.setdefault(request.namespace, {}).setdefault(meaning, []).append(request)
    return {
        namespace: Tally(
            changes=tuple(classes.get(Class.CHANGE, ())),
            refused=tuple(classes.get(Class.REFUSED, ())),
            dry_runs=len(classes.get(Class.DRY_RUN, ())),
            own=len(classes.get(Class.OWN, ())),
            questions=len(classes.get(Class.QUESTION, ())),
        )
        for namespace, classes in found.items()
    }
