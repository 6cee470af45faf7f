"""Every saved version of every Incident, as it was when it was saved: what a diagnosis said later is not what it said then."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tools.cluster.rest import Api, ApiError

Json = dict[str, Any]
_WATCH = "/apis/nightorders.dev/v1alpha1/incidents?watch=true&allowWatchBookmarks=true"
_SILENCE_SECONDS = 300.0
KEPT = (
    "phase",
    "hypotheses",
    "executions",
    "firstSummaryAt",
    "diagnosedAt",
    "escalation",
    "alerts",
    "cost",
    "conditions",
    "summary",
    "unexplained",
)
# Phases that are an end: what was saved then is the answer.
FINAL = frozenset({"Recovered", "Undone", "Escalated", "Dismissed"})


@dataclass(frozen=True)
class Version:
    """One saved state. `at` is when it was seen (monotonic seconds)."""

    at: float
    status: Json

    @property
    def phase(self) -> str:
        """One word."""
        return str(self.status.get("phase") or "")


@dataclass
class Story:
    """One Incident and its versions, oldest first."""

    namespace: str
    name: str
    spec: Json
    created: str = ""
    versions: list[Version] = field(default_factory=list)
    text: str = ""  # the whole object as it is now

    @property
    def last(self) -> Version:
        """As it is now."""
        return self.versions[-1]

    def carries(self, fingerprint: str) -> bool:
        """Whether it was opened by that alert or took it in."""
        opened = (self.spec.get("signal") or {}).get("fingerprints") or []
        later = [a.get("fingerprint") for v in self.versions for a in v.status.get("alerts") or []]
        return fingerprint in opened or fingerprint in later

    def mentions(self, name: str) -> bool:
        """Whether it names another Incident anywhere: then it is linked."""
        return name in self.text

    def scored(self) -> Version | None:
        """What counts: the version in which the plan was staged, else the one that reached an outcome, else the last."""
        staged = next((v for v in self.versions if v.status.get("planned") and v.status.get("hypotheses")), None)
        ended = next((v for v in self.versions if v.phase in FINAL), None)
        if staged is not None and ended is not None:
            return min(staged, ended, key=lambda v: v.at)
        return staged or ended or (self.versions[-1] if self.versions else None)

    def first(self, holds: Callable[[Json], bool]) -> float | None:
        """When a version was first seen whose status is so."""
        return next((v.at for v in self.versions if holds(v.status)), None)


def kept(status: Json) -> Json:
    """The part of a status that scores need: a whole one has many kilobytes, and there are many versions."""
    found = {key: status[key] for key in KEPT if key in status}
    if status.get("plan"):
        plan = status["plan"]
        found["planned"] = {"action": plan.get("action"), "digest": plan.get("digest"), "target": plan.get("target")}
    found["level"] = (status.get("autonomy") or {}).get("level")
    return found


class Incidents:
    """Watches all Incidents in a thread of its own. `stories` may be asked by any thread."""

    def __init__(self, open_api: Callable[[], Api]) -> None:
        self._open = open_api
        self._lock = threading.Lock()
        self._stories: dict[str, Story] = {}  # by uid
        self._over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True

    def _run(self) -> None:
        while not self._over:
            try:
                for event in self._open().watch(_WATCH, _SILENCE_SECONDS):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self.take(event["object"], time.monotonic())
                    if self._over:
                        return
            except (OSError, http.client.HTTPException, ApiError, ValueError):
                time.sleep(0.5)  # every watch begins with the present state of all, so nothing that lasts is missed

    def take(self, incident: Json, at: float) -> None:
        """Notes one state; one that says the same as the last is no new version."""
        meta = incident["metadata"]
        status = kept(incident.get("status") or {})
        with self._lock:
            story = self._stories.get(meta["uid"])
            if story is None:
                story = self._stories[meta["uid"]] = Story(
                    meta["namespace"], meta["name"], incident.get("spec") or {}, meta.get("creationTimestamp", "")
                )
            story.text = json.dumps(incident)
            if not story.versions or story.versions[-1].status != status:
                story.versions.append(Version(at, status))

    def stories(self, *namespaces: str) -> list[Story]:
        """The Incidents of these namespaces."""
        with self._lock:
            return [s for s in self._stories.values() if s.namespace in namespaces]
