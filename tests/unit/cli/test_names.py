"""Every spelling of a workload that kubectl accepts."""

from __future__ import annotations

import pytest

from nightorders.cli.errors import CommandError, Exit
from nightorders.cli.names import workload


@pytest.mark.parametrize(
    "words",
    [
        ["deploy/checkout"],
        ["deployment/checkout"],
        ["deployments/checkout"],
        ["deployments.apps/checkout"],
        ["deployment.apps/checkout"],
        ["deployments.v1.apps/checkout"],
        ["Deployment/checkout"],
        ["deploy", "checkout"],
        ["deployment.apps", "checkout"],
    ],
)
def test_kubectl_spellings_name_the_same_deployment(words: list[str]) -> None:
    ref = workload(words)
    assert (ref.api_version, ref.kind, ref.name) == ("apps/v1", "Deployment", "checkout")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["checkout"], "which object"),
        (["deploy"], "which object"),
        (["deploy/"], "which object"),
        (["/checkout"], "which object"),
        (["deploy", "a", "b"], "which object"),
        (["deploy/a", "b"], "which object"),
        (["secret/checkout-1"], "does not know the type 'secret'"),
        (["pod/checkout-1"], "no workload with a pod template"),
        (["deployments.extensions/checkout"], "does not know the type"),
        (["deploy/../secrets"], "which object"),
        (["deploy/Check_out"], "cannot be the name"),
    ],
)
def test_anything_else_is_wrong_usage_and_says_what_to_write(words: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says) as error:
        workload(words)
    assert error.value.code is Exit.USAGE
