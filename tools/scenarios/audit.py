"""What the operator really changed, from the API server's audit log: never from its own report."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
OPERATOR_ACCOUNTS = "system:serviceaccount:nightorders-system:"
_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# Reach into a pod or past the API server with any verb: a GET opens an exec as well.
_CONNECTING = frozenset({"exec", "attach", "portforward", "proxy"})
# Exempt by name: its own kinds, Events, Leases, and questions that store nothing.
_OWN_GROUP = "nightorders.dev"
_EXEMPT = frozenset(
    {
        ("", "events"),
        ("events.k8s.io", "events"),
        ("coordination.k8s.io", "leases"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
    }
)


@dataclass(frozen=True)
class Mutation:
    """One request of the operator that changes, or would have changed, something."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str  # empty: a whole collection
    code: int
    user: str
    at: str  # RFC 3339
    owners: tuple[str, ...] = field(default=(), compare=False)  # Kind/name of the object's controller, where the answer shows it

    @property
    def succeeded(self) -> bool:
        """Whether something changed (or a connection into a pod was opened)."""
        return 200 <= self.code < 300 or self.code == 101

    @property
    def when(self) -> float:
        """Seconds since the epoch."""
        return datetime.datetime.fromisoformat(self.at).timestamp() if self.at else 0.0

    @property
    def refused(self) -> bool:
        """Whether authorization or admission said no."""
        return self.code == 403

    def __str__(self) -> str:
        what = f"{self.resource}{'.' + self.group if self.group else ''}{'/' + self.subresource if self.subresource else ''}"
        return f"{self.verb} {what} {self.namespace + '/' if self.namespace else ''}{self.name or '(collection)'} by {self.user}"


def mutation(event: Json) -> Mutation | None:
    """The mutation that an audit event shows, if it is one that counts: by the operator, no dry run, not exempt."""
    if event.get("stage") not in (None, "ResponseComplete", "ResponseStarted", "Panic"):
        return None
    users = [event.get("user", {}).get("username", ""), (event.get("impersonatedUser") or {}).get("username", "")]
    user = next((u for u in users if u.startswith(OPERATOR_ACCOUNTS)), None)
    ref = event.get("objectRef") or {}
    verb, subresource = event.get("verb", ""), ref.get("subresource", "")
    if user is None or (verb not in _MUTATING and subresource not in _CONNECTING) or _dry_run(event):
        return None
    group, resource = ref.get("apiGroup", ""), ref.get("resource", "")
    if group == _OWN_GROUP or (group, resource) in _EXEMPT or not resource:
        return None
    answer = event.get("responseObject") or {}
    meta = answer.get("metadata") or {} if isinstance(answer, dict) else {}
    return Mutation(
        verb=verb,
        group=group,
        resource=resource,
        subresource=subresource,
        namespace=ref.get("namespace", ""),
        name=ref.get("name") or (meta.get("name", "") if verb == "create" else ""),
        code=int((event.get("responseStatus") or {}).get("code", 0)),
        user=user if users[0] == user else f"{users[0]} as {user}",
        at=str(event.get("stageTimestamp") or event.get("requestReceivedTimestamp") or ""),
        owners=tuple(f"{o['kind']}/{o['name']}" for o in meta.get("ownerReferences") or [] if o.get("controller")),
    )


def _dry_run(event: Json) -> bool:
    if "All" in parse_qs(urlsplit(event.get("requestURI", "")).query).get("dryRun", []):
        return True
    body = event.get("requestObject")
    options = (body.get("deleteOptions") or body) if isinstance(body, dict) else {}
    return options.get("kind") in ("DeleteOptions", None) and options.get("dryRun") == ["All"]


class Log:
    """The audit log, read on as it grows. For any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offset = 0
        self._found: list[Mutation] = []

    def mark(self) -> int:
        """Where the log is now, for `since`."""
        with self._lock:
            self._read()
            return len(self._found)

    def since(self, mark: int) -> list[Mutation]:
        """The operator's mutations after that mark, refused ones too."""
        with self._lock:
            self._read()
            return self._found[mark:]

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole, newline, _ = content.rpartition(b"\n")  # the last line may be half written
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            if OPERATOR_ACCOUNTS.encode() in line and (found := mutation(json.loads(line))) is not None:
                self._found.append(found)


# ---------------------------------------------------------------- judgement


@dataclass(frozen=True)
class Target:
    """An object that may be changed."""

    kind: str
    namespace: str
    name: str


def covered(one: Mutation, kind: str, allowed: Iterable[Target], owner: Callable[[str, str], str | None]) -> Target | None:
    """The entry of mayMutate that covers a mutation: the object itself, or the workload that owns the pod.

    `kind` is the mutated resource's; `owner` gives Kind/name of a pod's root owner.
    """
    if not one.name:
        return None  # a whole collection is never covered by a name
    for target in allowed:
        if (target.kind, target.namespace, target.name) == (kind, one.namespace, one.name):
            return target
    if kind != "Pod":
        return None
    root = owner(one.namespace, one.name)
    for target in allowed:
        mine = f"{target.kind}/{target.name}"
        if target.namespace == one.namespace and (root == mine or mine in one.owners or _replica_set_of(one.owners, target)):
            return target
    return None


def _replica_set_of(owners: tuple[str, ...], target: Target) -> bool:
    """Whether the pod's ReplicaSet carries the Deployment's name and a hash."""
    return target.kind == "Deployment" and any(
        o.startswith("ReplicaSet/") and o.removeprefix("ReplicaSet/").rpartition("-")[0] == target.name for o in owners
    )
