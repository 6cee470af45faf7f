"""What every act needs: narrated commands, waiting for Incidents, and a list of what was not as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from demo.narration import Narrator
from demo.world import NAMESPACES, Answer, Failed, Json, World

POLICY = "demo/manifests/policy.yaml"
SHOP = "demo/manifests/shop.yaml"
PEOPLE = "demo/manifests/people.yaml"
BINDING = "manifests/actions/rollback-workload/rolebinding.example.yaml"
CLOSED = ("Recovered", "Undone", "Escalated", "Dismissed")
DETECTED_SECONDS = 60.0
RECOVERED_SECONDS = 90.0


@dataclass
class Play:
    """One run of the demo. `problems` says, per act, what did not end as it should."""

    narrator: Narrator
    world: World
    auto: bool
    problems: list[str] = field(default_factory=list)
    act: str = ""

    # ------------------------------------------------------------ narrated

    def run(self, command: str, who: str = "", most: int = 60) -> Answer:
        """Shows a command, runs it, shows what it printed."""
        self.narrator.command(command, who)
        answer = self.world.shell(command, who)
        self.narrator.output(answer.text, most)
        return answer

    def must(self, command: str, who: str = "", most: int = 60) -> Answer:
        """The same for a command without which the act cannot go on. Raises Failed."""
        answer = self.run(command, who, most)
        if answer.status:
            raise Failed(f"`{command}` ended with status {answer.status}")
        return answer

    def expect(self, holds: bool, what: str) -> bool:
        """Writes down, and says at once, what should hold and does not."""
        if not holds:
            self.problems.append(f"{self.act}: {what}")
            self.narrator.wrong(what)
        return holds

    # ------------------------------------------------------------ a namespace

    def furnish(self, act: str) -> None:
        """The shop, its people and its night orders in the act's namespace, without narration."""
        namespace, level = NAMESPACES[act], level_of(act)
        for command in (f"kubectl create namespace {namespace}", *self.furniture(namespace, level)):
            answer = self.world.shell(command)
            if answer.status:
                raise Failed(f"`{command}`: {answer.text.strip()}")

    def furniture(self, namespace: str, level: str) -> list[str]:
        """The commands that furnish a namespace."""
        images = self.world.images
        shop = f"kubectl -n {namespace} apply -f {SHOP}"
        if images.good not in (self.world_file(SHOP)):
            shop = f"sed -E 's#registry.example/(checkout|storefront):[0-9.]+#{images.good}#' {SHOP} | kubectl -n {namespace} apply -f -"
        policy = f"kubectl -n {namespace} apply -f {POLICY}"
        if level != "L3":
            policy = f"sed 's/level: L3/level: {level}/' {POLICY} | kubectl -n {namespace} apply -f -"
        return [shop, policy, f"kubectl -n {namespace} apply -f {PEOPLE}", f"kubectl -n {namespace} apply -f {BINDING}"]

    @staticmethod
    def world_file(path: str) -> str:
        """A file of the repository."""
        from tools.operator_process import ROOT

        return (ROOT / path).read_text()

    def wait_healthy(self, namespace: str) -> None:
        """The shop serves, and the operator has written down that this release was healthy."""
        names = ("checkout", "storefront")
        self.wait(
            f"the operator has recorded the release in {namespace} as healthy",
            lambda: all(self.world.recorded_healthy(namespace, name) for name in names),
            90,
        )

    def release(self, namespace: str) -> float:
        """dan releases the image with the typing error. Returns the moment."""
        self.world.image_will_be_missing(namespace)
        moment = time.monotonic()
        self.must(f"kubectl -n {namespace} set image deployment/checkout checkout={self.world.images.bad}", "dan")
        return moment

    # ------------------------------------------------------------ Incidents

    def wait(self, what: str, ask: Callable[[], object], seconds: float) -> object:
        """See `Narrator.wait`. Raises Failed."""
        try:
            return self.narrator.wait(what, ask, seconds)
        except TimeoutError as late:
            raise Failed(str(late)) from None

    def incident(self, namespace: str, phases: tuple[str, ...], what: str, seconds: float) -> Json:
        """The newest Incident of the namespace once it is in one of these phases."""
        found: list[Json] = []

        def ask() -> bool:
            found[:] = sorted(self.world.incidents(namespace), key=lambda one: str(one["metadata"]["creationTimestamp"]))
            return bool(found) and phase(found[-1]) in phases

        try:
            self.wait(what, ask, seconds)
        except Failed as late:
            seen = f"; Incident {name(found[-1])} is in phase {phase(found[-1]) or 'none'}" if found else "; there is no Incident"
            raise Failed(f"{late}{seen}") from None
        return found[-1]

    @cached_property
    def can_show(self) -> bool:
        """Whether `nightorders show` is there."""
        return self.world.shell("nightorders show --help").status == 0


def level_of(act: str) -> str:
    """The level of an act's policy. The fault that no rollback repairs is shown where most is allowed."""
    return "L4" if act == "cause" else act


def name(incident: Json) -> str:
    return str(incident["metadata"]["name"])


def phase(incident: Json) -> str:
    return str(incident.get("status", {}).get("phase", ""))


def condition(incident: Json, kind: str) -> Json:
    """The condition of that type; empty when it is not there."""
    conditions: list[Json] = incident.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})
