"""JSONPath templates print what kubectl prints."""

from __future__ import annotations

import pytest

from tools.scenarios.jsonpath import JsonPathError, Template

POD = {
    "metadata": {"name": "web-0", "annotations": {"example.com/owner": "ann"}, "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}, {"name": "b"}]},
    "status": {
        "ready": True,
        "count": 3,
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"}],
        "nothing": None,
    },
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.metadata.name}", "web-0"),
        (".metadata.name", ".metadata.name"),
        ("{.status.count}/{.status.ready}", "3/true"),
        ("{.status.missing}", ""),
        ("{.status.missing.deeper}", ""),
        ("{.status.nothing}", ""),
        ("{.spec.containers[*].name}", "a b"),
        ("{.spec.containers[-1].name}", "b"),
        ("{.spec.containers[0:1].name}", "a"),
        ("{.spec.containers[7].name}", ""),
        (r"{.metadata.annotations.example\.com/owner}", "ann"),
        ("{.metadata.annotations['example.com/owner']}", "ann"),
        ('{.status.conditions[?(@.type=="Ready")].status}', "True"),
        ('{.status.conditions[?(@.type!="Ready")].status}', "False"),
        ("{.spec.containers[?(@.ports)].name}", "a"),
        ("{.spec.containers[?(@.ports[0].containerPort > 79)].name}", "a"),
        ("{..containerPort}", "80"),
        ("{$.metadata.labels}", '{"app":"web"}'),
        ("{range .spec.containers[*]}{.name}{'\\n'}{end}", "a\nb\n"),
        ("{.metadata['name','labels']}", 'web-0 {"app":"web"}'),
        ("{.metadata.labels.*}", "web"),
    ],
)
def test_prints_what_kubectl_prints(template: str, text: str) -> None:
    assert Template(template).render(POD) == text


@pytest.mark.parametrize("template", ["{.a", "{a}", "{.a[}", "{.a[x]}", "{range .a}", "{end}", "{.a[?(@.x ~ 3)]}", "{.a[?(@.x == y)]}"])
def test_what_cannot_be_read_is_refused(template: str) -> None:
    with pytest.raises(JsonPathError):
        Template(template)
