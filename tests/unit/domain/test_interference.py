"""Whether somebody else is at work on the target right now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from nightorders.domain.interference import changed_since
from tests.unit.domain.make import HOUR, MINUTE, NOW, SECOND, changed, deployment, stamp

RELEASED = NOW - HOUR


def by(manager: str, at: datetime | str, subresource: str = "") -> dict[str, Any]:
    entry = {"manager": manager, "operation": "Update", "time": at if isinstance(at, str) else stamp(at)}
    return {**entry, "subresource": subresource} if subresource else entry


def ask(*entries: Any, released: datetime | None = RELEASED) -> datetime | None:
    return changed_since(changed(deployment(), ("metadata", "managedFields"), list(entries)), released)


@pytest.mark.parametrize(
    ("entries", "at"),
    [
        ([], None),
        ([by("kubectl-edit", NOW - 5 * MINUTE)], NOW - 5 * MINUTE),
        ([by("kubectl-edit", NOW - 5 * MINUTE), by("argocd", NOW - 9 * MINUTE)], NOW - 5 * MINUTE),  # the last of them
        ([by("kubectl-client-side-apply", RELEASED)], None),  # the release itself
        ([by("kubectl-client-side-apply", RELEASED + 10 * SECOND)], None),  # its ReplicaSet comes a moment later
        ([by("kubectl-client-side-apply", RELEASED + 11 * SECOND)], RELEASED + 11 * SECOND),
        ([by("kubectl-edit", RELEASED - HOUR)], None),
        ([by("kube-controller-manager", NOW)], None),
        ([by("nightorders", NOW)], None),
        ([by("kubectl", NOW, "status")], None),
        ([by("horizontal-pod-autoscaler", NOW, "scale")], None),
        ([by("kubectl-rollout", NOW - MINUTE), by("kube-controller-manager", NOW)], NOW - MINUTE),
        ([by("kubectl", "no time"), by("kubectl", "")], None),
        (["nonsense", None, 7], None),
        ([{"manager": "kubectl"}], None),
    ],
)
def test_who_wrote_the_target_after_the_release(entries: list[Any], at: datetime | None) -> None:
    assert ask(*entries) == at


def test_an_object_without_bookkeeping_tells_nothing() -> None:
    assert changed_since(deployment(), RELEASED) is None
    assert changed_since(changed(deployment(), ("metadata", "managedFields"), "nonsense"), RELEASED) is None


def test_without_the_releases_moment_nothing_can_be_told() -> None:
    assert ask(by("kubectl", NOW), released=None) is None
