"""The commands as typed: arguments in, one call, one document out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")

Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace; default: the one of the kubeconfig's context.")]
Kubeconfig = Annotated[str | None, typer.Option(help="Kubeconfig file; default: $KUBECONFIG, else ~/.kube/config.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: the current one.")]
IncidentName = Annotated[str, typer.Argument(metavar="INCIDENT", help="Name of the Incident, as `kubectl get incidents` shows it.")]
CODES = "Exit codes: 0 done; 1 refused, or nothing there to do it with; 2 wrong usage; 3 cannot tell (forbidden, unreachable)."
DIAGNOSE_CODES = (
    "Exit codes: 0 healthy; 1 a fault; 2 wrong usage or no such object; "
    "3 cannot tell (no origin shown, still rolling out, forbidden, unreachable)."
)
SCAN_CODES = (
    "Exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage; "
    "3 cannot tell (no origin shown, still rolling out, forbidden, unreachable)."
)


class Output(StrEnum):
    """How to print it."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


Format = Annotated[Output, typer.Option("-o", "--output", help="text, json (an Incident's status) or markdown (for a ticket).")]


def add_to(app: typer.Typer) -> None:
    """Puts the human commands onto the application."""
    app.command(epilog=DIAGNOSE_CODES)(diagnose)
    app.command(epilog=SCAN_CODES)(scan)
    app.command(epilog=CODES)(show)
    app.command(epilog=CODES)(approve)
    app.command(epilog=CODES)(reject)
    app.command(epilog=CODES)(withdraw)
    app.command(epilog=CODES)(take)
    app.command(epilog=CODES)(judge)
    app.command(epilog=CODES)(stop)
    app.command(epilog=CODES)(resume)
    app.command(epilog=CODES)(patch)

    from .policy import app as policy

    app.add_typer(policy, name="policy")

    from .runbook import app as runbook

    app.add_typer(runbook, name="runbook")

    from .audit import audit

    app.add_typer(audit, name="audit")


def diagnose(
    thing: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TYPE/NAME]", help="deploy/checkout, svc/checkout, or: deploy checkout; none: the namespace."),
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    files: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Look at files instead of a cluster: kubectl get -o json, cluster-info dump, logs."),
    ] = None,
    at: Annotated[str, typer.Option(help="With --from: when the files were taken (RFC 3339); default: the newest time in them.")] = "",
    output: Format = Output.TEXT,
) -> None:
    """Say what is wrong with an object, or with a whole namespace. Reads only, with your own rights; nothing needs to be installed."""

    async def work() -> int:
        from . import diagnose as command
        from .errors import usage
        from .names import thing as parsed
        from .session import Where, connect

        target = parsed(thing) if thing else None
        if files is not None:
            if kubeconfig or context:
                raise usage("--from looks at files: --kubeconfig and --context have no meaning beside it")
            reader = command.open_files(files, at)
            found = await command.examine_files(reader, namespace or command.only_namespace(reader), target)
            flags: tuple[str, ...] = ()
        elif at:
            raise usage("--at belongs to --from: a cluster is looked at as it is now")
        else:
            async with connect(Where(namespace, kubeconfig, context)) as session:
                found = await command.examine(session, target)
                flags = tuple(session.flags)
        _print(output, lambda: command.document(found, flags), lambda: command.as_json(found))
        return found.code

    _run(work)


