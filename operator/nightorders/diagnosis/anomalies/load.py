"""Pods that are all Ready and yet do not do their work: a release that answers with errors, an edit that did, limits, demand, a hang."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import Point, Vector
from ..case import Case
from ..changes import Aspect, Difference, Introduced, edit_of
from ..evidence import Channel, Observation, measured, safe, seen
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..images import what_differs
from ..origins.common import release_of, relevant
from ..origins.memory import quantity
from ..origins.timing import SLACK, saw_edit
from ..origins.values import meant, mounts
from ..read import clock, count, mapping, objects, sentence, word
from ..references import references
from ..scene import Revision, Workload
from ..specialists import series
from ..specialists.logs import Clue, Sign
from ..world import World

# How long after a change errors may begin and still be laid at its door. (An alert's own time is later than the first error.)
_SOON = timedelta(minutes=30)
_NEAR_LIMIT, _THROTTLED, _IDLE = 0.9, 0.25, 0.02
_FULL_SOON = timedelta(hours=24).total_seconds()
_OUTSIDE = frozenset(set(Sign) - {Sign.EXCEPTION, Sign.MEMORY})
MOST_WORKLOADS = 500
_WAITS = re.compile(r"(?:^|_)(?:queue|lag|backlog|depth|pending|length|waiting|unacked|stream_length|jobs_waiting)(?:_|$)")


def load(world: World) -> Iterator[Candidate]:
    """For every workload whose pods serve: what its series, its logs and its changes say together."""
    for w in world.workloads[:MOST_WORKLOADS]:
        if w.kind not in ("Deployment", "StatefulSet", "DaemonSet") or not any(p.ready for p in w.pods):
            continue
        one = _Serving(world, w)
        for c in (*one.release(), *one.edits(), *one.memory(), *one.processor(), *one.hang()):
            yield replace(c, hits=c.hits or (w.title,), caps=(*c.caps, *one.case.caps))


@dataclass(frozen=True)
class _Serving:
    """One workload with pods that are Ready."""

    world: World
    w: Workload

    @cached_property
    def case(self) -> Case:
        return self.world.case(self.w)

    @cached_property
    def began(self) -> datetime | None:
        """Since when the signal says that something is wrong; None where nobody says so (any more)."""
        claim = self.world.claim
        return claim.starts_at if claim is not None and claim.firing is not False and not claim.resolved else None

    @cached_property
    def clues(self) -> tuple[Clue, ...]:
        return self.world.clues(self.w.pods)

    @cached_property
    def logs_read(self) -> bool:
        names = {p.name for p in self.w.pods}
        return any(k.pod in names and not x.because and x.lines for k, x in self.world.scene.snapshot.logs.items())

    def told(self, *signs: Sign) -> tuple[Clue, ...]:
        return tuple(c for c in self.clues if c.sign in signs)

    @cached_property
    def errors(self) -> tuple[float, Observation] | None:
        """The share of failed answers, where it is high enough to count."""
        found = series.service_errors(self.world, self.w)
        if found is None and (pods := series.by_pod(self.world, "error_ratio_by_pod", self.w.pods)):
            worst = max(pods.values.values())
            found = (worst, pods.saw("share of answers that are errors", pods.values))
        return found if found and found[0] >= series.FAILING else None

    # ------------------------------------------------------------ a release

    def release(self) -> Iterator[Candidate]:
        """Errors of the new revision only, or errors that began with it."""
        current, chain = self.w.current, self.case.history.chain
        if current is None or len(chain) < 2 or not self.case.history.comparable or current.released is None:
            return
        previous = chain[1]
        net = tuple({d.path: d for c in self._containers(current) for d in relevant(previous, current, c)}.values())
        if not net:
            return
        split = series.split_by_revision(self.world, self.w)
        if split is not None and split.tells:
            yield self._by_release(current, previous, net, split.seen, None)
        elif self.errors is not None and self.began is not None and split is None:
            late = self.began - current.released
            if late < -SLACK:
                yield self._began_before(previous, current)
            elif late <= _SOON and not self._older_serve(current):
                yield self._by_release(current, previous, net, self.errors[1], late)

    def _containers(self, revision: Revision) -> list[str]:
        return [word(c.get("name")) for c in objects(revision.pod_spec.get("containers"))]

    def _older_serve(self, current: Revision) -> bool:
        return any(p.ready and p not in current.live for p in self.w.pods)

    def _by_release(
        self, current: Revision, previous: Revision, net: tuple[Difference, ...], proof: Observation, late: timedelta | None
    ) -> Candidate:
        images = tuple(d for d in net if d.aspect is Aspect.IMAGE)
        category = Category.BAD_RELEASE if images else Category.BAD_CONFIGURATION
        shown = "; ".join(d.shown for d in net[:6])
        what = what_differs(word(images[0].before), word(images[0].after)) if images else listed_aspects(net)
        release = release_of(self.case, current)
        praise = self.case.praise(previous)
        if late is None:
            how, timed = "answer with errors, and those of the release before do not", Mark("errors in the new release only", (proof,))
        else:
            how, timed = f"answer with errors since {clock(self.began)[3:]}", Mark("metric shows it", (proof,))
        marks = [timed, Mark("introduced by this release", (self.case.saw_release(Introduced(current, previous), shown),))]
        if late is not None:
            text = f"released {clock(current.released)[3:]}, the signal began {clock(self.began)[3:]}"
            marks.append(Mark("began with the release", (seen(self.world.scene.listing("ReplicaSet"), text, Channel.CHANGE),)))
        failing, outside = self.told(Sign.EXCEPTION, Sign.MEMORY), self.told(*_OUTSIDE)
        if failing and not outside:
            marks.append(Mark("log says so", tuple(c.seen for c in failing[:2])))
        return Candidate(
            category,
            self.w.title,
            safe(f"{release} changed {what or shown}; its pods are Ready and {how}. {sentence(praise)}"),
            safe(f"{release} changed {what or shown}, and its pods {how}; {praise}."),
            self.case.release(current),
            tuple(marks),
            inferred=0 if late is None or (failing and not outside) else 1,
            counterfactual=late is None or self.case.history.proven(previous),
            timing=True,
            caps=tuple(self._caps(outside, current, mixed=bool(images) and len(images) < len(net))),
            since=current.released,
        )

    def _caps(self, outside: tuple[Clue, ...], current: Revision, *, mixed: bool) -> Iterator[Cap]:
        before = min((p.birth for p in self.w.pods if p not in current.live and p.birth), default=current.released)
        for name in dict.fromkeys(r.name for r in references(current.pod_spec) if r.kind == "ConfigMap"):
            edit = edit_of(self.world.scene, name)
            if edit is not None and not edit.created and before is not None and edit.at > before - SLACK:
                yield Cap("C", f"{edit.obj.title}, which it reads, changed as well")
        if outside:
            yield Cap("C", f"its log tells of something else: {outside[0].sign.value}")
        if not self.logs_read:
            yield Cap("B", "no log of it was read, and one could name something else")
        if mixed:
            yield Cap("C", "the release changed configuration as well, and nothing tells which it is")

    def _began_before(self, previous: Revision, current: Revision) -> Candidate:
        why = f"the signal began {clock(self.began)[3:]}, before {current.label} ({clock(current.released)[3:]})"
        proof = self.case.saw_release(Introduced(current, previous), why)
        statement = f"{release_of(self.case, current)} is at fault."
        return Candidate(
            Category.BAD_RELEASE, self.w.title, statement, marks=(Mark("no change seen", (proof,)),), refuted=safe(why, 900), inferred=2
        )

    # ------------------------------------------------------------ an edit

    def edits(self) -> Iterator[Candidate]:
        """ConfigMaps that changed shortly before the signal, and whose content the pods have taken up since."""
        if self.began is None:
            return
        spec = self.w.current.pod_spec if self.w.current else mapping(self.w.template.get("spec"))
        names = dict.fromkeys(r.name for r in references(spec) if r.kind == "ConfigMap")
        fitting = [
            e for n in names if (e := edit_of(self.world.scene, n)) and not e.created and self.began - _SOON <= e.at <= self.began + SLACK
        ]
        for edit in fitting[:8]:
            if not self._active(edit.obj.name, edit.at):
                continue
            named = [
                c
                for c in self.clues
                if c.subject
                and len(c.subject) > 2
                and any(c.subject.lower() in f"{k} {v}".lower() for k, v in mapping(edit.obj.raw.get("data")).items() if isinstance(v, str))
            ]
            alone = len(fitting) == 1
            marks = [Mark("edited before it began" if alone else "edited together with others", (saw_edit(self.case, edit),))]
            if self.errors:
                marks.append(Mark("metric shows it", (self.errors[1],)))
            if named:
                marks.append(Mark("log names it", (named[0].seen,)))
            other = self.told(*(_OUTSIDE - {Sign.SETTING, Sign.FILE, Sign.ARGUMENT}))
            what = f"{edit.obj.title}, which {self.w.title} reads, changed {clock(edit.at)}, shortly before the signal ({clock(self.began)[3:]})"
            caps = (Cap("C", f"its log tells of something else: {other[0].sign.value}"),) if other and not named else ()
            yield Candidate(
                Category.BAD_CONFIGURATION,
                edit.obj.title,
                safe(f"{what}; the pods that read it are Ready and do not work as they should."),
                safe(f"{what}."),
                ChangeRef(kind="Edit", at=edit.at, by=safe(edit.by, 200)),
                tuple(marks),
                inferred=1 if alone and (self.errors or named) else 2,
                timing=True,
                caps=caps,
                since=edit.at,
            )

    def _active(self, config_map: str, edited: datetime) -> bool:
        """Whether running pods can have taken the edit up: those that started after it, or any that mount it as a whole volume."""
        if any(p.birth and p.birth >= edited for p in self.w.pods):
            return True
        for pod in self.w.pods[:1]:
            for c in objects(pod.spec.get("containers")):
                if any(name == config_map and not part for _, name, part in mounts(c, pod.spec)):
                    return True
        return False

    # ------------------------------------------------------------ limits

    def memory(self) -> Iterator[Candidate]:
        """Memory near its limit and growing, or containers that were killed there and are up again."""
        limits = {p.name: sum(x for x in (quantity(c.memory_limit) for c in p.containers if not c.init) if x) for p in self.w.pods}
        killed = [(p, c) for p in self.w.pods for c in p.containers if c.memory_limit and c.latest_run and c.latest_run.out_of_memory]
        used = series.by_pod(self.world, "memory_by_pod", self.w.pods)
        growth = series.by_pod(self.world, "memory_growth_by_pod", self.w.pods)
        grows = {n: v for n, v in growth.values.items() if v > 0} if growth else {}
        full = {n: v / limits[n] for n, v in used.values.items() if limits.get(n)} if used else {}
        high = {n for n, share in full.items() if share >= _NEAR_LIMIT and (n in grows or growth is None)}
        soon = {n for n in grows if used and limits.get(n) and 0 <= (limits[n] - used.values.get(n, 0.0)) / grows[n] <= _FULL_SOON} - high
        if not killed and not high and not (soon and self._claims("memory", "oom", "leak")):
            return
        marks: list[Mark] = []
        if killed:
            told = ", ".join(f"{p.name}/{c.name} at {c.memory_limit} (restarts {c.restarts})" for p, c in killed[:3])
            marks.append(Mark("mechanism named", (seen(self.world.scene.listing("Pod"), f"OOMKilled: {told}"),)))
        if used and (high or soon or killed):
            sizes = [f"{n} {used.values[n] / 2**20:.0f} MiB of {limits[n] / 2**20:.0f}" for n in sorted(full)[:4]]
            marks.append(Mark("metric shows it", (measured(used.vector, f"memory in use: {'; '.join(sizes)}"),)))
        pods = sorted({p.name for p, _ in killed} | high | soon)
        grown = " and still grows" if any(n in grows for n in pods) else ""
        statement = f"Memory of {count(len(pods), 'pod')} of {self.w.title} is at its limit{grown} ({listed_names(pods)})."
        if not killed and not high:
            statement = f"Memory of {count(len(pods), 'pod')} of {self.w.title} grows towards its limit ({listed_names(pods)})."
        change = self._lowered_by(lambda t: _limits(t, "memory"))
        yield Candidate(
            Category.RESOURCE_LIMIT,
            self.w.title,
            safe(statement),
            "",
            self.case.release(change.revision) if change else ChangeRef(kind="None"),
            (*marks, *((Mark("introduced by this release", (self.case.saw_release(change, "memory limits changed"),)),) if change else ())),
            inferred=1 if killed or high else 2,
            timing=True,
        )

    def processor(self) -> Iterator[Candidate]:
        """Throttled at the limit; or busy to the last with no limit that anybody changed."""
        throttled = series.by_pod(self.world, "cpu_throttled_by_pod", self.w.pods)
        slowed = {n for n, v in throttled.values.items() if v >= _THROTTLED} if throttled else set()
        if throttled and slowed and 2 * len(slowed) >= len(throttled.values) and (self.began or min(throttled.values.values()) >= 0.5):
            change = self._lowered_by(lambda t: _limits(t, "cpu"))
            marks = [Mark("metric shows it", (throttled.saw("share of periods in which the processor was withheld", slowed),))]
            if change:
                marks.append(Mark("introduced by this release", (self.case.saw_release(change, "cpu limits changed"),)))
            released = change.revision.released if change else None
            timely = released is not None and self.began is not None and self.began >= released - SLACK
            proven = bool(change and change.previous and self.case.history.proven(change.previous))
            yield Candidate(
                Category.RESOURCE_LIMIT,
                self.w.title,
                safe(
                    f"{count(len(slowed), 'pod')} of {self.w.title} are throttled at their processor limit ({listed_names(sorted(slowed))})."
                ),
                "",
                self.case.release(change.revision) if change else ChangeRef(kind="None"),
                tuple(marks),
                inferred=0 if timely else 1,
                counterfactual=timely and proven,
                timing=timely,
            )
            return
        yield from self._busy()

    def _busy(self) -> Iterator[Candidate]:
        used = series.by_pod(self.world, "cpu_by_pod", [p for p in self.w.pods if p.ready])
        if used is None or self.began is None or self.world.graph.sources(self.w.title, Link.SCALES):
            return  # (an autoscaler's own limit is told by another)
        room = {p.name: sum(_cpu(c) for c in objects(p.spec.get("containers"))) for p in self.w.pods}
        busy = {n for n, v in used.values.items() if room.get(n) and v >= _NEAR_LIMIT * room[n]}
        if not busy or len(busy) < len(used.values) or self._changed_lately():
            return
        marks = (Mark("metric shows it", (used.saw("processor cores in use", busy),)),)
        statement = (
            f"All {count(len(busy), 'pod')} of {self.w.title} use the whole processor that they were given, and nothing was changed."
        )
        yield Candidate(
            Category.OVERLOAD,
            self.w.title,
            safe(statement),
            "",
            ChangeRef(kind="None"),
            marks,
            inferred=2,
            timing=True,
        )

    def _changed_lately(self) -> bool:
        released = self.w.current.released if self.w.current else None
        return released is not None and self.began is not None and timedelta() <= self.began - released + SLACK <= _SOON

    def _lowered_by(self, value: Callable[[Mapping[str, Any]], tuple[tuple[str, float], ...]]) -> Introduced | None:
        """The release that lowered a limit, or set the first one."""
        found = self.case.history.introduced(value)
        if found is None or found.previous is None or self.w.current is None or not isinstance(found.before, tuple):
            return None
        now = value(found.revision.template)
        was = dict(found.before)
        return found if any(name not in was or size < was[name] for name, size in now) else None

    def _claims(self, *words: str) -> bool:
        claim = self.world.claim
        return claim is not None and any(w in claim.text for w in words)

    # ------------------------------------------------------------ a hang

    def hang(self) -> Iterator[Candidate]:
        """Work waits, nobody works, nobody fails, and nothing was changed: a process that hangs. Why, only its own log can tell."""
        if self.began is None or self.case.report.failing or not all(p.ready for p in self.w.pods):
            return
        lost = self.told(Sign.HOST)
        back = next((t for c in lost if (t := self._answers_again(c.subject))), "")
        queue = series.of_workload(self.world, "queue_depth", self.w) or self._queue_of_the_signal() or self._queue_at(back)
        if queue is None or max(p.value for p in queue[1]) <= 0:
            return
        used = series.by_pod(self.world, "cpu_by_pod", self.w.pods)
        if (used and max(used.values.values()) > _IDLE) or (used is None and not lost) or self._changed_lately():
            return
        depth = max(p.value for p in queue[1])
        marks = [Mark("metric shows it", (measured(queue[0], f"{depth:.0f} wait in the queue of {self.w.name}"),))]
        if used:
            marks.append(Mark("metric shows it", (used.saw("processor cores in use", used.values),)))
        if lost:
            marks.append(Mark("log says so", (lost[0].seen,)))
        idle = "uses no processor" if used else "does nothing"
        statement = f"{depth:.0f} wait in the queue of {self.w.title}, whose pods are Ready, and it {idle}: it hangs. Nothing was changed."
        hits: tuple[str, ...] = (self.w.title,)
        if back:
            statement += f" By its log it lost its connection to {back}, which answers; it did not connect again."
            hits = (self.w.title, back)
            ready = seen(
                self.world.scene.listing("Pod"), f"pods behind {back} are Ready, and so are those of {self.w.title}", Channel.CONTRAST
            )
            marks += [Mark("state fits", (telling_pods(self.world, self.w),)), Mark("works elsewhere", (ready,))]
        elif lost:
            statement += f" Its log last told of a connection that was lost ({lost[0].subject or 'to whom, it does not say'})."
        yield Candidate(
            Category.DEPENDENCY if back else Category.UNKNOWN,
            self.w.title,
            safe(statement),
            "",
            ChangeRef(kind="None"),
            tuple(marks),
            inferred=1 if back else 2,
            timing=True,
            hits=hits,
        )

    def _answers_again(self, host: str) -> str:
        """Title of the Service that a lost connection led to, if pods behind it are Ready; empty for any other host."""
        target = meant(self.world.scene, host.lower()) if host else None
        if target is None or target.service is None or target.namespace != self.world.scene.snapshot.namespace:
            return ""
        return target.service.title if any(p.ready for p in self.world.pods_behind(target.service)) else ""

    def _queue_at(self, service: str) -> tuple[Vector, tuple[Point, ...]] | None:
        """What waits at the Service that the worker takes its work from, by whatever name its exporter gives it."""
        name = service.partition("/")[2]
        for question in ("queue_depth", "series") if name else ():
            vector = self.world.metric(question)
            if vector is not None and not vector.because:
                points = tuple(
                    p for p in vector.points if name in p.labels.values() and _WAITS.search(p.labels.get("series", "") or "queue")
                )
                if points:
                    return vector, points
        return None

    def _queue_of_the_signal(self) -> tuple[Vector, tuple[Point, ...]] | None:
        """The queue that the signal itself names, where the signal also names this workload."""
        claim, vector = self.world.claim, self.world.metric("queue_depth")
        if claim is None or vector is None or vector.because or self.w.name not in claim.labels.values():
            return None
        told = set(claim.labels.values()) - {self.w.name, self.world.scene.snapshot.namespace}
        points = tuple(p for p in vector.points if told & set(p.labels.values()))
        return (vector, points) if points else None


def telling_pods(world: World, w: Workload) -> Observation:
    """That all pods are Ready, and since when nothing has restarted."""
    told = ", ".join(f"{p.name} Ready since {clock(p.ready_changed)[3:]}" for p in w.pods[:3])
    return seen(world.scene.listing("Pod"), f"{w.title}: {told}")


def listed_aspects(net: tuple[Difference, ...]) -> str:
    """`the environment (MODE)`."""
    names = [d.env_name for d in net if d.env_name]
    return " and ".join(dict.fromkeys(d.aspect.value for d in net)) + (f" ({listed_names(names)})" if names else "")


def listed_names(names: list[str]) -> str:
    """At most four names, safe to show."""
    return safe(", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""), 400)


def _limits(template: object, resource: str) -> tuple[tuple[str, float], ...]:
    """(container, limit) of a template."""
    spec = mapping(mapping(template).get("spec"))
    found = (
        (word(c.get("name")), quantity(word(mapping(mapping(c.get("resources")).get("limits")).get(resource))))
        for c in objects(spec.get("containers"))
    )
    return tuple((name, size) for name, size in found if size is not None)


def _cpu(container: object) -> float:
    """Cores that a container may use: its limit, else its request; 0 where neither is said."""
    resources = mapping(mapping(container).get("resources"))
    for part in ("limits", "requests"):
        value = mapping(resources.get(part)).get("cpu")
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else word(value)
        if size := quantity(text):
            return size
    return 0.0
