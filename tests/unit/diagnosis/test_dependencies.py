"""Far ends of failing calls: down, refusing, full, or outside."""

from __future__ import annotations

from typing import Any

from nightorders.diagnosis.anomalies.dependencies import dependencies
from nightorders.diagnosis.hypotheses import Candidate

from .between import MINUTE, Raw, app, calling, container, database, env, made, released, service, template, told, world, written

REFUSED = "dial tcp: connect to db:5432: connection refused"
WRONG_PASSWORD = (
    'failed to connect to `host=db user=app database=app`: FATAL: password authentication failed for user "app" (SQLSTATE 28P01)'
)
FULL = "failed to connect to `user=app database=app`: 10.244.0.14:5432 (db): server error: FATAL: sorry, too many clients already"
WAITING = "HikariPool-1 - Connection is not available, request timed out after 30000ms."


def shop(*variables: Raw, release: Raw | None = None, **kw: Any) -> list[Raw]:
    base = env("DB_HOST", "db")
    t = template(container("app", env=[base, *variables]), labels={"app": "shop"})
    return app("shop", t, **kw) if release is None else released("shop", release, t, **kw)


def found(*parts: Raw | list[Raw], line: str = "", pod: str = "shop-0001-0", **kw: Any) -> list[Candidate]:
    return list(dependencies(world(*parts, logs={pod: [line]} if line else {}, **kw)))


def secret(name: str = "db-login") -> Raw:
    return env("DB_PASSWORD", secret=name, key="password")


# -- down ---------------------------------------------------------------------------------------------------------------------------------


def test_what_serves_is_no_fault() -> None:
    assert found(shop(), database()) == []


def test_a_database_that_is_down_is_a_weak_word_that_finer_ones_outdo() -> None:
    (c,) = found(shop(), database(ready=False), line=REFUSED)
    assert told([c]) == ["Dependency StatefulSet/db C"]
    assert c.hits == ("Service/db", "StatefulSet/db")


def test_the_deepest_is_named_and_not_its_victims() -> None:
    middle = app("cart", calling("cart", DB="http://db:5432"), ready=False)
    front = app("web", calling("web", CART="http://cart"), ready=False)
    assert told(found(front, middle, service("cart"), database(ready=False))) == ["Dependency StatefulSet/db C"]


def test_what_nobody_calls_or_what_is_at_zero_is_not_down() -> None:
    assert found(database(ready=False)) == []
    assert found(app("web", calling("web", CART="http://cart")), app("cart", pods=0), service("cart")) == []


def test_a_ready_one_that_does_not_answer_is_likeness_only() -> None:
    assert told(found(shop(), database(), line=REFUSED)) == ["Dependency StatefulSet/db D"]


# -- logins -------------------------------------------------------------------------------------------------------------------------------


def test_a_refused_login_leads_to_the_secret_by_reference() -> None:
    (c,) = found(
        shop(secret(), ready=False), database(variables=[env("POSTGRES_PASSWORD", secret="db-login", key="password")]), line=WRONG_PASSWORD
    )
    assert told([c]) == ["AccessDenied Secret/db-login B"]
    assert "to StatefulSet/db" in c.statement


def test_pods_that_started_before_the_secret_changed_serve() -> None:
    parts = shop(secret())
    ill = [o for o in parts if o["kind"] == "Pod"][1]
    ill["status"]["conditions"][1]["status"] = "False"
    ill["status"]["startTime"] = ill["metadata"]["creationTimestamp"] = "2026-03-01T11:50:00Z"
    (c,) = found(parts, database(), line=WRONG_PASSWORD, pod="shop-0001-1")
    assert told([c]) == ["BadConfiguration Secret/db-login B"]


def test_a_release_that_takes_the_login_from_elsewhere() -> None:
    old = template(container("app", env=[env("DB_HOST", "db"), secret("db-login")]), labels={"app": "shop"})
    parts = shop(secret("db-admin"), release=old, ready=False)
    assert told(found(parts, database(), line=WRONG_PASSWORD, pod="shop-0002-0")) == ["BadConfiguration Deployment/shop Release A"]


def test_client_and_server_with_different_secrets() -> None:
    db = database(variables=[env("POSTGRES_PASSWORD", secret="db-root", key="password")])
    assert told(found(shop(secret(), ready=False), db, line=WRONG_PASSWORD)) == ["BadConfiguration Secret/db-login B"]


def test_an_edited_config_map_with_a_part_of_the_login() -> None:
    config = made("ConfigMap", "settings", data={"DB_USER": "app2"}, managed=[written(5 * MINUTE, "data", "DB_USER")])
    first = found(shop(env("DB_USER", config="settings"), secret(), ready=False), database(), config, line=WRONG_PASSWORD)[0]
    assert told([first]) == ["BadConfiguration ConfigMap/settings Edit B"]


