"""`nightorders audit`: show a record, verify all of them, make keys. Reads with the user's own rights and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import CODES, Context, Format, IncidentName, Kubeconfig, Namespace, Output, _print, _run

if TYPE_CHECKING:
    from ..adapters.kube.records import Records
    from ..domain.verifying import Finding, Keyring, Report
    from .document import Document, Row
    from .session import Where

VERIFY_CODES = (
    "Exit codes: 0 every record holds; 1 something was edited, removed, moved, cut off or deleted, or signed by a key that may not; "
    "2 cannot tell (signed by a key that is not known here, unsigned although there was a key, forbidden, unreachable, wrong usage)."
)
KEYGEN_CODES = "Exit codes: 0 done; 2 wrong usage."
Keys = Annotated[
    str,
    typer.Option(
        help="Public keys: a file (the ConfigMap that keygen printed, or one key in PEM), or [NAMESPACE/]NAME of that ConfigMap. "
        "Default: nightorders-system/nightorders-audit-keys."
    ),
]

audit = typer.Typer(help="The record of what was seen, decided and done: show it, verify it, make keys that sign it.", no_args_is_help=True)


@audit.command(epilog=CODES)
def show(
    incident: IncidentName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    keys: Keys = "",
    output: Format = Output.TEXT,
) -> None:
    """Print the record of an Incident: every line, where it ends, and whether that end is signed. (verify holds it against the rest.)"""

    async def work() -> int:
        from .session import Where, connect
        from .session import incident as read

        where = Where(namespace, kubeconfig, context)
        async with connect(where) as session:
            found = await read(session, incident)
        async with _opened(where) as (records, _):
            ring, _ = await _keyring(records, keys)
        _print(output, lambda: _record(found, ring), lambda: _record_json(found, ring))
        return 0

    _run(work)


@audit.command(epilog=VERIFY_CODES)
def verify(
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all", "-A", help="Every namespace.")] = False,
    keys: Keys = "",
    log: Annotated[str, typer.Option(help="File with the operator's standard output (- for stdin); other lines in it are skipped.")] = "",
    accept_gone: Annotated[
        bool, typer.Option(help="Closed Incidents that were deleted are mentioned, and do not count as broken.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Format = Output.TEXT,
) -> None:
    """Hold every record against its own chain, its signature, the book of heads in the Ledger, and what the operator printed.

    Notices lines that were edited, removed, moved or cut off, deleted Incidents, and signatures of unknown or retired keys.
    """

    async def work() -> int:
        from .errors import usage
        from .session import Where

        if everywhere and namespace:
            raise usage("write either --all or -n NAMESPACE")
        report, scope = await _verified(Where(namespace, kubeconfig, context), everywhere, keys, log, accept_gone)
        _print(output, lambda: _report(report, scope), lambda: _report_json(report))
        return {0: 0, 1: 2, 2: 1}[int(report.worst)]

    _run_or_cannot_tell(work)


@audit.command(epilog=KEYGEN_CODES)
def keygen(
    rotate: Annotated[bool, typer.Option(help="Keep the public keys of --keys, and retire them.")] = False,
    keys: Annotated[Path | None, typer.Option(help="With --rotate: the ConfigMap so far, as a file.")] = None,
    overlap: Annotated[
        str, typer.Option(help="With --rotate: how long the old key may still sign, until the pods have the new one.")
    ] = "10m",
) -> None:
    """Print a new key: a Secret for the operator and a ConfigMap with the public keys. nightorders audit keygen | kubectl apply -f -"""

    async def work() -> int:
        from ..adapters.clock import SystemClock
        from ..api.meta import parse_duration
        from . import audit_keys
        from .errors import usage

        if rotate != (keys is not None):
            raise usage("--rotate needs --keys FILE, and the other way round: kubectl -n nightorders-system get configmap "
                        f"{audit_keys.KEYS} -o yaml > keys.yaml")  # fmt: skip
        try:
            longer = parse_duration(overlap)
        except ValueError as error:
            raise usage(f"--overlap: {error}") from None
        old = audit_keys.from_file(keys) if keys is not None else {}
        typer.echo(audit_keys.generated(SystemClock().now(), longer if rotate else timedelta(0), old), nl=False)
        return 0

    _run(work)


def _run_or_cannot_tell(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """As `_run`, but whatever stood in the way is "cannot tell": 1 means broken here."""

    async def careful() -> int:
        from .errors import CommandError

        try:
            return await work()
        except CommandError as error:
            typer.echo(f"nightorders: {error}", err=True)
            return 2

    _run(careful)


# ------------------------------------------------------------ what is read


@asynccontextmanager
async def _opened(where: Where) -> AsyncIterator[tuple[Records, str]]:
    """What reads the records, and the namespace that is meant."""
    import yaml

    from ..adapters.kube.client import KubeClient
    from ..adapters.kube.records import Records
    from ..ports import PortError
    from .errors import usage
    from .session import _default_namespace

    try:
        client = await KubeClient.connect(kubeconfig=where.kubeconfig, context=where.context)
    except (PortError, yaml.YAMLError) as error:
        raise usage(f"{error}. Name a kubeconfig with --kubeconfig FILE or KUBECONFIG, a context with --context NAME") from None
    async with client:
        yield Records(client), where.namespace or _default_namespace(where)


async def _keyring(records: Records, keys: str) -> tuple[Keyring, str]:
    """The public keys, and what is to be said about where they come from."""
    from ..domain.verifying import Keyring
    from ..ports import ForbiddenError, NotFoundError, PortError
    from ..settings import OPERATOR_NAMESPACE
    from . import audit_keys
    from .errors import explained, usage

    if (file := _file(keys)) is not None:
        return audit_keys.keyring(audit_keys.from_file(file), keys), ""
    namespace, _, name = (keys or f"{OPERATOR_NAMESPACE}/{audit_keys.KEYS}").rpartition("/")
    namespace = namespace or OPERATOR_NAMESPACE
    try:
        data = await records.configmap(namespace, name)
    except NotFoundError:
        if keys:
            raise usage(f"there is no file {keys}, and no ConfigMap {name} in namespace {namespace}") from None
        return Keyring(), f"no public keys: there is no ConfigMap {name} in namespace {namespace}"
    except ForbiddenError as error:
        if keys:
            raise explained(error, f"read ConfigMap {namespace}/{name}") from None
        return Keyring(), f"no public keys: you may not read ConfigMap {name} in namespace {namespace}; give them with --keys FILE"
    except PortError as error:
        raise explained(error, f"read ConfigMap {namespace}/{name}") from None
    note = f"the public keys come from the cluster itself (ConfigMap {namespace}/{name}); a copy of your own, with --keys FILE, proves more"
    return audit_keys.keyring(data, f"ConfigMap {namespace}/{name}"), note


def _file(name: str) -> Path | None:
    return Path(name) if name and Path(name).is_file() else None


async def _verified(where: Where, everywhere: bool, keys: str, log: str, accept_gone: bool) -> tuple[Report, str]:
    """The report and its scope in words. Log first, then books, then Incidents: each may only be behind the next."""
    from dataclasses import replace

    from ..adapters.clock import SystemClock
    from ..domain.verifying import Severity, Verifier, read_log
    from ..ports import PortError, Unreadable
    from .errors import explained

    printed = read_log(_rows(log)) if log else None
    async with _opened(where) as (records, mine):
        scope = "" if everywhere else mine
        ring, note = await _keyring(records, keys)
        try:
            books = await records.books(scope)
            incidents = await records.incidents(scope)
        except PortError as error:
            raise explained(error, "read the records") from None
    verifier = Verifier(ring, SystemClock().now(), accept_gone=accept_gone)
    if note:
        verifier.add(Severity.NOTE, "", "", note)
    for u in (u for u in (*books, *incidents) if isinstance(u, Unreadable)):
        verifier.add(Severity.DOUBT, u.namespace, u.name, f"cannot be read by this version of nightorders: {u.message}")
    unread = {(u.namespace, u.name) for u in incidents if isinstance(u, Unreadable)}
    readable = [i for i in incidents if not isinstance(i, Unreadable)]
    by_namespace = {b.metadata.namespace: b.spec.audit for b in books if not isinstance(b, Unreadable)}
    verifier.cluster(by_namespace, readable, unread)
    if printed is not None:
        if scope:
            lines = tuple(row for row in printed.lines if row.namespace == scope)
            printed = replace(printed, lines=lines, books=tuple(b for b in printed.books if b.namespace == scope))
        if not printed.lines:
            verifier.add(Severity.DOUBT, "", "", f"the log {log} has no line of a record")
        verifier.log(printed, by_namespace, readable, unread)
    if not readable and not by_namespace:
        verifier.add(Severity.DOUBT, scope, "", "there is no Incident and no book of heads")
    return verifier.report(), f"namespace {scope}" if scope else "all namespaces"


def _rows(log: str) -> Iterator[str]:
    from .errors import usage

    if log == "-":
        yield from sys.stdin
        return
    try:
        with Path(log).open(encoding="utf-8", errors="replace") as rows:
            yield from rows
    except OSError as error:
        raise usage(f"cannot read {log}: {error.strerror}") from None


# ------------------------------------------------------------ what is said


def _record(incident: Any, ring: Keyring) -> Document:
    from ..domain import journal
    from .document import Document, Say, Tone, section
    from .times import absolute

    timeline, words = incident.status.timeline, _signature(incident, ring)
    broken = journal.breaks(timeline, incident.metadata.uid)
    width = max((len(e.actor) for e in timeline), default=0)
    rows: list[Row] = [
        Say(f"{e.seq:<4} {absolute(e.at)}  {e.kind:<11}  {e.actor:<{min(width, 32)}}  {e.what}", bullet=False) for e in timeline
    ]
    head: list[Row] = []
    if timeline:
        head = [Say(f"line {timeline[-1].seq}, {timeline[-1].sha256}"), Say(words)]
        head.append(Say("the chain holds", tone=Tone.GOOD) if not broken else Say("the chain is broken", tone=Tone.BAD))
    return Document(
        f"Record of Incident {incident.metadata.name} in namespace {incident.metadata.namespace}",
        (
            section("Lines", rows, "nothing has been written yet"),
            section("Broken", (Say(b, tone=Tone.BAD) for b in broken)),
            section("End", head),
        ),
    )


def _signature(incident: Any, ring: Keyring) -> str:
    from ..api.v1alpha1.incident import Head
    from ..domain import audit as records
    from ..domain.verifying import head_signature

    timeline, head = incident.status.timeline, incident.status.head
    if not timeline:
        return ""
    if head is None:
        head = Head(seq=timeline[-1].seq, sha256=timeline[-1].sha256)
    elif not records.is_end(head, timeline):
        return "the head does not belong to the last line"
    return head_signature(ring, incident.metadata.uid, head, timeline[-1].at)[1]


def _record_json(incident: Any, ring: Keyring) -> dict[str, Any]:
    from ..domain import journal

    status = incident.status
    return {
        "namespace": incident.metadata.namespace,
        "incident": incident.metadata.name,
        "uid": incident.metadata.uid,
        "lines": [e.wire() for e in status.timeline],
        "head": status.head.wire() if status.head else None,
        "signature": _signature(incident, ring),
        "broken": journal.breaks(status.timeline, incident.metadata.uid),
    }


ANSWER = {0: "hold", 1: "cannot be told to hold", 2: "do NOT hold"}


def _report(report: Report, scope: str) -> Document:
    from ..domain.verifying import Severity
    from .document import Document, Say, Tone, section

    def of(severity: Severity) -> list[Finding]:
        return [f for f in report.findings if f.severity is severity]

    holding = [c for c in report.checked if c.holds]
    return Document(
        f"The records of {scope} {ANSWER[int(report.worst)]}",
        (
            section("Broken", (Say(_words(f), tone=Tone.BAD) for f in of(Severity.BROKEN))),
            section("Cannot tell", (Say(_words(f), tone=Tone.WARN) for f in of(Severity.DOUBT))),
            section(
                "Chain and book agree" if of(Severity.BROKEN) or of(Severity.DOUBT) else "Hold",
                (Say(f"{c.namespace}/{c.incident}: {c.lines} lines, {c.signature}") for c in holding),
            ),
            section("Notes", (Say(_words(f)) for f in of(Severity.NOTE))),
        ),
    )


def _words(f: Finding) -> str:
    where = "/".join(filter(None, (f.namespace, f.incident)))
    return f"{where}: {f.what}" if where else f.what


def _report_json(report: Report) -> dict[str, Any]:
    names = {0: "Note", 1: "CannotTell", 2: "Broken"}
    return {
        "result": {0: "Holds", 1: "CannotTell", 2: "Broken"}[int(report.worst)],
        "findings": [
            {"severity": names[int(f.severity)], "namespace": f.namespace, "incident": f.incident, "what": f.what} for f in report.findings
        ],
        "incidents": [
            {"namespace": c.namespace, "incident": c.incident, "uid": c.uid, "lines": c.lines, "signature": c.signature, "holds": c.holds}
            for c in report.checked
        ],
    }
