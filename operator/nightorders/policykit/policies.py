"""Policies from files, each held against what the API server and the operator would say to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..api.meta import API_VERSION, GROUP, NAME_PATTERN
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.policy import RemediationPolicy
from ..domain import freezes
from .files import BadInputError, Document, Problem, Source, dotted, read_all
from .schema import checked, spec_schema

Policy = RemediationPolicy | ClusterRemediationPolicy
MODELS: Mapping[str, type[RemediationPolicy] | type[ClusterRemediationPolicy]] = {
    "RemediationPolicy": RemediationPolicy,
    "ClusterRemediationPolicy": ClusterRemediationPolicy,
}


@dataclass(frozen=True)
class Loaded:
    """One policy and where it stands."""

    policy: Policy
    source: Source = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.policy.kind, self.policy.metadata.namespace, self.policy.metadata.name)

    @property
    def title(self) -> str:
        return "/".join(part for part in self.key if part)


def load(paths: Iterable[tuple[Path, str]]) -> list[Loaded]:
    """The policies of these files and directories, sorted; other objects in them are left alone. Raises BadInputError with every problem."""
    found, problems = read_all(paths, of_document)
    problems += list(twice(found))
    if problems:
        raise BadInputError(problems)
    return sorted(found, key=lambda p: p.key)


def twice(found: Sequence[Loaded]) -> Iterable[Problem]:
    """The same policy in two places: which one holds is up to who applies last."""
    seen: dict[tuple[str, str, str], Loaded] = {}
    for one in found:
        first = seen.setdefault(one.key, one)
        if first is not one:
            yield Problem(
                one.source.file,
                one.source.line(("metadata", "name")),
                "metadata.name",
                f"{one.title} is in {first.source.file}:{first.source.line()}, too",
                "rename or remove one of them",
            )


def of_document(document: Document) -> list[Loaded]:
    """The policies of one document; a List holds several. Raises BadInputError."""
    value = document.value
    if not isinstance(value, dict):
        return []
    if str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        return [p for i, item in enumerate(value["items"]) for p in of_document(Document(item, document.source.below("items", i)))]
    version = str(value.get("apiVersion", ""))
    if not version.startswith(f"{GROUP}/") and value.get("kind") not in MODELS:
        return []
    return [of_object(value, document.source)] if value.get("kind") not in ("Incident", "Ledger") else []


def of_object(value: dict[str, Any], source: Source, case: str = "") -> Loaded:
    """One policy. Raises BadInputError."""
    problems = _envelope(value, source, case)
    if value.get("kind") not in MODELS or value.get("spec") is None:
        raise BadInputError(problems)
    model = MODELS[value["kind"]]
    spec, more = checked(spec_schema(model.served.plural), value["spec"], source, ("spec",), case)
    problems += more
    if problems:
        raise BadInputError(problems)
    names = {k: v for k, v in value["metadata"].items() if k in ("name", "namespace", "labels", "annotations") and v is not None}
    try:
        policy: Policy = model.model_validate({"apiVersion": API_VERSION, "kind": value["kind"], "metadata": names, "spec": spec})
    except ValidationError as error:
        for e in error.errors(include_input=False, include_url=False, include_context=False):
            at = tuple(s for s in e["loc"] if isinstance(s, str | int))
            problems.append(Problem(source.file, source.line(at), dotted(at), e["msg"], "", case))
        raise BadInputError(problems) from None
    for i, freeze in enumerate(policy.spec.freezes):
        for problem in freezes.problems([freeze]):
            problems.append(Problem(source.file, source.line(("spec", "freezes", i)), f"spec.freezes[{i}]", problem, "", case))
    if problems:
        raise BadInputError(problems)
    return Loaded(policy, source)


def _envelope(value: dict[str, Any], source: Source, case: str) -> list[Problem]:
    """What is wrong around the spec."""
    problems: list[Problem] = []

    def wrong(at: tuple[str, ...], message: str, fix: str) -> None:
        problems.append(Problem(source.file, source.line(at), dotted(at), message, fix, case))

    kind = value.get("kind")
    if kind not in MODELS:
        wrong(("kind",), f"{kind!r} is no policy", f"write one of {', '.join(MODELS)}")
    if value.get("apiVersion") != API_VERSION:
        wrong(("apiVersion",), f"{value.get('apiVersion')!r} is not served", f"write {API_VERSION}")
    raw = value.get("metadata")
    metadata = raw if isinstance(raw, dict) else {}
    name = metadata.get("name")
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name) or len(name) > 253:
        wrong(("metadata", "name"), "is missing or no name", "use lower-case letters, digits, '-' and '.'")
    if kind == "ClusterRemediationPolicy" and metadata.get("namespace"):
        wrong(
            ("metadata", "namespace"), "a ClusterRemediationPolicy lives in no namespace", "remove it; spec.namespaces says whom it governs"
        )
    for key in [k for k in value if k not in ("apiVersion", "kind", "metadata", "spec", "status")]:
        wrong((key,), "there is no such field", "known here: apiVersion, kind, metadata, spec")
    if value.get("spec") is None:
        wrong(("spec",), "is missing", "add spec")
    return problems