def scan(
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Only this namespace.")] = None,
    everything: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace; this is the default.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    files: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Look at files instead of a cluster: kubectl get -o json, cluster-info dump, logs."),
    ] = None,
    at: Annotated[str, typer.Option(help="With --from: when the files were taken (RFC 3339); default: the newest time in them.")] = "",
    output: Annotated[Output, typer.Option("-o", "--output", help="text (a table), json or markdown (for a ticket).")] = Output.TEXT,
) -> None:
    """Say what is wrong in a whole cluster, one line for each finding. Reads only, with your own rights; nothing needs to be installed."""

    async def work() -> int:
        from . import scan as command
        from .diagnose import open_files
        from .errors import usage
        from .session import Where, connect

        if everything and namespace is not None:
            raise usage("write one of: -n NAMESPACE, -A")
        flags: tuple[str, ...] = ()
        if files is not None:
            if kubeconfig or context:
                raise usage("--from looks at files: --kubeconfig and --context have no meaning beside it")
            found = await command.of_files(open_files(files, at), namespace)
        elif at:
            raise usage("--at belongs to --from: a cluster is looked at as it is now")
        else:
            async with connect(Where(namespace, kubeconfig, context)) as session:
                found = await (command.of_cluster(session) if namespace is None else command.of_namespace(session))
                flags = tuple(session.flags)
        _print(output, lambda: command.document(found, flags, columns=output is Output.TEXT), lambda: command.as_json(found))
        return found.code

    _run(work)


def show(
    incident: IncidentName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Format = Output.TEXT,
) -> None:
    """Tell the story of an Incident: what is known, the plan and its diff, who decides, what happened, what you can do next."""

    async def work() -> int:
        from . import show as command
        from .session import Where, connect
        from .session import incident as read

        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            now = session.clock.now()
        _print(output, lambda: command.document(found, now, session.flags), found.status.wire)
        return 0

    _run(work)


