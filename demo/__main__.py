"""`python -m demo`, which `make demo` calls."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from demo import arguments, audit, closing
from demo.acts import ACTS, Act, namespace_of
from demo.arguments import Arguments
from demo.narration import Narrator
from demo.play import Play, level_of
from demo.world import OPERATOR, PEOPLE, Failed, NotPlayed, World, choose_provider, down_command, end_kept
from nightorders.settings import Settings
from tools.cluster import ClusterError, KubectlError
from tools.cluster.rest import ApiError

NOT_PLAYED = 3
INTERRUPTED = 130
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Plays; the process's exit status."""
    chosen = arguments.parse(argv)
    narrator = Narrator(sys.stdout)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        if chosen.down:
            narrator.line(end_kept(chosen.name))
            return 0
        return perform(chosen, narrator)
    except (NotPlayed, ClusterError) as reason:
        narrator.say(f"The demo was not played: {reason}")
        return NOT_PLAYED
    except KeyboardInterrupt:
        narrator.line()
        narrator.line("interrupted; cluster and operator have been ended")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); nothing can be told any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Failed, KubectlError, ApiError, OSError, RuntimeError, subprocess.TimeoutExpired) as problem:
        narrator.wrong(f"the demo could not be played to its end: {problem}")
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def perform(chosen: Arguments, narrator: Narrator) -> int:
    """The whole demo. Ends cluster and operator, unless they are to be kept and the acts were played."""
    provider = choose_provider(chosen.provider, chosen.name, keep=chosen.keep)
    auto = chosen.auto or sys.stdin is None or not sys.stdin.isatty()
    acts = [ACTS[key] for key in chosen.acts]
    narrator.title("nightorders: incident response with graded autonomy")
    narrator.say(
        "A real API server, an operator under its own account, and a release that breaks. What follows a `$` is "
        "run as it stands there, by the person named before it (nobody: the administrator); what stands below is its real output."
    )
    if auto and not chosen.auto:
        narrator.progress("standard input is no terminal, so nobody can be asked: ann approves, as with --auto")
    begin = time.monotonic()
    world = World.start(chosen.name, keep=chosen.keep, provider=provider, progress=narrator.progress)
    keep = False
    try:
        up = time.monotonic()
        play = Play(narrator, world, auto, {act.key: act.changes for act in acts})
        install(play)
        furnish(play, acts)
        for number, act in enumerate(acts, 1):
            perform_act(play, act, f"Act {number} of {len(acts)}: {act.title}")
        conclude(play, acts)
        narrator.progress(f"{up - begin:.0f} s until the cluster was up, {time.monotonic() - up:.0f} s since then")
        keep = chosen.keep
        outlook(play, acts, chosen)
        return 1 if play.problems else 0
    finally:
        if not keep:
            with _undisturbed():
                world.close()


def install(play: Play) -> None:
    """Everything of ours into the cluster, and the operator started."""
    narrator, world = play.narrator, play.world
    narrator.title("Setting up")
    narrator.say(
        "Installing manifests/install, as users do (level L1, nothing may be changed), and the role that rolls back, bound to nobody yet "
        "(manifests/actions/rollback-workload)."
    )
    begin = time.monotonic()
    world.install()
    narrator.progress(
        f"definitions, roles and admission policies are there, and a forged approval is refused: {time.monotonic() - begin:.0f} s"
    )
    begin = time.monotonic()
    world.start_operator()
    narrator.progress(f"the operator runs, and leads: {time.monotonic() - begin:.0f} s")
    for one in differences(world):
        narrator.notice(one)


def differences(world: World) -> Iterator[str]:
    """What is not as in production, said plainly."""
    yield (
        f"the operator runs as a process beside the cluster, with a token of {OPERATOR} and the roles of that account. So that the demo is "
        f"short it opens an Incident after 2 s and not after {Settings().detect_after.seconds}, and the policies here verify for seconds "
        "and not for minutes."
    )
    if world.cluster.simulated:
        yield "the nodes are simulated: pods live and fail in the API as a kubelet would report it, and no program runs in them."
    else:
        yield f"the nodes are real, so the images are real: {world.images.good}, and {world.images.bad}, which its registry does not have."
    if world.cluster.audit_log is None:
        yield f"this cluster ({world.cluster.provider}) shows no audit log, so at the end nothing is counted. A local cluster has one."


def furnish(play: Play, acts: Sequence[Act]) -> None:
    """The namespaces of all acts; the commands of the first one are shown."""
    narrator = play.narrator
    narrator.say(
        "A small shop: checkout (three pods, a ConfigMap, a Service) and storefront, which calls it. Then the night orders, the people, "
        "and the operator's right to roll back in this namespace."
    )
    play.furnish(acts[0].key)
    others = [namespace_of(act) for act in acts[1:]]
    if others:
        narrator.progress(f"the same in {', '.join(others)}, one per act; only the word after `level:` differs")
    for act in acts[1:]:
        play.furnish_silently(act.key)
    for act in acts:
        play.wait_healthy(namespace_of(act))
    play.run("kubectl get rempol -A")


