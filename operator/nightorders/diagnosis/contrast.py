"""The cheapest strong evidence: what failing and healthy pods do not have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .images import parse
from .scene import Revision, Scene
from .views import IMAGE_REASONS, Pod


@dataclass(frozen=True)
class Contrast:
    """Failing pods of one finding against the healthy pods of the same workload."""

    failing_nodes: frozenset[str]
    same_revision: tuple[Pod, ...]
    other_revisions: tuple[Pod, ...]
    shared_nodes: frozenset[str]

    @property
    def separates_revisions(self) -> bool:
        """Every healthy pod is of another revision, and there are some."""
        return bool(self.other_revisions) and not self.same_revision

    @property
    def only_node(self) -> str:
        """The one node where it fails while pods of the same revision serve on others and none serves there."""
        if len(self.failing_nodes) != 1 or not self.same_revision:
            return ""
        node = next(iter(self.failing_nodes))
        return "" if any(p.node == node for p in self.same_revision) else node


def compare(revision: Revision, failing: Iterable[Pod], healthy: Iterable[Pod], neighbours: Iterable[Pod]) -> Contrast:
    """`healthy` are pods of the workload; `neighbours` any pods that are Ready, which show that a node works."""
    nodes = frozenset(p.node for p in failing if p.node)
    mine = {id(p) for p in revision.pods}
    serving = tuple(healthy)
    return Contrast(
        failing_nodes=nodes,
        same_revision=tuple(p for p in serving if id(p) in mine),
        other_revisions=tuple(p for p in serving if id(p) not in mine),
        shared_nodes=frozenset(p.node for p in neighbours if p.ready and p.node in nodes),
    )


@dataclass(frozen=True)
class ImageUse:
    """How the same image, and the same registry, fare elsewhere in the namespace. Pod names are sorted."""

    running: tuple[Pod, ...]
    registry_works: tuple[Pod, ...]
    registry_fails: tuple[Pod, ...]


def image_use(scene: Scene, image: str, failing: Iterable[Pod]) -> ImageUse:
    """`running`: pods where that very image is on the node and ran; `registry_*`: other images of the same registry."""
    mine = {id(p) for p in failing}
    registry = parse(image).registry
    running: list[Pod] = []
    works: list[Pod] = []
    fails: list[Pod] = []
    for pod in scene.pods:
        if id(pod) in mine or pod.done:
            continue
        for c in pod.containers:
            if c.image == image and c.ever_ran:
                running.append(pod)
            elif c.image != image and parse(c.image).registry == registry:
                if c.waiting in IMAGE_REASONS:
                    fails.append(pod)
                elif c.ever_ran:
                    works.append(pod)
    return ImageUse(*(tuple(sorted(set_of(p), key=lambda p: p.name)) for p in (running, works, fails)))


def set_of(pods: Iterable[Pod]) -> Iterable[Pod]:
    """Each pod once."""
    return {id(p): p for p in pods}.values()
