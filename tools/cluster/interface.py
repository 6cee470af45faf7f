"""What every test cluster can do, whoever provides it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Protocol


class Cluster(Protocol):
    """A Kubernetes cluster for tests and the demo."""

    name: str
    provider: str  # "kubeconfig", "kind" or "local"
    kubeconfig: Path  # of an administrator
    audit_log: Path | None  # JSON lines; local clusters only
    simulated: bool  # the nodes are simulated: nothing in a pod really runs

    def kubectl(
        self,
        *args: str,
        stdin: str | None = None,
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, or as the user of another kubeconfig.

        With `check` an error raises KubectlError, which shows what kubectl said. More than `timeout`
        seconds raise subprocess.TimeoutExpired.
        """
        ...

    def apply(self, *manifests: Path | str | dict[str, Any]) -> None:
        """Apply files, folders, YAML texts or objects, server-side, as the administrator.

        Custom resource definitions go first and are served when this returns; then namespaces and the
        simulator's objects, then the rest in the order given. Raises KubectlError.
        """
        ...

    def user(self, name: str, *groups: str) -> Path:
        """A kubeconfig of a real user with that name and those groups (a client certificate).

        Any name will do, "auth0|bob" for example. Rights come from RBAC as for any user: none at first.
        """
        ...

    def service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of an existing ServiceAccount, valid for some hours."""
        ...

    def restart_apiserver(self) -> None:
        """Stop the API server hard and start it again on the same port; ready when this returns.

        Raises ClusterError where that cannot be done (clusters that are not local).
        """
        ...

    def stop(self) -> None:
        """End the cluster, with everything in it, if it was started for this purpose."""
        ...
