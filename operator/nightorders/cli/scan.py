"""`nightorders scan`: what is wrong in a whole cluster. Reads with the user's own rights; nothing is installed, nothing is written.

Every kind is listed once for all namespaces and divided here, so that requests do not grow with the number of namespaces. Whoever may
not list cluster-wide gets the namespaces that he may read, with one look at each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from ..adapters.dump import DumpReader
from ..api.meta import line
from ..api.v1alpha1.common import Category, ObjectRef
from ..api.v1alpha1.incident import Gap, Hypothesis
from ..controller.gatherer import LOG_LINES, Gatherer, Ports
from ..diagnosis import engine
from ..diagnosis.focus import KINDS as TARGETS
from ..domain.diagnosis import Diagnosis, Finding
from ..domain.situation import Operator
from ..domain.snapshot import Absent, KubeObject, Listing, NotLooked, Snapshot
from ..ports import Clock, ClusterReader, ObjectKey
from . import paste
from .diagnose import granting, whole
from .document import Code, Document, Row, Say, Tone, section
from .errors import CommandError, Exit, cannot_tell, unreachable, usage
from .names import thing
from .session import Session
from .times import absolute, relative

T = TypeVar("T")

CHRONIC_AFTER = timedelta(hours=24)
MOST_LOGS = 60  # of the whole scan: what would otherwise grow with the number of namespaces in trouble
MOST_LOGS_EACH = 6
MOST_FOUND = 8  # of one namespace; beyond that it is one disaster, and `diagnose` tells it better
MOST_SHOWN = 200
MOST_GAPS = 32
_AT_ONCE = 8
_NEUTRAL = (Category.NO_FAULT, Category.UNKNOWN)
_OF_CLUSTER = frozenset(kind for _, kind in engine.CLUSTER_KINDS)
_VERSIONS = {kind: version for version, kind in (*engine.CLUSTER_KINDS, *engine.BESIDE_KINDS, *engine.KINDS)}
# A namespace that holds nothing else has nothing to examine.
_BORN_WITH = frozenset({("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")})
_PASSING = frozenset({"Event", "Lease"})


@dataclass(frozen=True)
class Found:
    """One thing that is wrong. `namespace` is empty for an object that lives in none; `since` None: nothing tells.

    `chronic`: it began more than a day ago, or only likeness speaks for it; such findings are told after the others.
    """

    namespace: str
    object: str
    category: Category
    grade: str
    since: datetime | None
    words: str
    chronic: bool = False


@dataclass(frozen=True)
class Scan:
    """What one look at the cluster gave. `examined` counts namespaces, of which `healthy` are well; `reads` counts requests."""

    at: datetime
    place: str
    examined: int
    healthy: int
    progressing: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    found: tuple[Found, ...] = ()
    gaps: tuple[Gap, ...] = ()
    reads: int = 0
    bytes: int = 0

    @property
    def code(self) -> Exit:
        """As `diagnose` ends: 1 where a fault was found, else 3 where something could not be told, else 0."""
        if any(f.category is not Category.UNKNOWN for f in self.found):
            return Exit.FAULT
        return Exit.CANNOT_TELL if self.found or self.progressing or self.unclear or not self.examined else Exit.DONE


# ------------------------------------------------------------ from where


async def of_cluster(session: Session) -> Scan:
    """Everything that the user may read. Raises CommandError where that is nothing at all."""
    lists = await _lists(session.reader)
    pods = lists["Pod"]
    if pods.complete:
        snapshots, reads, size = _divided(lists, session.clock.now()), len(lists), sum(x.size for x in lists.values())
        made, logs, told = await _examined(snapshots, session.reader)
        scan = _scan(made, session.clock.now(), "this cluster", told)
        scan = replace(scan, reads=reads + logs, bytes=size)
    elif pods.because.startswith("forbidden"):
        scan = await _readable(session, lists)
    else:
        raise cannot_tell(unreachable("list pods of all namespaces", pods.because.removeprefix("failed: ")))
    installed = await session.discovery.installed()
    return scan if installed else replace(scan, gaps=tuple(_usable(g) for g in scan.gaps))


async def of_namespace(session: Session) -> Scan:
    """One namespace. Raises CommandError where it is not there, or nothing of it may be read."""
    name = session.namespace
    target = whole(name)
    match await session.reader.get(ObjectKey("v1", "Namespace", "", name)):
        case Absent():
            raise usage(f"there is no namespace {name} in this cluster; to see what there is: kubectl get namespaces")
        case NotLooked(because=because) if not because.startswith("forbidden"):
            raise cannot_tell(unreachable(f"read namespace {name}", because.removeprefix("failed: ")))
    snapshot = await _gatherer(session.reader, session.clock).snapshot(name, target)
    if not snapshot.looked("Pod") and not snapshot.looked("Deployment"):
        raise cannot_tell(f"cannot scan namespace {name}: {snapshot.listings['Pod'].because}")
    scan = _with_cost(_scan([(snapshot, _diagnosed(snapshot))], snapshot.at, f"namespace {name}", ()), (snapshot,))
    installed = await session.discovery.installed()
    return scan if installed else replace(scan, gaps=tuple(_usable(g) for g in scan.gaps))


async def of_files(reader: DumpReader, namespace: str | None) -> Scan:
    """The same from files, at their time. Raises CommandError where the files do not tell even that."""
    if reader.moment is None:
        raise usage("no object in the files carries a time; say when they were taken: --at 2026-03-01T12:00:00Z")
    names = reader.namespaces if namespace is None else (whole(namespace).name,)
    if not set(names) & set(reader.namespaces):
        there = ", ".join(reader.namespaces[:8]) or "none"
        raise usage(f"the files hold nothing of {f'namespace {namespace}' if namespace else 'any namespace'}; namespaces in them: {there}")
    clock = _Still(reader.moment)
    made = []
    for name in names:
        snapshot = await _gatherer(reader, clock).snapshot(name, _every(name))
        made.append((snapshot, _diagnosed(snapshot)))
    problems = tuple(Gap(what=line(f"file {p.file}", 256), because=p.because) for p in reader.problems[:16])
    return _scan(made, reader.moment, "these files", problems)


@dataclass(frozen=True)
class _Still:
    """The clock of files stands still."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


