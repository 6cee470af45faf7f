"""What a dry run would change, as text for people: a unified diff in which no environment value can be read."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ..api.meta import text
from .digest import bare_template, sha256
from .snapshot import KubeObject


def masked(node: Any) -> Any:
    """A copy in which every `value` of an environment variable is replaced by the first digits of its digest."""
    if isinstance(node, Mapping):
        return {k: [_masked_env(e) for e in v] if k == "env" and isinstance(v, list) else masked(v) for k, v in node.items()}
    if isinstance(node, list):
        return [masked(item) for item in node]
    return node


def _masked_env(entry: Any) -> Any:
    if isinstance(entry, Mapping) and "value" in entry:
        return {**entry, "value": f"(sha256 {sha256(entry['value'])[7:15]})"}
    return masked(entry)


def diff(before: KubeObject, after: KubeObject, redact: Callable[[str], str]) -> str:
    """Unified diff of the two specs as YAML, redacted and bounded."""

    def lines(o: KubeObject) -> list[str]:
        spec = json.loads(json.dumps(o.at("spec", default={})))
        if "template" in spec:
            spec["template"] = bare_template(spec["template"])
        return [redact(row) for row in yaml.safe_dump(masked(spec), sort_keys=True, width=200).splitlines()]

    rows = difflib.unified_diff(lines(before), lines(after), "now", "planned", lineterm="", n=2)
    return text("\n".join(rows))
