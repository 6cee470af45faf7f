"""Supervision: nothing outlives its creator, and nothing else is ever ended."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.cluster import paths, processes, supervision
from tools.cluster.errors import ClusterError
from tools.cluster.processes import ProcessId, free_ports
from tools.cluster.supervision import Processes, State, Supervision

REPOSITORY = Path(__file__).resolve().parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state root of the test's own; its path is short enough for sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    return paths.state_root()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def state(name: str, data: Path, creator: ProcessId) -> State:
    return State(
        name=name,
        keep=False,
        creator=creator,
        host="127.0.0.1",
        server="https://127.0.0.1:1",
        ports={"kube-apiserver": 1},
        data=str(data),
        nodes=1,
        programs="/programs",
        kubectl="kubectl",
    )


def new_cluster(name: str, keep: bool = False) -> tuple[Path, Path, Supervision]:
    """A supervised state directory with etcd's data beside it and one sleeping child."""
    directory = supervision.create_directory(name)
    data = paths.new_data_directory(name, directory)
    state(name, data, ProcessId.current()).write(directory)
    supervised = Supervision.start(directory, data, keep=keep)
    supervised.spawn("sleeper", ["sleep", "600"])
    return directory, data, supervised


# ---------------------------------------------------------------- processes and ports


def test_a_process_is_known_by_id_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    found = ProcessId.of(sleeper.pid)
    assert found is not None
    assert found.alive()
    other = ProcessId(sleeper.pid, "another start")
    assert not other.alive()
    assert not other.kill()
    assert found.alive()
    assert found.kill()
    until(lambda: not found.alive())  # a zombie does not count as running
    assert ProcessId.of(sleeper.pid) is None
    assert not found.kill()


def test_free_ports_differ_and_are_none_that_connections_use(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(10)
    assert len(set(ports)) == 10
    assert max(ports) < processes._lowest_ephemeral_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[0]))
    monkeypatch.setattr(processes, "_lowest_ephemeral_port", lambda: 2049)
    with pytest.raises(OSError, match="no 5000 free TCP ports"):
        free_ports(5000)


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a/b", "..", "x" * 41])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot name a cluster"):
        paths.check_name(name)


def test_good_names_are_taken() -> None:
    assert [paths.check_name(name) for name in ("a", "a-1", "x" * 40)]


def test_the_state_root_is_private(root: Path) -> None:
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o755)
    assert paths.state_root().stat().st_mode & 0o777 == 0o700


def test_a_state_root_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"nightorders-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ClusterError, match="belongs to another user"):
        paths.state_root()


# ---------------------------------------------------------------- supervision


def test_shutdown_ends_children_and_removes_files(root: Path) -> None:
    directory, data, supervised = new_cluster("one")
    assert supervised.status() == {"sleeper": None}
    child = Processes.read(directory).children["sleeper"]
    assert child.alive()
    supervised.shutdown()
    assert not child.alive()
    assert not directory.exists()
    assert not data.exists()
    supervised.shutdown()  # a second time is no error


def test_a_child_can_be_stopped_and_started_again(root: Path) -> None:
    directory, _, supervised = new_cluster("again")
    with pytest.raises(ClusterError, match="runs already"):
        supervised.spawn("sleeper", ["sleep", "600"])
    before = Processes.read(directory).children["sleeper"]
    supervised.stop_process("sleeper", grace=5)
    assert supervised.status() == {"sleeper": -15}
    supervised.spawn("sleeper", ["sleep", "600"])
    assert Processes.read(directory).children["sleeper"] != before
    supervised.shutdown()


def test_a_child_that_ends_is_reported_with_its_log(root: Path) -> None:
    _, _, supervised = new_cluster("ends")
    supervised.spawn("broken", ["sh", "-c", "echo the reason >&2; exit 3"])
    until(lambda: supervised.status()["broken"] is not None)
    with pytest.raises(ClusterError, match="broken ended with 3: the reason"):
        supervised.check_running("broken")
    with pytest.raises(ClusterError, match="FileNotFoundError"):
        supervised.spawn("absent", ["/no/such/program"])
    supervised.shutdown()


