"""`nightorders policy diff`: whatever loosens is marked, in every field; and what is not marked raises nothing, for nobody."""

from __future__ import annotations

import copy
import json
import random
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.api.meta import LabelSelector
from nightorders.api.v1alpha1.clusterpolicy import ClusterRemediationPolicySpec, Fleet
from nightorders.api.v1alpha1.policy import RemediationPolicySpec, Rule
from nightorders.policykit import policies, selectors, trial
from nightorders.policykit.amounts import Comparison, compare
from nightorders.policykit.files import Source, parsed
from nightorders.policykit.policies import Loaded

run = CliRunner().invoke
SAMPLES = "manifests/samples/policy-diff"
Json = dict[str, Any]
RULE: Json = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L3"}


def team(rule: Json | None = None, name: str = "web", **spec: Any) -> Json:
    raw = {"rules": [{**RULE, **(rule or {})}], **spec}
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "RemediationPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": raw,
    }


def platform(name: str = "platform", **spec: Any) -> Json:
    return {"apiVersion": "nightorders.dev/v1alpha1", "kind": "ClusterRemediationPolicy", "metadata": {"name": name}, "spec": spec}


def loaded(*objects: Json) -> list[Loaded]:
    text = yaml.safe_dump_all(objects)
    return [p for d in parsed(text, "web.yaml") for p in policies.of_document(d)]


def diff(old: list[Json], new: list[Json]) -> Comparison:
    return compare(loaded(*old), loaded(*new))


CHECK = {"name": "errors", "promql": "up", "max": "0.1"}
WEEKEND = {"name": "w", "schedule": "0 18 * * 5", "duration": "62h", "timeZone": "Europe/Berlin"}
ONCE = {"name": "once", "from": "2026-12-20T00:00:00Z", "until": "2027-01-02T00:00:00Z"}
GOLD = {"matchLabels": {"tier": "gold"}}
TIER = {"name": "gold", "selector": GOLD}

