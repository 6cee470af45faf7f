"""The operator as its own process with its own ServiceAccount, on a throw-away cluster: what the demo shows and the tests attack.

On a cluster with simulated nodes the operator's own Deployment would be a picture of itself, so it is scaled to zero and the same
command runs beside the cluster, with a token of the very account and roles that users install.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tools.cluster import Cluster

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "nightorders-system"
ACCOUNT = "nightorders"


def install(cluster: Cluster) -> None:
    """CRDs, roles and admission policies as users get them (level L1), and waits until the API server enforces the guard."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests/install"))
    if cluster.simulated:
        cluster.kubectl("-n", NAMESPACE, "scale", "deployment/nightorders", "--replicas=0")
    wait_guarded(cluster)


def wait_guarded(cluster: Cluster, seconds: float = 30) -> None:
    """Returns when a forged approval at creation is refused by the policy: the API server learns of it with a delay."""
    probe = (
        '{"apiVersion":"nightorders.dev/v1alpha1","kind":"Incident","metadata":{"name":"probe","namespace":"default",'
        '"annotations":{"approve.nightorders.dev/x":"x|x"}},"spec":{"target":{"apiVersion":"apps/v1","kind":"Deployment","name":"x"}}}'
    )
    end = time.monotonic() + seconds
    while True:
        answer = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=probe, check=False)
        if "nightorders-approvals" in answer.stderr:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"the approval guard is not enforced after {seconds:.0f} s: {answer.stderr}")
        time.sleep(0.1)


def allow_rollback(cluster: Cluster, namespace: str) -> None:
    """Binds the role of RollbackWorkload for the operator in one namespace."""
    cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests/actions/rollback-workload"))
    cluster.kubectl("-n", namespace, "apply", "-f", str(ROOT / "manifests/actions/rollback-workload/rolebinding.example.yaml"))


def free_port() -> int:
    """A TCP port of loopback that nobody uses at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class OperatorProcess:
    """One `nightorders run`. `log` is its standard error, JSON lines."""

    def __init__(self, cluster: Cluster, *, environment: dict[str, str] | None = None, name: str = "operator") -> None:
        self.name = name
        self.health = free_port()
        self.metrics = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="nightorders-operator-")
        self.log = Path(self._folder.name) / "log"
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.service_account(NAMESPACE, ACCOUNT)),
            "NIGHTORDERS_LISTEN": "127.0.0.1",
            "NIGHTORDERS_HEALTH_PORT": str(self.health),
            "NIGHTORDERS_METRICS_PORT": str(self.metrics),
            "NIGHTORDERS_DETECT_AFTER_SECONDS": "2",
            "NIGHTORDERS_RECHECK_SECONDS": "10",
            "NIGHTORDERS_GUARD_EVERY_SECONDS": "5",
            "NIGHTORDERS_LEASE_SECONDS": "6",
            "POD_NAME": name,
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> OperatorProcess:
        """Starts it; `wait_ready` says when it acts."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nightorders", "run", "--log-level", "debug"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder.name,
            )
        return self

    def answer(self, path: str) -> tuple[int, str]:
        """(status, text) of the health port; status 0 when nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz/{path}", timeout=3) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def scrape(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=3) as response:
            return str(response.read().decode())

    def wait_ready(self, seconds: float = 60, *, leading: bool = True) -> OperatorProcess:
        """Returns when it is ready (and leads). Raises TimeoutError with the end of its log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {self.process.returncode}:\n{self.tail()}")
            if self.answer("ready")[0] == 200 and (not leading or "nightorders_leader 1.0" in self.scrape()):
                return self
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} is not ready after {seconds:.0f} s: {self.answer('ready')}\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to exactly this process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, as a node that loses power."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL after ten seconds; the exit status."""
        self.signal(signal.SIGTERM)
        status = None
        if self.process is not None:
            try:
                status = self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        with contextlib.suppress(OSError):
            self._folder.cleanup()
        return status
