"""A namespace that is being deleted takes its Ledger along; the finalizer of its Incidents goes all the same."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nightorders.api.meta import FINALIZER, FLEET_LEDGER_NAME
from nightorders.api.v1alpha1 import Incident
from nightorders.controller.executor import Executor
from nightorders.domain.redaction import redact
from nightorders.ports import ForbiddenError
from tests.unit.domain.make import NOW, OPERATOR, SYSTEM, execution, incident, ledger, staged_status


class Clock:
    def now(self) -> Any:
        return NOW


class Books:
    """The namespace's own Ledger is gone, and creating one is refused; the fleet's is there."""

    def __init__(self) -> None:
        self.fleet: list[str] = []

    async def get(self, namespace: str, name: str) -> Any:
        return ledger(name) if namespace == SYSTEM else None

    async def save(self, namespace: str, name: str, seen: Any, spec: Any) -> Any:
        if namespace != SYSTEM:
            raise ForbiddenError("namespace shop is being terminated")
        assert name == FLEET_LEDGER_NAME
        self.fleet += [o.execution for o in spec.outcomes]
        return ledger(name)


class Incidents:
    def __init__(self) -> None:
        self.lifted = False

    async def set_finalizer(self, about: Incident, present: bool) -> Incident:
        self.lifted = not present
        return about


def ended(**meta: Any) -> Incident:
    status = staged_status(executions=(execution("Ended", result="Recovered", ended_at=NOW),))
    return incident(status, meta={"finalizers": [FINALIZER], **meta})


async def test_the_finalizer_goes_and_the_fleet_knows() -> None:
    books, incidents = Books(), Incidents()
    executor = Executor(Clock(), cast(Any, incidents), cast(Any, books), cast(Any, None), cast(Any, None), OPERATOR, redact)
    await executor._close(ended(deletionTimestamp="2026-07-01T12:00:00Z"))
    assert incidents.lifted
    assert books.fleet == [execution().id]


async def test_a_ledger_that_is_refused_for_another_reason_is_not_passed_over() -> None:
    incidents = Incidents()
    executor = Executor(Clock(), cast(Any, incidents), cast(Any, Books()), cast(Any, None), cast(Any, None), OPERATOR, redact)
    with pytest.raises(ForbiddenError):
        await executor._close(ended())
    assert not incidents.lifted