# (field, before, after): the way there raises, the way back lowers.
TEAM_FIELDS: list[tuple[str, Json, Json]] = [
    ("level", team({"level": "L3"}), team({"level": "L4"})),
    ("approval.count", team({"approval": {"count": 2, "separationOfDuties": True}}), team({"approval": {"count": 1, "separationOfDuties": True}})),
    ("approval.separationOfDuties", team({"approval": {"separationOfDuties": True}}), team()),
    ("approval.separationOfDuties", team({"approval": {"count": 2}}), team({"approval": {"count": 1}})),
    ("approval.serviceAccounts", team(), team({"approval": {"serviceAccounts": "Allow"}})),
    ("approval.emergency", team(), team({"approval": {"emergency": "Allow"}})),
    ("approval.expiresAfter", team(), team({"approval": {"expiresAfter": "1h"}})),
    ("limits.maxPods", team(), team({"limits": {"maxPods": 11}})),
    ("limits.maxPercent", team(), team({"limits": {"maxPercent": 51}})),
    ("limits.cooldown", team(), team({"limits": {"cooldown": "599s"}})),
    ("limits.perHour", team(), team({"limits": {"perHour": 4}})),
    ("limits.duringRollout", team(), team({"limits": {"duringRollout": "Allow"}})),
    ("limits.stalledAfter", team(), team({"limits": {"stalledAfter": "4m"}})),
    ("earn", team({"earn": {"from": "L2"}}), team()),
    ("earn.from", team({"earn": {"from": "L2"}}), team({"earn": {"from": "L3"}})),
    ("earn.successes", team({"earn": {"from": "L2"}}), team({"earn": {"from": "L2", "successes": 9}})),
    ("earn.over", team({"earn": {"from": "L2"}}), team({"earn": {"from": "L2", "over": "337h"}})),
    ("errorBudget", team({"errorBudget": {"promql": "up", "min": "0.1"}}), team()),
    ("errorBudget.min", team({"errorBudget": {"promql": "up", "min": "0.1"}}), team({"errorBudget": {"promql": "up", "min": "0.05"}})),
    ("gitOps", team(), team({"gitOps": "Pause"})),
    ("pauseFor", team(), team({"pauseFor": "2h"})),
    ("verify.for", team(), team({"verify": {"for": "4m"}})),
    ("verify.every", team(), team({"verify": {"every": "16s"}})),
    ("verify.onWorse", team(), team({"verify": {"onWorse": "Escalate"}})),
    ("verify.onUnchanged", team(), team({"verify": {"onUnchanged": "Escalate"}})),
    ("verify.onNoData", team({"verify": {"onNoData": "Undo"}}), team()),
    ("verify.checks errors", team({"verify": {"checks": [CHECK]}}), team()),
    ("verify.checks errors max", team({"verify": {"checks": [CHECK]}}), team({"verify": {"checks": [{**CHECK, "max": "0.2"}]}})),
    (
        "verify.checks errors min",
        team({"verify": {"checks": [{**CHECK, "min": "0.05"}]}}),
        team({"verify": {"checks": [{**CHECK, "min": "0.01"}]}}),
    ),
    ("enforcement", team(enforcement="Shadow"), team()),
    ("selector", team(selector=GOLD), team()),
    ("selector", team({"selector": GOLD}), team()),
    ("freeze", team(freezes=[WEEKEND]), team()),
    ("freeze", team(freezes=[WEEKEND]), team(freezes=[{**WEEKEND, "duration": "61h"}])),
    ("freeze", team(freezes=[WEEKEND]), team(freezes=[{**WEEKEND, "schedule": "30 18 * * 5", "duration": "3690m"}])),
    ("allow", team(freezes=[WEEKEND]), team(freezes=[{**WEEKEND, "allow": ["RollbackWorkload"]}])),
    ("freeze", team(freezes=[ONCE]), team(freezes=[{**ONCE, "until": "2027-01-01T00:00:00Z"}])),
    ("failures", team(), team(breaker={"failures": 4})),
    ("within", team(), team(breaker={"within": "59m"})),
    ("openFor", team(), team(breaker={"openFor": "59m"})),
    ("escalate", team(escalate={"to": ["oncall"]}), team()),
    ("after", team(escalate={"to": ["oncall"]}), team(escalate={"to": ["oncall"], "after": "16m"})),
    ("repeat", team(escalate={"to": ["oncall"]}), team(escalate={"to": ["oncall"], "repeat": "61m"})),
    ("to", team(escalate={"to": ["oncall", "chat"]}), team(escalate={"to": ["oncall"]})),
]  # fmt: skip
PLATFORM_FIELDS: list[tuple[str, Json, Json]] = [
    ("ceiling", platform(ceilings=[{"name": "a", "level": "L3"}]), platform()),
    ("level", platform(ceilings=[{"name": "a", "level": "L3"}]), platform(ceilings=[{"name": "a", "level": "L4"}])),
    ("types", platform(ceilings=[{"name": "a", "level": "L3"}]), platform(ceilings=[{"name": "a", "level": "L3", "types": ["RollbackWorkload"]}])),
    ("protected", platform(protected=[{"name": "p", "selector": GOLD}]), platform()),
    ("selector", platform(protected=[{"name": "p"}]), platform(protected=[{"name": "p", "selector": GOLD}])),
    ("kinds", platform(protected=[{"name": "p"}]), platform(protected=[{"name": "p", "kinds": ["Deployment"]}])),
    ("freeze", platform(freezes=[WEEKEND]), platform()),
    ("tier", platform(tiers=[TIER]), platform()),
    ("maxPods", platform(tiers=[{**TIER, "maxPods": 1}]), platform(tiers=[{**TIER, "maxPods": 2}])),
    ("maxPods", platform(tiers=[{**TIER, "maxPods": 1}]), platform(tiers=[TIER])),
    ("maxPercent", platform(tiers=[{**TIER, "maxPercent": 1}]), platform(tiers=[{**TIER, "maxPercent": 2}])),
    ("maxPercentOfNamespace", platform(tiers=[{**TIER, "maxPercentOfNamespace": 1}]), platform(tiers=[TIER])),
    ("risk", platform(tiers=[{**TIER, "risk": 25}]), platform(tiers=[TIER])),
    ("selector", platform(tiers=[{**TIER, "selector": {}}]), platform(tiers=[TIER])),
    ("minCount", platform(approval={"minCount": 2}), platform(approval={"minCount": 1})),
    ("minCount", platform(approval={"minCount": 2}), platform()),
    ("separationOfDuties", platform(approval={"separationOfDuties": "Required"}), platform()),
    ("serviceAccounts", platform(), platform(approval={"serviceAccounts": "TeamDecides"})),
    ("gitOpsPause", platform(), platform(gitOpsPause="TeamDecides")),
    ("gitOpsPause", platform(gitOpsPause="Deny"), platform(gitOpsPause="TeamDecides")),
    ("gitOpsPause", platform(gitOpsPause="Deny"), platform()),
    ("maxConcurrent", platform(fleet={"maxConcurrent": 4}), platform()),
    ("maxConcurrent", platform(fleet={"maxConcurrent": 4}), platform(fleet={"maxConcurrent": 5})),
    ("perHour", platform(fleet={"perHour": 1}), platform(fleet={"perHour": 2})),
    ("namespaceShare", platform(fleet={"namespaceShare": 10}), platform()),
    ("maxPercentOfWorkloads", platform(fleet={"maxPercentOfWorkloads": 10}), platform()),
    ("namespaces", platform(), platform(namespaces=["shop"])),
    ("namespaces", platform(namespaces=["shop", "billing"]), platform(namespaces=["shop"])),
]  # fmt: skip


