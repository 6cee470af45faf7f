"""`make install` and `make uninstall`: nightorders on a cluster of your own, at L1, by kubectl with your own credentials.

Prints every role before it creates one. Uninstall removes what install made and what the operator made, and says what it found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
INSTALL = ROOT / "manifests/install"
ACTIONS = ROOT / "manifests/actions"
ROLES = ("ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")
GUARD_SECONDS = 60
PROBE = {
    "apiVersion": "nightorders.dev/v1alpha1",
    "kind": "Incident",
    "metadata": {"name": "install-probe", "namespace": "default", "annotations": {"approve.nightorders.dev/x": "x|x"}},
    "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}},
}


class Kubectl:
    """kubectl against one context (empty: the kubeconfig's own current context is refused by `main`)."""

    def __init__(self, context: str, kubeconfig: str = "") -> None:
        self._head = ["kubectl", *(["--kubeconfig", kubeconfig] if kubeconfig else []), *(["--context", context] if context else [])]

    def __call__(self, *args: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs it; with `check` a failure ends the program with kubectl's own words."""
        done = subprocess.run([*self._head, *args], input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise SystemExit(f"kubectl {' '.join(args[:3])}: {done.stderr.strip()}")
        return done

    def items(self, what: str) -> list[dict[str, Any]]:
        """All objects of a kind in every namespace; none where the kind is not served."""
        done = self("get", what, "-A", "-o", "json", check=False)
        if done.returncode != 0:
            if "doesn't have a resource type" in done.stderr:
                return []
            raise SystemExit(f"kubectl get {what}: {done.stderr.strip()}")
        return list(json.loads(done.stdout)["items"])


def rendered(kubectl: Kubectl, folder: Path, image: str = "") -> list[dict[str, Any]]:
    """The objects of a kustomization, with the operator's image replaced if one is given."""
    found = [d for d in yaml.safe_load_all(kubectl("kustomize", str(folder)).stdout) if d]
    for d in found:
        if image and d["kind"] == "Deployment":
            d["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return found


def describe(documents: list[dict[str, Any]]) -> Iterator[str]:
    """One line a rule and a binding."""
    for d in documents:
        if d["kind"] not in ROLES:
            continue
        where = f" in namespace {d['metadata']['namespace']}" if d["metadata"].get("namespace") else ""
        if d["kind"].endswith("Binding"):
            subjects = ", ".join(f"{s['kind']} {s.get('namespace', '')}/{s['name']}".replace(" /", " ") for s in d.get("subjects", []))
            yield f"{d['kind']} {d['metadata']['name']}{where}: gives {d['roleRef']['kind']} {d['roleRef']['name']} to {subjects}"
            continue
        yield f"{d['kind']} {d['metadata']['name']}{where}"
        for rule in d.get("rules") or []:
            names = f" named {', '.join(rule['resourceNames'])}" if rule.get("resourceNames") else ""
            groups = ",".join(g or "core" for g in rule.get("apiGroups", []))
            yield f"    {', '.join(rule['verbs'])}: {', '.join(rule.get('resources', rule.get('nonResourceURLs', [])))} ({groups}){names}"


def confirm(question: str, *, yes: bool) -> None:
    """Goes on only with YES=1 or a typed yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise SystemExit(f"{question} Say YES=1 to go on without being asked.")
    if input(f"{question} Type yes to go on: ").strip() != "yes":
        raise SystemExit("nothing was changed")


def install(kubectl: Kubectl, image: str, *, yes: bool) -> None:
    """CRDs, roles, admission policies, operator; ends when the API server enforces the approval guard."""
    documents = rendered(kubectl, INSTALL, image)
    print("These roles and bindings will be created; none of them lets the operator change a workload:\n")
    print("\n".join(describe(documents)), "\n")
    confirm("Install nightorders at L1 (read-only)?", yes=yes)
    text = yaml.safe_dump_all(documents)
    print(kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text).stdout.strip())
    wait_for_guard(kubectl)
    print(
        "\nInstalled at L1. The operator explains and changes nothing.\n"
        "Next: kubectl get incidents -A; write a RemediationPolicy (manifests/samples); to let the operator roll back in a namespace:\n"
        "  kubectl apply -k manifests/actions/rollback-workload\n"
        "  kubectl -n NAMESPACE apply -f manifests/actions/rollback-workload/rolebinding.example.yaml"
    )


def wait_for_guard(kubectl: Kubectl) -> None:
    """The API server enforces a new admission policy with a delay; until then nothing above L2 would run anyway."""
    end = time.monotonic() + GUARD_SECONDS
    while "nightorders-approvals" not in kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(PROBE), check=False).stderr:
        if time.monotonic() > end:
            raise SystemExit(f"the API server does not enforce nightorders-approvals after {GUARD_SECONDS} s")
        time.sleep(0.5)
    print("The API server enforces the approval guard: a forged approval was refused.")


def in_flight(kubectl: Kubectl) -> list[str]:
    """Incidents whose execution has not ended."""
    return [
        f"{i['metadata']['namespace']}/{i['metadata']['name']}"
        for i in kubectl.items("incidents.nightorders.dev")
        if any(e["state"] != "Ended" for e in i.get("status", {}).get("executions", []))
    ]


def uninstall(kubectl: Kubectl, *, yes: bool) -> None:
    """Bindings of action roles first, so that nothing new starts; then everything else. Refuses while an execution runs."""
    if running := in_flight(kubectl):
        raise SystemExit(
            f"an execution is still running in {', '.join(running)}; wait until it has ended, so that it can be undone if it must"
        )
    bindings = [
        (kind, b["metadata"].get("namespace", ""), b["metadata"]["name"])
        for kind in ("rolebinding", "clusterrolebinding")
        for b in kubectl.items(f"{kind}s")
        if b["roleRef"]["name"].startswith(("nightorders-action-", "nightorders-pause-"))
    ]
    counts = {
        k: len(kubectl.items(f"{k}.nightorders.dev"))
        for k in ("incidents", "remediationpolicies", "clusterremediationpolicies", "ledgers", "runbooks")
    }
    print(
        f"Will be removed with the operator: {', '.join(f'{n} {k}' for k, n in counts.items())}, {len(bindings)} bindings of action roles."
    )
    confirm("Uninstall nightorders and all its records?", yes=yes)
    for kind, namespace, name in bindings:
        kubectl("delete", kind, name, *(["-n", namespace] if namespace else []), "--ignore-not-found")
    for folder in (*sorted(ACTIONS.iterdir()), INSTALL):
        if (folder / "kustomization.yaml").exists():
            print(
                kubectl(
                    "delete", "--ignore-not-found", "--wait=true", "-f", "-", stdin=yaml.safe_dump_all(rendered(kubectl, folder))
                ).stdout.strip()
            )
    left = leftovers(kubectl)
    if left:
        raise SystemExit("still there: " + ", ".join(left))
    print("Nothing of nightorders is left, but the label nightorders.dev/execution on workloads that it repaired.")


def leftovers(kubectl: Kubectl) -> list[str]:
    """Objects of ours that are still there, by label or name."""
    kinds = (
        "customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings,"
        "validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces"
    )
    return [f"{i['kind']}/{i['metadata']['name']}" for i in kubectl.items(kinds) if "nightorders" in i["metadata"]["name"]]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["install", "uninstall"])
    parser.add_argument("--context", default="", help="context of your kubeconfig; never guessed")
    parser.add_argument("--kubeconfig", default="", help="another kubeconfig than kubectl's own")
    parser.add_argument("--image", default="", help="the operator's image, where your registry has it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    args = parser.parse_args()
    if not args.context:
        known = subprocess.run(
            ["kubectl", "config", "get-contexts", "-o", "name"], capture_output=True, text=True, check=False
        ).stdout.split()
        raise SystemExit(f"say which cluster: make {args.what} KUBECONTEXT=…   (known: {', '.join(known) or 'none'})")
    kubectl = Kubectl(args.context, args.kubeconfig)
    if args.what == "install":
        install(kubectl, args.image, yes=args.yes)
    else:
        uninstall(kubectl, yes=args.yes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
