"""The logs specialist: which logs are worth a query, and what their lines may mean.

A log line is text that anybody may have written. It can name a setting, an argument or a host; whether that means anything is judged
against what the snapshot holds. It never picks an object, and what it orders is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from ...domain.snapshot import LogExcerpt, LogKey
from ..evidence import Observation, logged
from ..findings import CrashFinding, Finding, Trouble
from ..views import Pod

MOST_LOGS = 4
_LINES = 60
_WIDTH = 500


class Sign(Enum):
    """What a log line seems to say. `Clue.subject` is what it is about, as each line here says."""

    SETTING = "a setting is missing or wrong"  # its name
    ARGUMENT = "an argument is not understood"  # the argument, without dashes
    HOST = "a host cannot be reached"  # host name or address, without port
    NAME = "a name cannot be resolved"  # the host name
    CREDENTIALS = "a login is refused"  # the host or the user, where it is named
    FORBIDDEN = "an API call is forbidden"  # system:serviceaccount:NAMESPACE:NAME, else the resource
    CERTIFICATE = "a certificate is not accepted"  # the host, where it is named
    POOL = "connections are used up"  # the host or the pool, where it is named
    DISK = "a disk is full"  # the path, where it is named
    MEMORY = "memory is used up"  # empty
    UPSTREAM = "another service answers with errors"  # its host
    FILE = "a file is missing or cannot be read"  # the path
    EXCEPTION = "the program fails"  # empty


@dataclass(frozen=True)
class Clue:
    """One telling line. `subject` is the name in it: a setting, an argument, a host, a path; empty for a mere failure."""

    sign: Sign
    subject: str
    seen: Observation


def clues_of(logs: Mapping[LogKey, LogExcerpt], pods: frozenset[str]) -> tuple[Clue, ...]:
    """The clues in all logs of these pods, by name; each (sign, subject) once, as it was written last."""
    mine = (x for k, x in sorted(logs.items(), key=lambda kv: (kv[0].pod, kv[0].container, not kv[0].previous)) if k.pod in pods)
    found = {(c.sign, c.subject): c for x in mine if not x.because for c in _clues(x)}
    return tuple(found.values())


@dataclass(frozen=True)
class LogReport:
    """Clues of one container's logs. `read`: lines were there to be read; `refused`: those that could not be had."""

    clues: tuple[Clue, ...]
    read: bool
    refused: tuple[LogExcerpt, ...]

    def named(self, *signs: Sign) -> tuple[Clue, ...]:
        return tuple(c for c in self.clues if c.sign in signs and c.subject)


_NAME = r"['\"`]?([A-Za-z_][A-Za-z0-9_.-]{1,80})['\"`]?"
_HOST = r"['\"]?([a-z0-9][a-z0-9.-]{0,120})"
_THING = r"(?:env(?:ironment)?(?:\s(?:variable|var))?|setting|config(?:uration)?(?:\s(?:key|value|option))?|key|property|parameter)s?"
_LACKS = r"(?:not\s(?:set|defined|found|specified|provided)|required|missing|undefined|unset|empty|be\sset)"
_WRONG = r"(?:unknown|unrecogni[sz]ed|invalid|undefined|bad)"
_FAILS = r"(?:refused|timed? ?out|unreachable|failed|no route|no such host)"


def _sign(sign: Sign, *parts: str, case: int = re.IGNORECASE) -> tuple[Sign, re.Pattern[str]]:
    return sign, re.compile("".join(parts), case)


