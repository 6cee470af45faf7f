"""From findings to candidate origins: for each kind of trouble, what one would have to change to be rid of it."""

from __future__ import annotations

from dataclasses import replace

from ..case import Case
from ..findings import (
    CrashFinding,
    Finding,
    ImageFinding,
    JobFinding,
    MissingFinding,
    Trouble,
    UncreatedFinding,
    UnscheduledFinding,
    VolumeFinding,
)
from ..hypotheses import Candidate
from .crash import crash_origins, program_origins
from .created import created_origins
from .images import image_origins
from .jobs import job_origins
from .missing import missing_origins
from .notmade import not_made_origins
from .probes import probe_origins
from .scheduling import scheduling_origins
from .starting import starting_origins
from .volumes import damage_origins, volume_origins

__all__ = ["origins"]


def origins(case: Case, finding: Finding) -> tuple[Candidate, ...]:
    """What may be behind a finding; nothing for kinds of trouble that this release cannot name."""
    found: tuple[Candidate, ...]
    match finding:
        case ImageFinding():
            found = image_origins(case, finding)
        case MissingFinding():
            found = missing_origins(case, finding)
        case CrashFinding():
            found = (*crash_origins(case, finding), *damage_origins(case, finding))
        case UncreatedFinding():
            found = created_origins(case, finding)
        case UnscheduledFinding():
            found = scheduling_origins(case, finding)
        case VolumeFinding():
            found = (*volume_origins(case, finding), *not_made_origins(case, finding))
        case JobFinding():
            found = job_origins(case, finding)
        case Finding(trouble=Trouble.PROBE | Trouble.NOT_READY):
            found = (*probe_origins(case, finding), *program_origins(case, finding))
        case Finding(trouble=Trouble.NOT_MADE):
            found = tuple(not_made_origins(case, finding))
        case Finding(trouble=Trouble.STARTING):
            found = starting_origins(case, finding)
        case _:
            found = ()
    return tuple(replace(c, finding=finding, explains=case.explains(finding), caps=(*c.caps, *case.caps)) for c in found)