@pytest.mark.parametrize(("field", "strict", "loose"), TEAM_FIELDS + PLATFORM_FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_loosens_raises_and_the_way_back_lowers(field: str, strict: Json, loose: Json) -> None:
    there, back = diff([strict], [loose]), diff([loose], [strict])
    assert [c.effect for c in there.changes if c.what == field] == ["RAISES"], there.changes
    assert {c.effect for c in there.changes} == {"RAISES"}
    assert [c.effect for c in back.changes if c.what == field] == ["lowers"], back.changes
    assert back.raised == 0
    assert diff([strict], [strict]) == Comparison((), ())


@pytest.mark.parametrize("model", [RemediationPolicySpec, Rule, ClusterRemediationPolicySpec, Fleet])
def test_no_field_is_forgotten(model: Any) -> None:
    """Every field of these models appears in the tables above, so a new one cannot slip through a diff."""
    text = json.dumps([TEAM_FIELDS, PLATFORM_FIELDS])
    for name, field in model.model_fields.items():
        wire = field.alias or name
        assert f'"{wire}"' in text, wire


def test_a_new_policy_and_a_missing_one() -> None:
    assert [c.effect for c in diff([], [team()]).changes] == ["RAISES"]
    assert [c.effect for c in diff([], [team({"level": "L1"})]).changes] == ["changes"]
    assert [c.effect for c in diff([], [team(enforcement="Shadow")]).changes] == ["changes"]
    assert [c.effect for c in diff([team()], []).changes] == ["lowers"]
    gone = diff([platform(ceilings=[{"name": "a", "level": "L3"}], fleet={"perHour": 1})], [])
    assert {(c.what, c.effect) for c in gone.changes} == {("ceiling", "RAISES"), ("perHour", "RAISES")}
    assert diff([], [platform(ceilings=[{"name": "a", "level": "L3"}])]).raised == 0


def test_a_rule_that_comes_and_one_that_goes() -> None:
    both = team(rules=[{**RULE, "selector": GOLD}, {**RULE, "name": "other", "selector": {"matchLabels": {"tier": "web"}}}])
    one = team(rules=[{**RULE, "selector": GOLD}])
    assert [(c.who, c.effect) for c in diff([one], [both]).changes] == [("RemediationPolicy/shop/web rule other", "RAISES")]
    assert diff([both], [one]).raised == 0


def test_another_query_is_for_humans_to_judge() -> None:
    (change,) = diff([team({"verify": {"checks": [CHECK]}})], [team({"verify": {"checks": [{**CHECK, "promql": "down"}]}})]).changes
    assert (change.effect, change.old, change.new) == ("changes", "up", "down")


def test_a_freeze_written_in_another_way_changes_nothing_but_its_name() -> None:
    utc = {"name": "w", "schedule": "0 18 * * 5", "duration": "62h", "timeZone": "UTC"}
    berlin = {**utc, "schedule": "0 18 * * FRI"}
    assert [c.effect for c in diff([team(freezes=[utc])], [team(freezes=[berlin])]).changes] == ["changes"]
    # Berlin's clock differs from UTC by one hour or two, so neither covers the other.
    (moved,) = diff([team(freezes=[utc])], [team(freezes=[{**utc, "timeZone": "Europe/Berlin"}])]).changes
    assert moved.effect == "RAISES"
    assert "Mon 07:00 UTC, for one, is free now" in moved.why or "UTC, for one, is free now" in moved.why


def test_a_freeze_that_begins_every_minute_is_taken_for_a_raise() -> None:
    minutely = {"name": "w", "schedule": "* * * * *", "duration": "1m"}
    for there in ({**minutely, "schedule": "* * * 1 *"}, {**minutely, "duration": "2m"}):
        (change,) = diff([team(freezes=[minutely])], [team(freezes=[there])]).changes
        assert (change.effect, change.why) == ("RAISES", "it begins too often to be compared")


# ---------------------------------------------------------------- what it amounts to


def test_narrowing_one_of_two_rules_can_raise() -> None:
    """Two rules for one workload are L1; the diff of either policy alone would not show that one of them is in force afterwards."""
    first, second = team({"level": "L4"}, "a"), team({"level": "L2"}, "b")
    narrowed = team({"level": "L2"}, "b", selector=GOLD)
    result = diff([first, second], [first, narrowed])
    assert [c.effect for c in result.changes] == ["lowers"]
    assert [(a.effect, a.workloads, a.old, a.new) for a in result.amounts] == [
        ("RAISES", "shop: tier not in (gold)", "L1 (two rules)", "L4")
    ]


def test_a_raise_below_a_ceiling_is_marked_and_amounts_to_nothing() -> None:
    roof = platform(ceilings=[{"name": "roof", "level": "L3"}])
    result = diff([team(), roof], [team({"level": "L4"}), roof])
    assert [c.effect for c in result.changes] == ["RAISES"]
    assert result.amounts == ()


def test_a_workload_that_another_rule_governs_now_gets_its_limits() -> None:
    rules = [{**RULE, "selector": GOLD}, {**RULE, "name": "big", "selector": {"matchLabels": {"tier": "web"}}, "limits": {"maxPods": 99}}]
    moved = copy.deepcopy(rules)
    moved[0]["selector"] = {"matchLabels": {"tier": "nobody"}}
    moved[1]["selector"] = {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "gold"]}]}
    result = diff([team(rules=rules)], [team(rules=moved)])
    assert ("RAISES", "shop: tier=gold", "limits.maxPods", "10", "99") in {
        (a.effect, a.workloads, a.what, a.old, a.new) for a in result.amounts
    }


