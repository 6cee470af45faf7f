"""Services and routes: what leads nowhere, who is at fault, and what only looks like it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from nightorders.diagnosis.anomalies.routing import routing
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import (
    HOUR,
    MINUTE,
    Raw,
    app,
    calling,
    container,
    database,
    env,
    made,
    pods_of,
    released,
    service,
    template,
    told,
    web,
    world,
    written,
)
from .build import pod

REFUSED = 'Get "http://cart:80/": dial tcp 10.96.0.50:80: connect: connection refused'
SECOND = timedelta(seconds=1)


def found(w: World) -> list[Candidate]:
    return list(routing(w))


def caller(value: str = "http://cart:80") -> list[Raw]:
    return app("shop", calling("shop", CART=value))


def log(*lines: str) -> dict[str, list[str]]:
    return {pods_of(caller())[0]: list(lines)}


# -- selectors --------------------------------------------------------------------------------------------------------------------------


def test_a_healthy_namespace_says_nothing() -> None:
    ingress = made("Ingress", "front", spec={"rules": [rule("shop.example", "/", "shop")]})
    assert told(found(world(caller(), app("cart"), service("cart"), service("shop"), ingress))) == []


def test_an_edited_selector_that_matches_nothing() -> None:
    broken = service("cart", {"app": "carts"}, managed=[written(5 * MINUTE, "spec", "selector", "app")])
    (c,) = found(world(caller(), app("cart"), broken, logs=log(REFUSED)))
    assert told([c]) == ["ServiceRouting Service/cart Edit A"]
    assert c.hits == ("Service/cart", "Deployment/cart")
    assert "app=carts" in c.statement
    assert "2 ready pods of Deployment/cart" in c.statement


def test_a_selector_without_any_sign_of_a_change_still_has_its_counterfactual() -> None:
    (c,) = found(world(caller(), app("cart"), service("cart", {"app": "cart", "tier": "backend"})))
    assert told([c]) == ["ServiceRouting Service/cart A"]
    assert "tier=(dropped)" in c.statement


def test_a_service_for_pods_that_are_not_out_yet_explains_nothing() -> None:
    """A canary's Service without a canary: its workload has another Service, and nobody uses this one."""
    canary = service("cart-canary", {"app": "cart", "track": "canary"})
    (c,) = found(world(caller(), app("cart"), service("cart"), canary))
    assert told([c]) == ["ServiceRouting Service/cart-canary D"]
    assert c.hits == ("Service/cart-canary",)


def test_a_release_that_changed_the_label_is_the_holder() -> None:
    old = template(web("cart"), labels={"app": "cart", "track": "stable"})
    new = template(web("cart", args=["-v"]), labels={"app": "cart", "track": "main"})
    (c,) = found(world(caller(), released("cart", old, new), service("cart", {"app": "cart", "track": "stable"})))
    assert told([c]) == ["ServiceRouting Deployment/cart Release A"]
    assert c.change is not None
    assert c.change.revision == "2"


def test_pods_of_an_older_release_that_are_left_over_and_unready_do_not_hide_it() -> None:
    old, new = (template(web("cart"), labels={"app": "cart", "track": t}) for t in ("stable", "main"))
    parts = released("cart", old, new)
    left = pod(parts[1], 7, age=HOUR, ready=False)
    (c,) = found(world(caller(), parts, left, service("cart", {"app": "cart", "track": "stable"})))
    assert told([c]) == ["ServiceRouting Deployment/cart Release A"]


def test_a_selector_that_was_written_after_the_release_is_the_services_own() -> None:
    old, new = (template(web("cart"), labels={"app": "cart", "track": t}) for t in ("stable", "main"))
    late = service("cart", {"app": "cart", "track": "stable"}, managed=[written(MINUTE, "spec", "selector")])
    assert told(found(world(released("cart", old, new, ago=HOUR), late))) == ["ServiceRouting Service/cart Edit A"]


def test_a_workload_at_zero_or_with_unready_pods_is_no_wrong_selector() -> None:
    assert told(found(world(caller(), app("cart", pods=0), service("cart")))) == []
    assert told(found(world(caller(), app("cart", ready=False), service("cart")))) == []


