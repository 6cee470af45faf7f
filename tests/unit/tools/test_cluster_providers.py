"""Which cluster one gets, and what kubectl is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tools.cluster import Cluster, ClusterError, KubectlError, Unavailable, __main__, attach, kind, named
from tools.cluster.base import KubectlCluster, load
from tools.cluster.providers import first_that_works

KIND = cast("Cluster", object())
LOCAL = cast("Cluster", object())


def gives(cluster: Cluster) -> Callable[[], Cluster]:
    return lambda: cluster


def fails(problem: Exception) -> Callable[[], Cluster]:
    def start() -> Cluster:
        raise problem

    return start


def quiet(message: str) -> None:
    pass


def test_the_first_that_works_is_taken() -> None:
    providers = {
        "kubeconfig": fails(Unavailable("none named")),
        "kind": gives(KIND),
        "local": gives(LOCAL),
    }
    assert first_that_works(providers, None, quiet) is KIND
    assert first_that_works(providers, "local", quiet) is LOCAL
    with pytest.raises(ClusterError, match="kubeconfig: none named"):
        first_that_works(providers, "kubeconfig", quiet)
    with pytest.raises(ClusterError, match="no provider 'k3d'; there are kubeconfig, kind, local"):
        first_that_works(providers, "k3d", quiet)


def test_a_named_cluster_that_fails_is_not_replaced() -> None:
    providers = {"kubeconfig": fails(ClusterError("does not answer")), "local": gives(LOCAL)}
    with pytest.raises(ClusterError, match="does not answer"):
        first_that_works(providers, None, quiet)


def test_kind_that_fails_is_replaced_and_told_about() -> None:
    said: list[str] = []
    providers = {"kind": fails(ClusterError("no cgroups")), "local": gives(LOCAL)}
    assert first_that_works(providers, None, said.append) is LOCAL
    assert said == ["no cgroups; going on without kind"]
    with pytest.raises(ClusterError, match="no cgroups"):
        first_that_works(providers, "kind", quiet)


def test_all_reasons_are_told_when_none_works() -> None:
    providers = {"kubeconfig": fails(Unavailable("none named")), "kind": fails(Unavailable("no engine"))}
    with pytest.raises(ClusterError, match="kubeconfig: none named; kind: no engine"):
        first_that_works(providers, None, quiet)


# ---------------------------------------------------------------- a named cluster, engines


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(named.VARIABLE, raising=False)
    # An ordinary KUBECONFIG is somebody's real cluster and means nothing here.
    monkeypatch.setenv("KUBECONFIG", "/some/real/cluster")
    with pytest.raises(Unavailable):
        named.start(progress=quiet)


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(named.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match="which is no file"):
        named.start(progress=quiet)


@pytest.mark.parametrize(("annotations", "simulated"), [("{}", False), ('{"kwok.x-k8s.io/node":"fake"}', True)])
def test_a_named_cluster_is_used_and_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, annotations: str, simulated: bool) -> None:
    (tmp_path / "config").touch()
    program(tmp_path / "bin", "kubectl", f"echo '{annotations}'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(named.VARIABLE, str(tmp_path / "config"))
    cluster = named.start(progress=quiet)
    assert (cluster.provider, cluster.kubeconfig) == ("kubeconfig", tmp_path / "config")
    assert cluster.simulated is simulated
    with pytest.raises(ClusterError, match="cannot be restarted"):
        cluster.restart_apiserver()
    cluster.stop()
    assert (tmp_path / "config").exists()


def test_a_named_cluster_must_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    program(tmp_path / "bin", "kubectl", "echo 'connection refused' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(named.VARIABLE, str(tmp_path / "config"))
    with pytest.raises(ClusterError, match=r"does not answer: .*connection refused"):
        named.start(progress=quiet)


def test_an_engine_counts_only_when_it_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    program(folder, "docker", "exec sleep 60")
    monkeypatch.setattr(kind, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    program(folder, "podman", "exit 1")
    with pytest.raises(Unavailable, match="docker does not answer, podman answers with an error"):
        kind.engine()
    program(folder, "podman", "exit 0")
    assert kind.engine() == "podman"
    program(folder, "docker", "exit 0")
    assert kind.engine() == "docker"


def test_a_kind_cluster_has_the_nodes_asked_for() -> None:
    assert kind._config(2).count("- role: worker") == 2
    assert kind._config(2).count("- role: control-plane") == 1


# ---------------------------------------------------------------- kubectl


def cluster_with(tmp_path: Path, script: str) -> KubectlCluster:
    return KubectlCluster(
        name="x",
        provider="local",
        kubeconfig=tmp_path / "admin",
        kubectl=program(tmp_path / "bin", "kubectl", script),
        files=tmp_path,
        simulated=True,
    )


def test_kubectl_never_uses_the_users_own_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/some/real/cluster")
    cluster = cluster_with(tmp_path, 'echo "$@"; echo "env: $KUBECONFIG"; cat')
    answer = cluster.kubectl("get", "pods", stdin="input").stdout
    assert answer.splitlines()[0].startswith(f"--kubeconfig={tmp_path}/admin --cache-dir={tmp_path}/")
    assert answer.splitlines()[0].endswith(" get pods")
    assert answer.splitlines()[1:] == ["env: ", "input"]
    assert "--kubeconfig=/other " in cluster.kubectl("x", kubeconfig=Path("/other")).stdout


def test_an_error_shows_what_kubectl_said(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path, "echo 'no such thing' >&2; exit 4")
    with pytest.raises(KubectlError, match="kubectl get x ended with 4: no such thing"):
        cluster.kubectl("get", "x")
    assert cluster.kubectl("get", "x", check=False).returncode == 4


def test_a_hanging_kubectl_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        cluster_with(tmp_path, "exec sleep 60").kubectl("get", timeout=0.2)


def test_definitions_are_applied_first_and_waited_for(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path, f'for last; do :; done; echo "$3 $last: $(cat)" >> {tmp_path}/log')
    stage = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": "s"}}
    cluster.apply(
        "kind: Pod\napiVersion: v1\n---\n---\nkind: Namespace\napiVersion: v1\n",
        stage,
        {"kind": "CustomResourceDefinition", "metadata": {"name": "things"}},
    )
    applied, waited, simulation, rest = (tmp_path / "log").read_text().splitlines()
    assert "CustomResourceDefinition" in applied
    assert waited == "wait crd/things: "
    assert simulation.index("Namespace") < simulation.index("Stage")
    assert "Pod" in rest
    assert not any("Pod" in line for line in (applied, waited, simulation))


def test_manifests_can_be_files_folders_texts_and_objects(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: B")
    (tmp_path / "a.yml").write_text("kind: List\nitems: [{kind: A1}, {kind: A2}]")
    (tmp_path / "notes.txt").write_text("none")
    assert [found["kind"] for found in load(tmp_path)] == ["A1", "A2", "B"]
    assert load(tmp_path / "b.yaml") == load("kind: B") == load({"kind": "B"})
    for bad in ("just text", "a: 1", "[1]"):
        with pytest.raises(ClusterError, match="no Kubernetes object"):
            load(bad)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def no_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_there_is_nothing_to_attach_to(no_clusters: None) -> None:
    with pytest.raises(ClusterError, match="no local cluster named 'absent' runs"):
        attach("absent")


def test_errors_are_one_line_without_a_traceback(no_clusters: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["down", "--name", "absent"]) == 1
    assert __main__.main(["user", "alice", "--cluster", "absent"]) == 1
    assert __main__.main(["up", "--name", "Bad Name"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)


def test_the_list_is_empty_without_clusters(no_clusters: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["list"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [[], ["build", "--set", "nothing"], ["up", "--require", "k3d"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[Any]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(arguments)
    assert end.value.code == 2
    assert "usage: python -m tools.cluster" in capsys.readouterr().err
