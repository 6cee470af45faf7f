"""Everything that one diagnosis looks at: the scene, its graph, what the signal claims, and the views that several questions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import TypeVar

from ..api.v1alpha1.incident import Gap
from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.snapshot import KubeObject, Vector
from .case import Case
from .changes import history
from .claim import Claim
from .findings import Finding, Trouble
from .graph import BARE_KINDS, WORKLOAD_KINDS, Graph, build
from .hypotheses import Candidate, Cap
from .read import earliest
from .scene import Scene, Workload
from .specialists import logs
from .specialists.logs import Clue, LogReport
from .specialists.workload import WorkloadReport, examine
from .views import Pod, controller_of

T = TypeVar("T")
_LONGEST_CHAIN = 8  # owners of owners; a CronJob's pod has two
_NO_REPORT = WorkloadReport((), frozenset(), (), None, None)


class World:
    """The material of one diagnosis. Each view is made once. A specialist that fails leaves a gap and an empty answer, and no more."""

    def __init__(self, scene: Scene, healthy: tuple[HealthyRevision, ...], claim: Claim | None, caps: tuple[Cap, ...] = ()) -> None:
        self.scene = scene
        self.claim = claim
        self.caps = caps
        self.gaps: list[Gap] = []
        self.anomalies: tuple[Candidate, ...] | None = None
        self._healthy = healthy
        self._cases: dict[str, Case] = {}
        self._logs: dict[tuple[str, int], LogReport] = {}
        self._beside: dict[str, Scene | None] = {}
        self.graph: Graph = self.ask("topology", lambda: build(scene), Graph())

    def ask(self, name: str, question: Callable[[], T], otherwise: T) -> T:
        """The answer, or `otherwise` and a gap: one specialist's mistake over hostile data must not cost the others' answers."""
        try:
            return question()
        except Exception as error:  # noqa: BLE001
            gap = Gap(what=f"the {name} specialist"[:256], because=f"it failed: {type(error).__name__}")
            if gap not in self.gaps:
                self.gaps.append(gap)
            return otherwise

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """Every workload of the namespace that nothing else in the snapshot controls, by kind and name."""
        objects = {o.title: o for kind in (*WORKLOAD_KINDS, *BARE_KINDS) for o in self.scene.all(kind)}
        return tuple(self.scene.workload(o) for o in objects.values() if not self._is_part(o, objects))

    @staticmethod
    def _is_part(obj: KubeObject, objects: Mapping[str, KubeObject]) -> bool:
        """Whether it belongs to another workload. What is controlled by something that is not in the snapshot, such as an Argo Rollout,
        stands for itself, unless it is a mere ReplicaSet or Pod; so do owners that go in a circle.
        """
        seen, here = {obj.title}, obj
        for _ in range(_LONGEST_CHAIN):
            _, kind, name = controller_of(here)
            if not name:
                return here is not obj
            owner = objects.get(f"{kind}/{name}")
            if owner is None:
                return here is not obj or obj.kind in BARE_KINDS
            if owner.title in seen:
                return False
            seen.add(owner.title)
            here = owner
        return True

    def workload(self, title: str) -> Workload | None:
        """The workload with that title (`Kind/name`)."""
        return self._by_title.get(title)

    @cached_property
    def _by_title(self) -> dict[str, Workload]:
        return {w.title: w for w in self.workloads}

    def case(self, workload: Workload) -> Case:
        """What its pods, its history and its logs say."""
        if workload.title not in self._cases:
            report = self.ask("workload", lambda: examine(self.scene, workload), _NO_REPORT)
            current = [f.onset for f in report.findings if f.revision is workload.current and f.trouble is not Trouble.STARTING]
            past = history(workload, self._healthy, earliest(*current), report.serving)
            read = partial(self._read_logs, workload.title)
            doubled = "two ReplicaSets claim the same revision number, so the order of releases is not known"
            caps = (*self.caps, Cap("C", doubled)) if workload.duplicate_numbers else self.caps
            self._cases[workload.title] = Case(self.scene, workload, report, past, self.graph, caps, read)
        return self._cases[workload.title]

    def _read_logs(self, title: str, finding: Finding) -> LogReport:
        key = (title, id(finding))
        if key not in self._logs:
            read = partial(logs.read_logs, self.scene.snapshot.logs, finding)
            self._logs[key] = self.ask("logs", read, LogReport((), False, ()))
        return self._logs[key]

    def clues(self, pods: Iterable[Pod]) -> tuple[Clue, ...]:
        """What the logs of these pods seem to say, whatever state they are in; each (sign, subject) once."""
        names = frozenset(p.name for p in pods)
        if names not in self._clues:
            self._clues[names] = self.ask("logs", lambda: logs.clues_of(self.scene.snapshot.logs, names), ())
        return self._clues[names]

    @cached_property
    def _clues(self) -> dict[frozenset[str], tuple[Clue, ...]]:
        return {}

    def beside(self, namespace: str) -> Scene | None:
        """Another namespace, if the snapshot holds any of it."""
        if namespace not in self._beside:
            other = self.scene.snapshot.beside.get(namespace)
            self._beside[namespace] = Scene(other, self.scene.now) if other is not None else None
        return self._beside[namespace]

    def metric(self, name: str) -> Vector | None:
        """The answer to the question of that name; None: it was not asked."""
        return self.scene.snapshot.metrics.get(name)

    def pods_behind(self, service: KubeObject) -> tuple[Pod, ...]:
        """The pods that a Service selects, by name."""
        names = self.graph.selected(service.title)
        return tuple(p for p in self.scene.pods if f"Pod/{p.name}" in names)

    def owner_of(self, pod: Pod) -> str:
        """Title of the workload at the root of a pod's owners; the pod's own where nothing owns it."""
        return self.graph.root(f"Pod/{pod.name}")
