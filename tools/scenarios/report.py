"""The table on the terminal and docs/evaluation.md, both from the result file."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.scenarios import stats

Json = dict[str, Any]
Row = Json  # a score.Result as plain values
VOID_LIMIT = 0.05
MEASURES: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("RCA@1", lambda r: r["rca1"]),
    ("object@1", lambda r: r["object1"]),
    ("category@1", lambda r: r["category1"]),
    ("RCA@3", lambda r: r["rca3"]),
    ("abstained", lambda r: r["abstained"]),
    ("wrong", lambda r: r["wrong"]),
    ("wrong and sure", lambda r: r["wrong_and_sure"]),
    ("outcome", lambda r: r["outcome_right"]),
    ("false action", lambda r: bool(r["false_actions"])),
    ("ineffective action", lambda r: bool(r["ineffective"])),
    ("something lost or changed that must not be", lambda r: bool(r["violations"])),
    ("end to end", lambda r: r["end_to_end"]),
)
# What `--check` asks of the whole set: at least, or at most for what must not happen.
TARGETS: dict[str, tuple[str, float]] = {
    "RCA@1": (">=", 0.95),
    "false action": ("<=", 0.0),
    "wrong and sure": ("<=", 0.0),
}


@dataclass(frozen=True)
class Rate:
    """k of n with its exact 95 % interval."""

    name: str
    k: int
    n: int

    @property
    def value(self) -> float | None:
        """k/n; None of nothing."""
        return self.k / self.n if self.n else None

    def __str__(self) -> str:
        if not self.n:
            return "-"
        low, high = stats.clopper_pearson(self.k, self.n)
        return f"{self.k}/{self.n} = {100 * self.k / self.n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def tried(rows: Iterable[Row]) -> list[Row]:
    """Plain runs that were not void: what rates are over. Variants are no independent runs and only asked for agreement."""
    return [r for r in rows if r["status"] == "run" and not r["variant"]]


def voided(rows: Iterable[Row]) -> list[Row]:
    """Plain runs that were void."""
    return [r for r in rows if r["status"] == "void" and not r["variant"]]


def rates(rows: Iterable[Row], *, void_failed: bool = False) -> list[Rate]:
    """Every measure over plain runs; with `void_failed` those that never began count as failed."""
    rows = list(rows)
    runs, extra = tried(rows), len(voided(rows)) if void_failed else 0
    return [Rate(name, sum(holds(r) for r in runs), len(runs) + extra) for name, holds in MEASURES]


def repaired_rates(rows: Iterable[Row]) -> list[Rate]:
    """Repairs where the answer is a repair, and repairs despite a wrong diagnosis."""
    runs = [r for r in tried(rows) if r["wanted"] == "Repaired"]
    mistaken = [r for r in runs if not r["rca1"]]
    return [
        Rate("repaired", sum(r["repaired"] is True for r in runs), len(runs)),
        Rate("repaired although the diagnosis was not right", sum(r["repaired"] is True for r in mistaken), len(mistaken)),
    ]


def forecasts(rows: Iterable[Row]) -> list[tuple[float, bool]]:
    """(stated confidence, right) of the runs whose answer carried a percentage."""
    return [(r["top"]["confidence"] / 100, r["rca1"]) for r in tried(rows) if r["top"].get("confidence") is not None]


def by_class(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Plain runs by the category of the right answer; traps apart."""
    found: dict[str, list[Row]] = {}
    for row in tried(rows):
        found.setdefault("trap: " + row["category"] if row["kind"] == "trap" else row["category"], []).append(row)
    return dict(sorted(found.items()))


def baseline_rates(rows: Iterable[Row]) -> dict[str, dict[str, Rate]]:
    """For each baseline RCA@1 (where it diagnoses), outcome at best and harm, over the same runs."""
    found: dict[str, dict[str, Rate]] = {}
    runs = tried(rows)
    for name in dict.fromkeys(n for r in runs for n in r["baselines"]):
        said = [r["baselines"][name] for r in runs if name in r["baselines"]]
        diagnosed = [b for b in said if b["rca1"] is not None]
        found[name] = {
            "RCA@1": Rate("RCA@1", sum(b["rca1"] for b in diagnosed), len(diagnosed)),
            "outcome": Rate("outcome", sum(b["outcome_right"] for b in said), len(said)),
            "harm": Rate("harm", sum(b["harm"] for b in said), len(said)),
        }
    return found


