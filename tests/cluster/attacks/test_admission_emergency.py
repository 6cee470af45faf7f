"""Emergency approvals during a freeze, and taking an Incident. The numbers are the rows of the design's table of threats."""

from __future__ import annotations

import pytest

from tests.cluster.attacks.world import DIGEST, NEXT_DIGEST, Actor, World, execution, head, plan, waiting

pytestmark = pytest.mark.cluster
GUARD = "nightorders-approvals"
WHY = "the shop is down, and the fix is a rollback"


@pytest.fixture
def eve(world: World) -> Actor:
    """Holds the verb approve-emergency in the namespace."""
    return world.user("eve", "nightorders-emergency-approver", "edit")


@pytest.fixture
def alice(world: World) -> Actor:
    """An approver like others."""
    return world.user("alice", "nightorders-approver", "edit")


@pytest.mark.promise(1)
def test_3_an_emergency_approval_needs_a_freeze_a_right_and_a_reason(world: World, eve: Actor, alice: Actor) -> None:
    mine = f"{DIGEST}|eve"
    world.incident(waiting(frozenBy="None"))
    eve.may_not(GUARD, *eve.annotation(emergency_e=mine, why_e=WHY), says="No freeze holds this plan back")
    world.status({"plan": plan()})  # a plan of an older version, without needs
    eve.may_not(GUARD, *eve.annotation(emergency_e=mine, why_e=WHY), says="No freeze holds this plan back")
    world.status(waiting(frozenBy="Namespace"))
    alice.may_not(GUARD, *alice.annotation(emergency_a=f"{DIGEST}|alice", why_a=WHY), says="lacks the verb approve-emergency")
    for reason in ({}, {"why_e": ""}, {"why_e": " \t "}, {"why_other": WHY}, {"why_e": "x" * 401}):
        eve.may_not(GUARD, *eve.annotation(emergency_e=mine, **reason), says="why.nightorders.dev/")
    eve.may_not(GUARD, *eve.annotation(emergency_e=f"{DIGEST}|alice", why_e=WHY), says="exactly")
    eve.may_not(GUARD, *eve.annotation(emergency_e=f"{NEXT_DIGEST}|eve", why_e=WHY), says="exactly")
    eve.may_not(GUARD, *eve.patch("inc", {"spec": {"suspend": True}, "metadata": {"annotations": {
        "emergency.nightorders.dev/e": mine, "why.nightorders.dev/e": WHY}}}), says="changes nothing else")  # fmt: skip
    eve.may(*eve.annotation(emergency_e=mine, why_e="x" * 400))
    alice.may(*alice.annotation(approve_a=f"{DIGEST}|alice"))  # an ordinary approval is admitted, and does not count (domain/approval.py)


def test_3_an_emergency_approval_is_somebodys_own_and_keeps_its_reason(world: World, eve: Actor) -> None:
    finn = world.user("finn", "nightorders-emergency-approver", "edit")
    world.incident(waiting(frozenBy="Namespace"))
    eve.may(*eve.annotation(emergency_e=f"{DIGEST}|eve", why_e=WHY))
    for change in (
        {"emergency_e": f"{DIGEST}|finn", "why_e": "me too"},  # overwrites
        {"why_e": "because eve is a fool"},
        {"why_e": "because eve is a fool", "reject_e": f"{DIGEST}|finn"},  # by way of an answer of the same name
        {"why_e": None},
        {"emergency_e": None, "why_e": None},
    ):
        finn.may_not(GUARD, *finn.annotation(**change))
    eve.may_not(GUARD, *eve.annotation(why_e=None), says="An emergency approval needs its reason")
    eve.may_not(GUARD, *eve.annotation(why_e=""), says="An emergency approval needs its reason")
    eve.may_not(GUARD, *eve.annotation(emergency_e=None), says="remove both in one request")
    eve.may_not(GUARD, *eve.annotation(emergency_e=None, approve_e=f"{DIGEST}|eve", why_e=None, reject_e=f"{DIGEST}|finn"), says="exactly")
    eve.may(*eve.annotation(emergency_e=None, why_e=None))
    # A reason that was there already was the reason of something else.
    eve.may(*eve.annotation(reject_e=f"{DIGEST}|eve", why_e=WHY))
    eve.may_not(GUARD, *eve.annotation(emergency_e=f"{DIGEST}|eve"), says="in the same request")
    eve.may(*eve.annotation(emergency_e=f"{DIGEST}|eve", reject_e=None, why_e="changed my mind: it is worse than I thought"))
    world.status({"executions": [execution("Reserved")]})
    eve.may_not(GUARD, *eve.annotation(emergency_e=None, why_e=None), says="carried out already")
    eve.may_not(GUARD, *eve.annotation(why_e=None))


@pytest.mark.promise(7)
def test_4_an_emergency_is_no_way_around_the_right_that_the_plan_uses(world: World) -> None:
    poor = world.user("poor", "nightorders-emergency-approver")
    world.incident(waiting(frozenBy="Namespace"))
    poor.may_not(GUARD, *poor.annotation(emergency_p=f"{DIGEST}|poor", why_p=WHY), says="may not patch deployments checkout")
    # approve-emergency alone, without approve
    half = world.user("half", "edit")
    world.role("half", ("nightorders.dev", "incidents", "get,patch,approve-emergency"))
    half.may_not(GUARD, *half.annotation(emergency_h=f"{DIGEST}|half", why_h=WHY), says="lacks the verb approve ")


