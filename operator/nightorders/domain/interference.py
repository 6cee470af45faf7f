"""Whether somebody else is at work on an object right now, as far as the API server's own bookkeeping shows it."""

from __future__ import annotations

from datetime import datetime, timedelta

from .snapshot import KubeObject, parse_time

CONTROLLERS = frozenset({"kube-controller-manager", "nightorders"})
RELEASE_SLACK = timedelta(seconds=10)  # managedFields have whole seconds, and the ReplicaSet comes a moment after the edit


def changed_since(target: KubeObject, released: datetime | None) -> datetime | None:
    """When somebody last wrote the target after the failing release; None: nobody did, or the release's own moment is not known.

    Writes to subresources (status, scale) and by the controllers do not count. A manager's name is chosen by its client: whoever calls
    itself a controller hides, and that only means that nothing is lowered for it.
    """
    if released is None:
        return None
    entries = target.at("metadata", "managedFields", default=None)
    times = [
        parse_time(e.get("time"))
        for e in (entries if isinstance(entries, list) else [])
        if isinstance(e, dict) and not e.get("subresource") and e.get("manager") not in CONTROLLERS
    ]
    last = max((t for t in times if t is not None), default=None)
    return last if last is not None and last > released + RELEASE_SLACK else None
