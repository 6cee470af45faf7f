"""The cluster that scenarios run in: three simulated nodes, users, namespaces, and what must be put back between runs."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from tools.cluster import ClusterError, provide
from tools.cluster.local import LocalCluster
from tools.cluster.prometheus import Prometheus
from tools.cluster.rest import ApiError
from tools.cluster.stages import NODE_ANNOTATION, POD_READY, expression, node
from tools.cluster.statemetrics import StateMetrics
from tools.scenarios.alerts import rules
from tools.scenarios.errors import RunnerError
from tools.scenarios.kube import Kube, Ref
from tools.scenarios.load import Rewrite, Scenario, load
from tools.scenarios.logs import copy_folder
from tools.scenarios.steps import Stage

Json = dict[str, Any]
NODES = ("n0", "n1", "n2")
USER = "dana"  # who deploys, breaks and repairs; never the operator
_NODE_SECONDS = 30.0
_STAGES = "/apis/kwok.x-k8s.io/v1alpha1/stages"
# What only a scenario's own stage writes. Not CreateContainerConfigError and ContainerCreating: those the simulator writes, too.
SCRIPTED_REASONS = (
    "CrashLoopBackOff",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
    "PodInitializing",
    "PostStartHookError",
)


class World:
    """One cluster for many runs. Its methods may be called by several threads."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.progress = progress
        self.cluster = cast(LocalCluster, provide(nodes=0, require="local", progress=progress))
        try:
            self.kube = Kube(self.cluster.api)
            self.version = str(self.kube.api.get("/version")["gitVersion"])
            for number, name in enumerate(NODES):
                self.kube.api.post("/api/v1/nodes", _node(name, number, self.version))
            self._keep_scripted_states()
            self._wait_nodes()
            self.nodes = {name: self._node_state(name) for name in NODES}
            self.user = self.cluster.user(USER, "developers")
            self.cluster.kubectl("create", "clusterrolebinding", "developers", "--clusterrole=cluster-admin", "--group=developers")
            self.kube.discover()
        except BaseException:
            self.cluster.stop()
            raise
        self._used: set[str] = set()
        self._names = threading.Lock()
        self._numbers = itertools.count(1)
        self._gate = Gate()

    def stop(self) -> None:
        """Ends the cluster with everything in it."""
        self.cluster.stop()

    def _keep_scripted_states(self) -> None:
        """Takes pods that a scenario keeps waiting from the stage by which pods become ready.

        Otherwise a Stage that does not cover its own last state (ImagePullBackOff, say) would lose the pod to the default one.
        """
        stage = self.kube.api.get(f"{_STAGES}/{POD_READY}")
        for statuses in ("containerStatuses", "initContainerStatuses"):
            key = f".status.{statuses}[]? | .state.waiting.reason // empty"
            stage["spec"]["selector"]["matchExpressions"].append(expression(key, "NotIn", *SCRIPTED_REASONS))
        patch = {"spec": {"selector": stage["spec"]["selector"]}}
        self.kube.api.request("PATCH", f"{_STAGES}/{POD_READY}", patch, "application/merge-patch+json")

    # ------------------------------------------------------------ runs

    @contextmanager
    def place(self, scenario: Scenario, *, fresh: bool = False, rewrite: Rewrite = lambda text: text) -> Iterator[Stage]:
        """A new namespace with a copy of the scenario for it; both are taken away afterwards, without waiting for it.

        The namespace is the scenario's own unless that name was used before or `fresh` asks for another one.
        """
        namespace, suffix = self._reserve(scenario.document.namespace, fresh=fresh)
        with tempfile.TemporaryDirectory(prefix="nightorders-scenario-") as folder:
            copy = copy_folder(scenario.folder, Path(folder) / scenario.folder.name, rewrite)
            mine = load(scenario.folder, namespace=namespace, source=copy, rewrite=rewrite)
            stage = Stage(self.cluster, self.kube, self.user, mine, suffix)
            self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            self._wait_account(namespace)
            try:
                yield stage
            finally:
                self._leave(stage)

    def namespaces(self) -> set[str]:
        """Every namespace that a run has had, also those that are gone."""
        with self._names:
            return set(self._used)

    def _reserve(self, wanted: str, *, fresh: bool) -> tuple[str, str]:
        with self._names:
            taken = self._used | {n["metadata"]["name"] for n in self.kube.list("Namespace")}
            if not fresh and wanted not in taken:
                self._used.add(wanted)
                return wanted, ""
            while True:
                suffix = f"r{next(self._numbers)}"
                name = f"{wanted[: 62 - len(suffix)]}-{suffix}"
                if name not in taken:
                    self._used.add(name)
                    return name, suffix

    def _wait_account(self, namespace: str) -> None:
        """Pods are refused until the namespace has its ServiceAccount, and then tried again later and later."""
        end = time.monotonic() + 20
        while self.kube.get(Ref("ServiceAccount", namespace, "default")) is None:
            if time.monotonic() > end:
                raise RunnerError(f"namespace {namespace} has no ServiceAccount after 20 s")
            time.sleep(0.1)

    def _leave(self, stage: Stage) -> None:
        """Takes a run's objects away without waiting: what is slow to go must not hold up the next run, and what fails not the table."""
        document = stage.scenario.document
        stage.remove_simulation()
        self._remove("delete", "namespace", stage.namespace)
        for name in reversed(document.cluster):
            objects = [o for o in stage.scenario.objects(name) if o["kind"] != "Node" or o["metadata"]["name"] not in NODES]
            for one in reversed(objects):
                where = ["-n", one["metadata"]["namespace"]] if one["metadata"].get("namespace") else []
                self._remove(*where, "delete", f"{_resource(one)}/{one['metadata']['name']}")
        for command in document.proof.cleanup if document.proof is not None else ():
            self._remove(*command[1:])

    def _remove(self, *args: str) -> None:
        extra = [] if "delete" not in args else [flag for flag in ("--ignore-not-found", "--wait=false") if flag not in args]
        try:
            answer = self.cluster.kubectl(*args, *extra, check=False, timeout=30)
        except subprocess.TimeoutExpired:
            self.progress(f"no answer to kubectl {' '.join(args)} within 30 s")
            return
        if answer.returncode:
            self.progress(f"kubectl {' '.join(args)}: {answer.stderr.strip()[:300]}")

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Beside others, or with nobody else; afterwards the nodes are as they were."""
        with self._gate.alone() if alone else self._gate.beside():
            yield
            if alone:
                self.restore_nodes()

    # ------------------------------------------------------------ nodes

    def _node_state(self, name: str) -> Json:
        found = self.kube.get(Ref("Node", "", name))
        if found is None:
            raise RunnerError(f"node {name} is gone")
        meta = found["metadata"]
        return {
            "labels": meta.get("labels", {}),
            "annotations": {k: v for k, v in meta.get("annotations", {}).items() if "heartbeat" not in k},
            "taints": found["spec"].get("taints", []),
            "unschedulable": found["spec"].get("unschedulable", False),
        }

    def restore_nodes(self) -> None:
        """Puts labels, annotations, taints and the cordon back; a node that does not become ready is made anew."""
        for one in self.kube.list("Node"):
            if one["metadata"]["name"] not in NODES:
                self.cluster.kubectl("delete", "node", one["metadata"]["name"], "--wait=false", check=False)
        for number, name in enumerate(NODES):
            found = self.kube.get(Ref("Node", "", name))
            if found is None:
                self.kube.api.post("/api/v1/nodes", _node(name, number, self.version))
            elif self._node_state(name) != self.nodes[name]:
                self._put_back(name, found)
        try:
            self._wait_nodes()
        except RunnerError:
            for number, name in enumerate(NODES):
                if not _ready(self.kube.get(Ref("Node", "", name))):
                    self.cluster.kubectl("delete", "node", name, check=False)
                    self.kube.api.post("/api/v1/nodes", _node(name, number, self.version))
            self._wait_nodes()

    def _put_back(self, name: str, found: Json) -> None:
        wanted = self.nodes[name]
        meta = found["metadata"]
        patch = {
            "metadata": {
                part: {**dict.fromkeys(set(meta.get(part, {})) - set(wanted[part])), **wanted[part]} for part in ("labels", "annotations")
            },
            "spec": {"taints": wanted["taints"] or None, "unschedulable": wanted["unschedulable"] or None},
        }
        self.kube.api.request("PATCH", f"/api/v1/nodes/{name}", patch, "application/merge-patch+json")

    def _wait_nodes(self) -> None:
        end = time.monotonic() + _NODE_SECONDS
        while True:
            try:
                nodes = {n["metadata"]["name"]: n for n in self.kube.list("Node")}
                if all(_ready(nodes.get(name)) for name in NODES):
                    return
            except (ApiError, OSError) as problem:
                raise RunnerError(f"the nodes cannot be read: {problem}") from None
            if time.monotonic() > end:
                raise RunnerError(f"the nodes {', '.join(NODES)} are not ready after {_NODE_SECONDS:.0f} s")
            time.sleep(0.1)


class Gate:
    """Many beside each other, or one alone. Who wants to be alone is not overtaken by those who come later."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Enters with others."""
        with self._change:
            self._change.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Enters when nobody is inside, and lets nobody in."""
        with self._change:
            self._waiting += 1
            try:
                self._change.wait_for(lambda: not self._alone and self._inside == 0)
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._change:
                self._alone = False
                self._change.notify_all()


@contextmanager
def started(progress: Callable[[str], None]) -> Iterator[World]:
    """A world that ends with the block. Raises RunnerError where no local control plane can be had."""
    try:
        world = World(progress)
    except ClusterError as problem:
        raise RunnerError(f"scenarios need a local control plane: {problem}") from None
    try:
        yield world
    finally:
        world.stop()


@contextmanager
def observed(world: World, targets: Sequence[str], progress: Callable[[str], None]) -> Iterator[Prometheus]:
    """A real Prometheus with the usual alerts, that scrapes kube-state-metrics of the world and these targets every second."""
    try:
        with (
            StateMetrics(world.cluster.kubeconfig, progress=progress) as state,
            Prometheus([state.address, *targets], rules=rules(), progress=progress) as prometheus,
        ):
            yield prometheus
    except ClusterError as problem:
        raise RunnerError(f"metrics: {problem}") from None


def _node(name: str, number: int, version: str) -> Json:
    made = node(name, version)
    made["metadata"]["labels"] |= {"topology.kubernetes.io/zone": f"z{number}", "topology.kubernetes.io/region": "r0"}
    assert made["metadata"]["annotations"][NODE_ANNOTATION] == "fake"
    return made


def _ready(found: Json | None) -> bool:
    if found is None:
        return False
    holds = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions") or [])
    return holds and not found["spec"].get("taints") and not found["spec"].get("unschedulable")


def _resource(one: Json) -> str:
    group = one["apiVersion"].partition("/")[0] if "/" in one["apiVersion"] else ""
    return f"{one['kind'].lower()}.{group}" if group else one["kind"].lower()
