"""Helpers for tests in which somebody tries something on a real API server, with their own credentials."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import Cluster

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "manifests"

DIGEST = "sha256:" + "a" * 64
NEXT_DIGEST = "sha256:" + "b" * 64
ZERO = "sha256:" + "0" * 64
AT = "2026-11-21T10:00:00Z"

Json = dict[str, Any]


def until(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until `true()` is; AssertionError naming `what` after that many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def until_guarded(cluster: Cluster) -> None:
    """Wait until the API server enforces every guard; it learns of new policies with a delay of about a second."""
    probes: dict[str, tuple[Json, str]] = {
        "nightorders-approvals": (incident("probe", "default", annotations={"approve.nightorders.dev/x": "x"}), "create"),
        "nightorders-incidents": (incident("probe", "default", spec={"requestedBy": "nobody"}), "create"),
        "nightorders-records": ({**head("Ledger", "probe", "default"), "spec": {}}, "create"),
        "nightorders-action-roles": (binding("probe", "default", "nightorders-action-x", {"kind": "User", "name": "x"}), "create"),
    }
    for policy, (document, verb) in probes.items():

        def refused(policy: str = policy, document: Json = document, verb: str = verb) -> bool:
            answer = cluster.kubectl(verb, "--dry-run=server", "-f", "-", stdin=json.dumps(document), check=False)
            return f"'{policy}'" in answer.stderr

        until(refused, f"{policy} is enforced")


def head(kind: str, name: str, namespace: str | None = None) -> Json:
    """apiVersion, kind and metadata of one of our kinds."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "nightorders.dev/v1alpha1", "kind": kind, "metadata": metadata}


def incident(name: str, namespace: str, *, spec: Json | None = None, **metadata: Any) -> Json:
    """An Incident about Deployment checkout."""
    document = head("Incident", name, namespace)
    document["metadata"] |= metadata
    document["spec"] = {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}, **(spec or {})}
    return document


def policy(name: str, namespace: str, *levels: str, **metadata: Any) -> Json:
    """A RemediationPolicy with one rule for each level."""
    document = head("RemediationPolicy", name, namespace)
    document["metadata"] |= metadata
    document["spec"] = {"rules": [{"name": f"r{i}", "types": ["RollbackWorkload"], "level": level} for i, level in enumerate(levels)]}
    return document


def binding(name: str, namespace: str | None, role: str, *subjects: Json) -> Json:
    """A RoleBinding to a ClusterRole, or a ClusterRoleBinding without a namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", **s} if s["kind"] != "ServiceAccount" else s for s in subjects],
    }


def deployment(name: str, namespace: str, *, labels: dict[str, str] | None = None) -> Json:
    """A Deployment whose pods nobody needs to run."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "checkout:1"}]}},
        },
    }