def perform_act(play: Play, act: Act, title: str) -> None:
    """One act. What goes wrong in it is written down, and the next one is played."""
    play.act = act.key
    play.narrator.title(title)
    try:
        act.play(play, namespace_of(act))
    except KeyError as missing:
        play.fault(f"an object of the cluster lacks the field {missing}")
        _explain(play, act)
    except (Failed, KubectlError, ApiError, OSError, subprocess.TimeoutExpired) as problem:
        play.fault(str(problem))
        _explain(play, act)


def _explain(play: Play, act: Act) -> None:
    """What helps to find out why an act failed."""
    for incident in play.world.incidents(namespace_of(act)):
        for c in incident.get("status", {}).get("conditions", []):
            play.narrator.output(f"{c['type']}={c['status']} {c['reason']}: {c['message']}")
    if play.world.operator is not None:
        play.narrator.output(play.world.operator.tail(12))


def conclude(play: Play, acts: Sequence[Act]) -> None:
    """The count, and the verdict on this run."""
    narrator, log = play.narrator, play.world.cluster.audit_log
    narrator.title("What the API server says")
    if log is None:
        narrator.say(f"This cluster ({play.world.cluster.provider}) shows no audit log, so what the operator changed was not counted.")
    else:
        play.act = "audit"
        requests = list(audit.read(log))
        expected = [closing.Expected(act.key, namespace_of(act), play.changes[act.key]) for act in acts]
        found = closing.count(requests, expected)
        narrator.say(
            "Not what the operator says about itself, but what the API server logged: requests of the operator's account that changed "
            "something outside its own resources."
        )
        narrator.line()
        for one in closing.as_table(found.rows):
            narrator.line(f"  {one}")
        narrator.line()
        for one in found.changes:
            narrator.progress(one)
        people = closing.by_people(requests, PEOPLE, [e.namespace for e in expected])
        narrator.say("In the same log, changes of Deployments by people:")
        for one in people:
            narrator.progress(one)
        narrator.say("The first number again, with nothing of ours:")
        again = play.run(closing.recount(log)).text.strip()
        play.expect(
            again == str(sum(e.changes for e in expected)), f"grep finds {sum(e.changes for e in expected)} changes; it finds {again}"
        )
        for problem in found.problems:
            play.fault(problem)
    narrator.line()
    if play.problems:
        narrator.wrong(f"{len(play.problems)} things did not end as they should:")
        for problem in play.problems:
            narrator.wrong(problem)
    else:
        narrator.line("Every act ended as it should" + (", and the audit log says the same." if log is not None else "."))


def outlook(play: Play, acts: Sequence[Act], chosen: Arguments) -> None:
    """Where to look further."""
    narrator, world = play.narrator, play.world
    if not chosen.keep:
        ends = "What the demo brought is taken away now" if world.cluster.provider == "kubeconfig" else "The cluster ends now"
        narrator.say(
            f"{ends}. To look around in a cluster of your own: make demo KEEP=1. Policies to start from: manifests/samples. What the operator "
            "may do and why: manifests/base, manifests/actions, manifests/admission."
        )
        return
    narrator.title("It goes on running")
    narrator.say("Cluster and operator were kept, and do not need this program. In your shell:")
    for command in world.session(""):
        narrator.command(command, gap=False)
    narrator.say("Five things to try:")
    for what, command in tries(world, acts):
        narrator.line()
        narrator.progress(what)
        narrator.command(command, gap=False)
    if world.operator is not None:
        narrator.say(f"The operator's log: {world.operator.log}")
    narrator.say(f"The API server's audit log: {world.cluster.audit_log}")
    narrator.say("Kubeconfigs: " + ", ".join(f"{person} {path}" for person, path in world.people.items()))
    narrator.say(f"To end both: {down_command(chosen.name)}")


def tries(world: World, acts: Sequence[Act]) -> list[tuple[str, str]]:
    """Things to try in a kept cluster, in the namespace where the operator may do most."""
    act = max(acts, key=lambda one: (level_of(one.key), one.changes))
    namespace = namespace_of(act)
    world.image_will_be_missing(namespace)
    on = f"kubectl -n {namespace}"
    return [
        ("1. watch Incidents come and go, in a terminal of its own:", "kubectl get inc -A -w"),
        (f"2. break it again ({level_of(act.key)} holds there):", f"{on} set image deployment/checkout checkout={world.images.bad}"),
        (
            "3. forbid the operator everything there, then break it again; deleting the ConfigMap resumes:",
            f"{on} create configmap nightorders-stop",
        ),
        ("4. lower one workload to L1, whatever the policy says:", f"{on} annotate deployment checkout nightorders.dev/max-level=L1"),
        ("5. ask it to look at something now:", f"{on} create -f manifests/samples/incident.yaml"),
    ]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not leave half a cluster behind: ending it takes moments."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
