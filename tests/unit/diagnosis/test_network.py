"""Network policies: what they let through, whose fault it is when they do not, and when it is nobody's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.diagnosis.anomalies.network import End, Target, admits, network_policies
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import MINUTE, NS, Raw, app, calling, kube, made, released, service, template, told, web, world, written

CART = "http://cart:80"
TIMEOUT = {"shop-0001-0": ["dial tcp: connect to cart:80: i/o timeout"]}
HOME = {"kubernetes.io/metadata.name": NS}


def found(w: World) -> list[Candidate]:
    return list(network_policies(w))


def policy(name: str = "guard", *, select: Raw | None = None, age: timedelta = timedelta(days=30), **spec: Any) -> Raw:
    more = {k: spec.pop(k) for k in ("managed", "labels", "annotations") if k in spec}
    return made("NetworkPolicy", name, age=age, spec={"podSelector": select or {"matchLabels": {"app": "cart"}}, **spec}, **more)


def from_app(name: str, port: int | None = None) -> Raw:
    rule: Raw = {"from": [{"podSelector": {"matchLabels": {"app": name}}}]}
    return rule | ({"ports": [{"port": port}]} if port else {})


def scene(*more: Raw | list[Raw], shop: list[Raw] | None = None, **kw: Any) -> World:
    return world(shop or app("shop", calling("shop", CART=CART)), app("cart"), service("cart"), *more, **kw)


# -- what a policy admits -----------------------------------------------------------------------------------------------------------------

SHOP = End({"app": "shop"}, NS, HOME, ("10.0.0.7",))
FAR = End({"app": "shop"}, "far", {"kubernetes.io/metadata.name": "far", "team": "x"})


@pytest.mark.parametrize(
    ("rule", "other", "target", "passes"),
    [
        ({}, SHOP, Target(8080), True),
        ({"from": [{"podSelector": {"matchLabels": {"app": "shop"}}}]}, SHOP, Target(8080), True),
        ({"from": [{"podSelector": {"matchLabels": {"app": "pay"}}}]}, SHOP, Target(8080), False),
        ({"from": [{"podSelector": {}}]}, SHOP, Target(8080), True),
        ({"from": [{"podSelector": {}}]}, FAR, Target(8080), False),
        ({"from": [{"namespaceSelector": {}}]}, FAR, Target(8080), True),
        (
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {"matchLabels": {"app": "y"}}}]},
            FAR,
            Target(1),
            False,
        ),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, SHOP, Target(8080), True),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}, SHOP, Target(8080), False),
        ({"from": [{"ipBlock": {"cidr": "192.168.0.0/16"}}]}, SHOP, Target(8080), False),
        ({"from": [{"ipBlock": {"cidr": "nonsense"}}]}, SHOP, Target(8080), True),
        ({"ports": [{"port": 8080}]}, SHOP, Target(8080), True),
        ({"ports": [{"port": 8081}]}, SHOP, Target(8080), False),
        ({"ports": [{"port": 8000, "endPort": 8100}]}, SHOP, Target(8080), True),
        ({"ports": [{"port": 8000, "endPort": 8079}]}, SHOP, Target(8080), False),
        ({"ports": [{"port": "http"}]}, SHOP, Target(8080, frozenset({"http"})), True),
        ({"ports": [{"port": "grpc"}]}, SHOP, Target(8080, frozenset({"http"})), False),
        ({"ports": [{"protocol": "UDP", "port": 8080}]}, SHOP, Target(8080), False),
        ({"ports": [{"protocol": "TCP"}]}, SHOP, Target(8080), True),
    ],
)
def test_rules(rule: Raw, other: End, target: Target, passes: bool) -> None:
    assert admits(kube("NetworkPolicy", policy(ingress=[rule])), "Ingress", other, target) is passes


# -- who is at fault ----------------------------------------------------------------------------------------------------------------------


def test_a_policy_that_admits_the_caller_is_no_fault() -> None:
    assert found(scene(policy(ingress=[from_app("shop", 8080)]), logs=TIMEOUT)) == []


def test_an_edited_ingress_rule() -> None:
    bad = policy(ingress=[from_app("pay")], managed=[written(5 * MINUTE, "spec", "ingress")])
    (c,) = found(scene(bad, logs=TIMEOUT))
    assert told([c]) == ["NetworkPolicy NetworkPolicy/guard Edit A"]
    assert c.hits == ("Deployment/shop", "Service/cart")
    assert "Deployment/shop → Deployment/cart port 8080" in c.statement


def test_an_egress_rule_of_the_callers_side() -> None:
    bad = policy(
        select={"matchLabels": {"app": "shop"}}, policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}], "ports": [{"port": 9999}]}],
        managed=[written(MINUTE, "spec", "egress")],
    )  # fmt: skip
    first = found(scene(bad, logs=TIMEOUT))[0]
    assert told([first]) == ["NetworkPolicy NetworkPolicy/guard Edit A"]
    assert "Egress" in first.statement


def test_a_new_default_deny_is_at_fault_and_another_policy_may_admit() -> None:
    deny = policy("deny", select={}, age=5 * MINUTE, policyTypes=["Ingress"])
    assert told(found(scene(deny, logs=TIMEOUT))) == ["NetworkPolicy NetworkPolicy/deny Edit A"]
    assert found(scene(deny, policy(ingress=[from_app("shop")]), logs=TIMEOUT)) == []


def test_an_old_policy_that_nobody_complains_about_is_a_guess() -> None:
    assert told(found(scene(policy(ingress=[from_app("pay")])))) == ["NetworkPolicy NetworkPolicy/guard D"]


def test_a_release_that_lost_the_label_which_the_policy_knew() -> None:
    old = template(*calling("shop", CART=CART)["spec"]["containers"], labels={"app": "shop", "cart-access": "yes"})
    new = calling("shop", CART=CART)
    rule = {"from": [{"podSelector": {"matchLabels": {"cart-access": "yes"}}}]}
    logs = {"shop-0002-0": TIMEOUT["shop-0001-0"]}
    said = {"policy.example/description": "only pods with cart-access may call cart"}
    for notes in ({}, said):
        (c,) = found(scene(policy(ingress=[rule], annotations=notes), shop=released("shop", old, new), logs=logs))
        assert told([c]) == ["NetworkPolicy Deployment/shop Release A"]


def test_a_policy_that_is_meant_to_block_is_no_fault() -> None:
    words = {"security.example/reason": "suspected break-in: cart is isolated until the case is closed"}
    meant = policy(ingress=[], annotations=words, age=5 * MINUTE)
    assert told(found(scene(meant, logs=TIMEOUT))) == ["[NetworkPolicy NetworkPolicy/guard D]", "NoFault NetworkPolicy/guard A"]
    old = policy(ingress=[], annotations=words)
    assert told(found(scene(old, logs=TIMEOUT)))[-1] == "NoFault NetworkPolicy/guard C"
    vague = policy(ingress=[], annotations={"team.example/owner": "blocks-team"}, age=5 * MINUTE)
    assert told(found(scene(vague, logs=TIMEOUT))) == ["NetworkPolicy NetworkPolicy/guard Edit A"]


def test_a_caller_that_is_admitted_is_not_hit() -> None:
    bad = policy(ingress=[from_app("pay")], managed=[written(5 * MINUTE, "spec", "ingress")])
    (c,) = found(scene(bad, app("pay", calling("pay", CART=CART)), logs=TIMEOUT))
    assert c.hits == ("Deployment/shop",)


def test_who_is_not_configured_to_call_is_nobodys_business() -> None:
    assert found(scene(policy(ingress=[from_app("shop")]), app("stranger"))) == []


# -- DNS ----------------------------------------------------------------------------------------------------------------------------------

ONLY_CART: Raw = {"to": [{"podSelector": {"matchLabels": {"app": "cart"}}}]}
DNS: Raw = {
    "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
    "ports": [{"port": 53, "protocol": "UDP"}],
}
UNRESOLVED = {"shop-0001-0": ["lookup cart on 10.96.0.10:53: i/o timeout", "getaddrinfo EAI_AGAIN cart"]}


def egress(*rules: Raw, **more: Any) -> Raw:
    return policy(select={"matchLabels": {"app": "shop"}}, policyTypes=["Egress"], egress=list(rules), **more)


def test_egress_without_dns() -> None:
    bad = egress(ONLY_CART, managed=[written(5 * MINUTE, "spec", "egress")])
    (c,) = found(scene(bad, logs=UNRESOLVED))
    assert told([c]) == ["NetworkPolicy NetworkPolicy/guard Edit A"]
    assert "port 53" in c.statement


def test_egress_with_dns_and_old_egress_under_a_healthy_app() -> None:
    assert found(scene(egress(ONLY_CART, DNS), logs=UNRESOLVED)) == []
    assert found(scene(egress(ONLY_CART))) == []


def test_malformed_policies_say_nothing() -> None:
    junk = [
        policy(f"p{i}", **spec)
        for i, spec in enumerate(({"ingress": "x"}, {"policyTypes": [1]}, {"ingress": [{"from": [3], "ports": [None]}]}))
    ]
    for p in junk:
        assert all(c.category == "NetworkPolicy" for c in found(scene(p)))
    assert found(scene({"kind": "NetworkPolicy", "metadata": {"name": "x", "namespace": NS}, "spec": [web()]})) is not None
