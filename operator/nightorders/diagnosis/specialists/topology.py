"""The topology specialist: whom the fault hurts, and who is likely to be responsible."""

from __future__ import annotations

from ...api.v1alpha1.incident import BlastRadius, Owner
from ...domain.snapshot import KubeObject
from ..changes import managers
from ..evidence import safe
from ..graph import Graph, Link
from ..read import mapping, words
from ..scene import Scene, Workload
from ..views import controller_of

MOST_VICTIMS = 32
MOST_OWNERS = 8
_TEAM_KEYS = ("team", "owner", "squad", "contact", "maintainer", "maintainers", "owners", "slack-channel", "oncall")
_TOOLS = (
    ("argocd.argoproj.io/tracking-id", "annotation", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "label", "Flux Kustomization"),
    ("helm.toolkit.fluxcd.io/name", "label", "Flux HelmRelease"),
    ("meta.helm.sh/release-name", "annotation", "Helm release"),
)


def blast_radius(scene: Scene, graph: Graph, workload: Workload) -> BlastRadius:
    """Services of the workload that have no ready pod left, and the workloads that name such a Service as a host."""
    dead = [s.title for s in scene.all("Service") if _fronts(s, workload) and not _ready_behind(scene, graph, s)]
    callers = [c for s in dead for c in graph.sources(s, Link.CALLS) if c != workload.title]
    victims = tuple(safe(v, 256) for v in dict.fromkeys((*dead, *callers)))
    serving = workload.ready_pods if scene.looked("Pod") else workload.available
    lost = max(0, workload.desired - serving)
    return BlastRadius(
        workloads=(safe(workload.title, 256),),
        victims=victims[:MOST_VICTIMS],
        pods_percent=-(-100 * lost // workload.desired) if workload.desired else 0,
    )


def _fronts(service: KubeObject, workload: Workload) -> bool:
    selector = words(mapping(service.raw.get("spec")).get("selector"))
    labels = words(mapping(workload.template.get("metadata")).get("labels"))
    return bool(selector) and selector.items() <= labels.items()


def _ready_behind(scene: Scene, graph: Graph, service: KubeObject) -> bool:
    if ("ready", "") not in scene.memo:
        scene.memo["ready", ""] = {f"Pod/{p.name}" for p in scene.pods if p.ready and not p.terminating}
    return any(p in scene.memo["ready", ""] for p in graph.targets(service.title, Link.SELECTS))


def owners(workload: Workload) -> tuple[Owner, ...]:
    """Labels and annotations that name people, tools that manage the object, else whoever claims to have written it."""
    obj = workload.obj
    labels, notes = words(mapping(obj.raw.get("metadata")).get("labels")), words(mapping(obj.raw.get("metadata")).get("annotations"))
    found = [
        _owner(v, f"{where} {k} on {workload.title}")
        for where, told in (("label", labels), ("annotation", notes))
        for k, v in sorted(told.items())
        if _names_people(k)
    ]
    found += [
        _owner(f"{tool} {told[key]}", f"{where} {key} on {workload.title}")
        for key, where, tool in _TOOLS
        if (told := labels if where == "label" else notes).get(key)
    ]
    if manager := labels.get("app.kubernetes.io/managed-by"):
        found.append(_owner(manager, f"label app.kubernetes.io/managed-by on {workload.title}"))
    _, kind, name = controller_of(obj)
    if name:
        found.append(_owner(f"{kind}/{name}", f"controls {workload.title} (ownerReferences)"))
    if not found:
        wrote = sorted(((at, by) for at, by, fields in managers(obj) if "f:spec" in fields and by), reverse=True)
        found = [_owner(by, f"field manager of {workload.title}: a claim, chosen by the client") for _, by in wrote[:1]]
    return tuple(o for o in found if o.who)[:MOST_OWNERS]


def _names_people(key: str) -> bool:
    return key.rpartition("/")[2].lower() in _TEAM_KEYS


def _owner(who: str, because: str) -> Owner:
    return Owner(who=safe(who, 256), because=safe(because, 256))
