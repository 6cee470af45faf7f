"""The workloads of a cluster, from what `kubectl get deploy -A -o yaml` (or json) printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..domain.snapshot import KubeObject
from .files import bad

KINDS = ("Deployment", "StatefulSet", "DaemonSet")
MAX_BYTES = 256 * 1024 * 1024
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> list[KubeObject]:
    """Every workload of the file. Raises BadInputError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise bad(path, "is too large", "print the labels only, or one namespace")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise bad(path, f"cannot be read: {error.strerror if isinstance(error, OSError) else 'it is not UTF-8'}") from None
    try:
        whole: list[Any]
        if text.lstrip().startswith("{"):
            whole = [json.loads(text)]
        else:
            whole = list(yaml.load_all(text, Loader=_LOADER))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise bad(path, f"is neither JSON nor YAML: {str(error).splitlines()[0]}") from None
    found = [w for one in whole for w in _workloads(one)]
    if not found:
        raise bad(path, f"holds no {', '.join(KINDS)}", "write: kubectl get deploy -A -o yaml > FILE")
    return found


def _workloads(value: Any) -> Iterator[KubeObject]:
    if not isinstance(value, dict):
        return
    if isinstance(value.get("items"), list):
        for item in value["items"]:
            yield from _workloads(item)
    elif value.get("kind") in KINDS and isinstance(value.get("metadata"), dict):
        yield KubeObject(value, value["kind"], "apps/v1")
