"""What is wrong with the pods of a workload: one finding per revision, container and kind of trouble, whatever the number of pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .evidence import Observation
from .images import PullError
from .references import Reference
from .scene import Revision
from .views import Pod, Run

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
    STARTING = "pods are starting"


# These do not end by waiting: the reasons that make a rollout stuck before its deadline.
TERMINAL = frozenset({Trouble.IMAGE, Trouble.MISSING, Trouble.NOT_MADE, Trouble.CRASH, Trouble.PROBE})
# Neither do these, but what is wrong with them is not among the faults that this release can name.
UNNAMED = frozenset({Trouble.NOT_CREATED, Trouble.UNSCHEDULED, Trouble.NOT_READY, Trouble.PROBE, Trouble.NOT_MADE})


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