def _least(schema: Json) -> Any:
    """The least that a schema asks for, so that a new required field elsewhere in a plan breaks no test here."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {name: _least(schema["properties"][name]) for name in schema.get("required", [])}
        case "array":
            return []
        case "integer":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return AT if schema.get("format") == "date-time" else ZERO if "sha256:" in schema.get("pattern", "") else "x"


def _status(*path: str) -> Any:
    """The least content of a part of an Incident's status."""
    document = yaml.safe_load((ROOT / "crds" / "incidents.yaml").read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    for name in path:
        schema = schema["items"] if name == "[]" else schema["properties"][name]
    return _least(schema)


LEAST_PLAN: Json = _status("plan")
LEAST_EXECUTION: Json = _status("executions", "[]")


def plan(digest: str = DIGEST, *, kind: str = "Deployment", target: str = "checkout", needs: Json | None = None) -> Json:
    """A staged plan, as far as admission looks at it. `needs`: whose approval, where the defaults do not hold."""
    changed = {"apiVersion": "apps/v1", "kind": kind, "name": target}
    wanted = {"needs": {**NEEDS, **needs}} if needs else {}
    return {**LEAST_PLAN, "digest": digest, "target": {**LEAST_PLAN["target"], **changed}, **wanted}


def approved(status: str, reason: str) -> Json:
    """The condition Approved."""
    return {"type": "Approved", "status": status, "reason": reason, "lastTransitionTime": AT}


def execution(state: str, digest: str = DIGEST) -> Json:
    """One entry of status.executions."""
    return {**LEAST_EXECUTION, "id": "x-1", "state": state, "planDigest": digest}


NEEDS: Json = {"count": 1, "expiresSeconds": 900, "separationOfDuties": False, "serviceAccounts": "Deny", "frozenBy": "None"}
WAITING: Json = {"plan": plan(), "conditions": [approved("False", "Waiting")]}


def waiting(digest: str = DIGEST, **needs: Any) -> Json:
    """A status in which a plan with such needs waits."""
    return {**WAITING, "plan": plan(digest, needs=needs)}


@dataclass(frozen=True)
class Actor:
    """Somebody with credentials, in one namespace."""

    cluster: Cluster
    namespace: str
    kubeconfig: Path
    name: str

    def run(self, *args: str, document: Json | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as this actor; `document` goes to standard input."""
        stdin = None if document is None else json.dumps(document)
        return self.cluster.kubectl("--namespace", self.namespace, *args, stdin=stdin, check=False, kubeconfig=self.kubeconfig)

    def may(self, *args: str, document: Json | None = None) -> str:
        """It works. Returns what kubectl printed."""
        answer = self.run(*args, document=document)
        assert answer.returncode == 0, f"{self.name} was refused: {' '.join(args)}\n{answer.stderr}"
        return answer.stdout

    def may_not(self, guard: str, *args: str, document: Json | None = None, says: str = "") -> None:
        """Our policy `guard` refuses it, and nothing else does (RBAC would make the test worthless), and says why."""
        answer = self.run(*args, document=document)
        assert answer.returncode != 0, f"{self.name} got through: {' '.join(args)}\n{answer.stdout}"
        assert f"ValidatingAdmissionPolicy '{guard}'" in answer.stderr, f"refused, but not by {guard}: {answer.stderr}"
        assert says in answer.stderr, f"refused for another reason than {says!r}: {answer.stderr}"

    def patch(self, name: str, body: Json) -> tuple[str, ...]:
        """Arguments of a merge patch on an Incident."""
        return ("patch", "incident", name, "--type=merge", "-p", json.dumps(body))

    def annotation(self, **annotations: str | None) -> tuple[str, ...]:
        """Arguments of a merge patch of annotations on Incident inc; `approve_alice` is approve.nightorders.dev/alice, None removes."""
        keys = {key.replace("_", ".nightorders.dev/", 1): value for key, value in annotations.items()}
        return self.patch("inc", {"metadata": {"annotations": keys}})


class World:
    """One namespace, and everybody who may be in it."""

    def __init__(self, cluster: Cluster, namespace: str, operator: Path | None = None) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.admin = Actor(cluster, namespace, cluster.kubeconfig, "admin")
        credentials = operator or cluster.service_account("nightorders-system", "nightorders")
        self.operator = Actor(cluster, namespace, credentials, "operator")

    def user(self, name: str, *roles: str) -> Actor:
        """A person with these ClusterRoles in the namespace."""
        self.grant({"kind": "User", "name": name}, *roles)
        return Actor(self.cluster, self.namespace, self.cluster.user(name), name)

    def robot(self, name: str, *roles: str) -> Actor:
        """A ServiceAccount of the namespace with these ClusterRoles in it."""
        self.admin.may("create", "serviceaccount", name)
        self.grant({"kind": "ServiceAccount", "name": name, "namespace": self.namespace}, *roles)
        return Actor(self.cluster, self.namespace, self.cluster.service_account(self.namespace, name), name)

    def grant(self, subject: Json, *roles: str) -> None:
        """Bind ClusterRoles to a subject in the namespace."""
        items = [binding(f"b-{abs(hash((subject['name'], role)))}", self.namespace, role, subject) for role in roles]
        if items:
            self.cluster.apply(*items)

    def role(self, name: str, *rules: tuple[str, str, str]) -> None:
        """A Role of (group, resources, verbs), comma-separated, bound to the user of that name."""
        self.cluster.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": f"own-{name}", "namespace": self.namespace},
                "rules": [
                    {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(",")}
                    for group, resources, verbs in rules
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"own-{name}", "namespace": self.namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"own-{name}"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
            },
        )

    def wildcard(self, name: str = "mallory") -> Actor:
        """A developer who may do everything in this namespace: */*/*."""
        actor = self.user(name)
        self.role(name, ("*", "*", "*"))
        return actor

    @contextmanager
    def everywhere(self, actor: Actor, role: str) -> Iterator[None]:
        """A ClusterRoleBinding, for as long as the block lasts."""
        name = f"{self.namespace}-{actor.name}"
        self.cluster.apply(binding(name, None, role, {"kind": "User", "name": actor.name}))
        try:
            yield
        finally:
            self.admin.may("delete", "clusterrolebinding", name)

    def incident(self, status: Json | None = None, *, name: str = "inc", **metadata: Any) -> None:
        """An Incident that the operator opened and brought to `status`."""
        self.operator.may("create", "-f", "-", document=incident(name, self.namespace, **metadata))
        if status:
            self.status(status, name=name)

    def status(self, status: Json, *, name: str = "inc") -> None:
        """The operator writes status."""
        self.operator.may("patch", "incident", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def get(self, kind: str, name: str) -> Json:
        """An object, as the administrator sees it."""
        found: Json = json.loads(self.admin.may("get", kind, name, "-o", "json"))
        return found

    def annotations(self, name: str = "inc") -> dict[str, str]:
        """The annotations of an Incident."""
        found: dict[str, str] = self.get("incident", name)["metadata"].get("annotations", {})
        return found