@pytest.mark.promise(1, 6)
def test_3_16_no_role_of_a_namespace_breaks_a_freeze_of_the_platform(world: World, eve: Actor) -> None:
    """Not even */*/*: the verb is asked on a cluster-scoped resource, for which the authorizer looks at ClusterRoleBindings only."""
    world.incident(waiting(frozenBy="Cluster"))
    mallory = world.wildcard()
    world.grant({"kind": "User", "name": "mallory"}, "nightorders-platform", "cluster-admin")  # RoleBindings to ClusterRoles
    for actor in (eve, mallory):
        emergency = actor.annotation(emergency_e=f"{DIGEST}|{actor.name}", why_e=WHY)
        actor.may_not(GUARD, *emergency, says="lacks the verb approve-emergency on clusterremediationpolicies")
    with world.everywhere(eve, "nightorders-platform"):
        eve.may(*eve.annotation(emergency_e=f"{DIGEST}|eve", why_e=WHY))
    # The platform's verb alone does not do: the namespace's own is asked, too.
    paul = world.user("paul", "nightorders-approver", "edit")
    with world.everywhere(paul, "nightorders-platform"):
        paul.may_not(GUARD, *paul.annotation(emergency_p=f"{DIGEST}|paul", why_p=WHY), says="approve-emergency on incidents")


def test_5_a_service_account_breaks_no_freeze_unless_it_may_approve_at_all(world: World) -> None:
    robot = world.robot("robot", "nightorders-emergency-approver", "edit")
    me = f"system:serviceaccount:{world.namespace}:robot"
    world.incident(waiting(frozenBy="Namespace", serviceAccounts="Deny"))
    robot.may_not(GUARD, *robot.annotation(emergency_r=f"{DIGEST}|{me}", why_r=WHY), says="for people")
    world.status(waiting(frozenBy="Namespace", serviceAccounts="Allow"))
    robot.may(*robot.annotation(emergency_r=f"{DIGEST}|{me}", why_r=WHY))


def test_16_a_team_does_not_write_the_platforms_freezes(world: World) -> None:
    """They are in another object, out of reach for every role of a namespace; the team's own policy cannot name or lift them."""
    freeze = {"name": "weekend", "from": "2026-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}
    document = {**head("ClusterRemediationPolicy", world.namespace), "spec": {"namespaces": [world.namespace], "freezes": [freeze]}}
    world.admin.may("create", "-f", "-", document=document)
    try:
        mallory = world.wildcard()
        world.grant({"kind": "User", "name": "mallory"}, "admin", "nightorders-platform", "cluster-admin")
        for attempt in (
            ("delete", "clusterremediationpolicy", world.namespace),
            ("patch", "clusterremediationpolicy", world.namespace, "--type=merge", "-p", '{"spec":{"freezes":[]}}'),
            ("patch", "clusterremediationpolicy", world.namespace, "--type=merge", "-p", '{"spec":{"namespaces":["elsewhere"]}}'),
        ):
            answer = mallory.run(*attempt)
            assert "cannot" in answer.stderr, answer.stdout
            assert answer.returncode != 0
        assert world.get("clusterremediationpolicy", world.namespace)["spec"]["freezes"][0]["name"] == "weekend"
    finally:
        world.admin.may("delete", "clusterremediationpolicy", world.namespace)


INCIDENTS = "nightorders-incidents"


def test_6_nobody_takes_an_incident_for_somebody_else(world: World, alice: Actor) -> None:
    """Taking lowers the level, so whoever may patch the Incident may; giving it back for another raises it again, and needs approve."""
    world.incident()
    dora = world.user("dora", "nightorders-incident-author")
    emil = world.user("emil", "nightorders-incident-author")
    for value in ("emil", "", "dora ", "Dora", "dora|x"):
        dora.may_not(INCIDENTS, *dora.annotation(take_dora=value), says="says who works on this Incident")
    dora.may(*dora.annotation(take_dora="dora"))
    for change in ({"take_dora": None}, {"take_dora": "emil"}):
        emil.may_not(INCIDENTS, *emil.annotation(**change), says="needs the verb approve")
    emil.may(*emil.annotation(take_emil="emil"))
    emil.may(*emil.annotation(take_emil=None))
    mallory = world.wildcard("mallory")
    mallory.may(*mallory.patch("inc", {"metadata": {"annotations": {"example.org/x": "y"}}}))  # others' changes are not in the way
    dora.may(*dora.annotation(take_dora=None))
    dora.may(*dora.annotation(take_dora="dora"))
    alice.may(*alice.annotation(take_dora=None))  # may approve, so may let the operator go on
    assert "take.nightorders.dev/dora" not in world.annotations()
    operator = world.operator
    operator.may_not(INCIDENTS, *operator.annotation(take_x="dora"), says="says who works on this Incident")


def test_3_an_answer_does_not_take_along_somebodys_take(world: World, alice: Actor) -> None:
    """In one request it would change the question (who works on it) with the answer."""
    world.incident(waiting())
    dora = world.user("dora", "nightorders-incident-author")
    dora.may(*dora.annotation(take_dora="dora"))
    alice.may_not(GUARD, *alice.annotation(approve_a=f"{DIGEST}|alice", take_dora=None), says="no other annotation")
    alice.may_not(GUARD, *alice.annotation(approve_a=f"{DIGEST}|alice", take_a="alice"), says="no other annotation")