CREATOR = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tools.cluster import paths, supervision
directory = supervision.create_directory("orphan")
data = paths.new_data_directory("orphan", directory)
supervised = supervision.Supervision.start(directory, data, keep=sys.argv[2] == "keep")
supervised.spawn("sleeper", ["sleep", "600"])
print(directory, data, flush=True)
time.sleep(600)
"""


def run_creator(mode: str) -> tuple[subprocess.Popen[str], Path, Path]:
    creator = subprocess.Popen([sys.executable, "-c", CREATOR, str(REPOSITORY), mode], stdout=subprocess.PIPE, text=True)
    assert creator.stdout is not None
    directory, data = map(Path, creator.stdout.readline().split())
    creator.stdout.close()
    return creator, directory, data


def test_the_death_of_the_creator_is_the_end(root: Path) -> None:
    creator, directory, data = run_creator("die")
    running = Processes.read(directory)
    creator.kill()
    creator.wait()
    until(lambda: not directory.exists() and not data.exists())
    assert running.supervisor is not None
    until(lambda: running.supervisor is not None and not running.supervisor.alive())
    assert not running.children["sleeper"].alive()


def test_what_is_kept_outlives_its_creator(root: Path) -> None:
    creator, directory, _ = run_creator("keep")
    child = Processes.read(directory).children["sleeper"]
    creator.kill()
    creator.wait()
    time.sleep(1.5)  # longer than the supervisor's look at its creator
    assert child.alive()
    assert supervision.reap() == []
    Supervision(directory).shutdown()
    assert not child.alive()
    assert not directory.exists()


@linux
def test_children_die_with_a_killed_supervisor_and_are_reaped(root: Path) -> None:
    directory, data, gone = new_cluster("killed")
    live, _, other = new_cluster("live")
    running = Processes.read(directory)
    assert running.supervisor is not None
    running.supervisor.kill()
    until(lambda: not running.children["sleeper"].alive())
    assert data.exists()
    assert [found.name for found in supervision.running()] == ["live"]

    assert supervision.reap() == ["killed"]
    assert not directory.exists()
    assert not data.exists()
    assert other.status() == {"sleeper": None}
    other.shutdown()
    assert not live.exists()
    with pytest.raises(ClusterError, match="does not run any more"):
        gone.status()
    gone.shutdown()


def test_reaping_never_ends_a_process_that_only_has_the_same_id(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    directory = supervision.create_directory("stale")
    found = {"supervisor": [sleeper.pid, "long ago"], "children": {"etcd": [sleeper.pid, "long ago"]}}
    (directory / "processes.json").write_text(json.dumps(found))
    assert supervision.reap() == ["stale"]
    assert sleeper.poll() is None


def test_reaping_removes_no_data_that_is_not_a_clusters(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    directory = supervision.create_directory("stale")
    state("stale", precious, ProcessId(1, "long ago")).write(directory)
    assert supervision.reap() == ["stale"]
    assert precious.exists()


def test_a_cluster_that_is_being_started_is_not_reaped(root: Path, tmp_path: Path) -> None:
    just_made = supervision.create_directory("just-made")
    starting = supervision.create_directory("starting")
    state("starting", tmp_path, ProcessId.current()).write(starting)
    assert supervision.reap() == []
    os.utime(just_made, (0, 0))
    assert supervision.reap() == ["just-made"]


def test_ports_are_reserved_before_anybody_listens(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_lowest_ephemeral_port", lambda: 32768)
    # Every choice tries the same ports in the same order.
    monkeypatch.setattr(random, "sample", lambda population, k: list(population)[:k])
    first, second = supervision.create_directory("first"), supervision.create_directory("second")
    a = supervision.reserve_ports(first, ["api", "etcd"], "127.0.0.1")
    b = supervision.reserve_ports(second, ["api", "etcd"], "127.0.0.1")
    assert len({*a.values(), *b.values()}) == 4
    supervision.remove(first)
    third = supervision.create_directory("third")
    assert supervision.reserve_ports(third, ["api", "etcd"], "127.0.0.1") == a


def test_a_name_can_be_used_once(root: Path) -> None:
    supervision.create_directory("taken")
    with pytest.raises(ClusterError, match="down --name taken"):
        supervision.create_directory("taken")


def test_a_state_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    directory = supervision.create_directory("state")
    written = state("state", tmp_path, ProcessId.current())
    written.write(directory)
    assert State.read(directory) == written
    (directory / "state.json").write_text('{"name": "state", "creator": {"pid": 1, "started": "x"}}')
    with pytest.raises(ValueError, match="missing"):
        State.read(directory)
