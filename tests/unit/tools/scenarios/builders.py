"""Scenario folders and cluster objects for the tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from tools.scenarios.kube import Ref

Json = dict[str, Any]

APP: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "labeler", "labels": {"app": "labeler"}},
    "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "labeler", "image": "registry.example/labeler:1"}]}}},
}
DOCUMENT: Json = {
    "id": "wrong-port",
    "title": "A release listens on another port",
    "nodes": "simulated",
    "kind": "fault",
    "namespace": "parcels",
    "before": ["app.yaml"],
    "ready": [{"object": "Deployment/labeler", "condition": "Available"}],
    "steps": [{"run": ["kubectl", "rollout", "restart", "deployment/labeler"]}],
    "signal": {"labels": {"alertname": "KubePodNotReady", "namespace": "${NAMESPACE}", "pod": "${POD:app=labeler}"}},
    "expect": {
        "rootCause": [{"category": "BadRelease", "object": "Deployment/labeler"}],
        "outcome": "Repaired",
        "mayMutate": ["Deployment/labeler"],
        "repaired": [{"object": "Deployment/labeler", "jsonpath": "{.status.availableReplicas}", "equals": 3}],
    },
    "proof": {
        "symptom": [{"object": "Deployment/labeler", "condition": "Available", "status": "False"}],
        "repair": [{"run": ["kubectl", "rollout", "undo", "deployment/labeler"]}],
    },
}


def folder(path: Path, document: Json | None = None, **files: str) -> Path:
    """Writes a scenario folder; a file named app_yaml is app.yaml."""
    found = path / (document or DOCUMENT)["id"]
    found.mkdir(parents=True, exist_ok=True)
    (found / "scenario.yaml").write_text(yaml.safe_dump(document or DOCUMENT, sort_keys=False))
    (found / "app.yaml").write_text(yaml.safe_dump(APP))
    for name, text in files.items():
        (found / name.replace("_", ".", 1)).write_text(text)
    return found


def changed(**fields: Any) -> Json:
    """The document with some top fields replaced; None removes one."""
    found = copy.deepcopy(DOCUMENT)
    found.update(fields)
    return {k: v for k, v in found.items() if v is not None}


class Objects:
    """A cluster that has exactly these objects."""

    def __init__(self, *objects: Json) -> None:
        self.objects = list(objects)

    def get(self, ref: Ref) -> Json | None:
        """As `kube.Kube.get`."""
        return next((o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (ref.kind, ref.name)), None)

    def list(self, kind_name: str, namespace: str = "", selector: str | None = None) -> list[Json]:
        """As `kube.Kube.list`, for selectors of one label."""
        label, _, value = (selector or "").partition("=")
        return [o for o in self.objects if o["kind"] == kind_name and (not label or o["metadata"].get("labels", {}).get(label) == value)]
