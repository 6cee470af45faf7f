"""The cluster's DNS: a Corefile that does not serve, servers that are down, and pods that ask elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.diagnosis.anomalies.names import corefile, misconfigured, names
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import MINUTE, NS, Raw, app, calling, made, released, service, template, told, world, written

GOOD = """
.:53 {
    errors
    health {
        lameduck 5s
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    forward . /etc/resolv.conf  # the outside
    cache 30
}
"""
UNRESOLVED = {"shop-0001-0": ["dial tcp: lookup cart on 10.96.0.10:53: no such host"]}


def server(text: str = GOOD, *, pods: int = 2, ready: bool = True, **config: Any) -> list[Raw]:
    t = template(labels={"k8s-app": "kube-dns"})
    dns = app("coredns", t, pods=pods, ready=ready)
    for o in dns:
        o["metadata"]["namespace"] = "kube-system"
    address = service("kube-dns", {"k8s-app": "kube-dns"}, namespace="kube-system", spec={"clusterIP": "10.96.0.10"})
    return [*dns, address, made("ConfigMap", "coredns", namespace="kube-system", data={"Corefile": text}, **config)]


def scene(dns: list[Raw] | None = None, shop: list[Raw] | None = None, **kw: Any) -> World:
    caller = shop or app("shop", calling("shop", CART="http://cart:80"))
    return world(caller, app("cart"), service("cart"), beside={"kube-system": server() if dns is None else dns}, **kw)


def found(w: World) -> list[Candidate]:
    return list(names(w))


def test_a_corefile_is_read_with_its_blocks() -> None:
    (block,) = corefile(GOOD)
    assert block.zones == [".:53"]
    assert [p for p, _, _ in block.plugins] == ["errors", "health", "kubernetes", "forward", "cache"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD, ""),
        (GOOD.replace("kubernetes cluster.local in-addr.arpa ip6.arpa", "kubernetes cluster.lcoal in-addr.arpa"), "not cluster.local"),
        (GOOD.replace("kubernetes cluster.local", "hosts"), "no kubernetes plugin"),
        (GOOD.replace("errors", "template ANY ANY svc.cluster.local {\n rcode NXDOMAIN\n }"), "a template answers NXDOMAIN"),
        (
            GOOD.replace("errors", "template ANY ANY {\n match .*\\.svc\\.cluster\\.local\n rcode NXDOMAIN\n }"),
            "a template answers NXDOMAIN",
        ),
        (GOOD.replace("errors", "template ANY ANY example.com {\n rcode NXDOMAIN\n }"), ""),
        (GOOD.replace("errors", "rewrite name suffix .svc.cluster.local .svc.old.example"), "a rewrite"),
        (GOOD.replace("errors", "rewrite name cart.example.com cart.shop.svc.cluster.local"), ""),
        (GOOD.replace(".:53", "example.com:53"), "no server block is for cluster.local"),
        (GOOD.replace(".:53", "cluster.local:53"), ""),
        (GOOD.replace("pods insecure", "namespaces default web"), "serves namespaces default, web only"),
        (GOOD + "cluster.local {\n forward . 10.0.0.1\n}\n", "no kubernetes plugin"),
        ("", "no server block"),
        ("not a corefile", ""),
    ],
)
def test_what_is_wrong_with_a_corefile(text: str, why: str) -> None:
    got = misconfigured(text, NS)
    assert (why in got) if why else got == ""


def test_a_misconfigured_server() -> None:
    bad = server(GOOD.replace("kubernetes cluster.local", "kubernetes cluster.lan"), managed=[written(5 * MINUTE, "data", "Corefile")])
    (c,) = found(scene(bad, logs=UNRESOLVED))
    assert told([c]) == ["DNS ConfigMap/kube-system/coredns Edit A"]
    assert c.hits == ("Deployment/shop",)
    (quiet,) = found(scene(bad))
    assert quiet.grade == "B"


def test_a_good_server_is_no_fault_even_when_names_are_not_found() -> None:
    assert found(scene(logs=UNRESOLVED)) == []
    assert found(scene(server(managed=[written(MINUTE, "data", "Corefile")]))) == []


def test_names_of_the_outside_since_the_forward_was_edited() -> None:
    line = {"shop-0001-0": ["getaddrinfo ENOTFOUND api.partner.example"]}
    bad = server(GOOD.replace("/etc/resolv.conf", "10.9.9.9"), managed=[written(5 * MINUTE, "data", "Corefile")])
    assert told(found(scene(bad, logs=line))) == ["DNS ConfigMap/kube-system/coredns Edit C"]
    none = server(GOOD.replace("forward .", "# forward ."), managed=[written(5 * MINUTE, "data", "Corefile")])
    assert told(found(scene(none, logs=line))) == ["DNS ConfigMap/kube-system/coredns Edit B"]
    assert found(scene(server(GOOD), logs=line)) == []


def test_an_edit_after_which_the_server_crashes() -> None:
    bad = server(managed=[written(MINUTE, "data", "Corefile")], ready=False)
    for o in bad:
        if o["kind"] == "Pod":
            o["status"]["containerStatuses"][0] |= {
                "ready": False,
                "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
            }
    assert "DNS ConfigMap/kube-system/coredns Edit B" in told(found(scene(bad)))


def test_servers_that_are_down() -> None:
    assert told(found(scene(server(ready=False), logs=UNRESOLVED))) == ["DNS Deployment/kube-system/coredns A"]
    none = server(pods=0)
    assert "scaled to zero" in found(scene(none))[0].statement
    lost = server()
    lost[-2]["spec"]["selector"] = {"k8s-app": "dns"}
    assert told(found(scene(lost))) == ["DNS Service/kube-system/kube-dns B"]
    gone = [o for o in server() if o["kind"] != "Service"]
    assert told(found(scene(gone))) == ["DNS Service/kube-system/kube-dns Deletion B"]


def test_a_namespace_that_nobody_looked_at_is_a_gap() -> None:
    w = world(app("shop", calling("shop", CART="http://cart")), service("cart"), logs=UNRESOLVED)
    assert found(w) == []
    assert [g.what for g in w.gaps] == ["namespace kube-system"]


# -- the pods' own settings ---------------------------------------------------------------------------------------------------------------


def shop(**spec: Any) -> Raw:
    t = calling("shop", CART="http://cart:80")
    return {**t, "spec": {**t["spec"], **spec}}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"dnsPolicy": "Default"}, "dnsPolicy Default"),
        ({"hostNetwork": True}, "hostNetwork without dnsPolicy ClusterFirstWithHostNet"),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"]}}, "nameserver 1.1.1.1"),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"]}}, "without search domains"),
    ],
)
def test_a_release_after_which_pods_ask_elsewhere(spec: Raw, why: str) -> None:
    logs = {"shop-0002-0": UNRESOLVED["shop-0001-0"]}
    (c,) = found(scene(shop=released("shop", shop(), shop(**spec)), logs=logs))
    assert told([c]) == ["DNS Deployment/shop Release A"]
    assert why in c.statement


@pytest.mark.parametrize(
    "spec",
    [
        {"dnsPolicy": "ClusterFirst"},
        {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"], "searches": ["shop.svc.cluster.local"]}},
        {"dnsPolicy": "Default"},
    ],
)
def test_settings_that_are_right_or_hurt_nobody(spec: Raw) -> None:
    assert found(scene(shop=app("shop", shop(**spec)))) == []


def test_who_uses_no_names_of_the_cluster_may_ask_whom_it_likes() -> None:
    t = template(labels={"app": "shop"}, dnsPolicy="Default")
    assert found(scene(shop=app("shop", t, ready=False))) == []


def test_a_host_alias_over_a_service() -> None:
    alias = [{"ip": "192.0.2.9", "hostnames": ["cart"]}]
    (c,) = found(scene(shop=released("shop", shop(), shop(hostAliases=alias))))
    assert told([c]) == ["DNS Deployment/shop Release A"]
    right = [{"ip": "10.96.0.50", "hostnames": ["cart"]}]
    assert found(scene(shop=released("shop", shop(), shop(hostAliases=right)))) == []
