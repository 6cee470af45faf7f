"""A namespace with an app, its night orders and its people, for tests of the operator as a process on a real control plane."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.cluster import Cluster, behaviour
from tools.operator_process import allow_rollback

Json = dict[str, Any]
GOOD, BAD = "registry.example/checkout:2.4.0", "registry.example/checkout:2.4.O"
CLOSED = {"Recovered", "Undone", "Escalated", "Dismissed"}


def until(ask: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """The first true answer of `ask`; AssertionError naming `what` after that many seconds."""
    end = time.monotonic() + seconds
    while True:
        if answer := ask():
            return answer
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def deployment(name: str, image: str, *, replicas: int = 3, **template: Any) -> Json:
    """A Deployment with one container; `template` is merged into the container."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, "team": f"team-{name}"}},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": name, "image": image, **template}]}},
        },
    }


def policy(level: str, *, name: str = "web", **rule: Any) -> Json:
    """A RemediationPolicy for every workload of the namespace, with windows short enough for a test."""
    rule = {
        "name": "rollback",
        "types": ["RollbackWorkload"],
        "level": level,
        "limits": {"stalledAfter": "1s", "cooldown": "1s", "perHour": 50},
        "verify": {"for": "4s", "every": "1s"},
        **rule,
    }
    return {"apiVersion": "nightorders.dev/v1alpha1", "kind": "RemediationPolicy", "metadata": {"name": name}, "spec": {"rules": [rule]}}


class Scene:
    """One namespace of a test. `ann` is an approver there, with her own certificate and the rights that README.md names."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def apply(self, *objects: Json) -> None:
        """Applies objects into the namespace, as an administrator."""
        for one in objects:
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(one))

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True, who: Path | None = None) -> str:
        """kubectl in the namespace; standard output (and standard error where `check` is off)."""
        done = self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, check=check, kubeconfig=who)
        return done.stdout if check else done.stdout + done.stderr

    def get(self, what: str) -> Json:
        """One object as JSON; empty when it is not there."""
        done = self.cluster.kubectl("-n", self.namespace, "get", what, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def app(self, name: str = "checkout", image: str = GOOD, **more: Any) -> None:
        """A healthy app, complete and available, that the operator has recorded as such."""
        self.apply(deployment(name, image, **more))
        self.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
        uid = self.get(f"deployment/{name}")["metadata"]["uid"]
        until(
            lambda: [h for h in self.get("ledger/ledger").get("spec", {}).get("healthyRevisions", []) if h["workloadUid"] == uid],
            f"the ledger of {self.namespace} has {name}'s healthy revision",
        )

    def operator_may_roll_back(self) -> None:
        """Binds the action's role in this namespace."""
        allow_rollback(self.cluster, self.namespace)

    def release(self, image: str = BAD, name: str = "checkout") -> None:
        """Releases an image that no registry has."""
        self.cluster.apply(*behaviour.image_missing(self.namespace, image))
        self.kubectl("set", "image", f"deployment/{name}", f"{name}={image}")

    def image(self, name: str = "checkout") -> str:
        """The image that the Deployment asks for now."""
        return str(self.get(f"deployment/{name}")["spec"]["template"]["spec"]["containers"][0]["image"])

    def approver(self, user: str = "ann") -> Path:
        """A user with the approver's role here and the right to patch Deployments."""
        found = self.cluster.user(user)
        for role in ("nightorders-approver", "edit"):
            self.kubectl(
                "create", "rolebinding", f"{role}-{abs(hash(user)) % 10**8}", f"--clusterrole={role}", f"--user={user}", check=False
            )
        return found

    # ------------------------------------------------------------ Incidents

    def incidents(self) -> list[Json]:
        """All Incidents of the namespace."""
        return json.loads(self.kubectl("get", "incidents", "-o", "json"))["items"]

    def incident(self, phase: str | set[str], seconds: float = 120) -> Json:
        """The one Incident, once it is in that phase."""
        wanted = {phase} if isinstance(phase, str) else phase

        def ask() -> Json | None:
            return next((i for i in self.incidents() if i.get("status", {}).get("phase") in wanted), None)

        try:
            return until(ask, f"an Incident in phase {wanted}", seconds)
        except AssertionError as missing:
            raise AssertionError(f"{missing}\n{self.story()}") from None

    def story(self) -> str:
        """What the Incidents say, for the message of a failed test."""
        return "\n".join(json.dumps({**i.get("status", {}), "evidence": "…"}, indent=1)[:12000] for i in self.incidents())

    def one(self) -> Json:
        """The one Incident, whatever its phase."""
        (found,) = self.incidents()
        return found

    def until_condition(self, kind: str, reason: str, seconds: float = 120) -> Json:
        """The one Incident, once its condition has that reason."""

        def ask() -> Json | None:
            return next((i for i in self.incidents() if condition(i, kind).get("reason") == reason), None)

        try:
            return until(ask, f"{kind} with reason {reason}", seconds)
        except AssertionError as missing:
            raise AssertionError(f"{missing}\n{self.story()}") from None

    def approve(self, incident: Json, who: Path, user: str, *, key: str = "", digest: str = "", check: bool = True) -> str:
        """The approval as the README tells people to give it."""
        digest = digest or incident["status"]["plan"]["digest"]
        note = f"approve.nightorders.dev/{key or 'one'}={digest}|{user}"
        return self.kubectl("annotate", "incident", incident["metadata"]["name"], note, who=who, check=check)


def condition(incident: Json, kind: str) -> Json:
    """The condition of that type, or empty."""
    return next((c for c in incident.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def mutations(cluster: Cluster, user: str, namespace: str = "") -> list[Json]:
    """Writes of that user outside our own kinds, Events, Leases and reviews, refused ones too, from the audit log; no dry runs."""
    assert cluster.audit_log is not None, "only a local cluster has an audit log"
    found = []
    for row in cluster.audit_log.read_text().splitlines():
        e = json.loads(row)
        ref = e.get("objectRef") or {}
        if e.get("user", {}).get("username") != user or e.get("stage") != "ResponseComplete":
            continue
        if e["verb"] not in ("create", "update", "patch", "delete", "deletecollection") or "dryRun=All" in e.get("requestURI", ""):
            continue
        if ref.get("apiGroup") in (
            "nightorders.dev",
            "authorization.k8s.io",
            "authentication.k8s.io",
            "coordination.k8s.io",
            "events.k8s.io",
        ):
            continue
        if ref.get("resource") == "events" or (namespace and ref.get("namespace") != namespace):
            continue
        found.append(e)
    return found