def _gatherer(reader: ClusterReader, clock: Clock) -> Gatherer:
    # Gatherer.snapshot reads through the clock and the reader only.
    nothing = cast(Any, None)
    return Gatherer(Ports(clock, reader, nothing, nothing, nothing, nothing, nothing), Operator("", ""))


async def _lists(reader: ClusterReader) -> dict[str, Listing]:
    """Every kind once, for the whole cluster. Pods first: who may not list them is asked no further."""
    pods = await reader.list("v1", "Pod", None)
    kinds = [(v, k) for k, v in _VERSIONS.items() if k != "Pod"]
    if not pods.complete:
        kinds = [("v1", "Namespace")]
    answers = await _gently(kinds, lambda one: reader.list(one[0], one[1], None))
    return {a.kind: a for a in (pods, *answers)}


async def _gently(items: Iterable[Any], ask: Callable[[Any], Awaitable[T]]) -> list[T]:
    """The answers in order, a few requests at a time: a scan is no reason for the API server to slow others down."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> T:
        async with free:
            return await ask(item)

    return list(await asyncio.gather(*(one(i) for i in items)))


async def _readable(session: Session, lists: Mapping[str, Listing]) -> Scan:
    """Namespace by namespace, where lists of the whole cluster are forbidden: those whose pods the user may list."""
    known = lists["Namespace"]
    names = [o.name for o in known.objects] if known.complete else [session.namespace]
    asked = await _gently(names, lambda n: session.reader.list("v1", "Pod", n))
    mine = [n for n, answer in zip(names, asked, strict=True) if answer.complete]
    pods = lists["Pod"]
    if not mine:
        raise cannot_tell(f"cannot list pods of any namespace: {pods.because}. Name one that you may read: nightorders scan -n NAMESPACE")
    left = len(names) - len(mine)
    others = f"{left} of {len(names)} namespaces may not be read" if known.complete else "which namespaces there are may not be listed"
    gap = Gap(what="other namespaces", because=line(f"{others}: {pods.because}"), fix=line(pods.fix))
    gatherer, made = _gatherer(session.reader, session.clock), []
    for name in mine:
        snapshot = await gatherer.snapshot(name, _every(name))
        made.append((snapshot, _diagnosed(snapshot)))
    place = f"{len(mine)} namespace{'s' if len(mine) > 1 else ''} that you may read"
    scan = _with_cost(_scan(made, session.clock.now(), place, (gap,)), [s for s, _ in made])
    return replace(scan, reads=scan.reads + len(lists) + len(names))


def _with_cost(scan: Scan, snapshots: Iterable[Snapshot]) -> Scan:
    """With what the snapshots have cost; a list that several of them share counts once."""
    listings = {id(x): x for s in snapshots for x in s.listings.values()}
    logs = sum(len(s.logs) for s in snapshots)
    return replace(scan, reads=len(listings) + logs, bytes=sum(x.size for x in listings.values()))


# ------------------------------------------------------------ dividing one list among namespaces


def _divided(lists: Mapping[str, Listing], at: datetime) -> list[Snapshot]:
    """A snapshot for each namespace. The lists of cluster-scoped kinds are shared; each has its own part of the others."""
    names = {o.name for o in lists["Namespace"].objects} if "Namespace" in lists else set()
    parts: dict[str, dict[str, list[KubeObject]]] = {}
    for kind, listing in lists.items():
        if kind not in _OF_CLUSTER:
            mine = parts.setdefault(kind, {})
            for obj in listing.objects:
                mine.setdefault(obj.namespace, []).append(obj)
            names |= set(mine)
    shared = {k: v for k, v in lists.items() if k in _OF_CLUSTER}

    def part(kind: str, namespace: str) -> Listing:
        return replace(lists[kind], objects=tuple(parts[kind].get(namespace, ())), size=0)

    own = [k for _, k in engine.KINDS if k in parts]
    alone = {n: Snapshot(n, at, {**{k: part(k, n) for k in own}, **shared}) for n in sorted(names) if n}
    beside: dict[str, Snapshot] = {}
    found = []
    for snapshot in alone.values():
        near = engine.wanted_namespaces(snapshot) if _holds_anything(snapshot) else ()
        for other in near:
            if other not in beside:
                beside[other] = Snapshot(other, at, {k: part(k, other) for _, k in engine.BESIDE_KINDS if k in parts})
        found.append(replace(snapshot, beside={n: beside[n] for n in near}))
    return found


def _holds_anything(snapshot: Snapshot) -> bool:
    """Whether there is anything to examine. What was not looked at may be there."""
    return any(
        (kind, o.name) not in _BORN_WITH
        for kind, listing in snapshot.listings.items()
        if kind not in _OF_CLUSTER and kind not in _PASSING
        for o in listing.objects
    )


async def _examined(snapshots: Sequence[Snapshot], reader: ClusterReader) -> tuple[list[tuple[Snapshot, Diagnosis]], int, tuple[Gap, ...]]:
    """Each snapshot with its diagnosis, the number of logs that were read, and the gap where they were too many.

    Logs are read only where something is wrong and its origin is not certain already, and only so many in all.
    """
    made = [(s, _diagnosed(s)) for s in snapshots]
    asked: list[tuple[int, Any]] = []
    left = 0
    for i, (snapshot, d) in enumerate(made):
        if d.finding not in (Finding.FAULT, Finding.UNKNOWN) or (d.top is not None and d.top.grade == "A"):
            continue
        keys = engine.wanted_logs(snapshot, _every(snapshot.namespace))[:MOST_LOGS_EACH]
        if len(asked) + len(keys) > MOST_LOGS:
            left += 1
            continue
        asked += [(i, key) for key in keys]
    excerpts = await _gently(asked, lambda one: reader.logs(made[one[0]][0].namespace, one[1], lines=LOG_LINES))
    for i in dict.fromkeys(i for i, _ in asked):
        snapshot = replace(made[i][0], logs={e.key: e for (j, _), e in zip(asked, excerpts, strict=True) if i == j})
        made[i] = (snapshot, _diagnosed(snapshot))
    because = f"not read: a scan reads {MOST_LOGS} logs at most; nightorders diagnose -n NAMESPACE reads those of one"
    gap = Gap(what=f"logs of {left} more namespace{'s' if left > 1 else ''} in trouble", because=because)
    return made, len(asked), (gap,) if left else ()


# ------------------------------------------------------------ what is wrong in one namespace


def _every(namespace: str) -> ObjectRef:
    """The whole namespace as a target. (Names in files may be none that an API server would take.)"""
    return ObjectRef.model_construct(api_version="v1", kind="Namespace", name=namespace)


def _diagnosed(snapshot: Snapshot) -> Diagnosis:
    if snapshot.looked("Pod") and snapshot.looked("Deployment") and not _holds_anything(snapshot):
        nothing = "There is nothing in the namespace."
        return Diagnosis(Finding.NO_FAULT, "Empty", nothing, nothing)
    return engine.diagnose(snapshot, _every(snapshot.namespace), (), snapshot.at)


def _found(snapshot: Snapshot, d: Diagnosis) -> Iterator[Found]:
    """The origins that stand. Of several explanations of one trouble only the first is one; those that are certain are findings, too."""
    if d.finding not in (Finding.FAULT, Finding.UNKNOWN):
        return
    standing = [h for h in d.hypotheses if not h.refuted and h.category not in _NEUTRAL]
    if d.finding is Finding.UNKNOWN or not standing:
        yield _of(snapshot, f"Namespace/{snapshot.namespace}", Category.UNKNOWN, "", d.symptom_since, d.summary)
        return
    for place, h in enumerate(standing[:MOST_FOUND]):
        own = _alone(snapshot, h)
        itself = own is not None and own.top is not None and (own.top.object, own.top.category) == (h.object, h.category)
        if place and h.grade not in ("A", "B") and not itself:
            continue
        since = (own.symptom_since if own is not None else None) or (h.change.at if h.change is not None else None)
        if since is None and not place:
            since = d.symptom_since
        yield _of(snapshot, h.object, h.category, h.grade, since, d.summary if not place else h.statement)


def _alone(snapshot: Snapshot, h: Hypothesis) -> Diagnosis | None:
    """The diagnosis of the object itself, which tells since when it is in trouble; None where it is none that one can ask about."""
    kind, _, name = h.object.partition("/")
    if kind not in TARGETS or kind in _OF_CLUSTER or "/" in name or not isinstance(obj := snapshot.find(kind, name), KubeObject):
        return None
    ref = ObjectRef.model_construct(api_version=obj.api_version, kind=kind, name=name)
    return engine.diagnose(snapshot, ref, (), snapshot.at)


def _of(snapshot: Snapshot, title: str, category: Category, grade: str, since: datetime | None, words: str) -> Found:
    """With the namespace apart from the object's title, however the title was spelled."""
    kind, *rest = title.split("/")
    namespace = snapshot.namespace
    if len(rest) == 2:
        namespace, title = rest[0], f"{kind}/{rest[1]}"
    elif kind in _OF_CLUSTER and category is not Category.UNKNOWN:
        namespace = ""
    old = since is not None and snapshot.at - since >= CHRONIC_AFTER
    return Found(namespace, title, category, grade, since, words, chronic=old or grade == "D")


