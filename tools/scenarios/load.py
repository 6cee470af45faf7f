"""Reads scenario folders: every problem in one error, each line with file, field and fix."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tools.scenarios.errors import ScenarioError
from tools.scenarios.model import CATEGORIES, Document

FILE = "scenario.yaml"
Json = dict[str, Any]
Rewrite = Callable[[str], str]
_POD = re.compile(r"\$\{POD:([^}]+)\}")


@dataclass(frozen=True)
class Scenario:
    """One folder, with ${NAMESPACE} and ${DIR} expanded for one run."""

    folder: Path  # where its files are read from
    namespace: str  # that the run uses
    document: Document
    digest: str  # of every file of the original folder
    rewrite: Rewrite = field(compare=False, default=lambda text: text)

    @property
    def id(self) -> str:
        """The scenario's name."""
        return self.document.id

    def text(self, name: str) -> str:
        """A file's text, expanded but for ${POD:…}, which means a pod of the moment in which the file is used."""
        return self.rewrite(expand((self.folder / name).read_text(), self.namespace, self.folder))

    def objects(self, name: str, pod: Callable[[str], str] | None = None) -> list[Json]:
        """The objects in a manifest; `pod` finds the name for ${POD:selector}. Raises ScenarioError."""
        text = self.text(name)
        return parse_objects(expand_pods(text, pod) if pod else text, self.folder / name)


def expand(text: str, namespace: str, folder: Path) -> str:
    """${NAMESPACE} and ${DIR}. Other ${…} stay: programs have variables of their own."""
    return text.replace("${NAMESPACE}", namespace).replace("${DIR}", str(folder.resolve()))


def expand_pods(text: str, pod: Callable[[str], str]) -> str:
    """${POD:selector}: the name of the first pod that matches now."""
    return _POD.sub(lambda match: pod(match[1].strip()), text)


def parse_objects(text: str, path: Path) -> list[Json]:
    """The Kubernetes objects in a YAML text; lists are taken apart. Raises ScenarioError."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as problem:
        raise ScenarioError([f"{path}: no YAML: {_one_line(problem)}; correct it"]) from None
    found: list[Json] = []
    for number, document in enumerate(documents):
        if document is None:
            continue
        entries = document.get("items", []) if isinstance(document, dict) and document.get("kind") == "List" else [document]
        for entry in entries:
            if not isinstance(entry, dict) or not entry.get("kind") or not entry.get("apiVersion"):
                raise ScenarioError([f"{path}: document {number + 1} is no Kubernetes object; give it apiVersion and kind"])
            if not isinstance(entry.get("metadata"), dict) or not entry["metadata"].get("name"):
                raise ScenarioError([f"{path}: document {number + 1} ({entry['kind']}): metadata.name is missing; add it"])
            found.append(entry)
    return found


def folders(directory: Path) -> list[Path]:
    """The scenario folders in a directory, or the directory itself when it is one, as absolute paths. Raises ScenarioError."""
    directory = directory.resolve()
    if (directory / FILE).is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"*/{FILE}"))
    if not found:
        raise ScenarioError([f"{directory}: no {FILE} in it, and none in its folders; name a directory of scenario folders"])
    return found


def load(folder: Path, *, namespace: str | None = None, source: Path | None = None, rewrite: Rewrite = lambda text: text) -> Scenario:
    """A scenario for a run in `namespace` (default: its own). Raises ScenarioError with all problems.

    `source`: a copy of the folder that ${DIR} stands for and manifests are read from. `rewrite` is applied to every text.
    """
    path = folder / FILE
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise ScenarioError([f"{path}: cannot be read: {problem}"]) from None
    own = re.search(r"^namespace:\s*[\"']?([a-z0-9-]+)", text, re.MULTILINE)
    chosen = namespace or (own[1] if own else "default")
    where = source or folder
    try:
        raw = yaml.safe_load(rewrite(expand(text, chosen, where)))
    except yaml.YAMLError as problem:
        raise ScenarioError([f"{path}: no YAML: {_one_line(problem)}; correct it"]) from None
    if not isinstance(raw, dict):
        raise ScenarioError([f"{path}: is no mapping; begin with `id: …`"])
    try:
        document = Document.model_validate(raw)
    except ValidationError as problem:
        raise ScenarioError(list(_explain(problem, path))) from None
    scenario = Scenario(where, chosen, document, digest(folder), rewrite)
    if problems := list(_problems(scenario, folder)):
        raise ScenarioError(problems)
    return scenario


def load_all(directory: Path, only: tuple[str, ...] = ()) -> list[Scenario]:
    """All scenarios of a directory, or those that `only` names. Raises ScenarioError with the problems of all of them."""
    found: list[Scenario] = []
    problems: list[str] = []
    for folder in folders(directory):
        if only and folder.name not in only and not (folder / FILE).is_file():
            continue
        try:
            scenario = load(folder)
        except ScenarioError as problem:
            if not only or folder.name in only:
                problems += problem.problems
            continue
        if not only or scenario.id in only or folder.name in only:
            found.append(scenario)
    seen: dict[str, Path] = {}
    for scenario in found:
        if scenario.id in seen:
            problems.append(f"{scenario.folder / FILE}: id: {scenario.id!r} is that of {seen[scenario.id]} too; choose another one")
        seen[scenario.id] = scenario.folder
    if problems:
        raise ScenarioError(problems)
    if missing := sorted(set(only) - {s.id for s in found} - {s.folder.name for s in found}):
        raise ScenarioError([f"--only {name}: no scenario of that id in {directory}; `list` shows those there are" for name in missing])
    return found


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files, 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


# ---------------------------------------------------------------- problems


def _problems(scenario: Scenario, folder: Path) -> Iterator[str]:
    """What the models cannot see: the files."""
    for name in dict.fromkeys(scenario.document.files):
        path = (scenario.folder / name).resolve()
        if not path.is_relative_to(scenario.folder.resolve()):
            yield f"{folder / FILE}: {name!r} lies outside the scenario's folder; copy it in"
        elif not path.is_file():
            yield f"{folder / FILE}: names {name!r}, which is not in the folder; add the file or correct the name"
        else:
            try:
                scenario.objects(name)
            except ScenarioError as problem:
                yield from problem.problems
            except (OSError, UnicodeDecodeError) as problem:
                yield f"{path}: cannot be read: {problem}"


def _explain(problem: ValidationError, path: Path) -> Iterator[str]:
    for error in problem.errors(include_url=False):
        where = _location(error["loc"])
        yield f"{path}: {where}: {_fix(error)}"


def _location(parts: tuple[int | str, ...]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "(whole file)"


def _fix(error: Any) -> str:
    kind, message = error["type"], error["msg"]
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        allowed = _siblings(error["loc"])
        return "is no field of a scenario; " + (f"allowed here: {', '.join(allowed)}" if allowed else "remove it or correct its name")
    if kind == "literal_error" and error["loc"][-1] == "category":
        return f"{error['input']!r} is no category; use one of {', '.join(CATEGORIES)}"
    if kind == "literal_error":
        return f"{error['input']!r} is not possible; use {error['ctx']['expected']}"
    if kind == "value_error":
        return str(message).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"{error['input']!r} is no DNS label; use lower-case letters, digits and '-'"
    return f"{message} (found {str(error['input'])[:80]!r}); correct it"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The fields that the model at that place has."""
    model: type[BaseModel] | None = Document
    for part in location[:-1]:
        if isinstance(part, int) or model is None:
            continue
        found = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = _model_in(found.annotation) if found is not None else None
    return sorted(f.alias or name for name, f in model.model_fields.items()) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _model_in(inner)) is not None), None)


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
