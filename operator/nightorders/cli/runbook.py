"""`nightorders runbook lint`: whether a runbook answers what somebody asks at night. No cluster, no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..api.meta import line
from .policy import Report, ReportFormat, _bad_input, _forge

if TYPE_CHECKING:
    from ..domain.runbooks import Problem as Open
    from ..policykit.files import Document, Problem, Source
    from ..policykit.report import Finding

app = typer.Typer(name="runbook", help="What a runbook leaves open, told without a cluster.", no_args_is_help=True)
LINT_CODES = "Exit codes: 0 every question is answered; 1 one is not; 2 a file cannot be used, wrong usage."
CHECK = "nightorders-runbook"


@app.callback()
def _group() -> None:
    """What a runbook leaves open, told without a cluster."""


@app.command(epilog=LINT_CODES)
def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR...", help="Files with Runbooks, or directories of them.")],
    output: ReportFormat = Report.TEXT,
) -> None:
    """Say what each Runbook leaves open: metric, threshold, action, rollouts, approver, verification, never automatic; and what is in vain.

    Other objects in the files are left alone. Unknown fields are errors, as kubectl and the API server have them.
    """
    from ..policykit.files import BadInputError, bad

    try:
        found = load([(p, str(p)) for p in paths])
        if not found:
            raise bad(", ".join(map(str, paths)), "there is no Runbook in it", "name a file or a directory that holds one")
    except BadInputError as error:
        raise _bad_input(error, output) from None
    if output is Report.JSON:
        typer.echo(json.dumps(as_json(found), indent=2, ensure_ascii=False))
    elif output is Report.TEXT:
        typer.echo(as_text(found), nl=False)
    else:
        _forge(output, findings(found))
    raise typer.Exit(1 if any(f.open for f in found) else 0)


@dataclass(frozen=True)
class Linted:
    """One Runbook, where it stands, and what it leaves open."""

    name: str
    source: Source
    open: tuple[Open, ...]

    def line_of(self, problem: Open) -> int:
        """The line of the field, or of what is around it."""
        return self.source.line(("spec", *problem.field))


def load(paths: Iterable[tuple[Path, str]]) -> list[Linted]:
    """The Runbooks of these files and directories. Raises BadInputError with everything that makes one unusable."""
    from ..policykit.files import BadInputError, read_all

    found, problems = read_all(paths, of_document)
    if problems:
        raise BadInputError(problems)
    return found


def of_document(document: Document) -> list[Linted]:
    """The Runbooks of one document; a List holds several. Raises BadInputError."""
    from ..policykit.files import Document as Part

    value = document.value
    if not isinstance(value, dict):
        return []
    if str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        return [r for i, item in enumerate(value["items"]) for r in of_document(Part(item, document.source.below("items", i)))]
    return [_of_object(value, document.source)] if value.get("kind") == "Runbook" else []


def _of_object(value: dict[str, Any], source: Source) -> Linted:
    from pydantic import ValidationError

    from ..actions import CATALOGUE
    from ..api.v1alpha1.runbook import Runbook
    from ..domain.runbooks import problems
    from ..policykit.files import BadInputError, Problem
    from ..policykit.schema import checked, spec_schema

    wrong = list(_envelope(value, source))
    spec: Any = value.get("spec")
    if spec is not None:
        spec, more = checked(spec_schema(Runbook.served.plural), spec, source, ("spec",))
        wrong += [p for p in more if p.message != NO_THRESHOLD]
    if wrong:
        raise BadInputError(wrong)
    metadata = {k: v for k, v in value["metadata"].items() if k in ("name", "namespace")}
    try:
        runbook = Runbook.model_validate({"kind": "Runbook", "metadata": metadata, "spec": spec})
    except ValidationError as error:
        told = error.errors(include_input=False, include_url=False, include_context=False)
        raise BadInputError([Problem(source.file, source.line(_at(e)), ".".join(map(str, _at(e))), e["msg"]) for e in told]) from None
    found = problems(runbook.spec, [t.value for t in CATALOGUE], runbook.metadata.namespace)
    return Linted(runbook.metadata.name, source, tuple(found))


# The API server refuses it, too; here it is one of the questions, told beside the others.
NO_THRESHOLD = "a promql check needs max or min, or both"


def _at(error: Any) -> tuple[str | int, ...]:
    return tuple(s for s in error["loc"] if isinstance(s, str | int))


def _envelope(value: Mapping[str, Any], source: Source) -> Iterator[Problem]:
    """What is wrong around the spec."""
    import re

    from ..api.meta import API_VERSION, NAME_PATTERN
    from ..policykit.files import Problem

    if value.get("apiVersion") != API_VERSION:
        yield Problem(
            source.file, source.line(("apiVersion",)), "apiVersion", f"{value.get('apiVersion')!r} is not served", f"write {API_VERSION}"
        )
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name) or len(name) > 253:
        at = ("metadata", "name")
        yield Problem(source.file, source.line(at), "metadata.name", "is missing or no name", "use lower-case letters, digits, '-' and '.'")
    for key in [k for k in value if k not in ("apiVersion", "kind", "metadata", "spec", "status")]:
        yield Problem(source.file, source.line((key,)), key, "there is no such field", "known here: apiVersion, kind, metadata, spec")
    if value.get("spec") is None:
        yield Problem(source.file, source.line(), "spec", "is missing", "add spec")


# ------------------------------------------------------------ told


def as_text(found: Iterable[Linted]) -> str:
    """One line for each finding, and a count."""
    every = list(found)
    out = [line(f"{r.source.file}:{r.line_of(p)}: Runbook/{r.name}: {p.where}: {p.message}; {p.fix}", 4096) for r in every for p in r.open]
    left = sum(bool(r.open) for r in every)
    out.append(f"{len(every) - left} complete, {left} with open questions")
    return "\n".join(out) + "\n"


def as_json(found: Iterable[Linted]) -> dict[str, Any]:
    """Everything, for scripts."""
    every = list(found)
    return {
        "runbooks": [{"name": r.name, "file": r.source.file, "line": r.source.line(), "ok": not r.open} for r in every],
        "findings": [
            {"runbook": r.name, "file": r.source.file, "line": r.line_of(p), "where": p.where, "message": p.message, "fix": p.fix}
            for r in every
            for p in r.open
        ],
    }


def findings(found: Iterable[Linted]) -> list[Finding]:
    """For the forges."""
    from ..policykit.report import Finding as Shown

    return [Shown(r.source.file, r.line_of(p), CHECK, f"Runbook/{r.name}: {p.where}: {p.message}; {p.fix}") for r in found for p in r.open]
