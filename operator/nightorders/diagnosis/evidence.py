"""What was seen, where, by which query. Findings hold observations; only the finished answer gives them ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal

from ..api.meta import line
from ..api.v1alpha1.incident import Evidence
from ..domain.digest import sha256_text
from ..domain.redaction import redact
from ..domain.snapshot import Listing, LogExcerpt, Vector

EXCERPT_LIMIT = 320
EVIDENCE_LIMIT = 64
CITED_LIMIT = 16
_PLAIN = re.compile(r"[A-Za-z0-9._:/=@,-]+")
_FLAGS = frozenset({"-n", "-c", "-l", "--previous"})
# Marks without any width: with one of them inside, another name looks just like the real one.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200d\u2060-\u2064\ufeff\ufff9-\ufffb]")

Source = Literal["Kubernetes", "Prometheus", "Logs", "Ledger"]


class Channel(Enum):
    """Independent ways of knowing. A waiting reason, its Event, its condition and the alert are one fact, not four."""

    STATUS = "specification and status"
    CHANGE = "change"
    CONTRAST = "contrast"
    LOG = "log"
    METRIC = "metric"
    PATH = "path from the origin to the symptom"


def safe(text: str, limit: int = 1024) -> str:
    """Text from the cluster as it may be shown: without secrets, control characters and line breaks; invisible marks are spelled out."""
    shown = redact(text)
    return line(shown if shown.isascii() else _INVISIBLE.sub(_spelled, shown), limit)


def _spelled(mark: re.Match[str]) -> str:
    return f"<U+{ord(mark[0]):04X}>"


@dataclass(frozen=True)
class Observation:
    """One thing seen. `text` is redacted already."""

    channel: Channel
    source: Source
    query: str
    at: datetime
    text: str


def seen(listing: Listing, text: str, channel: Channel = Channel.STATUS) -> Observation:
    """Something that the answer to a list request shows."""
    return Observation(channel, "Kubernetes", line(listing.query), listing.at, safe(text, 4096))


def logged(log: LogExcerpt, text: str) -> Observation:
    """A line of a log. (It was redacted when it was read; doing so again costs little and trusts nobody.)"""
    return Observation(Channel.LOG, "Logs", line(log.query), log.at, safe(text, 4096))


def measured(vector: Vector, text: str) -> Observation:
    """What the answer to a PromQL question shows."""
    return Observation(Channel.METRIC, "Prometheus", line(vector.promql), vector.at, safe(text, 4096))


@dataclass(frozen=True)
class Known:
    """A fact in the making: it stands on observations."""

    text: str
    seen: tuple[Observation, ...]


@dataclass(frozen=True)
class Believed:
    """A guess in the making, and the command that would settle it (empty where its names are not safe to paste)."""

    text: str
    seen: tuple[Observation, ...] = ()
    settled_by: str = ""


def command(*argv: str) -> str:
    """A command that is safe to paste, or nothing: one odd character in one name and there is no command (threats.md 13)."""
    return " ".join(argv) if all(_PLAIN.fullmatch(a) and (a in _FLAGS or not a.startswith("-")) for a in argv) else ""


@dataclass
class Register:
    """Gives observations their ids, in the order in which the answer first cites them."""

    _ids: dict[Observation, str] = field(default_factory=dict)

    def cite(self, observations: Iterable[Observation]) -> tuple[str, ...]:
        """Ids of these observations; of what is beyond the API's bounds, none."""
        ids: list[str] = []
        for o in observations:
            if o not in self._ids and len(self._ids) < EVIDENCE_LIMIT:
                self._ids[o] = f"e{len(self._ids) + 1}"
            if o in self._ids and self._ids[o] not in ids:
                ids.append(self._ids[o])
        return tuple(ids[:CITED_LIMIT])

    def evidence(self) -> tuple[Evidence, ...]:
        """Everything cited so far. The digest is over the redacted text, of which the excerpt is the beginning (threats.md 23)."""
        return tuple(
            Evidence(id=i, source=o.source, query=o.query, at=o.at, excerpt=line(o.text, EXCERPT_LIMIT), sha256=sha256_text(o.text))
            for o, i in self._ids.items()
        )