# ------------------------------------------------------------ all of them together

_GRADES = {"A": 0, "B": 1, "C": 2, "D": 3, "": 4}


def _scan(made: Sequence[tuple[Snapshot, Diagnosis]], at: datetime, place: str, more: tuple[Gap, ...]) -> Scan:
    of = {f: [s.namespace for s, d in made if d.finding is f] for f in Finding}
    found: dict[tuple[str, str, Category], Found] = {}
    for snapshot, d in made:
        for one in _found(snapshot, d):
            key = (one.namespace, one.object, one.category)
            found[key] = one if key not in found else _surer(found[key], one)
    return Scan(
        at=at,
        place=place,
        examined=len(made),
        healthy=len(of[Finding.NO_FAULT]),
        progressing=tuple(of[Finding.PROGRESSING]),
        unclear=tuple(of[Finding.TARGET_UNKNOWN] + of[Finding.TARGET_MISSING]),
        found=tuple(sorted(found.values(), key=_order)),
        gaps=(*more, *_gaps(made))[:MOST_GAPS],
    )


def _surer(a: Found, b: Found) -> Found:
    """What several namespaces say of one object: the better grade, the earlier time."""
    best = min(a, b, key=lambda f: _GRADES.get(f.grade, 4))
    times = [f.since for f in (a, b) if f.since is not None]
    return replace(best, since=min(times, default=None), chronic=a.chronic and b.chronic)


