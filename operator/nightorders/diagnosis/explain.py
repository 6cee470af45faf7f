"""From candidates to explanations: a path from the symptom, the right order of time, and the origin told from its victims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .anomalies.common import concerns
from .evidence import Channel, Observation, safe, seen
from .focus import Focus
from .graph import Edge, Link, paths
from .hypotheses import Candidate, Mark
from .read import clock
from .specialists.logs import Sign
from .world import World

# Links that a setting only claims; whether traffic really takes them, a log or a series must show.
_CLAIMED = frozenset({Link.CALLS})
# Conditions have whole seconds, kubelets notice late, and an alert's own time is later still.
SLACK = timedelta(seconds=90)
_NAMING = (Sign.HOST, Sign.NAME, Sign.UPSTREAM, Sign.CREDENTIALS, Sign.POOL, Sign.CERTIFICATE)


@dataclass(frozen=True)
class Way:
    """How the symptom leads to what a candidate breaks. `edges` are empty where it breaks the target itself."""

    start: str
    edges: tuple[Edge, ...]
    observed: tuple[Observation, ...] = ()

    @property
    def calls(self) -> tuple[Edge, ...]:
        return tuple(e for e in self.edges if e.link in _CLAIMED)


class Ways:
    """The ways from the focus to everything that it leans on, or that stands in front of it."""

    def __init__(self, world: World, focus: Focus) -> None:
        self._world = world
        self._down: dict[str, Mapping[str, tuple[Edge, ...]]] = {s: paths(world.graph, s) for s in focus.starts}
        self._focus = focus
        self._up = self._fronts()

    def _fronts(self) -> dict[str, Edge]:
        """What stands in front of the focus or governs it: a Service that selects it, a route to that, an autoscaler, a policy."""
        found: dict[str, Edge] = {}
        graph = self._world.graph
        near = {*self._focus.starts, *(f"Pod/{p.name}" for w in self._focus.workloads for p in w.pods[:50])}
        for title in tuple(near):
            for edge in graph.into.get(title, ()):
                if edge.link not in (Link.OWNS, Link.CALLS):
                    found.setdefault(edge.source, edge)
        for title in tuple(found):
            for edge in graph.into.get(title, ()):
                if edge.link not in (Link.OWNS, Link.CALLS):
                    found.setdefault(edge.source, edge)
        return found

    @property
    def reached(self) -> frozenset[str]:
        """Titles of everything that the focus leans on, itself included."""
        return frozenset({*self._focus.starts, *(t for down in self._down.values() for t in down)})

    def to(self, titles: Iterable[str]) -> Way | None:
        """The shortest way to any of them; None: nothing leads there."""
        best: Way | None = None
        for title in titles:
            for start, down in self._down.items():
                if title == start:
                    return Way(start, ())
                if title in down and (best is None or len(down[title]) < len(best.edges)):
                    best = Way(start, down[title])
            if title in self._up and best is None:
                best = Way(self._focus.title, (self._up[title],))
        return best

    def observed(self, way: Way) -> Way:
        """The way with what the callers' own logs say of it."""
        told: list[Observation] = []
        for edge in way.calls:
            caller = self._world.workload(edge.source)
            if caller is None:
                continue
            named = [c for c in self._world.clues(caller.pods) if c.sign in _NAMING and concerns(self._world, c, edge.target)]
            told += [c.seen for c in named[:1]]
        return replace(way, observed=tuple(told))


def related(world: World, focus: Focus, ways: Ways, candidates: Iterable[Candidate], onset: datetime | None) -> tuple[Candidate, ...]:
    """Candidates that can explain the symptom of the focus, each with the path there; what is too young is refuted."""
    return tuple(r for c in candidates if (r := _related(world, focus, ways, c, onset)) is not None)


def _related(world: World, focus: Focus, ways: Ways, c: Candidate, onset: datetime | None) -> Candidate | None:
    if focus.whole:
        return c
    # What a candidate is about need not be reached when what it breaks is: a quota stands on no path, the workload that it starves does.
    way = ways.to(c.hits or (c.object,))
    if way is None:
        return None
    way = ways.observed(way)
    if c.refuted:
        return c
    too_young = onset is not None and c.since is not None and c.since > onset + SLACK
    if too_young and not way.observed:
        assert onset is not None
        assert c.since is not None
        why = f"it began {clock(c.since)}, after the symptom ({clock(onset)})"
        return replace(c, refuted=safe(why, 900))
    if not way.edges:
        return c
    return _along(world, c, way)


def _along(world: World, c: Candidate, way: Way) -> Candidate:
    """The candidate with its path as evidence. A claimed call that nobody saw is a link inferred, and needs an impaired far end."""
    if not way.calls:
        return replace(c, marks=(*c.marks, Mark("path configured", (_saw(world, way),))))
    if len(way.observed) >= len(way.calls):
        return replace(c, marks=(*c.marks, Mark("path observed", (*way.observed, _saw(world, way)))))
    unseen = len(way.calls) - len(way.observed)
    return replace(c, marks=(*c.marks, Mark("path configured", (_saw(world, way), *way.observed))), inferred=c.inferred + min(unseen, 2))


def _saw(world: World, way: Way) -> Observation:
    told = ", ".join(f"{e.source} {e.link.value} {e.target}" + (f" ({e.via})" if e.via else "") for e in way.edges[:6])
    kind = way.edges[0].source.partition("/")[0]
    return seen(world.scene.listing(kind), told, Channel.PATH)
