"""The acts. Each has its own namespace, so that none disturbs another."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from demo.narration import enter_pressed
from demo.play import CLOSED, DETECTED_SECONDS, RECOVERED_SECONDS, SHOP, Play, condition, name, phase
from demo.world import NAMESPACES, Failed, Json

# Sections of `nightorders show`, each with the most lines of it to print.
FOUND = {"Summary": 9, "Known": 12, "Guessed": 8, "Hypotheses": 14, "Refuted": 8}
PLAN = {"Plan": 30, "Who decides": 6, "Evidence": 9}
NO_PLAN = {"Plan": 6, "Who decides": 6, "Where it stands": 12}
ENDED = {"Execution": 7, "Verification": 9, "Timeline": 16}


@dataclass(frozen=True)
class Act:
    """`changes` is how many requests of the operator may change something that is not its own."""

    key: str
    title: str
    changes: int
    play: Callable[[Play, str], None]


# ---------------------------------------------------------------- L3


def approval_gated(play: Play, namespace: str) -> None:
    """A release breaks; forged approvals are refused; a real one counts; rolled back and verified."""
    say, notice = play.narrator.say, play.narrator.notice
    say(
        f"dan releases checkout with a typing error in the image's tag: {play.world.images.bad}, the letter O for the zero. "
        "Nobody tells the operator."
    )
    begin = play.release(namespace)
    incident = play.incident(namespace, ("AwaitingApproval",), "the operator has opened an Incident and staged a plan", DETECTED_SECONDS)
    notice(f"{time.monotonic() - begin:.0f} s from the release to a staged plan; nobody opened a ticket, and no alert was configured.")
    play.run(f"kubectl -n {namespace} get pods", "ann")
    play.run(f"kubectl -n {namespace} get inc", "ann")
    say("ann is on call. She reads what the operator found, what it proposes, and who decides:")
    play.show(incident, {**FOUND, **PLAN})
    notice(
        "each thing known names the evidence (e1, e2, …) that it stands on, with the query that anybody can repeat; what is only believed "
        "would stand apart, as guessed; the diff is the API server's answer to a dry run."
    )
    plan = incident["status"]["plan"]
    play.expect(bool(plan.get("dryRun", {}).get("diff")), "the plan holds the API server's dry run")
    forgeries(play, namespace, incident)
    incident = approve(play, namespace, incident)
    if condition(incident, "Planned").get("reason") == "Rejected":
        rejected(play, namespace, incident)
        return
    if phase(incident) not in CLOSED:
        incident = play.incident(namespace, CLOSED, "the operator has rolled back and verified", RECOVERED_SECONDS)
    ended(play, namespace, incident, by="operator")


def forgeries(play: Play, namespace: str, incident: Json) -> None:
    """Four approvals that are none, by people and by the operator itself; all refused by the API server."""
    digest = incident["status"]["plan"]["digest"]
    edited = digest[:-4] + ("0000" if not digest.endswith("0000") else "1111")
    target = f"kubectl -n {namespace} annotate incident {name(incident)}"
    play.narrator.say("An approval is an annotation `<digest of the plan>|<username>`. First, four that are not real:")
    attempts = (
        ("bob's name, written by ann", "ann", f"{target} 'approve.nightorders.dev/one={digest}|bob'"),
        ("another plan: four digits of the digest changed", "ann", f"{target} 'approve.nightorders.dev/one={edited}|ann'"),
        (
            "dan may edit Incidents and Deployments, but has not the verb approve",
            "dan",
            f"{target} 'approve.nightorders.dev/one={digest}|dan'",
        ),
        (
            "the operator's own account approves its own plan",
            "operator",
            f"{target} 'approve.nightorders.dev/one={digest}|system:serviceaccount:nightorders-system:nightorders'",
        ),
    )
    for what, who, command in attempts:
        play.narrator.line()
        play.narrator.progress(f"{what}:")
        answer = play.run(command, who)
        play.expect(
            answer.refused and "nightorders-approvals" in answer.text,
            f"this approval is refused by the policy nightorders-approvals: {what}",
        )
    image = play.world.image(namespace)
    play.expect(image == play.world.images.bad, f"checkout still asks for {play.world.images.bad}; it asks for {image}")
    play.narrator.notice(
        "the API server refused each of them, by a ValidatingAdmissionPolicy that compares the claim with the user of the request; "
        "the operator was not even asked."
    )


def approve(play: Play, namespace: str, incident: Json) -> Json:
    """ann approves by the command in the plan: from another terminal, by Enter, or at once with --auto. Returns the Incident then."""
    command = incident["status"]["plan"]["approve"]
    if play.auto:
        play.narrator.say(
            "Now ann approves, with the command that stands in the plan (status.plan.approve), under her own client certificate:"
        )
    else:
        play.narrator.say(
            "Now it waits for a human: you. Either press Enter, and the demo runs this command as ann; or run it yourself in another "
            "terminal (or the same with `reject` for `approve`):"
        )
        for one in play.world.session("ann"):
            play.narrator.command(one)
        play.narrator.command(command)
        incident = _human(play, namespace, incident)
        if phase(incident) != "AwaitingApproval":
            return incident
    answer = play.run(incident["status"]["plan"]["approve"], "ann")
    if answer.refused:
        incident = _latest(play, namespace, incident)  # somebody may have approved at the same moment
        if phase(incident) == "AwaitingApproval":
            raise Failed("the approval was refused")
    return incident


def _latest(play: Play, namespace: str, incident: Json) -> Json:
    return next((i for i in play.world.incidents(namespace) if name(i) == name(incident)), incident)


def _human(play: Play, namespace: str, incident: Json) -> Json:
    """Returns when Enter was pressed, or when the Incident waits no longer."""
    latest = [incident]

    def ask() -> bool:
        latest[0] = _latest(play, namespace, incident)
        return phase(latest[0]) != "AwaitingApproval" or enter_pressed()

    play.wait("waiting for your approval, or Enter", ask, 3600)
    return latest[0]


def rejected(play: Play, namespace: str, incident: Json) -> None:
    """The human at the keyboard said no. Then nothing may have changed."""
    play.changes["L3"] = 0
    play.show(incident, {"Plan": 6, "Where it stands": 12, "Timeline": 12})
    play.expect(play.world.image(namespace) == play.world.images.bad, "the Deployment is as dan left it")
    play.narrator.notice(
        "you rejected the plan; it is not proposed again for this Incident, and checkout stays as it is for you to repair."
    )


# ---------------------------------------------------------------- L1, L2, L4


def broken(play: Play, namespace: str) -> str:
    """How these acts begin."""
    return f"The release with the typing error ({play.world.images.bad}), in {namespace}, "


def read_only(play: Play, namespace: str) -> None:
    """The same release; the operator explains, and that is all."""
    play.narrator.say(broken(play, namespace) + "whose policy says L1: look and explain, nothing else.")
    play.release(namespace)
    incident = play.incident(namespace, ("Diagnosed",), "the operator has opened an Incident and explained it", DETECTED_SECONDS)
    play.run(f"kubectl -n {namespace} get inc", "ann")
    play.show(incident, {"Summary": 9, **NO_PLAN})
    planned = condition(incident, "Planned")
    play.expect(
        planned.get("status") == "False" and planned.get("reason") == "ReadOnly", f"Planned is False with reason ReadOnly, not {planned}"
    )
    play.expect("plan" not in incident["status"], "there is no plan")
    play.expect(play.world.image(namespace) == play.world.images.bad, "the Deployment is as dan left it")
    play.narrator.notice("it found the cause, and there is no plan: Planned=False names the rule that decided so.")


def advised(play: Play, namespace: str) -> None:
    """The operator writes the command; ann runs it as herself; the operator notices and verifies."""
    play.narrator.say(broken(play, namespace) + "whose policy says L2: write the exact command, and let a human run it.")
    play.release(namespace)
    incident = play.incident(namespace, ("Advised",), "the operator has opened an Incident and written its advice", DETECTED_SECONDS)
    plan = incident["status"]["plan"]
    play.show(incident, {"Plan": 30, "Next": 12})
    play.narrator.say("ann agrees, and runs the command that stands in the plan (status.plan.command) with her own rights:")
    play.must(" | ".join(shlex.join(argv) for argv in plan["command"]), "ann")
    incident = play.incident(namespace, CLOSED, "the operator has noticed and verified", RECOVERED_SECONDS)
    ended(play, namespace, incident, by="human")


def autonomous(play: Play, namespace: str) -> None:
    """The operator acts alone."""
    play.narrator.say(broken(play, namespace) + "whose policy says L4: act alone, within its limits. Nobody types anything after dan.")
    play.release(namespace)
    incident = play.incident(
        namespace, CLOSED, "the operator has opened, rolled back, verified and closed", DETECTED_SECONDS + RECOVERED_SECONDS
    )
    ended(play, namespace, incident, by="operator")


# ---------------------------------------------------------------- another cause


def other_cause(play: Play, namespace: str) -> None:
    """A ConfigMap is deleted and checkout restarted: the newest release is not to blame, and is not rolled back, even at L4."""
    say = play.narrator.say
    say(
        f"A fault that a rollback would not repair, in {namespace}, whose policy says L4. dan deletes the ConfigMap that checkout "
        "reads, and restarts checkout. The restart is the newest release, but it is not the cause."
    )
    play.must(f"kubectl -n {namespace} delete configmap checkout-settings", "dan")
    play.must(f"kubectl -n {namespace} rollout restart deployment/checkout", "dan")
    incident = play.incident(namespace, ("Escalated",), "the operator has opened an Incident and explained it", DETECTED_SECONDS)
    play.run(f"kubectl -n {namespace} get pods", "ann")
    play.show(incident, {**FOUND, **NO_PLAN})
    planned = condition(incident, "Planned")
    play.expect(
        planned.get("status") == "False" and "plan" not in incident["status"],
        f"no rollback is planned, and a condition says why: {planned}",
    )
    play.expect("checkout-settings" in incident["status"]["summary"], "the summary names the ConfigMap")
    play.narrator.notice("the policy would have allowed a rollback without asking; none was planned, because it would not have helped.")
    say("dan puts the ConfigMap back. Nobody tells the operator:")
    play.must(f"kubectl -n {namespace} apply -f {SHOP} --selector=part=settings", "dan")
    incident = play.incident(namespace, ("Recovered",), "the operator has closed the Incident", RECOVERED_SECONDS)
    play.show(incident, {"Where it stands": 12, "Timeline": 12})
    closed = condition(incident, "Closed")
    play.expect(closed.get("reason") == "RecoveredByItself", f"the Incident is closed as RecoveredByItself, not {closed.get('reason')}")
    play.expect(not incident["status"].get("executions"), "the operator has executed nothing")
    play.narrator.notice("closed as RecoveredByItself: the operator does not claim the repair for itself.")


# ---------------------------------------------------------------- shared


def ended(play: Play, namespace: str, incident: Json, *, by: str) -> None:
    """The record of an Incident that was repaired, and whether it was."""
    play.show(incident, ENDED)
    play.run(f"kubectl -n {namespace} get deployment checkout -o wide", "ann")
    status = incident["status"]
    play.expect(
        phase(incident) == "Recovered",
        f"the Incident ended as Recovered, not as {phase(incident)}: {condition(incident, 'Closed').get('message')}",
    )
    play.expect(status.get("verification", {}).get("verdict") == "Recovered", "the verification says Recovered")
    play.expect([e.get("by") for e in status.get("executions", [])] == [by], f"there is one execution, by the {by}")
    image = play.world.image(namespace)
    play.expect(image == play.world.images.good, f"checkout asks for {play.world.images.good} again, not {image}")
    who = "the operator made the change" if by == "operator" else "ann made the change, and the operator found it by itself"
    play.narrator.notice(f"{who}; it counts as recovered only because every check held until the end of the window.")


ACTS: Mapping[str, Act] = {
    act.key: act
    for act in (
        Act("L3", "L3, approval-gated: it stages the repair and waits for a human", 1, approval_gated),
        Act("L1", "L1, read-only: it explains", 0, read_only),
        Act("L2", "L2, advised: it writes the command, a human runs it", 0, advised),
        Act("L4", "L4, autonomous: it repairs alone, within limits", 1, autonomous),
        Act("cause", "Another cause: what it does not do, even at L4", 0, other_cause),
    )
}


def namespace_of(act: Act) -> str:
    return NAMESPACES[act.key]
