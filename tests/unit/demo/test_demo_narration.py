"""What the demo prints: nothing too wide, nothing lost in silence, commands that a shell still reads as they were."""

from __future__ import annotations

import io
import subprocess

import pytest

from demo.narration import Look, Narrator, fit_table, fold, fold_command, is_table, shorten, some_sections, wrap

INCIDENTS = """\
NAME                                 SEVERITY   PHASE              CAUSE                                     GRADE   ACTION             LEVEL   AGE
checkout-rolloutstuck-93eec01524-1   Warning    AwaitingApproval   ImageAccess Deployment/checkout · rev 2   A       RollbackWorkload   L3      0s
checkout-rolloutstuck-93eec01524-2   Warning    Diagnosed          ImageAccess Deployment/checkout · rev 4   A                          L1      0s
"""
STORY = """\
Incident x in namespace shop

Summary
  Broken.
  Since noon.

Plan
  - roll back
    --- now

    +++ planned

Evidence
  - e1
  - e2
  - e3
"""


# Each program prints its arguments, then what it was given.
PROGRAMS = "; ".join(f"{name}() {{ printf '<%s>' {name} \"$@\"; echo; command cat; }}" for name in ("kubectl", "grep", "cat"))


def as_bash_reads(command: str) -> str:
    script = f"{PROGRAMS}; date() {{ echo 1; }}; {command}"
    return subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def narrator(**look: object) -> tuple[Narrator, io.StringIO]:
    stream = io.StringIO()
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    return Narrator(stream, Look(**look), now=lambda: clock[0], sleep=sleep), stream  # type: ignore[arg-type]


def test_prose_is_wrapped_and_no_word_is_broken() -> None:
    path = "/tmp/" + "very-" * 30 + "long"
    lines = wrap(f"look at {path} and at other things that fit easily", 40)
    assert path in lines
    assert all(len(line) <= 40 for line in lines if line != path)


def test_wide_output_goes_on_further_in() -> None:
    first, *rest = fold("  - " + "word " * 40, 60)
    assert first.startswith("  - word")
    assert rest
    assert all(line.startswith("    word") and len(line) <= 60 for line in rest)


def test_commands_in_output_stay_whole() -> None:
    line = "    kubectl get " + "x" * 200
    assert fold(line, 60) == [line]


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get pods",
        "kubectl -n shop annotate incident checkout-rolloutstuck-93eec01524-1 'approve.nightorders.dev/one=sha256:" + "a" * 64 + "|ann'",
        'kubectl annotate incident x-1 -n shop "approve.nightorders.dev/at-$(date +%s)=sha256:'
        + "b" * 64
        + '|$(kubectl auth whoami -o jsonpath={.status.userInfo.username})"',
        "kubectl get incident x -n shop --no-headers -o custom-columns=:.status.plan.patch | kubectl patch deployment checkout -n shop "
        "--type=json --patch-file=/dev/stdin",
        "cat " + "/long" * 20 + " | grep '\"a b\":\"c  d\"' | grep -vc 'dryRun=All'",
    ],
)
def test_a_folded_command_is_still_the_same_command(command: str) -> None:
    lines = fold_command(command, 70)
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert as_bash_reads("\n".join(lines)) == as_bash_reads(command)


def test_a_pipe_has_a_line_of_its_own_and_an_option_keeps_its_value() -> None:
    lines = fold_command("kubectl get incident some-incident -n some-namespace -o custom-columns=:.x | kubectl patch deployment d", 50)
    assert lines[-1] == "| kubectl patch deployment d"
    assert any("-n some-namespace" in line for line in lines)


def test_a_wide_table_loses_columns_and_says_which() -> None:
    assert is_table(INCIDENTS)
    *table, note = fit_table(INCIDENTS, 98)
    assert all(len(line) <= 98 for line in table)
    assert table[0].split() == ["NAME", "PHASE", "GRADE", "ACTION", "LEVEL", "AGE"]
    assert table[2].split() == ["checkout-rolloutstuck-93eec01524-2", "Diagnosed", "A", "L1", "0s"]
    assert note == "[too wide for this page, left out: SEVERITY, CAUSE]"


def test_a_table_that_fits_stays_as_it_is() -> None:
    assert fit_table(INCIDENTS, 200) == [line.rstrip() for line in INCIDENTS.splitlines()]


def test_prose_is_no_table() -> None:
    assert not is_table("deployment.apps/checkout created\nservice/checkout created")
    assert not is_table("Error from server (Forbidden): no")


def test_shortened_output_says_how_much_is_missing() -> None:
    lines = shorten([str(n) for n in range(100)], 10)
    assert len(lines) == 10
    assert "[91 lines left out here]" in lines
    assert lines[0] == "0"
    assert lines[-1] == "99"
    assert shorten(["a"], 1) == ["a"]


def test_sections_are_kept_cut_or_named() -> None:
    text = "\n".join(some_sections(STORY.splitlines(), {"Plan": 9, "Evidence": 2}))
    assert text.startswith("Incident x in namespace shop")
    assert "+++ planned" in text
    assert "- e2" in text
    assert "- e3" not in text
    assert "[1 lines left out here]" in text
    assert "Since noon" not in text
    assert text.endswith("[left out here: Summary]")


def test_a_pipe_gets_plain_text_and_a_terminal_colour_unless_told_otherwise() -> None:
    assert Look.of(io.StringIO(), {"TERM": "xterm"}) == Look()
    assert Look.of(Terminal(), {"TERM": "xterm"}).colour
    assert not Look.of(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}).colour
    assert not Look.of(Terminal(), {"TERM": "dumb"}).live
    tell, stream = narrator()
    tell.title("Title")
    tell.say("text")
    tell.notice("this")
    tell.command("kubectl get pods", "ann")
    tell.wrong("that")
    assert "\x1b" not in stream.getvalue()
    assert "  ann $ kubectl get pods\n" in stream.getvalue()


def test_waiting_tells_the_seconds_and_gives_up() -> None:
    tell, stream = narrator()
    answers = iter([None] * 50 + ["there"])
    assert tell.wait("the operator has answered", lambda: next(answers), 60) == "there"
    assert stream.getvalue().splitlines() == [
        "  the operator has answered: 10 s so far",
        "  the operator has answered: 20 s so far",
        "  the operator has answered: 25.0 s",
    ]
    with pytest.raises(TimeoutError, match="not within 3 s: nothing"):
        tell.wait("nothing", lambda: None, 3)


def test_waiting_on_a_terminal_writes_over_one_line() -> None:
    tell, stream = narrator(live=True)
    answers = iter([None, None, "there"])
    tell.wait("so", lambda: next(answers), 60)
    assert stream.getvalue() == "\r\x1b[K  so: 0 s …\r\x1b[K  so: 0 s …\r\x1b[K  so: 1.0 s\n"
