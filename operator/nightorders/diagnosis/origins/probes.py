"""Origins of a container that its probe kills or keeps from being Ready: the probe where it is wrong, else the program behind it.

A probe is wrong when it asks for what the container does not offer (port, scheme, path, command), or gives less time than healthy starts
take. What decides is the template, what healthy pods did, and the program's own word on the ports that it opened; a message of kubelet
tells which of these it met. A probe that is as it was while pods were Ready is right, and the program behind it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Introduced
from ..contrast import Contrast
from ..evidence import Observation, safe, seen
from ..findings import CrashFinding, Finding, Trouble
from ..hypotheses import Candidate, Cap, Mark
from ..read import listed, mapping, number, objects, sentence, word
from ..references import references
from ..specialists.logs import LogReport, Sign, listening, start_time
from ..views import Pod
from .common import container_of, release_of, relevant
from .timing import timed_edit

_KINDS = {"startupProbe": "startup probe", "livenessProbe": "liveness probe", "readinessProbe": "readiness probe"}
_KILLED = (137, 143)
_STATUS = re.compile(r"statuscode: (\d{3})")
_WRONG_SCHEME = (
    "server gave http response to https",
    "client sent an http request to an https",
    "malformed http response",
    "does not look like a tls",
)
_NO_PROGRAM = (
    "executable file not found",
    "no such file or directory",
    "exec failed",
    "command not found",
    ": not found",
    "permission denied",
)
_NO_HEALTH = ("unknown service grpc.health", "code = unimplemented", "service unimplemented", "does not implement the grpc health")
_LATE = ("context deadline exceeded", "client.timeout", "timed out", "timeout")
_OUTSIDE = (Sign.HOST, Sign.NAME, Sign.CREDENTIALS, Sign.POOL, Sign.UPSTREAM, Sign.CERTIFICATE, Sign.FORBIDDEN, Sign.DISK, Sign.SETTING)
# A start that took longer than this was no start: the pod waited for something else.
_LONGEST_START = 1800.0


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a probe. `sure`: computed or told by the program, beside kubelet's message; `factor`: how it counts."""

    why: str
    sure: bool
    factor: str
    seen: tuple[Observation, ...] = ()


def probe_origins(case: Case, f: Finding) -> tuple[Candidate, ...]:
    """The probes of the failing container that can have done it."""
    return tuple(c for kind in _kinds(case, f) for c in _Probe(case, f, kind).candidates())


def probe_kills(case: Case, f: CrashFinding) -> tuple[Candidate, ...]:
    """An exit by a signal, of which no Event tells who sent it: the probe, where it is wrong or new."""
    if f.run is None or f.run.exit_code not in _KILLED or f.run.out_of_memory or f.init:
        return ()
    c = container_of({"spec": f.revision.pod_spec}, f.container)
    kinds = [k for k in ("startupProbe", "livenessProbe") if mapping(c.get(k))]
    return tuple(x for k in kinds for x in _Probe(case, f, k).candidates() if not x.refuted)


def _kinds(case: Case, f: Finding) -> list[str]:
    """Probes that the container has and that fit the trouble: those that kubelet names, else all."""
    c = container_of({"spec": f.pods[0].spec if f.pods else f.revision.pod_spec}, f.container)
    wished = ("startupProbe", "livenessProbe") if f.trouble is Trouble.PROBE else ("startupProbe", "readinessProbe")
    there = [k for k in wished if mapping(c.get(k))]
    told = " ".join(t.lower() for t, _ in _messages(case, f))
    return [k for k in there if _KINDS[k] in told] or there


def _messages(case: Case, f: Finding) -> list[tuple[str, Observation]]:
    """What kubelet said of probes, about up to ten of the pods."""
    events = case.scene.listing("Event")
    found = [
        (e.message, seen(events, f"Event about Pod/{p.name}: {e.reason}: {e.message}"))
        for p in f.pods[:10]
        for e in case.scene.pod_events(p)
        if e.reason in ("Unhealthy", "Killing", "ProbeWarning")
    ]
    return list(dict.fromkeys(found))[:40]


