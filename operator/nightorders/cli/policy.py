"""`nightorders policy explain|test|diff`: what orders amount to, now, in a table of cases, and compared with others."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import CODES, Context, Format, Kubeconfig, Namespace, Output, _print, _run

if TYPE_CHECKING:
    from ..policykit.files import BadInputError
    from ..policykit.report import Finding

app = typer.Typer(
    name="policy", help="What orders amount to: explained on a cluster, tested and compared without one.", no_args_is_help=True
)

TEST_CODES = "Exit codes: 0 every case is as expected; 1 one is not; 2 a file cannot be used, wrong usage."
DIFF_CODES = "Exit codes: 0 nothing is raised, or --allow-raise; 3 something is raised; 2 a file cannot be used, wrong usage."


class Report(StrEnum):
    """How to print it."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    GITLAB = "gitlab"


ReportFormat = Annotated[
    Report,
    typer.Option("-o", "--output", help="text, json, github (annotations beside the lines) or gitlab (a code-quality report)."),
]


@app.command(epilog=CODES)
def explain(
    workload: Annotated[list[str], typer.Argument(metavar="TYPE/NAME", help="deploy/checkout, deployment/checkout, or: deploy checkout")],
    action: Annotated[str, typer.Option(help="The action type, such as RollbackWorkload.")] = "RollbackWorkload",
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    at_risk: Annotated[
        int, typer.Option(min=0, help="For a workload that is healthy now: healthy pods that the action would put at risk.")
    ] = 0,
    operator_namespace: Annotated[str, typer.Option(help="Where the operator runs.")] = "nightorders-system",
    output: Format = Output.TEXT,
) -> None:
    """Say which level holds for a workload and an action, who says so, what every gate says, and whose approval is needed.

    Reads only, with your own rights. A workload with a fault is judged by its real diagnosis; for a healthy one it says what would hold
    if a fault with a grade-A diagnosis came in.
    """

    async def work() -> int:
        from . import explain as command
        from .names import workload as parsed
        from .session import Where, connect

        target, kind = parsed(workload), command.action_of(action)
        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await command.examine(session, target, kind, operator_namespace, at_risk)
        _print(output, lambda: command.document(found), lambda: command.as_json(found))
        return 0

    _run(work)


@app.command("test", epilog=TEST_CODES)
def run_tests(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of test files, or one of them.")],
    output: ReportFormat = Report.TEXT,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also list the rules, freezes, ceilings and tiers that no case touches.")
    ] = False,
) -> None:
    """Hold policies against a table of cases, without a cluster: this workload, this incident, this moment → this level, by these speakers.

    The format is in docs/reference/policy-test.md, examples are in manifests/samples/policy-tests.
    """
    from ..policykit import report, trial
    from ..policykit.files import BadInputError

    try:
        results = [trial.run(t) for t in trial.read(directory, str(directory))]
    except BadInputError as error:
        raise _bad_input(error, output) from None
    untouched = trial.untouched(results) if coverage else None
    if output is Report.JSON:
        typer.echo(json.dumps(report.test_json(results, untouched), indent=2, ensure_ascii=False))
    elif output is Report.TEXT:
        typer.echo(report.test_text(results, untouched), nl=False)
    else:
        _forge(output, report.test_findings(results))
    raise typer.Exit(0 if all(r.ok for r in results) else 1)


@app.command(epilog=DIFF_CODES)
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file, or a directory of them.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The same as it is to be.")],
    workloads: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output of: kubectl get deploy -A -o yaml; then the effect is shown for these.")
    ] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the policies that carry none.")] = "",
    allow_raise: Annotated[bool, typer.Option("--allow-raise", help="End with 0 although something is raised.")] = False,
    output: ReportFormat = Report.TEXT,
) -> None:
    """Say what a change of policies raises and what it lowers, field by field and for each kind of workload. No cluster, no network."""
    from ..policykit import amounts, policies, report
    from ..policykit import workloads as listed
    from ..policykit.files import BadInputError

    try:
        before, after = (policies.load([(side, str(side))]) for side in (old, new))
        known = listed.read(workloads) if workloads else None
    except BadInputError as error:
        raise _bad_input(error, output) from None
    found = amounts.compare(before, after, known, namespace)
    if output is Report.JSON:
        typer.echo(json.dumps(report.diff_json(found), indent=2, ensure_ascii=False))
    elif output is Report.TEXT:
        typer.echo(report.diff_text(found), nl=False)
    else:
        _forge(output, report.diff_findings(found, allowed=allow_raise))
    raise typer.Exit(3 if found.raised and not allow_raise else 0)


def _bad_input(error: BadInputError, output: Report) -> typer.Exit:
    """Everything that is wrong with the files, one line each on standard error, and for the forge in its own form."""
    from ..policykit import report

    if output is Report.JSON:
        wrong = [
            {"file": p.file, "line": p.line, "case": p.case, "where": p.where, "message": p.message, "fix": p.fix} for p in error.problems
        ]
        typer.echo(json.dumps({"problems": wrong}, indent=2, ensure_ascii=False))
    elif output is not Report.TEXT:
        _forge(output, report.problem_findings(error.problems))
    for problem in error.problems:
        typer.echo(f"nightorders: {problem}", err=True)
    return typer.Exit(2)


def _forge(output: Report, findings: list[Finding]) -> None:
    from ..policykit import report

    if output is Report.GITHUB:
        typer.echo(report.github(findings), nl=False)
    else:
        typer.echo(json.dumps(report.gitlab(findings), indent=2, ensure_ascii=False))