def approve(
    incident: IncidentName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    digest: Annotated[str, typer.Option(help="The plan that you reviewed; refused if another one waits now.")] = "",
    emergency: Annotated[
        bool, typer.Option("--emergency", help="During a freeze, with --because; needs the verb approve-emergency.")
    ] = False,
    because: Annotated[str, typer.Option(help="With --emergency: why it cannot wait; it is kept with the execution.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Approve the plan that waits, bound to its digest, as yourself. The API server's admission decides whether you may."""

    async def work() -> int:
        from . import answer
        from . import show as command
        from .errors import usage
        from .session import Where, connect
        from .session import incident as read

        if emergency and not because.strip():
            raise usage("an emergency approval needs its reason: --because 'nobody can pay'")
        if because and not emergency:
            raise usage("--because belongs to --emergency; an ordinary approval needs no reason")
        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            plan = answer.waiting_plan(found, digest)
            answer.must_be(plan, found, emergency=emergency)
            user = await answer.who(session)
            _print(Output.TEXT, lambda: command.short(found, plan, session.clock.now()), dict)
            if not yes:
                _confirm(f"Approve exactly this plan{', in spite of the freeze,' if emergency else ''} as {user}?")
            if emergency:
                await answer.approve_emergency(session, found, plan.digest, user, because)
            else:
                await answer.approve(session, found, plan.digest, user)
        _done(f"{'emergency approval' if emergency else 'approved'} as {user}: {plan.digest}")
        _then(("nightorders", "show", incident, "-n", session.namespace), "what happens now", session.flags)
        _then(
            ("nightorders", "withdraw", incident, "-n", session.namespace),
            "to take it back, until the execution is reserved",
            session.flags,
        )
        return 0

    _run(work)


def reject(
    incident: IncidentName,
    because: Annotated[str, typer.Option(help="Why; others read it on the Incident.")],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    digest: Annotated[str, typer.Option(help="The plan that you reviewed; refused if another one waits now.")] = "",
) -> None:
    """Turn the waiting plan down. It is not proposed again for this Incident unless the evidence changes."""

    async def work() -> int:
        from . import answer
        from .errors import usage
        from .session import Where, connect
        from .session import incident as read

        if not because.strip():
            raise usage("say why with --because: whoever is on call next reads it")
        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            plan = answer.waiting_plan(found, digest)
            user = await answer.who(session)
            await answer.reject(session, found, plan.digest, user, because)
        _done(f"rejected as {user}: {plan.digest}")
        return 0

    _run(work)


def withdraw(
    incident: IncidentName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Take your own approval or rejection back; possible until the execution is reserved."""

    async def work() -> int:
        from . import answer
        from .session import Where, connect
        from .session import incident as read

        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            user = await answer.who(session)
            keys = await answer.withdraw(session, found, user)
        _done(f"withdrawn as {user}: {', '.join(keys)}")
        return 0

    _run(work)


def take(
    incident: IncidentName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    back: Annotated[bool, typer.Option("--give-back", help="You are no longer on it.")] = False,
) -> None:
    """Say that you are on it: from here the operator only advises, and calls nobody else. A running execution goes on."""

    async def work() -> int:
        from . import answer, hold
        from .session import Where, connect
        from .session import incident as read

        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            user = await answer.who(session)
            written = await (answer.give_back if back else answer.take)(session, found, user)
        if not written:
            _done(f"{user} has taken it already")
            return 0
        _done(f"{'given back' if back else 'taken'} by {user}")
        notes = [f"{key}-" if value is None else f"{key}={value}" for key, value in written.items()]
        _typed(hold.annotated(incident, session.namespace, notes, session.flags))
        if not back:
            _then(("nightorders", "take", incident, "-n", session.namespace, "--give-back"), "when you are done", session.flags)
        return 0

    _run(work)


def judge(
    incident: IncidentName,
    right: Annotated[bool, typer.Option("--right", help="What stands first was the cause.")] = False,
    cause: Annotated[str, typer.Option(metavar="KIND/NAME", help="What was the cause instead, such as ConfigMap/checkout.")] = "",
    category: Annotated[str, typer.Option(help="With --cause: the mechanism, such as BadConfiguration.")] = "",
    because: Annotated[str, typer.Option(help="How you know; it is kept with the Incident.")] = "",
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say what the cause really was, as yourself; also of an Incident that is closed. It is recorded, and counted per category and grade."""

    async def work() -> int:
        from . import answer, hold
        from . import judge as command
        from .session import Where, connect
        from .session import incident as read

        async with connect(Where(namespace, kubeconfig, context)) as session:
            found = await read(session, incident)
            text = command.text_of(found, right=right, cause=cause, category=category, because=because)
            user = await answer.who(session)
            written = await command.judge(session, found, text, user)
        _done(f"judged as {user}: {command.verdict(found, text, user)}")
        _typed(hold.annotated(incident, session.namespace, [f"{k}={v}" for k, v in written.items()], session.flags))
        _then(("nightorders", "show", incident, "-n", session.namespace), "what is recorded", session.flags)
        return 0

    _run(work)


SomeIncident = Annotated[str, typer.Argument(metavar="[INCIDENT]", help="Only this Incident (spec.suspend); absent: the namespace.")]
Everything = Annotated[bool, typer.Option("--all", "-A", help="Everything, in every namespace.")]


def stop(
    incident: SomeIncident = "",
    namespace: Namespace = None,
    everything: Everything = False,
    no_undo: Annotated[bool, typer.Option("--no-undo", help="Not even a running execution may be undone.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Stop the operator, at once: in a namespace, everywhere (--all), or on one Incident. Nothing new starts; `resume` lifts it."""

    async def work() -> int:
        from . import hold
        from .errors import usage
        from .session import Where, connect
        from .session import incident as read

        place = _place(incident, namespace, everything)
        if incident and no_undo:
            raise usage("--no-undo belongs to the stop of a namespace: nightorders stop --no-undo -n NAMESPACE")
        async with connect(Where(namespace, kubeconfig, context)) as session:
            if incident:
                said, argv = await hold.suspend(session, await read(session, incident), suspended=True)
            else:
                said, argv = await hold.stop(session, place or session.namespace, no_undo=no_undo)
        _done(said)
        _typed(hold.kubectl(argv, session.flags))
        where = (incident, "-n", session.namespace) if incident else ("--all",) if everything else ("-n", session.namespace)
        _then(("nightorders", "resume", *where), "to lift it", session.flags)
        return 0

    _run(work)


def resume(
    incident: SomeIncident = "",
    namespace: Namespace = None,
    everything: Everything = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Lift a stop: of a namespace, of everything (--all), or of one Incident. Lifting a stop needs the verb stop."""

    async def work() -> int:
        from . import hold
        from .session import Where, connect
        from .session import incident as read

        place = _place(incident, namespace, everything)
        async with connect(Where(namespace, kubeconfig, context)) as session:
            if incident:
                said, argv = await hold.suspend(session, await read(session, incident), suspended=False)
            else:
                said, argv = await hold.resume(session, place or session.namespace)
        _done(said)
        _typed(hold.kubectl(argv, session.flags))
        return 0

    _run(work)


def _place(incident: str, namespace: str | None, everything: bool) -> str:
    """The operator's namespace for everything; empty: the one that is meant otherwise."""
    from ..settings import OPERATOR_NAMESPACE
    from .errors import usage

    if everything and (incident or namespace):
        raise usage("write one of: INCIDENT, -n NAMESPACE, --all")
    return OPERATOR_NAMESPACE if everything else ""


def patch(
    incident: Annotated[str, typer.Argument(metavar="INCIDENT", help="Name of the Incident; or TYPE/NAME with --to and --sha256.")],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    to: Annotated[str, typer.Option(help="Without an Incident: the ReplicaSet whose template comes back, as diagnose prints it.")] = "",
    sha256: Annotated[str, typer.Option(help="Without an Incident: the digest of that template, as diagnose prints it.")] = "",
) -> None:
    """Print the JSON patch of the plan: nightorders patch INCIDENT | kubectl patch deployment NAME --type=json --patch-file=/dev/stdin"""

    async def work() -> int:
        from . import patch as command
        from .errors import usage
        from .names import workload
        from .session import Where, connect
        from .session import incident as read

        direct = "/" in incident
        if direct != bool(to) or direct != bool(sha256):
            raise usage("write either: nightorders patch INCIDENT, or: nightorders patch deployment/NAME --to REPLICASET --sha256 DIGEST")
        target = workload([incident]) if direct else None
        async with connect(Where(namespace, kubeconfig, context)) as session:
            if target is not None:
                made = await command.of_workload(session, target, to, sha256)
            else:
                made = await command.of_plan(session, await read(session, incident))
        typer.echo(made)
        return 0

    _run(work)


# ------------------------------------------------------------ around every command


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Runs it; a CommandError becomes one line on standard error and its exit code."""
    from .errors import CommandError

    try:
        code = asyncio.run(work())
    except CommandError as error:
        typer.echo(f"nightorders: {error}", err=True)
        raise typer.Exit(error.code) from None
    raise typer.Exit(code)


def _print(output: Output, document: Callable[[], Any], wire: Callable[[], dict[str, Any]]) -> None:
    from .document import Terminal, as_markdown, as_text

    match output:
        case Output.JSON:
            typer.echo(json.dumps(wire(), indent=2))
        case Output.MARKDOWN:
            typer.echo(as_markdown(document()), nl=False)
        case Output.TEXT:
            terminal = Terminal.of_stdout()
            typer.echo(as_text(document(), terminal), nl=False, color=terminal.colour)


def _confirm(question: str) -> None:
    from ..api.meta import line
    from .errors import refused

    typer.echo(f"\n{line(question)} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        typer.echo(err=True)
    agreed = answer.strip().casefold() in ("y", "yes")
    if not agreed:
        raise refused("nothing was written: not confirmed (without a terminal: --yes, best with --digest)")


def _done(words: str) -> None:
    from ..api.meta import line

    typer.echo(line(words))


def _typed(command: str) -> None:
    """What kubectl would have done."""
    if command:
        typer.echo(f"  the same with kubectl: {command}")


def _then(argv: tuple[str, ...], what: str, flags: Any) -> None:
    from . import paste

    if shown := paste.command(argv, flags):
        typer.echo(f"  {what}: {shown}")