def _order(f: Found) -> tuple[Any, ...]:
    """What is new before what is chronic; the certain before the likely; the newest first."""
    newest = -f.since.timestamp() if f.since is not None else 0.0
    return (f.chronic, _GRADES.get(f.grade, 4), newest, f.namespace, f.object)


def _gaps(made: Iterable[tuple[Snapshot, Diagnosis]]) -> list[Gap]:
    """What could not be looked at, each once, however many namespaces miss it; what most of them miss comes first."""
    counted: dict[tuple[str, str], list[Gap]] = {}
    for _, d in made:
        for gap in d.gaps:
            counted.setdefault((gap.what, gap.because), []).append(gap)
    ordered = sorted(counted.values(), key=len, reverse=True)
    return [g[0] if len(g) == 1 else g[0].model_copy(update={"what": line(f"{g[0].what} ({len(g)} namespaces)", 256)}) for g in ordered]


def _usable(gap: Gap) -> Gap:
    """Our roles are there only where nightorders is installed."""
    return gap.model_copy(update={"fix": granting(gap.fix)}) if gap.fix else gap


# ------------------------------------------------------------ what it says


def as_json(scan: Scan) -> dict[str, Any]:
    """Everything, for machines. Times are RFC 3339; `since` is null where nothing tells."""
    return {
        "at": _wire(scan.at),
        "place": scan.place,
        "namespaces": {
            "examined": scan.examined,
            "healthy": scan.healthy,
            "progressing": list(scan.progressing),
            "unclear": list(scan.unclear),
        },
        "findings": [
            {
                "namespace": f.namespace,
                "object": f.object,
                "category": f.category.value,
                "grade": f.grade,
                "since": _wire(f.since),
                "chronic": f.chronic,
                "summary": f.words,
            }
            for f in scan.found
        ],
        "gaps": [g.wire() for g in scan.gaps],
        "cost": {"reads": scan.reads, "bytes": scan.bytes},
    }