@dataclass(frozen=True)
class _Probe:
    """One probe of one failing container."""

    case: Case
    f: Finding
    kind: str

    @property
    def name(self) -> str:
        return _KINDS[self.kind]

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        return self.f.pods[0].spec if self.f.pods else self.f.revision.pod_spec

    @cached_property
    def container(self) -> Mapping[str, Any]:
        return container_of({"spec": self.spec}, self.f.container)

    @cached_property
    def probe(self) -> Mapping[str, Any]:
        return mapping(self.container.get(self.kind))

    @cached_property
    def told(self) -> list[tuple[str, Observation]]:
        mine = [(t, o) for t, o in _messages(self.case, self.f) if self.name in t.lower()]
        return mine or _messages(self.case, self.f)

    @cached_property
    def logs(self) -> LogReport:
        return self.case.logs(self.f)

    @cached_property
    def contrast(self) -> Contrast:
        return self.case.contrast(self.f)

    @cached_property
    def introduced(self) -> Introduced | None:
        if not self.case.is_current(self.f):
            return None
        found = self.case.history.brought_in(self._fields, needed_to_start=False)
        return found if found and found.previous else None

    def _fields(self, template: Mapping[str, Any]) -> object:
        """The probe as kubelet understands it, a named port resolved."""
        c = container_of(template, self.f.container)
        probe = mapping(c.get(self.kind))
        names = {word(p.get("name")): number(p.get("containerPort")) for p in objects(c.get("ports"))}
        return (probe, names.get(str(_port(probe)))) if probe else None

    @cached_property
    def was_right(self) -> bool:
        """Whether pods have been Ready with the very same probe."""
        history, current = self.case.history, self.case.history.current
        if self.contrast.same_revision or current is None:
            return bool(self.contrast.same_revision)
        mine = self._fields(current.template)
        same = [r for r in history.chain if self._fields(r.template) == mine]
        return (history.lasted and current in same) or any(history.proven(r) for r in same if r is not current)

    @cached_property
    def alone(self) -> bool:
        """Whether the release changed nothing else that the program could fail of, nor did anything that it reads."""
        found = self.introduced
        if found is None or found.previous is None or relevant(found.previous, self.f.revision, self.f.container):
            return False
        maps = [r.name for r in references(self.f.revision.pod_spec) if r.kind == "ConfigMap"]
        return all(timed_edit(self.case, self.f, self.contrast, name) is None for name in maps)

    # ------------------------------------------------------------ the verdict

    def candidates(self) -> Iterator[Candidate]:
        fault, found = self._fault(), self.introduced
        if fault and fault.factor == "probe gives too little time":
            yield self._candidate(fault, found)
        elif self.was_right:
            if self.f.trouble is Trouble.PROBE:
                yield self._refuted()
        elif found is not None and (fault or self.alone or not self.logs.of(*_OUTSIDE)):
            yield self._candidate(fault, found)
        elif fault is not None and fault.sure:
            yield self._candidate(fault, None)

    def _candidate(self, fault: _Fault | None, found: Introduced | None) -> Candidate:
        title, who = self.case.title, f"The {self.name} of container {self.f.container} of {self.case.title}"
        done = "is not ready because of it" if self.f.trouble is Trouble.NOT_READY else "is killed for it"
        why = fault.why if fault else "is new, and the container fails it"
        marks = [
            Mark(
                fault.factor if fault else "state fits", (*self.f.seen[:2], *(o for _, o in self.told[:2]), *(fault.seen if fault else ()))
            )
        ]
        previous = found.previous if found else None
        summary = f"{who} {why}; the container {done}."
        change = ChangeRef(kind="None")
        if found and previous:
            release = release_of(self.case, found.revision)
            marks.append(
                Mark("introduced by this release", (self.case.saw_release(found, f"{self.name} of container {self.f.container} changed"),))
            )
            change = self.case.release(found.revision)
            summary = f"{release} changed the {self.name} of container {self.f.container}, which {why}; {self.case.praise(previous)}."
        else:
            marks.append(Mark("no change seen"))
        if self.contrast.separates_revisions:
            marks.append(Mark("previous revision serves", self.case.saw_serving(self.f)))
        sure = fault is not None and fault.sure
        return Candidate(
            Category.PROBE,
            title,
            sentence(f"{who} {why}; the container {done}"),
            summary,
            change,
            tuple(marks),
            inferred=0 if sure or self.alone else 1,
            counterfactual=previous is not None and self.case.history.proven(previous),
            timing=change.kind == "Release",
            caps=tuple(self._caps(fault, found)),
        )

    def _caps(self, fault: _Fault | None, found: Introduced | None) -> Iterator[Cap]:
        sure = fault is not None and fault.sure
        if not sure and not self.alone and found is not None:
            yield Cap("C", "the release changed more than the probe, and nothing tells which it is")
        if not sure and self.logs.of(*_OUTSIDE):
            yield Cap("C", "the program's log tells of another trouble")
        if self.contrast.same_revision:
            yield Cap("C", f"pods of the same revision are Ready with the same probe ({len(self.contrast.same_revision)})")

    def _refuted(self) -> Candidate:
        why = f"pods were Ready with the very same {self.name}"
        proof = seen(self.case.scene.listing("Pod"), why)
        statement = f"The {self.name} of container {self.f.container} is wrong."
        return Candidate(
            Category.PROBE, self.case.title, statement, marks=(Mark("probe was right before", (proof,)),), refuted=safe(why, 900)
        )

    # ------------------------------------------------------------ what is wrong with it

    def _fault(self) -> _Fault | None:
        """The first that holds."""
        return self._port_fault() or self._scheme_fault() or self._command_fault() or self._start_fault() or self._answer_fault()

    def _says(self, *words: str) -> Observation | None:
        return next((o for t, o in self.told if any(w in t.lower() for w in words)), None)

    def _port_fault(self) -> _Fault | None:
        port = _port(self.probe)
        if port is None:
            return None
        ports = objects(self.container.get("ports"))
        door = "probe asks the wrong door"
        if isinstance(port, str):
            names = [word(p.get("name")) for p in ports if word(p.get("name"))]
            if port in names:
                return self._unopened(next((number(p.get("containerPort")) for p in ports if word(p.get("name")) == port), 0))
            return _Fault(
                f"asks for port {safe(port, 40)}, a name that the container does not have ({listed(names) or 'none'})", True, door
            )
        declared = {number(p.get("containerPort")) for c in objects(self.spec.get("containers")) for p in objects(c.get("ports"))}
        refused = self._says("connection refused", "connect: ")
        if declared and port not in declared:
            shown = listed([str(p) for p in sorted(declared)])
            return self._unopened(port) or _Fault(
                f"asks for port {port}, which no container of the pod declares ({shown})",
                refused is not None,
                door,
                (refused,) if refused else (),
            )
        return self._unopened(port)

    def _unopened(self, port: int) -> _Fault | None:
        """The program itself says which ports it opened, and this is none of them."""
        names = {p.name for p in self.f.pods}
        mine = [x for k, x in self.case.scene.snapshot.logs.items() if k.pod in names and k.container == self.f.container]
        opened = listening(mine)
        if not opened or port in opened or self._says("connection refused", "connect: ") is None:
            return None
        shown = listed([str(p) for p in sorted(opened)])
        why = f"asks for port {port}, while the program says that it opened {shown}"
        return _Fault(why, True, "probe asks the wrong door", tuple(opened.values())[:2])

    def _scheme_fault(self) -> _Fault | None:
        http = mapping(self.probe.get("httpGet"))
        if http and (told := self._says(*_WRONG_SCHEME)):
            return _Fault(
                f"speaks {word(http.get('scheme')) or 'HTTP'}, which the program does not", True, "probe asks the wrong door", (told,)
            )
        if mapping(self.probe.get("grpc")) and (told := self._says(*_NO_HEALTH)):
            return _Fault("asks for a gRPC health service that the program does not have", True, "probe asks the wrong door", (told,))
        return None

    def _command_fault(self) -> _Fault | None:
        if mapping(self.probe.get("exec")) and (told := self._says(*_NO_PROGRAM)):
            return _Fault("runs a command that is not in the container", True, "probe asks the wrong door", (told,))
        return None

    def _start_fault(self) -> _Fault | None:
        """Killed before it can be up: healthy starts, or the one that the program timed itself, took longer than the probe allows."""
        if self.f.trouble is Trouble.NOT_READY and self.kind != "startupProbe":
            return None
        if self.kind == "livenessProbe" and mapping(self.container.get("startupProbe")):
            return None
        allowed = budget(self.probe)
        mine = [
            x
            for k, x in self.case.scene.snapshot.logs.items()
            if k.pod in {p.name for p in self.f.pods} and k.container == self.f.container
        ]
        timed = start_time(mine)
        if timed is not None and timed[0] > allowed:
            why = f"allows {allowed:.0f} s to start, and the program says that it took {timed[0]:.0f} s"
            return _Fault(why, True, "probe gives too little time", (timed[1],))
        healthy = [(s, p) for p in self.case.report.healthy if (s := self._start_of(p, allowed)) is not None]
        if not healthy:
            return None
        took, pod = min(healthy, key=lambda h: (h[0], h[1].name))
        if took <= allowed:
            return None
        proof = seen(
            self.case.scene.listing("Pod"), f"Pod/{pod.name} was Ready {took:.0f} s after its container {self.f.container} started"
        )
        return _Fault(
            f"allows {allowed:.0f} s to start, and healthy pods took {took:.0f} s or more", True, "probe gives too little time", (proof,)
        )

    def _start_of(self, pod: Pod, allowed: float) -> float | None:
        """Seconds from the container's start until the pod was Ready. None where that says nothing of the program's own start: it has been
        restarted, its readiness probe waits as long by itself, or the pod lived through a probe that allows no more than this one.
        """
        c = next((c for c in pod.containers if c.name == self.f.container), None)
        if c is None or c.restarts or c.running_since is None or pod.ready_changed is None:
            return None
        took = (pod.ready_changed - c.running_since).total_seconds()
        own = container_of({"spec": pod.spec}, self.f.container)
        waits = number(mapping(own.get("readinessProbe")).get("initialDelaySeconds"))
        probe = mapping(own.get(self.kind))
        survived = bool(probe) and not mapping(own.get("startupProbe")) and budget(probe) < took
        if not 0 <= took <= _LONGEST_START or waits >= allowed or survived:
            return None
        return took

    def _answer_fault(self) -> _Fault | None:
        """What the program answers: not there, not allowed. (An error of its own, 5xx, is the program's.)"""
        http = mapping(self.probe.get("httpGet"))
        for text, told in self.told:
            if http and (m := _STATUS.search(text)) and m.group(1)[0] in "34":
                path = safe(word(http.get("path")) or "/", 120)
                why = f"asks for {path}, to which the program answers {m.group(1)}"
                return _Fault(why, self.introduced is not None, "probe asks the wrong door", (told,))
        if self.introduced is not None and (late := self._says(*_LATE)):
            return _Fault(
                f"allows {number(self.probe.get('timeoutSeconds'), 1)} s for an answer, and gets none", False, "state fits", (late,)
            )
        return None


def _port(probe: Mapping[str, Any]) -> int | str | None:
    """The port that a probe asks for: a number, a name, or None where it asks for none."""
    for handler in ("httpGet", "tcpSocket", "grpc"):
        port = mapping(probe.get(handler)).get("port")
        if isinstance(port, str) and port:
            return int(port) if port.isascii() and port.isdigit() and len(port) < 6 else port[:63]
        if number(port):
            return number(port)
    return None


def budget(probe: Mapping[str, Any]) -> float:
    """Seconds from a container's start until this probe has failed often enough."""
    period, failures = max(1, number(probe.get("periodSeconds"), 10)), max(1, number(probe.get("failureThreshold"), 3))
    return float(max(0, number(probe.get("initialDelaySeconds"))) + period * failures)
