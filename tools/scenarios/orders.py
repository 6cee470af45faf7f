"""The operator as users get it, and the orders that a scenario runs under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nightorders.api.v1alpha1.common import ActionType
from tools.operator_process import ACCOUNT, NAMESPACE, install
from tools.scenarios import signals
from tools.scenarios.errors import RunnerError
from tools.scenarios.world import World

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CHANNEL = "oncall"
_EVERYWHERE = "-everywhere"
_ACTION_ROLE = "nightorders-action-"


class Windows:
    """How long the orders of a run let things take; None: as the API's defaults say. All in seconds."""

    def __init__(self, verify: float | None, stalled_after: float | None, call_after: float) -> None:
        self.verify = verify
        self.stalled_after = stalled_after
        self.call_after = call_after

    def shortened(self) -> list[str]:
        """What differs from the defaults, for the table's head."""
        found = []
        if self.verify is not None:
            found.append(f"verify.for {self.verify:g} s (default 5m), verify.every {self.every:g} s (default 15s)")
        if self.stalled_after is not None:
            found.append(f"limits.stalledAfter {self.stalled_after:g} s (default 5m)")
        found.append(f"escalate.after {self.call_after:g} s (default 15m)")
        return found

    @property
    def every(self) -> float:
        """Seconds between two samples of a verification."""
        return max(1.0, round((self.verify or 300) / 6))


def default_policy(windows: Windows) -> Json:
    """Every action type at L4 within the default guardrails, and somebody to call."""
    rule: Json = {"name": "all", "types": [a.value for a in ActionType], "level": "L4"}
    if windows.stalled_after is not None:
        rule["limits"] = {"stalledAfter": f"{windows.stalled_after:g}s"}
    if windows.verify is not None:
        rule["verify"] = {"for": f"{windows.verify:g}s", "every": f"{windows.every:g}s"}
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "RemediationPolicy",
        "metadata": {"name": "orders"},
        "spec": {"rules": [rule], "escalate": {"after": f"{windows.call_after:g}s", "repeat": "1h", "to": [CHANNEL]}},
    }


def fleet() -> Json:
    """Many runs in one cluster are no fleet: its hourly budget would end the table after some of them."""
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "ClusterRemediationPolicy",
        "metadata": {"name": "scenarios"},
        "spec": {"fleet": {"maxConcurrent": 100, "perHour": 10000, "namespaceShare": 100}},
    }


class Installed:
    """The operator's manifests in the world's cluster, every action's role included."""

    def __init__(self, world: World) -> None:
        self._world = world
        install(world.cluster)
        self._per_namespace = list(_roles(world))
        world.cluster.apply(fleet())
        for part in ("manifests/reader", "manifests/reader-logs"):
            world.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / part))
        self.token = self._alert_token()

    def _alert_token(self) -> str:
        arguments = ("-n", NAMESPACE, "create", "token", signals.ACCOUNT, f"--audience={signals.AUDIENCE}", "--duration=24h")
        answer = self._world.cluster.kubectl(*arguments, check=False)
        if answer.returncode:
            raise RunnerError(f"no token for Alertmanager's account {NAMESPACE}/{signals.ACCOUNT}: {answer.stderr.strip()}")
        return answer.stdout.strip()

    def give_orders(self, namespace: str, policies: list[Json]) -> None:
        """Applies policies into a namespace, with the right to do what they order."""
        bindings = [{**b, "metadata": {**b["metadata"], "namespace": namespace}} for b in self._per_namespace]
        mine = [
            one if one["kind"] != "RemediationPolicy" else {**one, "metadata": {"namespace": namespace, **one["metadata"]}}
            for one in policies
        ]
        self._world.cluster.apply(*bindings, *mine)

    def clear(self, namespace: str) -> None:
        """Takes orders and Incidents out of a namespace that stays: the next run must find neither."""
        for what in ("remediationpolicies.nightorders.dev", "incidents.nightorders.dev"):
            self._world.cluster.kubectl("-n", namespace, "delete", what, "--all", "--wait=false", check=False)


def _roles(world: World) -> list[Json]:
    """Applies the role of every action type; everywhere where such a binding is shipped. The bindings that each namespace needs."""
    left: list[Json] = []
    folders = sorted(p for p in (ROOT / "manifests/actions").iterdir() if (p / "kustomization.yaml").exists())
    everywhere = {p.name.removesuffix(_EVERYWHERE) for p in folders if p.name.endswith(_EVERYWHERE)}
    for folder in folders:
        rendered = [o for o in yaml.safe_load_all(world.cluster.kubectl("kustomize", str(folder)).stdout) if o]
        if not any(_is_action_role(o) for o in rendered):
            continue  # rights to pause a GitOps owner: there is none here
        world.cluster.apply(*rendered)
        example = folder / "rolebinding.example.yaml"
        if folder.name not in everywhere and example.exists():
            left += [o for o in yaml.safe_load_all(example.read_text()) if o]
    return left


def _is_action_role(one: Json) -> bool:
    names = (one["metadata"]["name"], (one.get("roleRef") or {}).get("name", ""))
    return any(name.startswith(_ACTION_ROLE) for name in names)


def environment(prometheus: str, webhook_port: int, channels: Path) -> dict[str, str]:
    """What the operator's process gets beside its account."""
    return {
        "NIGHTORDERS_PROMETHEUS_URL": prometheus,
        "NIGHTORDERS_WEBHOOK_PORT": str(webhook_port),
        "NIGHTORDERS_CHANNELS_DIR": str(channels),
        "NIGHTORDERS_RECHECK_SECONDS": "5",
        # A machine that runs a whole cluster beside it may keep it from renewing for some seconds, and then it must end.
        "NIGHTORDERS_LEASE_SECONDS": "60",
    }


def account() -> str:
    """The username of the operator."""
    return f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
