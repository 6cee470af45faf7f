"""The rest of a cluster: other teams' workloads, two things that are always a little wrong, and changes that have nothing to do with it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tools.cluster import KubectlError, behaviour
from tools.scenarios.world import World

Json = dict[str, Any]
_TEAMS = ("atlas", "borealis", "cobalt", "delta", "ember", "fjord")
_APPS = ("api", "worker", "frontend", "gateway", "indexer", "mailer", "reports", "search", "sessions", "thumbnails", "tracker", "uploads")
_CHANGE_SECONDS = 75.0


class Background:
    """Workloads in two namespaces, placed by seed; `with` keeps changing one of them, `manifests` is what stands there."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        teams = self._random.sample(_TEAMS, 2)
        self.namespaces = tuple(f"team-{team}" for team in teams)
        self._apps = [(self._random.choice(self.namespaces), app) for app in self._random.sample(_APPS, 10)]
        self._releases = {app: 1 for _, app in self._apps}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._change, daemon=True)
        self.changes = 0

    def manifests(self) -> Iterator[Json]:
        """Ten healthy Deployments with Services and settings, and two chronic anomalies that harm nobody."""
        for namespace in self.namespaces:
            yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        for namespace, app in self._apps:
            yield from _app(namespace, app, replicas=self._random.randint(1, 3))
        first, second = self.namespaces
        yield _job_that_failed(first)
        yield from _experiment_without_a_node(second)

    def start(self) -> None:
        """Applies everything, before the operator starts: what is chronic was there before it."""
        for namespace in self.namespaces:
            self._world.cluster.apply(*behaviour.exits(namespace, "registry.example/nightly-import:0.9.1"))
            self._world.cluster.apply(*behaviour.logs(namespace, None, "app", ["started", "listening on :8080", "GET /healthz 200"]))
        self._world.cluster.apply(*self.manifests())

    def change(self) -> None:
        """One unrelated change: every other one a setting, else a release that goes well."""
        namespace, app = self._random.choice(self._apps)
        self.changes += 1
        if self.changes % 2:
            patch = f'{{"data": {{"LOG_SAMPLE": "0.{self._random.randint(10, 99)}"}}}}'
            what = ("configmap", f"{app}-settings", "--type=merge", f"--patch={patch}")
            self._world.cluster.kubectl("-n", namespace, "patch", *what, kubeconfig=self._world.user)
            return
        self._releases[app] += 1
        image = f"app=registry.example/{app}:1.{self._releases[app]}.0"
        self._world.cluster.kubectl("-n", namespace, "set", "image", f"deployment/{app}", image, kubeconfig=self._world.user)

    def _change(self) -> None:
        while not self._over.wait(_CHANGE_SECONDS):
            try:
                self.change()
            except KubectlError as problem:
                self._world.progress(f"background: {problem}")

    def __enter__(self) -> Self:
        self.change()
        self.change()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()


def _app(namespace: str, app: str, replicas: int) -> Iterator[Json]:
    meta = {"name": app, "namespace": namespace, "labels": {"app": app}}
    container = {
        "name": "app",
        "image": f"registry.example/{app}:1.1.0",
        "envFrom": [{"configMapRef": {"name": f"{app}-settings"}}],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    }
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**meta, "name": f"{app}-settings"},
        "data": {"LOG_SAMPLE": "0.50"},
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container]}},
        },
    }


def _job_that_failed(namespace: str) -> Json:
    """An import that somebody tried once and never removed."""
    container = {"name": "import", "image": "registry.example/nightly-import:0.9.1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "import-trial", "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def _experiment_without_a_node(namespace: str) -> Iterator[Json]:
    """A single pod that waits for a machine that was given back long ago."""
    container = {"name": "bench", "image": "registry.example/bench:0.1.0"}
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bench-by-hand", "namespace": namespace},
        "spec": {"nodeSelector": {"hardware": "gpu-a"}, "containers": [container]},
    }