def test_the_workloads_of_a_cluster(tmp_path: Path) -> None:
    def deployment(name: str, labels: Json, notes: Json | None = None, namespace: str = "shop") -> Json:
        meta = {"name": name, "namespace": namespace, "labels": labels, "annotations": notes or {}}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta}

    items = [
        deployment("web", {"tier": "gold"}),
        deployment("capped", {"tier": "gold"}, {"nightorders.dev/max-level": "L3"}),
        deployment("api", {"tier": "api"}),
        deployment("far", {"tier": "gold"}, namespace="billing"),
    ]
    for side, level in (("old", "L3"), ("new", "L4")):
        (tmp_path / f"{side}.yaml").write_text(yaml.safe_dump(team({"level": level}, selector=GOLD)))
    for name, text in (
        ("w.yaml", yaml.safe_dump({"kind": "List", "items": items})),
        ("w.json", json.dumps({"kind": "List", "items": items})),
    ):
        (tmp_path / name).write_text(text)
        argv = ["policy", "diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "--workloads", str(tmp_path / name), "-o", "json"]
        result = run(app, argv)
        assert result.exit_code == 3
        assert [a["workloads"] for a in json.loads(result.stdout)["amounts"]] == ["shop: Deployment/web"]
    (tmp_path / "empty.yaml").write_text("a: 1\n")
    bad = run(app, [*argv[:4], "--workloads", str(tmp_path / "empty.yaml")])
    assert bad.exit_code == 2
    assert "write: kubectl get deploy -A -o yaml" in bad.stderr


# ---------------------------------------------------------------- selectors


def selector(text: str) -> LabelSelector:
    return LabelSelector.model_validate(yaml.safe_load(text) or {})


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        ("", "{matchLabels: {a: b}}", (False, True)),
        ("{matchLabels: {a: b}}", "{matchExpressions: [{key: a, operator: In, values: [b]}]}", (False, False)),
        ("{matchLabels: {a: b}}", "{matchExpressions: [{key: a, operator: Exists}]}", (True, False)),
        ("{matchLabels: {a: b}}", "{matchLabels: {a: c}}", (True, True)),
        (
            "{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}",
            "{matchExpressions: [{key: a, operator: DoesNotExist}]}",
            (False, True),
        ),
    ],
)
def test_whether_a_selector_grows_or_shrinks(old: str, new: str, moves: tuple[bool, bool]) -> None:
    assert selectors.selector_moves(selector(old), selector(new)) == moves