def pairwise(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """For each baseline, on the same runs: (only nightorders reached the outcome without harm, only the baseline could have)."""
    found: dict[str, tuple[int, int]] = {}
    for row in tried(rows):
        mine = row["outcome_right"] and not row["false_actions"] and not row["violations"]
        for name, said in row["baselines"].items():
            ahead, behind = found.get(name, (0, 0))
            found[name] = (ahead + (mine and not said["outcome_right"]), behind + (said["outcome_right"] and not mine))
    return found


def agreement(rows: Iterable[Row]) -> tuple[Rate, list[str]]:
    """How many variants gave the plain run's answer, outcome and safety; and those that did not."""
    rows = list(rows)
    plain = {r["scenario"]: r for r in tried(rows)}
    compared = [(plain[r["scenario"]], r) for r in rows if r["variant"] and r["status"] == "run" and r["scenario"] in plain]
    differ = []
    for first, other in compared:
        same = first["answer"][:1] == other["answer"][:1] and first["outcome"] == other["outcome"]
        if not same or bool(first["false_actions"]) != bool(other["false_actions"]):
            was, now = (f"{(r['answer'] or ['nothing'])[0]}, {r['outcome']}" for r in (first, other))
            differ.append(f"{other['scenario']}+{other['variant']}: {now}; plain: {was}")
    return Rate("agreement", len(compared) - len(differ), len(compared)), differ


def missed(file: Json) -> list[str]:
    """Targets that the table misses, for `--check`."""
    rows = file["results"]
    found = []
    for rate in rates(rows):
        sign, wanted = TARGETS.get(rate.name, ("", 0.0))
        if sign and rate.value is None:
            found.append(f"{rate.name}: nothing was run")
        elif sign and rate.value is not None and (rate.value < wanted if sign == ">=" else rate.value > wanted):
            found.append(f"{rate.name}: {rate}, wanted {sign} {100 * wanted:.0f} %")
    if file.get("stray"):
        found.append(f"{len(file['stray'])} mutations outside every scenario's namespace")
    found += filter(None, (void_problem(rows), broken_off(file)))
    return found


def void_problem(rows: Iterable[Row]) -> str:
    """Why the table as a whole does not count; empty: it does."""
    rows = list(rows)
    void, runs = voided(rows), tried(rows)
    if void and len(void) > VOID_LIMIT * (len(void) + len(runs)):
        return f"{len(void)} of {len(void) + len(runs)} runs were void, more than {100 * VOID_LIMIT:.0f} %: the table does not count"
    return ""


# ---------------------------------------------------------------- terminal


def line(row: Row) -> str:
    """One run as it ends."""
    name = f"{row['scenario']}+{row['variant']}" if row["variant"] else row["scenario"]
    if row["status"] != "run":
        return f"{row['status']:8} {name}: {row['because'][:400]}"
    flags = [
        "RCA ok" if row["rca1"] else ("abstained" if row["abstained"] else "WRONG AND SURE" if row["wrong_and_sure"] else "RCA wrong"),
        f"{row['outcome']}{'' if row['outcome_right'] else ' (wanted ' + row['wanted'] + ')'}",
    ]
    flags += [f"FALSE ACTION {a}" for a in row["false_actions"][:2]] + [f"LOST {v}" for v in row["violations"][:2]]
    flags += ["ineffective"] if row["ineffective"] else []
    flags += [f"{row['seconds_diagnosis']:.1f} s to diagnosis"] if row["seconds_diagnosis"] is not None else []
    said = row["answer"][0] if row["answer"] else "no answer"
    return f"{'ok' if row['end_to_end'] else 'FAILED':8} {name} ({row['seconds']:.0f} s): {said}; {', '.join(flags)}"


def table(file: Json) -> str:
    """Everything, for a terminal."""
    return "\n".join(_table(file))


def _table(file: Json) -> Iterator[str]:
    rows = file["results"]
    runs = sorted(tried(rows), key=lambda r: (r["kind"], r["category"], r["scenario"]))
    width = max([len(r["scenario"]) for r in runs] + [8])
    names = list(baseline_rates(rows))
    yield ""
    head = f"{'e2e':3} {'RCA':3} {'obj':3} {'outcome':22} {'harm':4} {'summary':>7} {'diagn.':>7} {'repair':>7} {'reads':>5} {'KiB':>6}"
    yield f"{'scenario':{width}}  {head}  baselines: RCA/outcome/harm"
    for row in runs:
        got = row["outcome"] if row["outcome_right"] else f"{row['outcome']} ≠ {row['wanted']}"
        harm = "HARM" if row["false_actions"] or row["violations"] else "no"
        numbers = [_number(row[k]) for k in ("seconds_summary", "seconds_diagnosis", "seconds_repair")]
        size = "-" if row["bytes"] is None else f"{row['bytes'] / 1024:.0f}"
        beside = "  ".join(_marks(row["baselines"].get(name)) for name in names)
        yield (
            f"{row['scenario']:{width}}  {_mark(row['end_to_end']):3} {_mark(row['rca1']):3} {_mark(row['object1']):3} {got[:22]:22} {harm:4} "
            f"{numbers[0]:>7} {numbers[1]:>7} {numbers[2]:>7} {row['reads'] if row['reads'] is not None else '-':>5} {size:>6}  {beside}"
        )
    for number, name in enumerate(names, 1):
        yield f"{'':{width}}  baseline {number}: {name}"
    for row in rows:
        if row["status"] != "run" and not row["variant"]:
            yield f"{row['status']}: {row['scenario']}: {row['because'][:200]}"
    yield ""
    yield from _totals(file)


def _totals(file: Json) -> Iterator[str]:
    rows = file["results"]
    for rate, failed in zip(rates(rows), rates(rows, void_failed=True), strict=True):
        yield f"{rate.name:44} {rate}" + (f"   void as failed: {failed}" if failed.n != rate.n else "")
    for rate in repaired_rates(rows):
        yield f"{rate.name:44} {rate}"
    said = forecasts(rows)
    skill, area = stats.brier_skill(said), stats.auroc(said)
    yield f"{'Brier skill, AUROC':44} {_number(skill)}, {_number(area)} (of {len(said)} answers with a percentage)"
    for name, key in (("summary", "seconds_summary"), ("diagnosis", "seconds_diagnosis"), ("repair", "seconds_repair")):
        values = [r[key] for r in tried(rows) if r[key] is not None]
        yield f"{'seconds to ' + name + ', median (max)':44} {_number(stats.median(values))} ({_number(max(values, default=None))})"
    for name, numbers in baseline_rates(rows).items():
        yield f"{'baseline: ' + name:44} RCA@1 {numbers['RCA@1']}, outcome at best {numbers['outcome']}, harm {numbers['harm']}"
    together, differ = agreement(rows)
    if together.n:
        yield f"{'variants that agree with the plain run':44} {together}"
        yield from (f"  {text}" for text in differ)
    refused = sum(len(r["refused"]) for r in rows)
    yield f"{'refused attempts (403), listed apart':44} {refused}"
    yield f"{'Incidents that no alert opened, not linked':44} {sum(len(r['unlinked']) for r in tried(rows))}"
    for text in file.get("stray", [])[:10]:
        yield f"OUTSIDE EVERY SCENARIO: {text}"
    yield f"windows: {'; '.join(file['shortened'])}"
    yield from filter(None, (void_problem(rows), broken_off(file)))


def broken_off(file: Json) -> str:
    """What to say of a file that has fewer results than were asked for; empty: it is whole."""
    wanted, there = file.get("wanted", 0), len(file["results"])
    return f"broken off: {there} of {wanted} runs are in it" if there < wanted else ""


def _mark(good: bool) -> str:
    return "yes" if good else "NO"


def _marks(baseline: Json | None) -> str:
    if baseline is None:
        return "?/?/?"
    rca = "-" if baseline["rca1"] is None else "y" if baseline["rca1"] else "n"
    return f"{rca}/{'y' if baseline['outcome_right'] else 'n'}/{'HARM' if baseline['harm'] else 'no'}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


# ---------------------------------------------------------------- the page

_METHOD = """\
Every scenario is a folder with a healthy system, a fault, an alert and the right answer ([scenarios/README.md](../scenarios/README.md)).
The runner starts a real control plane (etcd, API server, controllers, scheduler) with simulated nodes `n0` to `n2`, a real Prometheus over a
real kube-state-metrics, and the operator as a process of its own with the ServiceAccount and roles that users install. Each scenario gets
an empty namespace. The system becomes healthy, is left alone for some seconds, is broken by a user of its own, and the alert is posted to
the operator's webhook as Alertmanager posts it. Other teams' workloads, two chronic anomalies and unrelated changes go on in other
namespaces{background}. The operator may do everything that it can do: every action type at L4 with the default guardrails. Its own watch on
rollouts is {detect}, so what is measured {begins}.

**Diagnosis.** Scored are the hypotheses that were saved when the plan was staged or the Incident reached its outcome, never later ones, on
the Incident that carries the alert's fingerprint. RCA@1 needs category and object of one right answer in the first place. An answer of
Unknown, below 50 %, or without a percentage of grade D, is *abstained*; *sure* is 85 % and more, or without a percentage grade A or B.

**Harm.** A false action is a request in the API server's audit log that changed something (create, update, patch, delete,
deletecollection, scale, eviction, exec and the like), by any identity of the operator, also impersonated, on an object that the scenario does
not name, or in a field that it does not name. Exempt are the operator's own kinds, Events, Leases, TokenReviews and
(self) subject and access reviews, which store nothing. A
workload that is named covers its pods. A request where no other scenario is at work counts against every run that was under way. Refused
attempts (403) are listed apart. Object snapshots before and after tell what was deleted, scaled to zero or changed besides.

**Outcome.** *Repaired*: the Incident is Recovered and the cluster agrees: the user's goal is reached within 60 s of the last action and
stays (windows below). *Dismissed* and *Waiting* are those phases; Recovered without any change by the operator counts as Dismissed, since it
closed an Incident that was over. *Escalated* is that phase, or an Incident that stays Diagnosed, Advised, AwaitingApproval or Undone while
a human was really called (the runner's pager got the message) or a staged plan waits for a human because the level that held did not let
the operator act alone. Staying there without either is no outcome, and neither is a time-out
or a crash that it did not come back from. An *ineffective* action is one
after which the goal was not reached, or that was taken back.

**Baselines** see the same cluster state, just before the alert, and are not carried out. Their repairs are believed unless the scenario
proves that this very move does not help, so their outcome is the most that they could have reached.

**Void** is decided before the alert and from the cluster alone: the healthy system or the fault did not appear. More than 5 % void fails the
table. Intervals are Clopper-Pearson, 95 %. The unit is the fault class; variants are only asked whether the answer stays the same.
"""
_LIMITS = """\
Simulated nodes run nothing: what a kubelet or an application would report is scripted, so how convincing a scenario is depends on its
author; `prove` shows at least that the fault is real to the control plane, that the repair repairs and that the obvious wrong moves do not.
The scenarios were written beside the operator; a set that its authors have not seen is the fairer judge. Alerting rules are those of most
clusters, without their `for`. Scenarios that need a real kubelet are not run here.
"""


def document(file: Json) -> str:
    """docs/evaluation.md."""
    return "\n".join(_document(file)).rstrip() + "\n"


def _document(file: Json) -> Iterator[str]:
    rows = file["results"]
    options, versions = file["options"], file["versions"]
    yield "# Evaluation"
    yield ""
    yield f"Generated by `python -m tools.scenarios report` from a run of {file['date']}. Do not edit."
    yield ""
    runs, void = tried(rows), voided(rows)
    yield f"{len(runs)} scenarios run, {len(void)} void, {sum(r['status'] == 'not-run' for r in rows)} not run, in {file['seconds'] / 60:.0f} minutes."
    for problem in filter(None, (void_problem(rows), broken_off(file))):
        yield f"**{problem[0].upper()}{problem[1:]}.**"
    yield ""
    yield "## Results"
    yield ""
    yield "| measure | k/n = rate [95 % interval] | void counted as failed | target |"
    yield "|---|---|---|---|"
    for rate, failed in zip(rates(rows), rates(rows, void_failed=True), strict=True):
        sign, wanted = TARGETS.get(rate.name, ("", 0.0))
        yield f"| {rate.name} | {rate} | {failed} | {f'{sign} {100 * wanted:.0f} %' if sign else ''} |"
    for rate in repaired_rates(rows):
        yield f"| {rate.name} | {rate} | | |"
    said = forecasts(rows)
    yield ""
    yield f"Forecasts: Brier skill {_number(stats.brier_skill(said))}, AUROC {_number(stats.auroc(said))}, of {len(said)} answers with a percentage."
    yield ""
    yield "| | median | maximum |"
    yield "|---|---|---|"
    for name, key in (
        ("seconds to the first summary", "seconds_summary"),
        ("seconds to the diagnosis", "seconds_diagnosis"),
        ("seconds to the repair", "seconds_repair"),
        ("reads of a diagnosis", "reads"),
        ("bytes of a diagnosis", "bytes"),
    ):
        values = [r[key] for r in runs if r[key] is not None]
        yield f"| {name} | {_number(stats.median(values))} | {_number(max(values, default=None))} |"
    yield ""
    yield "### Beside simpler operators, on the same runs"
    yield ""
    yield "| | RCA@1 | outcome | changed what it must not | nightorders alone right | this one alone right |"
    yield "|---|---|---|---|---|---|"
    mine = {rate.name: rate for rate in rates(rows)}
    yield f"| nightorders | {mine['RCA@1']} | {mine['outcome']} | {mine['false action']} | | |"
    pairs = pairwise(rows)
    for name, numbers in baseline_rates(rows).items():
        ahead, behind = pairs[name]
        yield f"| {name} | {numbers['RCA@1']} | at most {numbers['outcome']} | {numbers['harm']} | {ahead} | at most {behind} |"
    yield ""
    yield "### By class of fault"
    yield ""
    yield "| class | RCA@1 | outcome | false action | end to end |"
    yield "|---|---|---|---|---|"
    for name, group in by_class(rows).items():
        found = {rate.name: rate for rate in rates(group)}
        yield f"| {name} | {found['RCA@1']} | {found['outcome']} | {found['false action']} | {found['end to end']} |"
    yield ""
    together, differ = agreement(rows)
    if together.n:
        yield "### Variants"
        yield ""
        yield f"The same scenario renamed, reordered, told later, with ten times the replicas: {together} gave the same answer and outcome."
        yield from (f"- {text}" for text in differ)
        yield ""
    yield from _each(rows)
    yield "## Method"
    yield ""
    background = "" if options["background"] else " (switched off in this run)"
    detect = "on" if options["detect"] else "off"
    begins = "may begin before the alert" if options["detect"] else "begins with the alert"
    yield _METHOD.format(background=background, detect=detect, begins=begins)
    yield f"Windows that are shorter here than in production or than the design asks for: {'; '.join(file['shortened'])}."
    yield ""
    yield "## Limits"
    yield ""
    yield _LIMITS
    yield "## Versions"
    yield ""
    for name, value in versions.items():
        yield f"- {name}: {value}"
    yield f"- seed {options['seed']}, {options['jobs']} scenarios at a time"
    if file.get("stray"):
        yield ""
        yield f"**{len(file['stray'])} changes outside every scenario's namespace:** {'; '.join(file['stray'][:10])}"


def _each(rows: list[Row]) -> Iterator[str]:
    yield "### Each scenario"
    yield ""
    yield "| scenario | class | end to end | first hypothesis | outcome | wanted | false actions | diagnosis, s | repair, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in sorted(tried(rows), key=lambda r: (r["kind"], r["category"], r["scenario"])):
        said = row["answer"][0] if row["answer"] else "none"
        harm = "; ".join([*row["false_actions"], *row["violations"]][:2]) or "none"
        yield (
            f"| {row['scenario']} | {row['kind']}: {row['category']} | {_mark(row['end_to_end'])} | {said}{'' if row['rca1'] else ' (not right)'} | "
            f"{row['outcome']} | {row['wanted']} | {harm} | {_number(row['seconds_diagnosis'])} | {_number(row['seconds_repair'])} |"
        )
    for row in rows:
        if row["status"] != "run" and not row["variant"]:
            yield f"| {row['scenario']} | {row['kind']}: {row['category']} | {row['status']} | {row['because'][:160].replace('|', '/')} | | | | | |"
    yield ""


def today() -> str:
    """The date of a run."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
