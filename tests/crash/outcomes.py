"""The four ways a run can end, and the humans in it. They act when the Incident is where they come in, also when that is after a restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nightorders.api.meta import APPROVE_PREFIX, REJECT_PREFIX
from tests.cluster.scene import GOOD, condition

Json = dict[str, Any]
USER = "ann"
HER_FIX = "registry.example/checkout:2.4.1"
LIMITS = {"stalledAfter": "1s", "cooldown": "0s", "perHour": 100}


@dataclass
class Scene:
    """What a human sees, and what she can do: each `do` is a patch with her own credentials. `done` holds what she has done."""

    incident: Json
    deployment: Json
    annotate: Callable[[Json, dict[str, str]], bool]
    set_image: Callable[[str], bool]
    renew_pods: Callable[[], bool]
    cure: Callable[[], bool]
    done: set[str] = field(default_factory=set)

    @property
    def image(self) -> str:
        """The image that the Deployment asks for."""
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    @property
    def waits(self) -> bool:
        """Whether a plan waits for a human."""
        return condition(self.incident, "Approved").get("reason") == "Waiting" and "plan" in self.incident.get("status", {})

    def once(self, what: str, do: Callable[[], bool]) -> None:
        """Does it unless it was done; what the API server refused is tried again."""
        if what not in self.done and do():
            self.done.add(what)


@dataclass(frozen=True)
class Outcome:
    """`effects` is how many changes of the target a run has, `human` acts in it, `reached` tells the end state (see `oracle`) from others."""

    name: str
    level: str
    effects: int
    verify: Json
    human: Callable[[Scene], None]
    reached: Callable[[Json], bool]
    sick: bool = False  # a pod of the old release that starts after the new release does not become ready, until it is cured


def _says(incident: Json, prefix: str) -> dict[str, str]:
    return {f"{prefix}one": f"{incident['status']['plan']['digest']}|{USER}"}


def approves(scene: Scene) -> None:
    """A plan that waits is approved."""
    if scene.waits:
        scene.once("approve", lambda: scene.annotate(scene.incident, _says(scene.incident, APPROVE_PREFIX)))


def rejects(scene: Scene) -> None:
    """A plan that waits is rejected."""
    if scene.waits:
        scene.once("reject", lambda: scene.annotate(scene.incident, _says(scene.incident, REJECT_PREFIX)))


def supersedes(scene: Scene) -> None:
    """She approves, and then releases something else while the operator verifies."""
    approves(scene)
    if scene.incident.get("status", {}).get("phase") == "Verifying":
        scene.once("release", lambda: scene.set_image(HER_FIX))


def makes_it_worse(scene: Scene) -> None:
    """Nobody's doing: while the rollback is there, the pods of the old release die, and those in their place do not become ready."""
    if scene.image == GOOD:
        scene.once("worse", scene.renew_pods)
    elif "worse" in scene.done:
        scene.once("as before", lambda: scene.cure() and scene.renew_pods())


def _phase(phase: str) -> Callable[[Json], bool]:
    return lambda end: bool(end["phase"] == phase)


OUTCOMES = {
    o.name: o
    for o in (
        Outcome("Recovered", "L3", 1, {"for": "2s", "every": "1s"}, approves, _phase("Recovered")),
        Outcome("Undone", "L4", 2, {"for": "20s", "every": "1s"}, makes_it_worse, _phase("Undone"), sick=True),
        Outcome(
            "Rejected",
            "L3",
            0,
            {"for": "2s", "every": "1s"},
            rejects,
            lambda end: end["conditions"].get("Planned") == ["False", "Rejected"],
        ),
        Outcome("Superseded", "L3", 1, {"for": "30s", "every": "1s"}, supersedes, _phase("Escalated")),
    )
}
