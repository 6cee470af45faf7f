"""The kind provider: a cluster in containers, through pytest-kind, where a container engine answers."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.cluster import build
from tools.cluster.errors import ClusterError, Unavailable
from tools.cluster.paths import temporary_directory
from tools.cluster.signing import SigningCluster

_PREFIX = "nightorders-"
# An engine whose daemon hangs must not hold up those who can do without it.
_ANSWER_SECONDS = 5.0
_READY_TIMEOUT = "180s"


class KindCluster(SigningCluster):
    """A cluster in containers; see `tools.cluster.interface.Cluster`."""

    def __init__(self, handle: Any, **fields: Any) -> None:
        super().__init__(**fields)
        self._handle = handle  # pytest_kind.KindCluster, which has no types

    def stop(self) -> None:
        """Delete the cluster."""
        self._handle.delete()


def engine() -> str:
    """The container engine that answers: "docker" or "podman". Raises Unavailable with the reason."""
    reasons = []
    for name in ("docker", "podman"):
        if shutil.which(name) is None:
            reasons.append(f"no {name} on PATH")
            continue
        try:
            answer = subprocess.run([name, "info"], check=False, capture_output=True, timeout=_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            reasons.append(f"{name} does not answer")
            continue
        if answer.returncode == 0:
            return name
        reasons.append(f"{name} answers with an error")
    raise Unavailable(f"no container engine: {', '.join(reasons)}")


def start(name: str, *, nodes: int, progress: Callable[[str], None]) -> KindCluster:
    """Start a kind cluster with one control-plane node and `nodes` workers: about a minute.

    It stays when its creator is killed; `kind delete cluster --name nightorders-NAME` removes it. Raises
    Unavailable when there is no engine or pytest-kind, ClusterError when kind fails.
    """
    chosen = engine()
    try:
        pytest_kind = importlib.import_module("pytest_kind")
    except ImportError as problem:
        raise Unavailable(f"the Python package pytest-kind cannot be used: {problem}") from problem
    kind = build.program("kind", "kind", progress)
    kubectl = build.kubectl(progress)
    files = temporary_directory("kind")
    config = files / "kind.yaml"
    config.write_text(_config(nodes))
    kubeconfig = files / "kubeconfig"
    if chosen == "podman":
        os.environ.setdefault("KIND_EXPERIMENTAL_PROVIDER", "podman")
    # pytest-kind makes a folder in the working directory, for programs that it would download.
    with contextlib.chdir(files):
        handle = pytest_kind.KindCluster(f"{_PREFIX}{name}", kubeconfig=kubeconfig, kind_path=kind, kubectl_path=kubectl)
    progress(f"starting kind cluster {_PREFIX}{name} on {chosen} (about a minute, longer the first time)")
    try:
        handle.create(config_file=config)
    except (OSError, subprocess.SubprocessError) as problem:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            handle.delete()
        raise ClusterError(f"kind could not start a cluster: {problem}") from problem
    return _ready(handle, name, kubeconfig, kubectl, files)


def _ready(handle: Any, name: str, kubeconfig: Path, kubectl: Path, files: Path) -> KindCluster:
    """The cluster once its nodes are ready; deleted again when they do not become so."""
    cluster = KindCluster(handle, name=name, provider="kind", kubeconfig=kubeconfig, kubectl=kubectl, files=files, simulated=False)
    try:
        cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", f"--timeout={_READY_TIMEOUT}", timeout=200)
    except (ClusterError, subprocess.SubprocessError) as problem:
        cluster.stop()
        raise ClusterError(f"the nodes of the kind cluster do not become ready: {problem}") from problem
    return cluster


def _config(nodes: int) -> str:
    roles = ["control-plane"] + ["worker"] * nodes
    lines = ["kind: Cluster", "apiVersion: kind.x-k8s.io/v1alpha4", "nodes:"]
    return "\n".join([*lines, *(f"- role: {role}" for role in roles)]) + "\n"
