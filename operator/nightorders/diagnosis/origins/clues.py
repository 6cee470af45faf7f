"""What a log line or the runtime's message has to do with a difference. Names are compared; values are never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..changes import Aspect, Difference
from ..evidence import Observation
from ..findings import Finding
from ..hypotheses import Cap
from ..read import mapping, word
from ..specialists.logs import LogReport, Sign
from ..views import Run
from .common import run_of

_EXECUTABLE = re.compile(r"exec: \\?\"([^\"\\]{1,200})\\?\"|stat (/[^\s:]{1,200}):")


def naming(f: Finding, logs: LogReport, mine: tuple[Difference, ...]) -> Observation | None:
    """The line, or the runtime's message, that names a changed setting, argument, host or executable."""
    settings = {d.env_name.lower() for d in mine if d.env_name}
    arguments = {a for d in mine if d.aspect is Aspect.COMMAND for a in _arguments(d.after)}
    for clue in logs.clues:
        subject = clue.subject.lower()
        if clue.sign is Sign.SETTING and subject in settings:
            return clue.seen
        if clue.sign in (Sign.ARGUMENT, Sign.FILE) and subject in arguments:
            return clue.seen
        if clue.sign is Sign.FILE and any(_mounted(d, subject) for d in mine):
            return clue.seen
        if clue.sign in (Sign.HOST, Sign.NAME, Sign.UPSTREAM) and any(value_names(d, subject) for d in mine):
            return clue.seen
    if f.reason == "PostStartHookError" and f.seen and any(d.path.endswith(".lifecycle") for d in mine):
        return f.seen[0]
    commands, run = [d.after for d in mine if d.aspect is Aspect.COMMAND], run_of(f)
    return f.seen[0] if f.seen and run is not None and run.never_started and runs(run, *commands) else None


def _mounted(d: Difference, path: str) -> bool:
    """Whether that path lies in a mount that the difference is about."""
    at = d.path.rpartition(".volumeMounts[")[2].removesuffix("]").rstrip("/").lower() if ".volumeMounts[" in d.path else ""
    return bool(at) and (path == at or path.startswith(f"{at}/"))


def runs(run: Run, *commands: object) -> bool:
    """Whether the runtime's message names a word of these commands as what it could not start."""
    match = _EXECUTABLE.search(run.message)
    named = next((g for g in match.groups() if g), "") if match else ""
    return bool(named) and any(named.lower() in _arguments(c) for c in commands)


def value_names(d: Difference, host: str) -> bool:
    """Whether the new value of an environment variable names that host."""
    value = word(mapping(d.after).get("value")) if d.aspect is Aspect.ENVIRONMENT else ""
    return bool(host) and host.lower() in re.split(r"[^a-z0-9.-]", value.lower())


def log_caps(f: Finding, logs: LogReport) -> Iterator[Cap]:
    """No log, no better than C; except where the process never started, so that there is none."""
    run = run_of(f)
    if not logs.read and not (run is not None and run.never_started) and f.reason != "PostStartHookError":
        yield Cap("C", "an exit code alone tells little, and no log of the container was read")


def among(subject: str, *commands: object) -> bool:
    """Whether that is a word of one of these command lines."""
    return bool(subject) and any(subject.lower() in _arguments(c) for c in commands)


def _arguments(value: object) -> set[str]:
    """The words of a command line, with and without dashes and values."""
    texts = [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
    return {part for text in texts for part in (text.lstrip("-").partition("=")[0].lower(), text.lower()) if part}
