"""The cluster of a benchmark: the operator as users install it, and beside it the floor under an account with the same reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nightorders.api.meta import FINALIZER, FLEET_LEDGER_NAME, LEDGER_NAME, STOP_CONFIGMAP
from nightorders.diagnosis.engine import CLUSTER_KINDS, KINDS
from tests.benchmarks.floor import APPROVAL, GROUP
from tests.benchmarks.observer import Json, Observer, Seen
from tests.benchmarks.traced import VARIABLE
from tests.cluster.scene import BAD, GOOD, Scene, condition, deployment, until
from tools.cluster.local import LocalCluster
from tools.cluster.pki import Authority
from tools.cluster.rest import Api, ApiError
from tools.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess

USERNAME = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
OURS = "/apis/nightorders.dev/v1alpha1"
COPY = f"/apis/{GROUP}/v1alpha1"
APPS = "/apis/apps/v1"
MERGE = "application/merge-patch+json"
APPROVER = "ann"
FLOOR = "floor"
# As the Deployment of the installation runs it, not as the tests do, who want everything faster.
AS_INSTALLED = {
    "NIGHTORDERS_DETECT_AFTER_SECONDS": "15",
    "NIGHTORDERS_RECHECK_SECONDS": "60",
    "NIGHTORDERS_GUARD_EVERY_SECONDS": "60",
    "NIGHTORDERS_LEASE_SECONDS": "15",
    "NIGHTORDERS_LOG_LEVEL": "info",
}
Request = list[Any]


@dataclass(frozen=True)
class Pass:
    """One pass of the operator over one Incident: begin and end (monotonic seconds), CPU seconds, its requests."""

    incident: str
    begin: float
    end: float
    cpu: float
    requests: tuple[Json, ...]


class Operator(OperatorProcess):
    """The operator with a trace of its requests. `detect`: whether it opens Incidents by itself."""

    def __init__(self, cluster: LocalCluster, *, detect: bool, environment: dict[str, str] | None = None) -> None:
        self._traces = tempfile.TemporaryDirectory(prefix="nightorders-bench-")
        self.trace = Path(self._traces.name) / "trace.jsonl"
        chosen = {**AS_INSTALLED, "NIGHTORDERS_DETECT": str(detect).lower(), **(environment or {})}
        super().__init__(
            cluster, environment={**chosen, VARIABLE: str(self.trace), "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}, name="bench"
        )

    def start(self) -> Operator:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.traced", "run"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder.name,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def passes(self, incident: str) -> list[Pass]:
        """The passes over `namespace/name` so far, in order."""
        requests: dict[int, list[Json]] = {}
        found = []
        for row in map(json.loads, self.trace.read_text().splitlines()):
            if "pass" in row:
                requests.setdefault(row["pass"], []).append(row)
            elif row["incident"] == incident:
                found.append(Pass(incident, row["begin"], row["end"], row["cpu"], tuple(requests.get(row["passed"], ()))))
        return found

    def pass_that_ended(self, incident: str, since: float) -> Pass:
        """The first pass over that Incident which began after `since` (and a moment before, for clocks), once it has ended."""
        return until(lambda: next((p for p in self.passes(incident) if p.begin >= since - 0.05), None), f"a pass over {incident}")  # type: ignore[no-any-return]

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """The peak counts from here."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def memory(self, what: str) -> float:
        """MiB of `VmRSS` or `VmHWM` (the peak)."""
        rows = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith(f"{what}:")) / 1024


