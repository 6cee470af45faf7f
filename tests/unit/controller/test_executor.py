"""What the executor sends: a patch that can only hit the object that was judged, and carries the stamp."""

from __future__ import annotations

import pytest

from nightorders.api.meta import EXECUTION_LABEL, TERM_LABEL
from nightorders.controller.executor import conditional, grant, key_of
from nightorders.domain.mergepatch import apply_patch
from nightorders.domain.situation import Operator
from tests.unit.domain.make import OPERATOR, after_target, deployment, proposal


def test_a_patch_carries_uid_version_and_stamp() -> None:
    sent = conditional(deployment(), proposal().patch, "no-1")
    assert sent["metadata"] == {"uid": "uid-checkout", "resourceVersion": "100", "labels": {EXECUTION_LABEL: "no-1"}}
    assert sent["spec"] == proposal().patch["spec"]


def test_the_preconditions_are_those_of_the_object_that_was_read() -> None:
    again = deployment(uid="uid-recreated", resourceVersion="7")
    assert conditional(again, {}, "no-1")["metadata"]["uid"] == "uid-recreated"
    assert conditional(again, {}, "no-1")["metadata"]["resourceVersion"] == "7"


def test_an_action_cannot_smuggle_in_metadata_of_its_own() -> None:
    sent = conditional(deployment(), {"metadata": {"finalizers": [], "uid": "x"}, "spec": {}}, "no-1")
    assert sent["metadata"] == {"uid": "uid-checkout", "resourceVersion": "100", "labels": {EXECUTION_LABEL: "no-1"}}


def test_applied_it_is_the_planned_object_and_keeps_foreign_labels() -> None:
    done = apply_patch(deployment().raw, conditional(deployment(), proposal().patch, "no-1"))
    assert done["metadata"]["labels"] == {"app": "checkout", "tier": "web", EXECUTION_LABEL: "no-1"}
    assert done["spec"] == after_target().at("spec")


def test_the_stamp_is_a_label_and_never_an_annotation() -> None:
    """The Deployment controller copies annotations to ReplicaSets."""
    assert "annotations" not in conditional(deployment(), proposal().patch, "no-1")["metadata"]


@pytest.mark.threat(17)
def test_the_leaders_term_is_stamped_too_and_an_old_one_does_not_stay() -> None:
    assert conditional(deployment(), {}, "no-1", "4.abc")["metadata"]["labels"] == {EXECUTION_LABEL: "no-1", TERM_LABEL: "4.abc"}
    before = deployment(labels={TERM_LABEL: "3.def"})
    assert TERM_LABEL not in apply_patch(before.raw, conditional(before, {}, "no-1"))["metadata"]["labels"]
    assert TERM_LABEL not in conditional(deployment(), {}, "no-1")["metadata"]["labels"]


def test_the_key_names_the_object() -> None:
    key = key_of(deployment())
    assert (key.api_version, key.kind, key.namespace, key.name) == ("apps/v1", "Deployment", "shop", "checkout")


@pytest.mark.parametrize("operator", [OPERATOR, Operator("kubernetes-admin", "nightorders-system")])
def test_the_command_that_gives_the_right_names_the_operators_account(operator: Operator) -> None:
    assert grant("shop", operator).endswith("--serviceaccount=nightorders-system:nightorders")
    assert " -n shop " in grant("shop", operator)
