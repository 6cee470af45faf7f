"""Custom resource models → CustomResourceDefinition objects.

Why not `kube-custom-resource`: its metadata model drops `generation`, its models are mutable and ignore unknown fields, and what is
left (inlining `$ref`, dropping what a structural schema may not hold) is the sixty lines below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .meta import GROUP, VERSION, Names, Resource
from .v1alpha1 import ClusterRemediationPolicy, Incident, Ledger, RemediationPolicy, Runbook

KINDS: tuple[type[Resource], ...] = (ClusterRemediationPolicy, Incident, Ledger, RemediationPolicy, Runbook)
SCHEMA_DIGEST_ANNOTATION = f"{GROUP}/schema-digest"

Json = dict[str, Any]


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any], *, defaults: bool) -> Json:
    """A structural schema (Kubernetes' subset of OpenAPI 3) from pydantic's JSON schema.

    References are inlined; `anyOf` with null becomes the other branch (absent is our null); titles and
    `additionalProperties: false` go (the API server prunes and, asked strictly, refuses unknown fields).
    With `defaults` false no default is kept: a status is only what was observed.
    """
    node = dict(schema)
    if ref := node.pop("$ref", None):
        node = {**definitions[ref.removeprefix("#/$defs/")], **node}
    if branches := node.pop("anyOf", None):
        (branch,) = (b for b in branches if b.get("type") != "null")
        inner = structural(branch, definitions, defaults=defaults)
        outer = structural({**node, "type": "object"}, definitions, defaults=defaults)
        return {**inner, **{k: v for k, v in outer.items() if k not in {"type", "default"}}}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    node.pop("title", None)
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]
    node.pop("propertyNames", None)  # structural schemas have no rules for the keys of a map; the type of its values stays
    if patterns := node.pop("patternProperties", None):
        (node["additionalProperties"],) = patterns.values()
    if not defaults or node.get("default", ...) in (None, "", []):
        node.pop("default", None)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = structural(node[key], definitions, defaults=defaults)
    if "properties" in node:
        node["properties"] = {k: structural(v, definitions, defaults=defaults) for k, v in node["properties"].items()}
        if "default" in node:  # written out, because CEL rules judge a default before the nested defaults are filled in
            node["default"] = {k: v["default"] for k, v in node["properties"].items() if "default" in v}
    if description := node.get("description"):
        node["description"] = " ".join(description.split())
    return node


def schema_of(kind: type[Resource]) -> Json:
    """The `openAPIV3Schema` of one kind."""
    raw = kind.model_json_schema(by_alias=True)
    definitions = raw.get("$defs", {})
    properties: Json = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    for part in ("spec", "status"):
        if part in raw["properties"]:
            properties[part] = structural(raw["properties"][part], definitions, defaults=part == "spec")
            properties[part].pop("default", None)
    return {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": properties,
    }


def digest(schema: Mapping[str, Any]) -> str:
    """Digest of a schema, with which the operator notices that the cluster's CRD is not its own."""
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:32]


def crd(kind: type[Resource]) -> Json:
    """The CustomResourceDefinition of one kind."""
    names: Names = kind.served
    schema = schema_of(kind)
    version: Json = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [
            {
                "name": c.name,
                "type": c.type,
                "jsonPath": c.path,
                **({"priority": c.priority} if c.priority else {}),
                **({"description": c.description} if c.description else {}),
            }
            for c in names.columns
        ],
    }
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
    spec_names: Json = {
        "kind": kind.__name__,
        "listKind": f"{kind.__name__}List",
        "plural": names.plural,
        "singular": kind.__name__.lower(),
        "categories": ["nightorders"],
    }
    if names.short:
        spec_names["shortNames"] = list(names.short)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.plural}.{GROUP}",
            "annotations": {SCHEMA_DIGEST_ANNOTATION: digest(schema)},
            "labels": {"app.kubernetes.io/part-of": "nightorders"},
        },
        "spec": {
            "group": GROUP,
            "names": spec_names,
            "scope": "Namespaced" if names.namespaced else "Cluster",
            "versions": [version],
        },
    }


def all_crds() -> dict[str, Json]:
    """File stem (the plural) → CustomResourceDefinition, for every kind."""
    return {kind.served.plural: crd(kind) for kind in KINDS}