def test_of_two_workloads_that_are_alike_none_is_picked() -> None:
    w = world(app("cart-a"), app("cart-b"), service("cart-x", {"app": "cart-x"}))
    assert told(found(w)) == ["ServiceRouting Service/cart-x D"]


def test_a_selector_that_reaches_another_workload() -> None:
    stray = service("cart", {"app": "shop"}, managed=[written(5 * MINUTE, "spec", "selector")])
    (c,) = found(world(caller(), app("cart"), stray, service("shop")))
    assert told([c]) == ["ServiceRouting Service/cart Edit B"]
    assert "Deployment/cart" in c.hits


def test_two_services_on_one_workload_are_no_fault() -> None:
    assert told(found(world(app("cart"), service("cart"), service("cart-admin", {"app": "cart"})))) == []


def test_without_a_list_of_pods_nothing_is_said() -> None:
    assert told(found(world(app("cart"), service("cart", {"app": "no"}), unread=["Pod"]))) == []


def test_a_service_without_selector_and_without_endpoints() -> None:
    bare = service("cart", {}, managed=[written(MINUTE, "spec")])
    assert told(found(world(caller(), app("cart"), bare))) == ["ServiceRouting Service/cart Edit A"]
    slices = made("EndpointSlice", "cart-1", labels={"kubernetes.io/service-name": "cart"}, endpoints=[{"addresses": ["192.0.2.1"]}])
    assert told(found(world(caller(), bare, slices))) == []


# -- ports ------------------------------------------------------------------------------------------------------------------------------


def test_an_edited_target_port_that_nobody_declares() -> None:
    wrong = service("cart", target=8088, managed=[written(5 * MINUTE, "spec", "ports")])
    (c,) = found(world(caller(), app("cart"), wrong, logs=log(REFUSED)))
    assert told([c]) == ["ServiceRouting Service/cart Edit A"]
    assert "targetPort 8080 would reach" in c.statement


def test_an_undeclared_port_alone_is_a_guess() -> None:
    assert told(found(world(caller(), app("cart"), service("cart", target=8088)))) == ["ServiceRouting Service/cart D"]


def test_a_port_that_the_probe_asks_is_open_though_nobody_declares_it() -> None:
    t = template(web("cart", ports=[{"containerPort": 9000}]), labels={"app": "cart"})
    assert told(found(world(app("cart", t), service("cart", target=8080)))) == []


def test_containers_that_declare_only_what_is_scraped_tell_nothing() -> None:
    t = template(container(ports=[{"name": "metrics", "containerPort": 9090}]), labels={"app": "cart"})
    assert told(found(world(app("cart", t), service("cart", target=8080)))) == []


def test_a_port_name_that_no_container_has() -> None:
    edited = service("cart", target="web", managed=[written(MINUTE, "spec", "ports")])
    assert told(found(world(caller(), app("cart"), edited))) == ["ServiceRouting Service/cart Edit A"]


def test_a_second_port_that_nobody_uses_explains_nothing() -> None:
    two = service("cart")
    two["spec"]["ports"].append({"name": "metrics", "port": 9090, "targetPort": "metrics"})
    assert told(found(world(caller(), app("cart"), two))) == ["ServiceRouting Service/cart D"]


def test_a_release_that_renamed_the_port_is_the_holder() -> None:
    old = template(web("cart"), labels={"app": "cart"})
    new = template(web("cart", ports=[{"name": "web", "containerPort": 8080}]), labels={"app": "cart"})
    (c,) = found(world(released("cart", old, new), service("cart", target="http")))
    assert told([c]) == ["ServiceRouting Deployment/cart Release A"]


def test_the_wrong_protocol() -> None:
    udp = service("cart")
    udp["spec"]["ports"][0]["protocol"] = "UDP"
    (c,) = found(world(app("cart"), udp))
    assert "as TCP, not UDP" in c.statement
    assert c.grade == "D"


def test_a_headless_service_translates_no_ports() -> None:
    assert told(found(world(app("cart"), service("cart", target=9999, spec={"clusterIP": "None"})))) == []


