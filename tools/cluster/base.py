"""What all providers share: everything that kubectl can do."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import kubeconfig as kubeconfigs
from tools.cluster.errors import ClusterError, KubectlError

Manifest = Path | str | dict[str, Any]

_TOKEN_DURATION = "24h"
_FIELD_MANAGER = "nightorders-test"
_SUFFIXES = {".yaml", ".yml", ".json"}


class KubectlCluster:
    """A cluster that kubectl and an administrator's kubeconfig reach.

    `files` is a private directory for kubeconfigs and kubectl's cache.
    """

    audit_log: Path | None = None

    def __init__(self, *, name: str, provider: str, kubeconfig: Path, kubectl: Path, files: Path, simulated: bool):
        self.name = name
        self.provider = provider
        self.kubeconfig = kubeconfig
        self.simulated = simulated
        self._kubectl = kubectl
        self._files = files

    def kubectl(
        self,
        *args: str,
        stdin: str | None = None,
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """See `Cluster.kubectl`."""
        chosen = kubeconfig or self.kubeconfig
        argv = [str(self._kubectl), f"--kubeconfig={chosen}", f"--cache-dir={self._files / 'kubectl-cache'}", *args]
        # A KUBECONFIG of the person who runs this must not matter.
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        # An empty standard input and not the terminal's, for which an `apply -f -` would wait for ever.
        answer = subprocess.run(argv, check=False, input=stdin or "", capture_output=True, text=True, timeout=timeout, env=environment)
        if check and answer.returncode:
            raise KubectlError(answer.returncode, ["kubectl", *args], answer.stdout, answer.stderr)
        return answer

    def apply(self, *manifests: Manifest) -> None:
        """See `Cluster.apply`."""
        objects = sorted((found for manifest in manifests for found in load(manifest)), key=_rank)
        definitions = [found for found in objects if _rank(found) == 0]
        if definitions:
            self._apply(definitions)
            names = [f"crd/{found['metadata']['name']}" for found in definitions]
            self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        simulation = [found for found in objects if _rank(found) in (1, 2)]
        rest = objects[len(definitions) + len(simulation) :]
        if any(_rank(found) == 2 for found in simulation):
            self._apply(simulation)
            self._simulation_changed()
        else:
            rest = simulation + rest
        if rest:
            self._apply(rest)

    def _simulation_changed(self) -> None:
        """Called after the simulator's objects were applied, before anything they are for."""

    def _apply(self, objects: list[dict[str, Any]]) -> None:
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            f"--field-manager={_FIELD_MANAGER}",
            "-f",
            "-",
            stdin=document,
        )

    def service_account(self, namespace: str, name: str) -> Path:
        """See `Cluster.service_account`."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={_TOKEN_DURATION}")
        user = f"system:serviceaccount:{namespace}:{name}"
        path = self._files / "users" / f"{kubeconfigs.file_stem(user)}.kubeconfig"
        return kubeconfigs.with_token(path, self._endpoint(), user, token.stdout.strip())

    def restart_apiserver(self) -> None:
        """Not possible here; see `Cluster.restart_apiserver`."""
        raise ClusterError(f"the API server of a {self.provider} cluster cannot be restarted from here; a local one's can")

    def _endpoint(self) -> kubeconfigs.Endpoint:
        """Where the API server is, from the administrator's kubeconfig with files read into it."""
        answer = self.kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json")
        return kubeconfigs.Endpoint(json.loads(answer.stdout)["clusters"][0]["cluster"])


def load(manifest: Manifest) -> list[dict[str, Any]]:
    """The objects in a manifest: a file, all manifest files right in a folder, a YAML text or an object.

    Lists are taken apart. Raises OSError, yaml.YAMLError, and ClusterError for what is no object.
    """
    if isinstance(manifest, Path) and manifest.is_dir():
        files = sorted(path for path in manifest.iterdir() if path.suffix in _SUFFIXES)
        return [found for path in files for found in load(path)]
    documents: Iterable[Any]
    if isinstance(manifest, dict):
        documents = [manifest]
    else:
        documents = yaml.safe_load_all(manifest.read_text() if isinstance(manifest, Path) else manifest)
    objects: list[dict[str, Any]] = []
    for document in documents:
        if document is None:
            continue  # an empty document between two separators
        if not isinstance(document, dict) or "kind" not in document:
            raise ClusterError(f"no Kubernetes object: {str(document)[:200]}")
        objects += document["items"] if document["kind"] == "List" else [document]
    return objects


def _rank(found: dict[str, Any]) -> int:
    """What must be there first: definitions, namespaces, how simulated pods behave, then the rest."""
    if found["kind"] == "CustomResourceDefinition":
        return 0
    if found["kind"] == "Namespace":
        return 1
    return 2 if found.get("apiVersion", "").startswith("kwok.x-k8s.io/") else 3