def test_too_many_labels_are_told_and_taken_for_a_raise(tmp_path: Path) -> None:
    many = {"matchLabels": {f"k{i}": "v" for i in range(20)}}
    result = diff([team(selector=many)], [team(selector={"matchLabels": {**many["matchLabels"], "x": "y"}})])
    assert [c.effect for c in result.changes] == ["RAISES"]
    assert "name the workloads with --workloads" in result.notes[0]


# ---------------------------------------------------------------- the command


def test_the_samples_print_what_the_documentation_shows() -> None:
    result = run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/new"])
    assert result.exit_code == 3
    assert result.stdout in Path("docs/gitops.md").read_text()
    assert run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/new", "--allow-raise"]).exit_code == 0
    assert run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/old"]).stdout == "no difference\n"


def test_the_forges(tmp_path: Path) -> None:
    github = run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/new", "-o", "github"])
    assert github.exit_code == 3
    first = github.stdout.splitlines()[0]
    assert re.match(rf"::error file={SAMPLES}/new/platform.yaml,line=\d+,title=nightorders-policy-raise::RAISES ", first)
    allowed = run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/new", "-o", "github", "--allow-raise"])
    assert (allowed.exit_code, allowed.stdout.startswith("::warning ")) == (0, True)
    gitlab = json.loads(run(app, ["policy", "diff", f"{SAMPLES}/old", f"{SAMPLES}/new", "-o", "gitlab"]).stdout)
    assert len({e["fingerprint"] for e in gitlab}) == len(gitlab) == github.stdout.count("\n")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(team({"level": "L9"})))
    bad = run(app, ["policy", "diff", f"{SAMPLES}/old", str(tmp_path), "-o", "github"])
    assert (bad.exit_code, bad.stdout.count("::error ")) == (2, 1)


# ---------------------------------------------------------------- nothing raised → nobody is judged higher

# What the operator would touch. Advice touches nothing: a lower level can turn a refusal into advice, since some gates do not hold advice.
RANK = {"Refused": 0, "ReadOnly": 0, "Shadow": 0, "Rejected": 0, "Advises": 0, "AwaitsApproval": 1, "Acts": 2}


