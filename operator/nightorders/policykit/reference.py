"""docs/reference/policy-test.md, made of the format's own descriptions. A test holds the page against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api.meta import DURATION_PATTERN
from .trial import file_schema

Json = dict[str, Any]
INTRO = """# Policy tests: the format

Made of the descriptions in `operator/nightorders/policykit/cases.py`; a test fails when they differ. How to use it: `docs/gitops.md`.

`nightorders policy test DIR` reads every YAML and JSON file below DIR. A file with a list `cases:` is a test file; objects of Kubernetes
(the policies themselves, a kustomization) are left alone. Unknown keys are errors. A case says only what matters to it: the default of
everything is that all is fine (a grade-A diagnosis made 5 s ago by the operator itself, nothing at risk, no owner, no stop, a proven
approval guard). What follows from it is decided by the code that decides at night, not by a copy.

Durations are written as in policies: `90s`, `15m`, `336h`. Paths are seen from the directory of the test file. Exit codes: 0 every case is
as expected; 1 one is not; 2 a file cannot be used. `-o json|github|gitlab` for scripts and forges, `--coverage` for the rules, freezes,
ceilings, tiers and protected entries that no case touches.

Outcomes: `Acts` (L4, or L3 with enough approvals), `AwaitsApproval` (L3), `Rejected`, `Advises` (L2), `ReadOnly` (L1), `Shadow` (the policy
touches nothing), `Refused` (a gate refuses; its reason is the verdict).
"""
PARTS = {
    "workload": "`workload`",
    "incident": "`incident`",
    "ledger": "`ledger`",
    "fleet": "`fleet`",
    "risk": "`risk`",
    "rollout": "`rollout`",
    "gitOps": "`gitOps`",
    "expect": "`expect`",
}


def page() -> str:
    """The whole page."""
    schema = file_schema()
    case: Json = schema["properties"]["cases"]["items"]
    lines = [
        INTRO,
        "## A file",
        "",
        *_table(schema),
        "",
        "## A case",
        "",
        "`defaults` takes the same keys, without `name` and `expect`.",
        "",
    ]
    lines += _table(case)
    for key, title in PARTS.items():
        part = case["properties"][key]
        lines += ["", f"### {title}", "", str(part.get("description", "")), "", *_table(part)]
    return "\n".join(lines) + "\n"


def _table(node: Mapping[str, Any]) -> list[str]:
    return ["| key | type | meaning |", "|---|---|---|", *(f"| `{k}` | {t} | {m} |" for k, t, m in _rows(node, ""))]


def _rows(node: Mapping[str, Any], before: str) -> Iterator[tuple[str, str, str]]:
    for key, inner in node.get("properties", {}).items():
        about = [str(inner.get("description", "")).rstrip(".")]
        if key in node.get("required", ()):
            about.insert(0, "required")
        elif "default" in inner and not isinstance(inner["default"], dict | list):
            about.append(f"default `{_plain(inner['default'])}`")
        yield before + key, _type(inner), ". ".join(a for a in about if a).replace("|", "\\|")
        if key in PARTS or key in ("defaults", "cases"):
            continue
        items = inner.get("items") if inner.get("type") == "array" else inner
        if isinstance(items, Mapping) and items.get("properties"):
            yield from _rows(items, f"{before}{key}{'[]' if inner.get('type') == 'array' else ''}.")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return "one of " + ", ".join(f"`{v}`" for v in node["enum"])
    match node.get("type"):
        case "array":
            return f"list of {_type(node['items'])}" if node.get("items") else "list of paths and policies"
        case "object":
            return "mapping" if node.get("properties") else f"mapping of text to {_type(node.get('additionalProperties') or {})}"
        case None:
            return "path or policy"
        case "string":
            if node.get("pattern") == DURATION_PATTERN:
                return "duration"
            return "time" if node.get("format") == "date-time" else "text"
        case other:
            return str(other)
