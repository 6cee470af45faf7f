"""What every act needs: narrated commands, waiting for Incidents, and a list of what was not as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from demo.narration import Narrator
from demo.world import NAMESPACES, Answer, Failed, Json, World
from tools.operator_process import ROOT

POLICY = "demo/manifests/policy.yaml"
SHOP = "demo/manifests/shop.yaml"
PEOPLE = "demo/manifests/people.yaml"
BINDING = "manifests/actions/rollback-workload/rolebinding.example.yaml"
CLOSED = ("Recovered", "Undone", "Escalated", "Dismissed")
DETECTED_SECONDS = 60.0
RECOVERED_SECONDS = 90.0


@dataclass
class Play:
    """One run of the demo. `problems` says, per act, what did not end as it should.

    `changes` is how many changes of the operator the audit log must show, by act.
    """

    narrator: Narrator
    world: World
    auto: bool
    changes: dict[str, int]
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

    def expect(self, holds: bool, what: str) -> None:
        """Writes down, and says at once, what should hold and does not: a clause."""
        if not holds:
            self.fault(f"it does not hold that {what}")

    def fault(self, text: str) -> None:
        """Writes down, and says at once, what went wrong."""
        self.problems.append(f"{self.act}: {text}")
        self.narrator.wrong(text)

    # ------------------------------------------------------------ a namespace

    def furniture(self, act: str) -> list[tuple[str, str]]:
        """What an act's namespace gets, as (a command that prints it or nothing, the file): shop, night orders, people, the right to act."""
        images, level = self.world.images, level_of(act)
        real = images.good not in (ROOT / SHOP).read_text()
        return [
            (f"sed -E 's#registry.example/(checkout|storefront):[0-9.]+#{images.good}#' {SHOP}" if real else "", SHOP),
            (f"sed 's/level: L3/level: {level}/' {POLICY}" if level != "L3" else "", POLICY),
            ("", PEOPLE),
            ("", BINDING),
        ]

    def furnish(self, act: str) -> None:
        """Makes and furnishes the act's namespace, command by command."""
        namespace = NAMESPACES[act]
        self.must(f"kubectl create namespace {namespace}")
        for printer, file in self.furniture(act):
            self.must(f"{printer} | kubectl -n {namespace} apply -f -" if printer else f"kubectl -n {namespace} apply -f {file}")

    def furnish_silently(self, act: str) -> None:
        """The same at once and without narration."""
        namespace = NAMESPACES[act]
        printers = "; echo ---; ".join(printer or f"cat {file}" for printer, file in self.furniture(act))
        answer = self.world.shell(f"kubectl create namespace {namespace} && {{ {printers}; }} | kubectl -n {namespace} apply -f -")
        if answer.status:
            raise Failed(f"namespace {namespace} could not be furnished: {answer.text.strip()}")

    def wait_healthy(self, namespace: str) -> None:
        """The shop serves, and the operator has written down that this release was healthy, and has read its orders."""
        world = self.world
        self.wait(
            f"the operator has read the orders of {namespace}, and recorded its releases as healthy",
            lambda: world.orders_ready(namespace) and all(world.recorded_healthy(namespace, one) for one in ("checkout", "storefront")),
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
        """The newest Incident of the namespace once it is in one of these phases, and says whether something is planned and why."""
        found: list[Json] = []

        def ask() -> bool:
            found[:] = sorted(self.world.incidents(namespace), key=lambda one: str(one["metadata"]["creationTimestamp"]))
            return bool(found) and phase(found[-1]) in phases and bool(condition(found[-1], "Planned"))

        try:
            self.wait(what, ask, seconds)
        except Failed as late:
            seen = f"; Incident {name(found[-1])} is in phase {phase(found[-1]) or 'none'}" if found else "; there is no Incident"
            raise Failed(f"{late}{seen}") from None
        return found[-1]

    def show(self, incident: Json, sections: Mapping[str, int], who: str = "ann") -> None:
        """The story of an Incident, as `nightorders show` tells it, cut to some sections (title → most lines)."""
        namespace = incident["metadata"]["namespace"]
        command = f"nightorders show {name(incident)} -n {namespace}"
        self.narrator.command(command, who)
        answer = self.world.shell(command, who)
        self.narrator.output(answer.text, keep=None if answer.status else sections)
        if answer.status:
            self.fault(f"`{command}` ended with status {answer.status}")


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