class Floor:
    """The bare client as its own process."""

    def __init__(self, kubeconfig: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.floor", str(kubeconfig)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def plan(self, name: str, on: str, rounds: list[list[Request]]) -> None:
        """Returns when it knows what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"name": name, "on": on, "rounds": rounds}) + "\n")
        self._process.stdin.flush()
        self._expect("planned")

    def done(self, name: str) -> None:
        """Returns when it has carried the plan of that name out."""
        self._expect(name)

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if answer != word:
            raise RuntimeError(f"the floor said {answer!r} in place of {word!r}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Arena:
    """A cluster with everything in it, and watches on it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.admin = cluster.api()
        self._copies()
        pair = Authority.load(cluster.directory / "pki").issue("bench-approver", APPROVER, [])
        self.approver = Api(cluster.state.server, cluster.directory / "pki" / "ca.crt", pair.certificate, pair.key)
        self.incidents = Observer(cluster, f"{OURS}/incidents")
        self.copies = Observer(cluster, f"{COPY}/incidents")
        self.deployments = Observer(cluster, f"{APPS}/deployments")
        self.floor = Floor(cluster.service_account(NAMESPACE, FLOOR))

    def _copies(self) -> None:
        """The same schemas under another group, so that only the floor reacts to them; its account, with the operator's reads."""
        for kind in ("incidents", "ledgers"):
            definition = yaml.safe_load((ROOT / f"crds/{kind}.yaml").read_text())
            definition["metadata"] = {"name": f"{kind}.{GROUP}"}
            definition["spec"]["group"] = GROUP
            self.cluster.apply(definition)
            until(lambda: self._served(kind), f"the copies of {kind} are served")  # noqa: B023  called right here
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "bench-floor"},
            "rules": [
                {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]},
            ],
        }
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": FLOOR, "namespace": NAMESPACE}}
        self.cluster.apply(role, account)
        for name in ("nightorders", "nightorders-reader", "nightorders-reader-logs", "bench-floor"):
            self.cluster.kubectl(
                "create", "clusterrolebinding", f"bench-{name}", f"--clusterrole={name}", f"--serviceaccount={NAMESPACE}:{FLOOR}"
            )

    def _served(self, kind: str) -> bool:
        try:
            return "items" in self.admin.get(f"{COPY}/{kind}")
        except ApiError:
            return False

    def stop(self) -> None:
        """Before the cluster is stopped."""
        for watch in (self.incidents, self.copies, self.deployments):
            watch.stop()
        self.floor.stop()

    # ------------------------------------------------------------ a workload that fails

    def broken(self, namespace: str, pods: int, *rules: Json, recorded: bool = True) -> Scene:
        """A namespace whose app was healthy on `pods` pods and now waits for an image that no registry has on a quarter of them."""
        scene = Scene(self.cluster, namespace)
        scene.operator_may_roll_back()
        for user_role in ("nightorders-approver", "edit"):
            scene.kubectl("create", "rolebinding", f"bench-{user_role}", f"--clusterrole={user_role}", f"--user={APPROVER}")
        scene.apply(*rules, self.app(pods))
        scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=180s", "--watch=true")
        if recorded:
            self.recorded(scene)
        scene.release()
        self.failing(scene, pods)
        return scene

    @staticmethod
    def app(pods: int) -> Json:
        """So many pods, neither more nor fewer, while a rollout is under way."""
        made = deployment("checkout", GOOD, replicas=pods)
        made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": max(1, pods // 4)}}
        return made

    def recorded(self, scene: Scene) -> None:
        """Returns when the operator has the healthy revision in its books."""
        until(lambda: scene.get("ledger/ledger").get("spec", {}).get("healthyRevisions"), f"healthy revision of {scene.namespace}", 60)

    def failing(self, scene: Scene, pods: int) -> None:
        """Returns when all pods of the new revision wait for their image, and nothing moves any more."""
        wanted = max(1, pods // 4)

        def ask() -> bool:
            listed = self.admin.get(f"/api/v1/namespaces/{scene.namespace}/pods?resourceVersion=0")["items"]
            waiting = [
                p
                for p in listed
                for c in p["status"].get("containerStatuses", [])
                if c["image"] == BAD and "waiting" in c["state"] and c["state"]["waiting"]["reason"] in ("ImagePullBackOff", "ErrImagePull")
            ]
            return len(waiting) >= wanted and len(listed) == pods

        until(ask, f"{wanted} failing of {pods} pods in {scene.namespace}", 180)

    # ------------------------------------------------------------ objects and their times

    def committed(self, watch: Observer, api: Api, method: str, path: str, body: Json, mark: str, namespace: str) -> float:
        """Makes that write and returns when it was committed: its answer or its event, whichever came first."""
        name, begin = path.rpartition("/")[2] if method == "PATCH" else body["metadata"]["name"], time.monotonic()
        self.write(api, method, path, body)
        answered = time.monotonic()

        def ours(seen: Seen) -> bool:
            return (seen.namespace, seen.name) == (namespace, name) and (
                not mark or any(k.startswith(mark) for k in seen.object["metadata"].get("annotations", {}))
            )

        return min(answered, watch.wait(f"{method} {path}", ours, after=begin).at)

    def write(self, api: Api, method: str, path: str, body: Json) -> None:
        """One write over a new connection: one that was idle for 90 s may be closed by the server, and a write is not made again."""
        api.close()
        api.request(method, path, body, MERGE if method == "PATCH" else "application/json")

    def open_incident(self, namespace: str, name: str) -> float:
        """An Incident by hand about the app; when it was committed."""
        return self.committed(self.incidents, self.admin, "POST", f"{OURS}/namespaces/{namespace}/incidents", manifest(name), "", namespace)

    def open_copy(self, namespace: str, name: str) -> float:
        """The same for the floor."""
        body = {**manifest(name), "apiVersion": f"{GROUP}/v1alpha1"}
        return self.committed(self.copies, self.admin, "POST", f"{COPY}/namespaces/{namespace}/incidents", body, "", namespace)

    def summarised(self, watch: Observer, namespace: str, name: str, after: float) -> Seen:
        """When the summary was first seen."""
        return watch.wait(
            f"a summary of {namespace}/{name}",
            lambda s: s.name == name and s.namespace == namespace and bool(s.object.get("status", {}).get("summary")),
            after=after,
        )

    def condition(self, namespace: str, name: str, kind: str, reasons: set[str], seconds: float = 120) -> Seen:
        """When the Incident's condition first had one of these reasons."""
        return self.incidents.wait(
            f"{kind} of {namespace}/{name} is {' or '.join(reasons)}",
            lambda s: s.name == name and s.namespace == namespace and condition(s.object, kind).get("reason") in reasons,
            seconds=seconds,
        )

    def patched(self, namespace: str, after: float, image: str = GOOD) -> float:
        """When the Deployment was seen to ask for that image."""
        return self.deployments.wait(
            f"{image} in {namespace}",
            lambda s: s.namespace == namespace and s.object["spec"]["template"]["spec"]["containers"][0]["image"] == image,
            after=after,
        ).at

    def delete_incident(self, namespace: str, name: str) -> None:
        """Gone when this returns."""
        self.admin.request("DELETE", f"{OURS}/namespaces/{namespace}/incidents/{name}")
        until(lambda: not self.cluster_has(f"{OURS}/namespaces/{namespace}/incidents", name), f"{name} is gone")

    def cluster_has(self, path: str, name: str) -> bool:
        """Whether the collection has an object of that name."""
        return any(i["metadata"]["name"] == name for i in self.admin.get(path)["items"])

    # ------------------------------------------------------------ the audit log

    def audited(self) -> Iterator[Json]:
        """Every finished request of the operator."""
        assert self.cluster.audit_log is not None
        for row in self.cluster.audit_log.read_text().splitlines():
            entry = json.loads(row)
            if entry["user"]["username"] == USERNAME and entry["stage"] == "ResponseComplete":
                yield entry


def manifest(name: str) -> Json:
    """An Incident by hand."""
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "Incident",
        "metadata": {"name": name},
        "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
    }


