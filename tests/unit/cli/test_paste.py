"""Threats 13: whatever the names are, a command that we print does what its argv says, in a real shell."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightorders.actions.rollback import RollbackWorkload, _command
from nightorders.adapters.errors import Status
from nightorders.adapters.kube import grants
from nightorders.adapters.kube.resources import KNOWN
from nightorders.api.meta import ObjectMeta
from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.api.v1alpha1.incident import Guess, Incident, IncidentSpec, IncidentStatus
from nightorders.cli import paste, show, story
from nightorders.cli.diagnose import _by_hand, granting
from nightorders.cli.document import Code
from nightorders.cli.session import Where
from nightorders.domain.digest import template_sha256
from nightorders.domain.plan import Proposal
from nightorders.domain.snapshot import KubeObject
from tests.unit.cli.scene import GOOD, NOW, deployment, incident, plan, replica_set, template

pytestmark = [pytest.mark.threat(13), pytest.mark.promise(3)]

HOSTILE = [
    "$(touch /tmp/x)",
    "`id`",
    "a b",
    "a;b",
    "a|b",
    "a&&b",
    "'",
    '"',
    "\\",
    "\n",
    "*",
    "~",
    "#x",
    "!!",
    "a=$IFS",
    "\u202e",
    "-rf",
    "é",
    "",
]
nasty = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20), st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True))
# bash drops NUL; a name with one never reaches us, because JSON from the API server is refused there.
nasty = nasty.filter(lambda s: "\x00" not in s and not any(0xD800 <= ord(c) <= 0xDFFF for c in s))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


_FUNCTION = r'() { printf "%s\0" FUNCNAME "$@" >&2; printf "\0" >&2; }; '
DEFINE = "".join(name + _FUNCTION.replace("FUNCNAME", name) for name in paste.PROGRAMS)


def parsed(command: str) -> list[list[str]]:
    """What bash makes of each command of a pipeline. The words `kubectl` and `nightorders` are functions that print their argv."""
    return [_one(part) for part in command.split(" | ")]


def _one(command: str) -> list[str]:
    # --norc and -u: no variable may be read; an empty PATH: nothing else can run.
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-uc", f"PATH=; {DEFINE}\n{command}"],
        capture_output=True,
        timeout=10,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    words = done.stderr.decode("utf-8", "surrogateescape").removesuffix("\0\0").split("\0")
    assert done.stdout == b"", f"{command!r} printed {done.stdout!r}"
    return words


@quick
@given(st.lists(nasty, max_size=4), st.lists(nasty, max_size=2))
def test_a_printed_command_is_its_argv_or_is_not_printed(argv: list[str], own: list[str]) -> None:
    shown = paste.command(["kubectl", *argv], [f"--context={o}" for o in own])
    if shown:
        assert _one(shown) == ["kubectl", *argv, *(f"--context={o}" for o in own)]
    else:
        assert any(not paste.plain(a) for a in argv) or any(not o.isprintable() for o in own)


@quick
@given(nasty)
def test_the_users_own_flags_reach_the_same_cluster(value: str) -> None:
    flags = Where(kubeconfig=value or None, context="a b").flags
    shown = paste.command(("kubectl", "get", "pods"), flags)
    if shown:
        assert _one(shown) == ["kubectl", "get", "pods", *flags]


@quick
@given(nasty, nasty)
def test_a_fix_for_a_refused_read_is_one_harmless_command(user: str, namespace: str) -> None:
    """The username comes out of the API server's answer, the namespace from wherever."""
    status = Status(403, "Forbidden", f'pods is forbidden: User "{user}" cannot list resource "pods"', {})
    for text in (grants.fix(status, KNOWN[("v1", "Pod")], namespace), granting(grants.fix(status, KNOWN[("v1", "Pod")], namespace))):
        if shown := paste.checked(text):
            words = _one(shown)
            assert words[:2] == ["kubectl", "create"]
            assert all(w in text or "'" in text for w in words)


