"""Reads of one cluster by Kind and name, as administrator: what checks, snapshots and metrics look at.

Not kubectl: a run asks several questions a second. Every thread has a connection of its own.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.cluster.rest import Api, ApiError
from tools.scenarios.errors import StepError

Json = dict[str, Any]
# Where a kind is served by several groups, the one that people mean.
_PREFERRED = ("", "apps", "batch", "networking.k8s.io", "autoscaling", "policy", "rbac.authorization.k8s.io", "storage.k8s.io")


@dataclass(frozen=True)
class Kind:
    """A served kind."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...] = ()

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The REST path of the collection or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{middle}/{self.plural}" + (f"/{urllib.parse.quote(name)}" if name else "")


@dataclass(frozen=True)
class Ref:
    """One object, or all of a kind when `name` is empty. `kind` may carry a group, as in Ingress.networking.k8s.io."""

    kind: str
    namespace: str  # empty: the kind is cluster-scoped, or the run's own
    name: str

    @classmethod
    def parse(cls, text: str, namespace: str = "") -> Ref:
        """Kind/name, Kind/namespace/name or Kind."""
        kind, _, rest = text.partition("/")
        place, slash, name = rest.partition("/")
        return cls(kind, place, name) if slash else cls(kind, namespace, rest)


class Kube:
    """See the module's text. `open_api` makes a connection."""

    def __init__(self, open_api: Callable[[], Api]) -> None:
        self._open = open_api
        self._local = threading.local()
        self._lock = threading.Lock()
        self._kinds: list[Kind] = []

    @property
    def api(self) -> Api:
        """This thread's connection."""
        found: Api | None = getattr(self._local, "api", None)
        if found is None:
            found = self._local.api = self._open()
        return found

    # ------------------------------------------------------------ kinds

    def kind(self, name: str) -> Kind:
        """The served kind of that name (Deployment, or Ingress.networking.k8s.io). Raises StepError."""
        for attempt in range(2):
            if found := self._find(name):
                return found
            if attempt == 0:
                self.discover()
        raise StepError(f"the cluster serves no kind {name!r}")

    def _find(self, name: str) -> Kind | None:
        kind, _, group = name.partition(".")
        found = [k for k in self._kinds if k.name == kind and (not group or k.group == group)]
        return min(found, key=lambda k: _PREFERRED.index(k.group) if k.group in _PREFERRED else len(_PREFERRED), default=None)

    def kinds(self) -> list[Kind]:
        """All that are served, each in its preferred version."""
        if not self._kinds:
            self.discover()
        return list(self._kinds)

    def discover(self) -> None:
        """Asks the API server what it serves: definitions may have come since."""
        found = _resources("", "v1", self.api.get("/api/v1"))
        for group in self.api.get("/apis")["groups"]:
            versions = [group["preferredVersion"], *group["versions"]]
            known: set[str] = set()
            for version in {v["version"]: v for v in versions}.values():
                try:
                    listed = _resources(group["name"], version["version"], self.api.get(f"/apis/{version['groupVersion']}"))
                except ApiError:
                    continue  # an aggregated API whose server is down hides only itself
                found += [k for k in listed if k.name not in known]
                known |= {k.name for k in listed}
        with self._lock:
            self._kinds = found

    # ------------------------------------------------------------ objects

    def get(self, ref: Ref) -> Json | None:
        """The object, or None when it is not there."""
        kind = self.kind(ref.kind)
        try:
            found = self._ask(kind.path(ref.namespace, ref.name))
        except ApiError as problem:
            if problem.status == 404:
                return None
            raise
        return found

    def list(self, kind_name: str, namespace: str = "", selector: str | None = None) -> list[Json]:
        """The objects of a kind, with apiVersion and kind filled in."""
        kind = self.kind(kind_name)
        query = f"?labelSelector={urllib.parse.quote(selector)}" if selector else ""
        answer = self._ask(kind.path(namespace) + query)
        version = f"{kind.group}/{kind.version}" if kind.group else kind.version
        return [{"apiVersion": version, "kind": kind.name, **item} for item in answer.get("items", [])]

    def _ask(self, path: str) -> Json:
        """One read; asked again when the API server does not answer for a moment."""
        for pause in (0.2, 1.0):
            try:
                return self.api.get(path)
            except (OSError, http.client.HTTPException):
                self.api.close()
                time.sleep(pause)
        return self.api.get(path)

    def pod(self, namespace: str, selector: str) -> str:
        """The name of the first pod that matches. Raises StepError."""
        names = sorted(pod["metadata"]["name"] for pod in self.list("Pod", namespace, selector))
        if not names:
            raise StepError(f"${{POD:{selector}}}: no pod of {namespace} matches now")
        return str(names[0])


def _resources(group: str, version: str, answer: Json) -> list[Kind]:
    return [
        Kind(group, version, r["kind"], r["name"], r["namespaced"], tuple(r["verbs"]))
        for r in answer.get("resources", [])
        if "/" not in r["name"]
    ]