# ---------------------------------------------------------------- what the floor asks for


def collection(api_version: str, kind: str, namespace: str) -> str:
    """The path of a kind's list."""
    plural = {"HorizontalPodAutoscaler": "horizontalpodautoscalers"}.get(kind, kind.lower() + "s")
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def read(path: str) -> Request:
    """A GET."""
    return ["GET", path, None, ""]


def state_reads(namespace: str, name: str) -> list[Request]:
    """The reads of a pass: one list per kind from the server's cache, and exactly the Incident, target, stops, books and orders."""
    lists = [collection(v, k, namespace) for v, k in KINDS] + [collection(v, k, "") for v, k in CLUSTER_KINDS]
    exact = [
        f"{COPY}/namespaces/{namespace}/incidents/{name}",
        f"{APPS}/namespaces/{namespace}/deployments/checkout",
        f"/api/v1/namespaces/{namespace}",
        f"/api/v1/namespaces/{namespace}/configmaps/{STOP_CONFIGMAP}",
        f"/api/v1/namespaces/{NAMESPACE}/configmaps/{STOP_CONFIGMAP}",
        f"{COPY}/namespaces/{namespace}/ledgers/{LEDGER_NAME}",
        f"{COPY}/namespaces/{NAMESPACE}/ledgers/{FLEET_LEDGER_NAME}",
        f"{OURS}/namespaces/{namespace}/remediationpolicies",
        f"{OURS}/clusterremediationpolicies",
    ]
    return [*(read(f"{path}?resourceVersion=0") for path in lists), *(read(path) for path in exact)]


def status_write(saved: Json, namespace: str, name: str) -> Request:
    """The status that the operator saved, onto the copy."""
    body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Incident", "metadata": {"name": name, "namespace": namespace}}
    return [
        "PUT",
        f"{COPY}/namespaces/{namespace}/incidents/{name}/status?fieldValidation=Strict",
        {**body, "spec": saved["spec"], "status": saved["status"]},
        "application/json",
    ]


def finalizer_write(namespace: str, name: str) -> Request:
    """The finalizer onto the copy."""
    return ["PATCH", f"{COPY}/namespaces/{namespace}/incidents/{name}", {"metadata": {"finalizers": [FINALIZER]}}, MERGE]


__all__ = ["APPROVAL", "Arena", "Floor", "Operator", "Pass"]