@quick
@given(st.text(max_size=60).filter(lambda s: "\x00" not in s and not any(0xD800 <= ord(c) <= 0xDFFF for c in s)) | st.sampled_from(HOSTILE))
def test_a_command_from_a_status_never_runs_anything_else(text: str) -> None:
    """Also what a compromised operator could write into a fix or a guess."""
    for source in (text, f"kubectl get pods {text}", f"{text} kubectl"):
        for shown in (paste.checked(source), story.strict(source)):
            if shown:
                program, *rest = _one(shown)
                assert program in paste.PROGRAMS
                assert rest == shlex.split(source, comments=True)[1:]


def an_incident(name: str, namespace: str) -> Incident:
    """Not validated, as nothing on the way to a command may count on it."""
    return Incident(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=IncidentSpec(target=ObjectRef(api_version="apps/v1", kind="Deployment", name="checkout")),
    )


@quick
@given(nasty, nasty, st.booleans())
def test_a_plans_command_with_hostile_names_is_its_argv_or_is_not_shown(name: str, namespace: str, inline: bool) -> None:
    argv = _command(an_incident(name, namespace), deployment(GOOD), inline=inline)
    shown = paste.pipeline(argv)
    if shown:
        assert parsed(shown) == [list(c) for c in argv]
    else:
        assert not paste.plain(name) or not paste.plain(namespace)


@quick
@given(nasty, nasty)
def test_hostile_images_and_environment_never_enter_a_command(image: str, variable: str) -> None:
    """A proposal over hostile templates: its commands are plain, whatever it would change."""
    old, new = template(image or "x", {variable or "X": image}), GOOD
    p = _proposal(deployment(old), replica_set(6, new), replica_set(7, old))
    for argv in (p.command, _by_hand(ObjectRef(api_version="apps/v1", kind="Deployment", name="checkout"), "shop", p)):
        assert all(paste.plain(word) for c in argv for word in c)
        assert parsed(paste.pipeline(argv)) == [list(c) for c in argv]


def _proposal(target: KubeObject, good: KubeObject, bad: KubeObject) -> Proposal:
    from nightorders.actions.rollback import Revision, _proposal
    from nightorders.domain.snapshot import Snapshot

    current = Revision(bad, 7, template_sha256(bad.at("spec", "template")), "")
    chosen = Revision(good, 6, template_sha256(good.at("spec", "template")), "seen")
    made: Any = _proposal(an_incident("inc", "shop"), Snapshot("shop", NOW, {}), target, current, chosen, [current, chosen])
    assert isinstance(made, Proposal)
    assert RollbackWorkload.type == made.action
    return made


@quick
@given(nasty, st.sampled_from(["AwaitingApproval", "Advised", "Verifying", "Escalated", "Suspended", "Diagnosed", "Triage"]))
def test_the_next_steps_of_an_incident_with_a_hostile_name_are_plain(name: str, phase: str) -> None:
    made = incident({"phase": phase, "plan": plan(), "guesses": [{"text": "x", "settledBy": "kubectl get pods"}]})
    hostile = made.model_copy(update={"metadata": made.metadata.model_copy(update={"name": name})})
    for row in show.next_steps(hostile):
        if isinstance(row, Code):
            assert all(paste.plain(w) for c in row.words.split(" | ") for w in c.split(" "))


def test_a_command_that_cannot_be_printed_is_left_out() -> None:
    assert paste.command(("kubectl", "get", "$(id)")) == ""
    assert paste.pipeline((("kubectl", "get", "x"), ("kubectl", "$(id)"))) == ""
    assert paste.checked("kubectl get 'pods") == ""
    assert paste.checked("$(id) x") == ""
    assert paste.checked("kubectl create rolebinding x --user=[redacted]") == ""
    assert paste.checked("kubectl get pods | sh") == "kubectl get pods '|' sh"
    assert paste.checked(paste.INSTALL_CRDS) == paste.INSTALL_CRDS
    guess = Guess(text="x", settled_by="kubectl get pods; id")
    rows = [row for part in story.findings(IncidentStatus(guesses=(guess,)), NOW) for row in part.rows]
    assert rows
    assert not any(isinstance(row, Code) for row in rows)
