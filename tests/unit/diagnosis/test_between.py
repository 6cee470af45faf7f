"""All finders together: nothing is said about what is well, and no object, however malformed, makes one fail."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from nightorders.diagnosis.anomalies.access import access
from nightorders.diagnosis.anomalies.autoscaling import autoscaling
from nightorders.diagnosis.anomalies.certificates import certificates
from nightorders.diagnosis.anomalies.controlplane import control_plane
from nightorders.diagnosis.anomalies.dependencies import dependencies
from nightorders.diagnosis.anomalies.disruption import disruption
from nightorders.diagnosis.anomalies.names import names
from nightorders.diagnosis.anomalies.network import network_policies
from nightorders.diagnosis.anomalies.nodes import nodes
from nightorders.diagnosis.anomalies.routing import routing
from nightorders.diagnosis.anomalies.scale import scale

from .between import LIMITS, NS, Claim, Raw, app, at, calling, database, env, made, released, service, template, web, world, written
from .build import DAY, MINUTE

FINDERS = (
    access, autoscaling, certificates, control_plane, dependencies, disruption, names, network_policies, nodes, routing, scale,
)  # fmt: skip
JUNK: tuple[Any, ...] = (
    None,
    0,
    -1,
    10**40,
    True,
    "",
    "x" * 5000,
    "\x00\x1b[2J",
    [],
    [1, None],
    {},
    {"a": []},
    "2026-99-99T00:00:00Z",
    "9999-12-31T23:59:59Z",
)
DENIED = f'configmaps is forbidden: User "system:serviceaccount:{NS}:default" cannot list resource "configmaps" in API group "" in the namespace "{NS}"'
LINES = [
    "dial tcp: connect to cart:80: connection refused",
    "lookup cart on 10.96.0.10:53: no such host",
    'Get "https://gate:8443/": x509: certificate has expired or is not yet valid',
    'FATAL: password authentication failed for user "app"',
    "FATAL: sorry, too many clients already",
    'Get "https://api.rates.example/v1": dial tcp: connect to api.rates.example:443: connection refused',
    DENIED,
]


def rich() -> list[Raw]:
    """A namespace with one of everything, all of it well."""
    gate = template(
        web("gate", volumeMounts=[{"name": "tls", "mountPath": "/tls"}]),
        labels={"app": "gate"},
        volumes=[{"name": "tls", "secret": {"secretName": "t"}}],
    )
    shop = calling("shop", CART="http://cart:80", GATE="https://gate:443", DB_HOST="db", API="https://api.rates.example")
    cart = template(web("cart", resources=LIMITS, env=[env("DB_PASSWORD", secret="db", key="p")]), labels={"app": "cart"})
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    scaler = {"scaleTargetRef": {"kind": "Deployment", "name": "cart"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [metric]}
    active = {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"}
    route = {"path": "/", "backend": {"service": {"name": "shop", "port": {"number": 80}}}}
    tls = [{"hosts": ["shop.example"], "secretName": "t"}]
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": at(20 * DAY)}]
    subject = [{"kind": "ServiceAccount", "name": "default", "namespace": NS}]
    return [
        *released("shop", calling("shop"), shop),
        *app("cart", cart),
        *app("gate", gate),
        *database(variables=[env("POSTGRES_PASSWORD", secret="db", key="p")]),
        service("shop"),
        service("cart", managed=[written(MINUTE, "spec", "selector")]),
        service("gate", port=443),
        made("Service", "rates", spec={"type": "ExternalName", "externalName": "api.rates.example"}),
        made("Ingress", "front", spec={"rules": [{"host": "shop.example", "http": {"paths": [route]}}], "tls": tls}),
        made("NetworkPolicy", "open", spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}),
        made("HorizontalPodAutoscaler", "cart", spec=scaler, status={"conditions": [active]}),
        made("PodDisruptionBudget", "cart", spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "cart"}}}, status={"disruptionsAllowed": 1}),
        made("ConfigMap", "settings", data={"A": "http://cart"}, managed=[written(MINUTE, "data")]),
        made("Role", "r", rules=[{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]),
        made("RoleBinding", "rb", roleRef={"kind": "Role", "name": "r"}, subjects=subject),
        *(made("Node", n, spec={}, status={"conditions": ready}) for n in ("n0", "n1", "n2")),
        made("EndpointSlice", "cart-1", labels={"kubernetes.io/service-name": "cart"}, endpoints=[{"addresses": ["10.0.0.1"]}]),
        made("ScaledObject", "so", spec={"scaleTargetRef": {"name": "gate"}}),
    ]  # fmt: skip


def dns() -> list[Raw]:
    text = ".:53 {\n kubernetes cluster.local\n forward . /etc/resolv.conf\n}\n"
    parts = app("coredns", template(labels={"k8s-app": "kube-dns"}))
    for o in parts:
        o["metadata"]["namespace"] = "kube-system"
    return [
        *parts,
        service("kube-dns", {"k8s-app": "kube-dns"}, namespace="kube-system"),
        made("ConfigMap", "coredns", namespace="kube-system", data={"Corefile": text}),
        made("Lease", "kube-scheduler", namespace="kube-system", spec={"renewTime": at(MINUTE / 60)}),
    ]


@pytest.mark.parametrize("claim", [None, Claim("HttpErrorBudgetBurn", labels={"service": "cart"}), Claim("KubeNodeNotReady")])
def test_a_healthy_namespace_gives_no_word(claim: Claim | None) -> None:
    w = world(rich(), beside={"kube-system": dns()}, claim=claim)
    assert [c for finder in FINDERS for c in finder(w)] == []


def spoilt(objects: list[Raw], source: random.Random) -> list[Raw]:
    """The same objects with some values replaced by nonsense."""
    found = copy.deepcopy(objects)
    for _ in range(60):
        here: Any = source.choice(found)
        while True:
            keys = [k for k in here if k not in ("kind", "apiVersion")] if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = source.choice(keys)
            if isinstance(here[key], dict | list) and here[key] and source.random() < 0.85:
                here = here[key]
                continue
            here[key] = copy.deepcopy(source.choice(JUNK))
            break
    return found


@pytest.mark.parametrize("seed", range(25))
def test_malformed_objects_make_no_finder_fail(seed: int) -> None:
    source = random.Random(seed)
    broken = spoilt(rich(), source)
    logs = {"shop-0002-0": LINES, "cart-0001-0": LINES}
    series = [({"__name__": "x509_cert_not_after", "secret_name": "t"}, 1e300), ({"__name__": "probe_success", "instance": "x"}, 0.0)]
    w = world(broken, logs=logs, series=series, beside={"kube-system": spoilt(dns(), source)})
    for finder in FINDERS:
        for c in finder(w):
            assert c.statement
            assert c.object
            assert c.grade in "ABCD"
            assert all(h for h in c.hits)
    assert not w.gaps or all("specialist" in g.what or "namespace" in g.what for g in w.gaps)