def test_a_caller_of_a_port_that_the_service_has_not() -> None:
    (c,) = found(world(caller("http://cart:8080"), app("cart"), service("cart")))
    assert told([c]) == ["BadConfiguration Deployment/shop D"]
    old, new = calling("shop", CART="http://cart:80"), calling("shop", CART="http://cart:8080")
    refused = {"shop-0002-0": ["dial tcp: connect to cart:8080: connection refused"]}
    (c,) = found(world(released("shop", old, new), app("cart"), service("cart"), logs=refused))
    assert told([c]) == ["BadConfiguration Deployment/shop Release A"]


def test_the_holder_of_the_port_may_be_a_config_map() -> None:
    config = made("ConfigMap", "settings", data={"CART": "http://cart:8080"}, managed=[written(MINUTE, "data", "CART")])
    shop = app("shop", template(container(env=[env("CART", config="settings")]), labels={"app": "shop"}))
    assert told(found(world(shop, app("cart"), service("cart"), config))) == ["BadConfiguration ConfigMap/settings Edit B"]


def test_ports_that_moved_under_every_caller_are_the_services_fault() -> None:
    moved = service("cart", port=8000, managed=[written(MINUTE, "spec", "ports")])
    both = [*caller(), *app("pay", calling("pay", CART="http://cart:80"))]
    (c,) = found(world(both, app("cart"), moved, logs=log(REFUSED)))
    assert told([c]) == ["ServiceRouting Service/cart Edit A"]
    assert {"Deployment/shop", "Deployment/pay"} <= set(c.hits)


def test_local_traffic_only_strands_callers_on_other_nodes() -> None:
    local = service("cart", spec={"internalTrafficPolicy": "Local"}, managed=[written(MINUTE, "spec", "internalTrafficPolicy")])
    (c,) = found(world(caller(), app("cart", pods=1, node="n9"), local, logs=log(REFUSED)))
    assert told([c]) == ["ServiceRouting Service/cart Edit A"]
    assert told(found(world(app("shop", calling("shop", CART="http://cart"), node="n9"), app("cart", node="n9"), local))) == []


# -- Services that are gone ---------------------------------------------------------------------------------------------------------------


def test_a_service_that_was_deleted() -> None:
    (c,) = found(world(caller(), app("cart"), logs=log("lookup cart on 10.96.0.10:53: no such host")))
    assert told([c]) == ["ServiceRouting Service/cart Deletion B"]
    assert c.hits == ("Deployment/shop",)
    assert "did not change" in c.statement


def test_a_deleted_service_of_another_name_than_its_workload() -> None:
    t = template(container(env=[env("DB_HOST", "main-db")]), labels={"app": "shop"})
    db = [o for o in database("postgres") if o["kind"] != "Service"]
    lines = {"shop-0001-0": ['could not translate host name "main-db" to address: Name or service not known']}
    (c,) = found(world(app("shop", t), service("shop"), db, logs=lines))
    assert told([c]) == ["ServiceRouting Service/main-db Deletion C"]
    assert "StatefulSet/postgres" in " ".join(o.text for m in c.marks for o in m.seen)
    old = template(container(env=[env("DB_HOST", "postgres")]), labels={"app": "shop"})
    late = {"shop-0002-0": lines["shop-0001-0"]}
    assert told(found(world(released("shop", old, t), service("shop"), database("postgres"), logs=late))) == [
        "BadConfiguration Deployment/shop Release B"
    ]


def test_a_name_of_the_outside_was_never_a_service() -> None:
    t = template(container(env=[env("API", "https://api.partner.example")]), labels={"app": "shop"})
    lines = {"shop-0001-0": ["getaddrinfo ENOTFOUND api.partner.example"]}
    assert found(world(app("shop", t), service("shop"), logs=lines)) == []


def test_a_name_that_a_release_brought_in_is_the_releases_fault() -> None:
    old, new = calling("shop", CART="http://cart:80"), calling("shop", CART="http://carts.shop.svc:80")
    (c,) = found(world(released("shop", old, new), app("cart"), service("cart")))
    assert told([c]) == ["BadConfiguration Deployment/shop Release B"]
    assert "; cart does" in c.statement


