"""What a check says of a cluster."""

from __future__ import annotations

import pytest

from tests.unit.tools.scenarios.builders import Json, Objects
from tools.scenarios import checks
from tools.scenarios.model import Check


def pod(name: str, ready: str) -> Json:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "status": {"conditions": [{"type": "Ready", "status": ready}], "phase": "Running"},
    }


CLUSTER = Objects(pod("a", "True"), pod("b", "False"))


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        ({"object": "Pod/a", "condition": "Ready"}, True),
        ({"object": "Pod/b", "condition": "Ready"}, False),
        ({"object": "Pod/b", "condition": "Ready", "status": "False"}, True),
        ({"object": "Pod", "condition": "Ready"}, False),  # all of them must
        ({"object": "Pod", "selector": "app=none", "condition": "Ready"}, False),  # and there must be one
        ({"object": "Pod/c", "condition": "Ready"}, False),
        ({"object": "Pod/a", "jsonpath": "{.status.phase}", "equals": "Running"}, True),
        ({"object": "Pod/a", "jsonpath": "{.status.phase}", "notEquals": "Running"}, False),
        ({"object": "Pod/c", "jsonpath": "{.status.phase}", "notEquals": "Running"}, False),  # what is not there proves nothing
        ({"object": "Pod/a", "jsonpath": "{.status.missing}", "equals": ""}, True),
        ({"object": "Pod", "selector": "app=web", "jsonpath": "{.items[*].status.phase}", "matches": "^Running Running$"}, True),
        ({"object": "Pod/c", "absent": True}, True),
        ({"object": "Pod/a", "absent": True}, False),
        ({"object": "Pod", "selector": "app=none", "absent": True}, True),
    ],
)
def test_a_check_holds_or_not(check: Json, holds: bool) -> None:
    assert checks.ask(CLUSTER, Check.model_validate(check), "shop").holds is holds


def test_failing_checks_say_what_was_seen() -> None:
    one = Check.model_validate({"object": "Pod/b", "condition": "Ready"})
    assert checks.failing(CLUSTER, [one], "shop") == ["Pod/b Ready=True (seen: b: False)"]
    assert checks.wait(CLUSTER, [one], "shop", 0) == ["Pod/b Ready=True (seen: b: False)"]
