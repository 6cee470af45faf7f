"""Digests that say "the same thing": of pod templates, of specs, of plans.

A resourceVersion is no measure (one pod's death moves a Deployment's three times), nor is generation (annotations bump it).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sha256(value: object) -> str:
    """`sha256:<hex>` of the canonical JSON of `value` (sorted keys, no spaces, UTF-8)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_text(value: str) -> str:
    """`sha256:<hex>` of a text."""
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def bare_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """A pod template without what the Deployment controller adds to its ReplicaSets (label pod-template-hash)."""
    bare: dict[str, Any] = copy.deepcopy(dict(template))
    metadata = bare.get("metadata") or {}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != "pod-template-hash"}
    metadata = {k: v for k, v in metadata.items() if k != "creationTimestamp" and v not in (None, {}, [])}
    metadata.pop("labels", None)
    if labels:
        metadata["labels"] = labels
    bare["metadata"] = metadata
    return bare


def template_sha256(template: Mapping[str, Any]) -> str:
    """Digest of a pod template, equal for a Deployment and the ReplicaSet that was made from it."""
    return sha256(bare_template(template))


def spec_sha256(spec: Mapping[str, Any], *, scaled: bool = False) -> str:
    """Digest of a workload's normalised spec: status, metadata and resourceVersion play no part; nor replicas, where an autoscaler
    owns them (`scaled`)."""
    normal = dict(spec)
    if scaled:
        normal.pop("replicas", None)
    if "template" in normal:
        normal["template"] = bare_template(normal["template"])
    return sha256(normal)