def draw(r: random.Random) -> list[Json]:
    """A small set of policies over few labels."""

    def some(*choices: Any) -> Any:
        return r.choice(choices)

    def labels() -> Json:
        return some({}, GOLD, {"matchLabels": {"tier": "web"}}, {"matchExpressions": [{"key": "tier", "operator": "Exists"}]})

    made = []
    for name in r.sample(["a", "b"], r.randint(1, 2)):
        rule = {
            "level": some("L1", "L2", "L3", "L4"),
            "selector": labels(),
            "approval": {"count": some(1, 2), "emergency": some("Deny", "Allow")},
            "limits": {"maxPods": some(0, 5), "cooldown": some("5m", "30m"), "perHour": some(1, 3), "duringRollout": some("Deny", "Allow")},
        }
        if r.random() < 0.3:
            rule["earn"] = {"from": some("L1", rule["level"])}
        freezes = [{**WEEKEND, "duration": some("1h", "62h")}] if r.random() < 0.5 else []
        made.append(
            team(
                rule,
                name,
                selector=labels(),
                enforcement=some("Enforce", "Enforce", "Shadow"),
                freezes=freezes,
                breaker={"failures": some(1, 3)},
            )
        )
    if r.random() < 0.6:
        spec: Json = {"ceilings": [{"name": "c", "level": some("L2", "L3", "L4")}] if r.random() < 0.5 else []}
        if r.random() < 0.5:
            spec["tiers"] = [{"name": "t", "selector": labels(), "maxPods": some(0, 2), "risk": some(0, 25)}]
        if r.random() < 0.3:
            spec["protected"] = [{"name": "p", "selector": labels()}]
        if r.random() < 0.3:
            spec["fleet"] = {"maxConcurrent": some(0, 2)}
        made.append(platform(**spec))
    return made


def worlds() -> list[Json]:
    bases: list[Json] = [
        {},
        {"risk": {"healthyPods": 1}, "workload": {"replicas": 10}},
        {"at": datetime(2026, 1, 17, 12, tzinfo=UTC).isoformat()},
        {"ledger": {"outcomes": [{"result": "Undone", "ago": "20m"}]}},
        {"ledger": {"outcomes": [{"result": "Recovered", "ago": "10m", "workload": "Deployment/checkout"}]}},
        {"incident": {"approvals": [{"by": "ann"}]}},
        {"rollout": {"underWay": True, "ownFault": False}},
        {"fleet": {"running": 1}},
    ]
    return [
        {**b, "workload": {**b.get("workload", {}), "labels": labels}}
        for b in bases
        for labels in ({}, {"tier": "gold"}, {"tier": "web"}, {"tier": "x"})
    ]


def pair(seed: int) -> tuple[list[Json], list[Json]]:
    """Policies, and the same with some fields drawn anew."""
    r = random.Random(seed)
    old = draw(r)
    new = copy.deepcopy(old)
    for one in new:
        other = next((p for p in draw(r) if p["kind"] == one["kind"]), None)
        if other is None:
            continue
        spec, fresh = one["spec"], other["spec"]
        if "rules" in spec and r.random() < 0.7:
            key = r.choice(["level", "selector", "approval", "limits"])
            spec["rules"][0][key] = fresh["rules"][0][key]
            if spec["rules"][0].get("earn", {}).get("from", "L1") > spec["rules"][0]["level"]:
                del spec["rules"][0]["earn"]
        elif key := r.choice([k for k in fresh if k != "rules"] or [""]):
            spec[key] = fresh[key]
    return old, new


SEEDS = [*range(100), 1286, 1330]  # the last two: a rule that got the word while the workload was protected


@pytest.mark.parametrize("seed", SEEDS)
def test_where_nothing_is_raised_nobody_is_judged_higher(seed: int) -> None:
    old, new = pair(seed)
    before, after = loaded(*old), loaded(*new)
    if old == new or compare(before, after).raised:
        return
    for world in worlds():
        case = trial.Case.model_validate({"name": "x", "expect": {"level": "L1"}, **world})
        one, two = (trial.run(trial.Trial(case, tuple(side), Source("x", {}))) for side in (before, after))
        assert RANK[two.outcome] <= RANK[one.outcome], (world, old, new)
        if two.judgement.shadow == one.judgement.shadow:
            assert two.judgement.level.level <= one.judgement.level.level, (world, old, new)


def test_that_the_property_is_not_empty() -> None:
    """Many of these pairs differ and raise nothing."""
    pairs = [pair(seed) for seed in SEEDS]
    assert sum(old != new and not compare(loaded(*old), loaded(*new)).raised for old, new in pairs) > 20
