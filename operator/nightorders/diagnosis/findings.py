"""What is wrong with the pods of a workload: one finding per revision, container and kind of trouble, whatever the number of pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .evidence import Observation
from .images import PullError
from .references import Reference
from .scene import Revision
from .views import Job, Pod, Run

_NOTHING = Reference("ConfigMap", "", "", False, "")


class Trouble(Enum):
    """Kinds of trouble, in the order in which a pod meets them; the value is how it is told."""

    NOT_CREATED = "pods cannot be created"
    UNSCHEDULED = "pods find no node"
    IMAGE = "an image cannot be pulled"
    MISSING = "something that the pods need does not exist"
    NOT_MADE = "volumes or the environment cannot be made"
    CRASH = "a container exits again and again"
    PROBE = "a container is killed by its liveness probe"
    NOT_READY = "containers run and are not ready"
    JOB = "a Job has given up, or does not run when it should"
    STARTING = "pods are starting"


# These do not end by waiting: the reasons that make a rollout stuck before its deadline.
TERMINAL = frozenset({Trouble.IMAGE, Trouble.MISSING, Trouble.NOT_MADE, Trouble.CRASH, Trouble.PROBE})
# Pods of these are in trouble now, whether or not waiting may end it (a node that joins, a quota that is raised).
AILING = TERMINAL | {Trouble.NOT_CREATED, Trouble.UNSCHEDULED, Trouble.JOB}


@dataclass(frozen=True)
class Finding:
    """Pods of one revision that show the same trouble, with the observations that say so.

    `words` is one sentence, safe to show; `onset` is when it began.
    """

    trouble: Trouble
    revision: Revision
    container: str
    pods: tuple[Pod, ...]
    words: str
    seen: tuple[Observation, ...]
    reason: str = ""
    onset: datetime | None = None


@dataclass(frozen=True)
class ImageFinding(Finding):
    """An image that cannot be pulled, and why as far as messages tell."""

    image: str = ""
    error: PullError = PullError.UNKNOWN
    init: bool = False


@dataclass(frozen=True)
class CrashFinding(Finding):
    """A container that exits. `run` is its latest finished run."""

    run: Run | None = None
    memory_limit: str = ""
    init: bool = False


@dataclass(frozen=True)
class MissingFinding(Finding):
    """A reference that leads nowhere. `proved`: by a complete list; otherwise kubelet's message is all there is."""

    reference: Reference = _NOTHING
    key_only: bool = False
    proved: bool = False


@dataclass(frozen=True)
class UncreatedFinding(Finding):
    """Pods that the API server refuses, with its own words. `proved`: a status says so; otherwise an Event is all there is."""

    message: str = ""
    proved: bool = False


@dataclass(frozen=True)
class UnscheduledFinding(Finding):
    """Pods without a node. `message` is the scheduler's.

    `reason`: Unschedulable, SchedulingGated, NotLookedAt (no scheduler has written anything), NodeAbsent (bound to no node that exists) or
    Refused (by the kubelet of the node that it is bound to).
    """

    message: str = ""


@dataclass(frozen=True)
class VolumeFinding(Finding):
    """Pods on a node whose volumes cannot be made. `message` is kubelet's or the attach controller's; `reason` the Event's."""

    message: str = ""


@dataclass(frozen=True)
class JobFinding(Finding):
    """A Job or CronJob with a trouble of its own.

    `reason`: the Job's own (BackoffLimitExceeded, DeadlineExceeded, …), Suspended, UnparseableSchedule, UnknownTimeZone, NeverFires,
    StillRunning or MissedSchedule. `due`: the run that did not come, for the last two.
    """

    job: Job | None = None
    due: datetime | None = None