# The first that matches gives a line its meaning. Every repetition is bounded: a line may be as hostile as it likes.
_PATTERNS: tuple[tuple[Sign, re.Pattern[str]], ...] = (
    _sign(Sign.SETTING, r"KeyError: ['\"]([A-Za-z_][A-Za-z0-9_.-]{1,80})['\"]"),
    _sign(Sign.SETTING, rf"(?:required|missing|undefined|unset|empty|invalid)\s{{1,3}}(?:required\s)?{_THING}:?\s{{0,3}}{_NAME}"),
    _sign(
        Sign.SETTING,
        rf"{_THING}:?\s{{1,3}}{_NAME}\s{{1,3}}(?:is\s|was\s|must\s|has\s)?(?:not|required|missing|undefined|unset|empty|invalid|be\sset)",
    ),
    _sign(
        Sign.SETTING,
        r"\b([A-Z][A-Z0-9]{1,40}(?:_[A-Z0-9]{1,40}){0,6})['\"]?(?:\senv(?:ironment)?\svariable)?\s(?:is\s|was\s|must\s)?",
        _LACKS,
        case=0,
    ),
    _sign(
        Sign.SETTING, r"invalid (?:value|port|url|duration|number|boolean)[^\n]{0,80}?\b(?:for|of|in) ['\"]?([A-Za-z_][A-Za-z0-9_.-]{1,80})"
    ),
    _sign(
        Sign.ARGUMENT,
        rf"{_WRONG}\s(?:command(?:-line)?\s)?(?:flag|option|argument|command)s?:?\s{{0,3}}['\"`]?-{{0,2}}([A-Za-z0-9][\w.-]{{0,80}})",
    ),
    _sign(Sign.ARGUMENT, r"flag provided but not defined:\s{0,3}-{0,2}([A-Za-z0-9][\w.-]{0,80})"),
    _sign(Sign.HOST, rf"(?:ECONNREFUSED|ETIMEDOUT)\s{_HOST}"),
    _sign(Sign.HOST, rf"(?:lookup|resolve host(?:name)?|ENOTFOUND|EAI_AGAIN|name or service not known:?|unknown host:?)\s{_HOST}"),
    _sign(
        Sign.HOST,
        rf"(?:connect(?:ion|ing)?|dial tcp|reach)\s(?:to\s)?(?:server\sat\s)?{_HOST}(?::\d{{1,5}})?[^\n]{{0,80}}?{_FAILS}",
    ),
    _sign(
        Sign.HOST,
        rf"(?:refused|timed? ?out|unreachable|cannot reach|could not reach)[^\n]{{0,40}}?(?:://|\s|\()(?:[\w.-]{{1,60}}@)?{_HOST}:\d{{1,5}}",
    ),
    _sign(
        Sign.FILE, r"(?:no such file or directory|FileNotFoundError|cannot open|can't open|permission denied)[^\n/]{0,60}(/[\w./-]{1,120})"
    ),
    _sign(Sign.FILE, r"(/[\w./-]{1,120})['\"]?:? (?:no such file or directory|permission denied|not found)"),
    _sign(Sign.EXCEPTION, r"^(?:panic:|fatal|Traceback|Exception in thread|Unhandled|Segmentation fault|thread '.{0,40}' panicked)"),
    _sign(Sign.EXCEPTION, r"\b(?:segmentation fault|core dumped|uncaught exception)\b"),
)


def read_logs(logs: Mapping[LogKey, LogExcerpt], finding: Finding) -> LogReport:
    """The logs of a finding's pods and container."""
    names = {p.name for p in finding.pods}
    mine = [
        x
        for k, x in sorted(logs.items(), key=lambda kv: (kv[0].pod, kv[0].container, kv[0].previous))
        if k.pod in names and k.container == finding.container
    ]
    clues = {(c.sign, c.subject): c for x in mine if not x.because for c in _clues(x)}
    return LogReport(
        clues=tuple(clues.values()),
        read=any(not x.because and any(text.strip() for text in x.lines) for x in mine),
        refused=tuple(x for x in mine if x.because),
    )


def _clues(log: LogExcerpt) -> Iterator[Clue]:
    for text in log.lines[-_LINES:]:
        cut = text[:_WIDTH]
        for sign, pattern in _PATTERNS:
            if match := pattern.search(cut):
                subject = match.group(1).strip(".") if pattern.groups else ""
                yield Clue(sign, subject, logged(log, cut))
                break


def last_line(logs: Mapping[LogKey, LogExcerpt], finding: Finding) -> Observation | None:
    """The last line that the container wrote, for people."""
    names = {p.name for p in finding.pods}
    for key, log in sorted(logs.items(), key=lambda kv: (kv[0].pod, not kv[0].previous)):
        if key.pod in names and key.container == finding.container and not log.because:
            for text in reversed(log.lines):
                if text.strip():
                    return logged(log, text[:_WIDTH])
    return None


def wanted(findings: Iterable[Finding]) -> tuple[LogKey, ...]:
    """One pod per (revision, node, reason); its present and its previous run; crashes before what merely is not ready; at most four."""
    groups: dict[tuple[str, str, str, str], tuple[Finding, Pod]] = {}
    told = [f for f in findings if f.trouble in (Trouble.CRASH, Trouble.PROBE, Trouble.NOT_READY) and f.container]
    for finding in sorted(told, key=lambda f: f.trouble is Trouble.NOT_READY):
        for pod in sorted(finding.pods, key=lambda p: p.name):
            groups.setdefault((finding.revision.uid, pod.node, finding.reason, finding.container), (finding, pod))
    # First the present run of different groups' pods, then what is left: previous runs. Both of the first group always.
    keys = [key for finding, pod in groups.values() for key in _keys(finding, pod)]
    return tuple(dict.fromkeys(keys))[:MOST_LOGS]


def _keys(finding: Finding, pod: Pod) -> tuple[LogKey, ...]:
    container = next((c for c in pod.containers if c.name == finding.container), None)
    if container is None or (isinstance(finding, CrashFinding) and finding.run is not None and finding.run.never_started):
        return ()
    present, previous = LogKey(pod.name, container.name), LogKey(pod.name, container.name, previous=True)
    if container.restarts == 0:
        return (present,)
    return (previous, present) if container.running else (present, previous)