def test_an_external_name_that_points_into_the_cluster_at_nothing() -> None:
    alias = made(
        "Service",
        "cart",
        spec={"type": "ExternalName", "externalName": "carts.shop.svc.cluster.local"},
        managed=[written(MINUTE, "spec", "externalName")],
    )
    (c,) = found(world(app("cart-x"), alias, service("cart-v2", {"app": "cart-x"}), service("carts-a", {"app": "cart-x"})))
    assert told([c])[0].startswith("ServiceRouting Service/cart Edit")
    alias["spec"]["externalName"] = "cart.partner.example"
    assert told(found(world(app("cart-x"), alias))) == []


# -- Ingresses --------------------------------------------------------------------------------------------------------------------------


def rule(host: str, path: str, name: str, port: Any = 80) -> Raw:
    backend = {"service": {"name": name, "port": {"name": port} if isinstance(port, str) else {"number": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


def ingress(*rules: Raw, name: str = "front", **more: Any) -> Raw:
    spec = {"rules": list(rules), **more.pop("spec", {})}
    return made("Ingress", name, spec=spec, **more)


EDITED = [written(5 * MINUTE, "spec", "rules")]


def test_an_edited_ingress_to_a_service_that_is_not_there() -> None:
    bad = ingress(rule("shop.example", "/", "shops"), managed=EDITED)
    first, second = found(world(app("shop"), service("shop"), bad))
    assert told([first, second]) == ["ServiceRouting Ingress/front Edit A", "ServiceRouting Service/shops C"]
    assert {"Ingress/front", "Service/shop", "Deployment/shop"} <= set(first.hits)


def test_a_rule_that_is_left_over_beside_those_that_lead_somewhere() -> None:
    rules = (rule("shop.example", "/", "shop"), rule("old.example", "/", "shop-old"))
    first, _ = found(world(app("shop"), service("shop"), ingress(*rules, managed=EDITED)))
    assert told([first]) == ["ServiceRouting Ingress/front Edit B"]
    assert "Deployment/shop" not in first.hits


def test_an_ingress_whose_service_was_deleted() -> None:
    first, second = found(world(app("shop"), ingress(rule("shop.example", "/", "shop"))))
    assert told([first, second]) == ["ServiceRouting Service/shop Deletion A", "ServiceRouting Ingress/front C"]
    assert "Deployment/shop" in first.hits


def test_a_port_that_the_backend_has_not() -> None:
    bad = ingress(rule("shop.example", "/", "shop", 8081), managed=EDITED)
    assert told(found(world(app("shop"), service("shop"), bad))) == ["ServiceRouting Ingress/front Edit A"]
    named = ingress(rule("shop.example", "/", "shop", "http"))
    assert told(found(world(app("shop"), service("shop"), named))) == []
    moved = service("shop", port=81, managed=[written(MINUTE, "spec", "ports")])
    assert told(found(world(app("shop"), moved, ingress(rule("shop.example", "/", "shop"))))) == ["ServiceRouting Service/shop Edit A"]


def test_an_edited_route_to_another_service_that_is_there() -> None:
    bad = ingress(rule("shop.example", "/", "cart"), managed=EDITED)
    assert told(found(world(app("shop"), app("cart"), service("shop"), service("cart"), bad))) == ["ServiceRouting Ingress/front Edit B"]
    untouched = ingress(rule("shop.example", "/", "cart"))
    assert told(found(world(app("shop"), app("cart"), service("shop"), service("cart"), untouched))) == []


def test_an_absent_ingress_class() -> None:
    classes = [made("IngressClass", "nginx"), made("IngressClass", "internal")]
    bad = ingress(
        rule("shop.example", "/", "shop"), spec={"ingressClassName": "ngix"}, managed=[written(MINUTE, "spec", "ingressClassName")]
    )
    (c,) = found(world(app("shop"), service("shop"), *classes, bad))
    assert told([c]) == ["ServiceRouting Ingress/front Edit A"]
    alone = ingress(rule("shop.example", "/", "shop"), spec={"ingressClassName": "nginx"})
    assert told(found(world(app("shop"), service("shop"), alone))) == []


def test_two_ingresses_for_one_path() -> None:
    first = ingress(rule("shop.example", "/", "shop"))
    rival = ingress(rule("shop.example", "/", "cart"), name="later", age=MINUTE)
    (c,) = found(world(app("shop"), app("cart"), service("shop"), service("cart"), first, rival))
    assert told([c]) == ["ServiceRouting Ingress/later Edit B"]
    assert "Service/shop" in c.hits