def test_a_servers_record_of_somebodys_attempt_is_not_its_own_fault() -> None:
    web = app("db-proxy", template(labels={"app": "db-proxy"}))
    line = 'FATAL: password authentication failed for user "app"'
    db = database(variables=[env("POSTGRES_PASSWORD", secret="db-login", key="password")])
    caller = shop()
    assert found(web, caller, db, line=line, pod="db-0") == []


# -- pools --------------------------------------------------------------------------------------------------------------------------------


def test_a_server_that_takes_no_more_is_overloaded() -> None:
    (c,) = found(shop(), database(), line=FULL)
    assert told([c]) == ["Overload StatefulSet/db B"]
    assert set(c.hits) == {"Deployment/shop", "StatefulSet/db"}


def test_what_several_callers_say_is_one_candidate_that_hits_them_all() -> None:
    other = app("pay", template(container("app", env=[env("DB_HOST", "db")]), labels={"app": "pay"}))
    lines = {"shop-0001-0": [FULL], "pay-0001-0": [FULL]}
    (c,) = dependencies(world(shop(), other, database(), logs=lines))
    assert set(c.hits) == {"Deployment/shop", "Deployment/pay", "StatefulSet/db"}


def test_a_pool_of_the_clients_own_is_the_clients() -> None:
    assert told(found(shop(), database(), line=WAITING)) == ["Overload Deployment/shop B"]


def test_a_pool_that_cannot_fill_is_a_victim() -> None:
    empty = "HikariPool-1 - Connection is not available, request timed out after 30000ms (total=0, active=0, idle=0, waiting=24)"
    assert found(shop(), database(), line=empty) == []
    assert told(found(shop(ready=False), database(ready=False), line=WAITING)) == ["Dependency StatefulSet/db C"]


def test_a_pool_whose_size_a_release_changed_is_a_wrong_value() -> None:
    old = template(container("app", env=[env("DB_HOST", "db"), env("DB_POOL_SIZE", "20")]), labels={"app": "shop"})
    parts = shop(env("DB_POOL_SIZE", "2"), release=old)
    first, second = found(parts, database(), line=WAITING, pod="shop-0002-0")
    assert told([first]) == ["BadConfiguration Deployment/shop Release A"]
    assert second.grade in "CD"


def test_usage_at_its_limit_is_told() -> None:
    usage = {"pool_usage": [({"service": "db"}, 1.0)]}
    (c,) = found(shop(), database(), line=FULL, metrics=usage)
    assert any(m.factor == "metric shows it" for m in c.marks)


# -- outside ------------------------------------------------------------------------------------------------------------------------------

ALIAS = {"type": "ExternalName", "externalName": "api.rates.example"}
DOWN = 'Get "https://api.rates.example/v1": dial tcp: connect to api.rates.example:443: connection refused'


def test_the_outside_is_down_and_an_alias_stands_for_it() -> None:
    (c,) = found(shop(), database(), made("Service", "rates", spec=ALIAS), line=DOWN)
    assert told([c]) == ["External Service/rates B"]
    assert c.hits == ("Deployment/shop",)


def test_without_an_alias_the_caller_stands_for_it() -> None:
    assert told(found(shop(), database(), line=DOWN)) == ["External Deployment/shop B"]


def test_a_prober_that_fails_too_is_evidence() -> None:
    probe = ({"__name__": "probe_success", "instance": "https://api.rates.example/v1"}, 0.0)
    (c,) = found(shop(), database(), line=DOWN, series=[probe])
    assert any(m.factor == "metric shows it" for m in c.marks)


def test_a_client_that_counts_errors_is_a_lead() -> None:
    def counted(outcome: str, value: float) -> tuple[dict[str, str], float]:
        return {"series": "http_client_requests_total", "host": "rates", "outcome": outcome}, value

    alias = made("Service", "rates", spec=ALIAS)
    caller = shop(env("RATES", "https://rates/v1"))
    assert told(found(caller, database(), alias, series=[counted("error", 90), counted("success", 60)])) == ["External Service/rates C"]
    assert found(caller, database(), alias, series=[counted("error", 1), counted("success", 600)]) == []


def test_an_alias_that_was_changed_is_routing() -> None:
    alias = made("Service", "rates", spec=ALIAS, managed=[written(5 * MINUTE, "spec", "externalName")])
    assert told(found(shop(), database(), alias, line=DOWN)) == ["ServiceRouting Service/rates Edit B"]


def test_a_host_that_is_new_may_be_misspelt() -> None:
    old = template(container("app", env=[env("DB_HOST", "db"), env("RATES", "https://api.rates.test")]), labels={"app": "shop"})
    parts = shop(env("RATES", "https://api.rates.example"), release=old)
    assert told(found(parts, database(), line=DOWN, pod="shop-0002-0")) == ["External Deployment/shop C"]


def test_the_outside_is_not_blamed_while_something_inside_is_down_and_names_inside_are_not_outside() -> None:
    every = found(shop(ready=False), database(ready=False), line=DOWN)
    assert told(every) == ["Dependency StatefulSet/db C"]
    assert not [c for c in found(shop(), database(), line=REFUSED) if c.category == "External"]
