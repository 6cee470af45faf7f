"""The story of an Incident as a chain: every line covers the one before, so that a change anywhere shows.

sha256 of line n = sha256 of the canonical JSON of [sha256 of line n-1, seq, at, kind, actor, what]. The first line covers the
Incident's uid. Old observations roll up; decisions, approvals and executions never do (docs/safety.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from ..api.meta import line
from ..api.v1alpha1.incident import Head, TimelineEntry
from .digest import sha256

Kind = Literal["Observation", "Decision", "Approval", "Execution"]
LIMIT = 96  # lines; above it the oldest run of observations rolls up
KEEP_RECENT = 24  # never rolled up, whatever they are
LINE_LENGTH = 400
APPROVALS = 32  # answers to plans that are written one by one; who toggles more than that is named once (threats.md 28)


def genesis(uid: str) -> str:
    """What the first line of an Incident's story covers."""
    return sha256({"incident": uid})


def link(previous: str, seq: int, at: datetime, kind: str, actor: str, what: str) -> str:
    """sha256 of one line."""
    return sha256([previous, seq, at.isoformat(timespec="microseconds"), kind, actor, what])


def append(timeline: Sequence[TimelineEntry], uid: str, at: datetime, kind: Kind, actor: str, what: str) -> tuple[TimelineEntry, ...]:
    """The story with one more line; the very same line twice in a row is one line."""
    last = timeline[-1] if timeline else None
    if kind == "Approval" and sum(e.kind == "Approval" for e in timeline) >= APPROVALS:
        kind, what = "Observation", "more answers were given than are written here; the API server's audit log has them all"
    actor, what = line(actor, 256), line(what, LINE_LENGTH)
    if last is not None and (last.what, last.actor) == (what, actor):
        return tuple(timeline)
    seq = (last.seq if last else 0) + 1
    sha = link(last.sha256 if last else genesis(uid), seq, at, kind, actor, what)
    return rolled((*timeline, TimelineEntry(seq=seq, at=at, kind=kind, actor=actor, what=what, sha256=sha)), LIMIT)


def rolled(timeline: tuple[TimelineEntry, ...], limit: int) -> tuple[TimelineEntry, ...]:
    """The story with its oldest runs of observations rolled up until it has at most `limit` lines, as far as that goes."""
    while len(timeline) > limit:
        run = _oldest_run(timeline[:-KEEP_RECENT])
        if run is None:
            return timeline
        start, end = run
        lines = timeline[start:end]
        count = sum(e.count for e in lines)
        one = TimelineEntry(
            seq=lines[-1].seq,
            at=lines[-1].at,
            kind="RollUp",
            actor="operator",
            what=f"{count} earlier observations",
            count=count,
            sha256=lines[-1].sha256,
        )
        timeline = (*timeline[:start], one, *timeline[end:])
    return timeline


def _oldest_run(timeline: Sequence[TimelineEntry]) -> tuple[int, int] | None:
    """The oldest stretch of at least two neighbouring lines that may roll up."""
    start = None
    for i, e in enumerate((*timeline, None)):
        if e is not None and e.kind in ("Observation", "RollUp"):
            start = i if start is None else start
        elif start is not None:
            if i - start >= 2:
                return start, i
            start = None
    return None


def head_of(timeline: Sequence[TimelineEntry]) -> Head | None:
    """The unsigned end of the chain."""
    return Head(seq=timeline[-1].seq, sha256=timeline[-1].sha256) if timeline else None


def breaks(timeline: Iterable[TimelineEntry], uid: str) -> list[str]:
    """What is wrong with a chain: edits, removals, reorderings. Empty: it holds."""
    found, previous, seq = [], genesis(uid), 0
    for e in timeline:
        expected = seq + e.count
        if e.seq != expected:
            found.append(
                f"line {e.seq} follows line {seq}"
                + (f" and stands for {e.count}" if e.count > 1 else "")
                + ": something is missing or moved"
            )
        elif e.kind != "RollUp" and e.sha256 != link(previous, e.seq, e.at, e.kind, e.actor, e.what):
            found.append(f"line {e.seq} was changed, or a line before it")
        previous, seq = e.sha256, e.seq
    return found
