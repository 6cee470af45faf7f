"""Everything that the specialists found about one workload, in one place, for the hypotheses to be made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..api.v1alpha1.incident import ChangeRef
from .changes import History, Introduced, released_by
from .contrast import Contrast, compare
from .evidence import Channel, Observation, safe, seen
from .findings import Finding
from .graph import Graph
from .hypotheses import Cap
from .read import clock, count, span
from .scene import Revision, Scene, Workload
from .specialists.logs import LogReport
from .specialists.workload import WorkloadReport

# The lists on which every diagnosis of a workload stands: each of them could show something that changes it.
CORE_KINDS = ("Pod", "ReplicaSet", "ConfigMap", "Event")
_WORTH_TELLING = timedelta(minutes=1)


@dataclass(frozen=True)
class Case:
    """The material of one diagnosis. `logs` reads the logs that belong to a finding; `caps` hold for every hypothesis."""

    scene: Scene
    workload: Workload
    report: WorkloadReport
    history: History
    graph: Graph
    caps: tuple[Cap, ...]
    logs: Callable[[Finding], LogReport]

    @property
    def title(self) -> str:
        return self.workload.title

    @property
    def name(self) -> str:
        return safe(self.workload.name, 120)

    def is_current(self, finding: Finding) -> bool:
        return finding.revision is self.workload.current

    def explains(self, finding: Finding) -> int:
        return max(1, len(finding.pods)) if self.is_current(finding) else 0

    def contrast(self, finding: Finding) -> Contrast:
        return compare(finding.revision, finding.pods, self.report.healthy, self.scene.pods)

    def release(self, revision: Revision) -> ChangeRef:
        """A release as the change of a hypothesis."""
        return ChangeRef(
            kind="Release",
            revision=str(revision.number or revision.name)[:253],
            at=revision.released,
            by=safe(released_by(self.workload, revision), 200),
        )

    def saw_release(self, found: Introduced, shown: str) -> Observation:
        """The difference between two revisions, as evidence."""
        previous = found.previous.title if found.previous else "none"
        return seen(self.scene.listing(found.revision.kind), f"{found.revision.title} against {previous}: {shown}", Channel.CHANGE)

    def saw_health(self, revision: Revision) -> Observation:
        """Why we believe that a revision was healthy."""
        ready = sorted((p for p in revision.live if p.ready), key=lambda p: p.name)
        if ready:
            told = ", ".join(f"{p.name} since {clock(p.ready_changed)[3:]}" for p in ready[:3])
            return seen(self.scene.listing("Pod"), f"{count(len(ready), 'pod')} of {revision.label} Ready: {told}", Channel.CONTRAST)
        if revision.worked:
            return seen(self.scene.listing(revision.kind), f"{revision.title} completed {clock(revision.worked)}", Channel.CONTRAST)
        at = self.history.recorded.get(revision.uid)
        text = f"uid {revision.uid}, template {revision.digest}, recorded complete and available {clock(at)}"
        return Observation(Channel.CONTRAST, "Ledger", "Ledger/ledger spec.healthyRevisions", at or self.scene.now, text)

    def saw_serving(self, finding: Finding) -> tuple[Observation, ...]:
        """Healthy pods of other revisions, as evidence of the contrast."""
        pods = self.contrast(finding).other_revisions
        if not pods:
            return ()
        names = ", ".join(sorted(p.name for p in pods)[:3])
        return (seen(self.scene.listing("Pod"), f"{count(len(pods), 'pod')} of other revisions Ready: {names}", Channel.CONTRAST),)

    def praise(self, revision: Revision) -> str:
        """`release 6 was healthy for 6 d`: only what pods or the Ledger prove, and nothing that ticks (a text that changes is news)."""
        ready = [p.ready_changed for p in revision.live if p.ready and p.ready_changed]
        released = self.workload.current.released if self.workload.current else None
        if ready and released and released - min(ready) >= _WORTH_TELLING:
            return f"{revision.label} was healthy for {span(released - min(ready))}"
        if revision.worked:
            return f"{revision.label} completed {clock(revision.worked)}"
        if revision.uid in self.history.serving:
            return f"{revision.label} still serves"
        if at := self.history.recorded.get(revision.uid):
            return f"{revision.label} was recorded healthy {clock(at)}"
        return f"nothing proves that {revision.label} was healthy"
