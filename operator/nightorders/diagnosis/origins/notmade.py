"""Origins of a container that the kubelet refuses to make by the pod's own settings: its security context against its image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..evidence import safe
from ..findings import Finding
from ..hypotheses import Candidate, Mark
from ..read import mapping
from .common import and_before, container_of, release_of

# The kubelet's own refusals: it names the setting, and nothing outside the template can mend it.
_REFUSED = re.compile(r"runAsNonRoot|non-numeric user|runAsUser|allowPrivilegeEscalation|seccomp|AppArmor|SELinux", re.IGNORECASE)


def not_made_origins(case: Case, f: Finding) -> Iterator[Candidate]:
    """The workload's template, by the release that brought the setting or the image in."""
    if not _REFUSED.search(f.words):
        return
    found = case.history.brought_in(lambda t: _settings(t, f.container), needed_to_start=True) if case.is_current(f) else None
    marks = [Mark("mechanism named", f.seen)]
    change, exact = ChangeRef(kind="None"), False
    summary = f"The kubelet refuses to make container {f.container} of {case.name}: {f.words}"
    if found is not None and found.previous is not None:
        shown = f"security settings or image of container {f.container} changed"
        marks.append(Mark("introduced by this release", (case.saw_release(found, shown),)))
        change, exact = case.release(found.revision), case.history.proven(found.previous)
        summary = f"{release_of(case, found.revision)} brought in what the kubelet refuses: {f.words}{and_before(case, found)}"
    else:
        marks.append(Mark("no change seen"))
    if case.contrast(f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    statement = safe(f"Container {f.container} of {case.title} asks for what its image does not allow: {f.words}.")
    yield Candidate(
        Category.BAD_CONFIGURATION, case.title, statement, safe(summary, 900), change, tuple(marks),
        inferred=0, counterfactual=exact, timing=change.kind == "Release",
    )  # fmt: skip


def _settings(template: Mapping[str, Any], container: str) -> object:
    mine = container_of(template, container)
    return mapping(template.get("spec")).get("securityContext"), mine.get("securityContext"), mine.get("image")