def _wire(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at is not None else None


def document(scan: Scan, flags: Sequence[str] = (), *, columns: bool) -> Document:
    """The story for people. `columns`: findings stand under each other, as on a terminal; else one line each, as in a ticket."""
    fresh = [f for f in scan.found if not f.chronic]
    chronic = [f for f in scan.found if f.chronic]
    return Document(
        f"Scan of {scan.place}, looked at {absolute(scan.at)}",
        (
            section("Summary", _summary(scan, len(fresh), len(chronic))),
            section("Findings", _rows(fresh, scan.at, columns)),
            section("Chronic (for more than a day) or doubtful (grade D)", _rows(chronic, scan.at, columns)),
            section("On its way", (Say(f"namespace {n}") for n in scan.progressing)),
            section("Could not be looked at", (Say(f"namespace {n}") for n in scan.unclear)),
            section("Gaps", _told_gaps(scan.gaps)),
            section("Next", _next(scan.found, flags)),
        ),
    )


def _summary(scan: Scan, fresh: int, chronic: int) -> Iterator[Row]:
    if fresh or chronic:
        words, tone = f"{_count(fresh, 'finding')}, and {chronic} chronic or doubtful.", Tone.BAD
    elif scan.code is Exit.DONE:
        words, tone = "Nothing is wrong.", Tone.GOOD
    else:
        words, tone = "Nothing is known to be wrong.", Tone.WARN
    yield Say(words, tone=tone, bullet=False)
    cost = f"; {_count(scan.reads, 'request')}, {max(1, scan.bytes // 1024)} KiB" if scan.reads else ""
    yield Say(f"{_count(scan.examined, 'namespace')} examined, {scan.healthy} healthy{cost}.", bullet=False)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _rows(found: Sequence[Found], now: datetime, columns: bool) -> Iterator[Row]:
    shown = found[:MOST_SHOWN]
    if columns and shown:
        yield from _table(shown, now)
    else:
        for f in shown:
            where = f"namespace {f.namespace}" if f.namespace else "cluster"
            since = f", since {_since(f, now)}" if f.since else ""
            grade = f", grade {f.grade}" if f.grade else ""
            yield Say(f"{f.category} {f.object} ({where}{grade}{since}): {f.words}")
    if len(found) > len(shown):
        yield Say(f"and {len(found) - len(shown)} more; all of them: nightorders scan -o json")


def _table(found: Sequence[Found], now: datetime) -> Iterator[Row]:
    cells = [("NAMESPACE", "OBJECT", "CATEGORY", "GRADE", "SINCE", "WHAT")]
    cells += [(f.namespace or "-", f.object, f.category.value, f.grade or "-", _since(f, now), f.words) for f in found]
    clean = [[line(cell, 512) for cell in row] for row in cells]
    widths = [min(60, max(len(row[i]) for row in clean)) for i in range(len(cells[0]) - 1)]
    for row in clean:
        yield Code("  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1])))


def _since(f: Found, now: datetime) -> str:
    return relative(f.since, now) if f.since is not None else "-"


def _told_gaps(gaps: Iterable[Gap]) -> Iterator[Row]:
    for g in gaps:
        yield Say(f"{g.what}: {g.because}", tone=Tone.WARN)
        if fix := paste.checked(g.fix):
            yield Code(f"{fix}  # {paste.comment(g.fix)}" if paste.comment(g.fix) else fix, label="fix")


def _next(found: Sequence[Found], flags: Sequence[str]) -> Iterator[Row]:
    """How to see the whole story of the first finding."""
    first = next((f for f in found if f.namespace), None)
    if first is None:
        return
    kind, _, name = first.object.partition("/")
    about = (f"{kind.lower()}/{name}",) if kind != "Namespace" and _can_be_asked(kind, name) else ()
    if shown := paste.command(("nightorders", "diagnose", *about, "-n", first.namespace), flags):
        yield Code(shown, label="the whole story of the first")


def _can_be_asked(kind: str, name: str) -> bool:
    try:
        return bool(thing((kind, name)))
    except CommandError:
        return False
