"""Talking to the supervisor of a local cluster, and its state on disk.

A state directory holds ``state.json`` (written once by the creator: `State`), ``processes.json`` (kept by
the supervisor) and the supervisor's socket, besides what the control plane reads and writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.cluster import supervisor
from tools.cluster.errors import ClusterError
from tools.cluster.paths import state_directory, state_root
from tools.cluster.processes import ProcessId, free_ports

STATE = "state.json"
_PORTS = "ports.json"
_LISTEN_SECONDS = 10.0


class SupervisorGone(ClusterError):
    """The supervisor does not answer: the cluster has ended."""


@dataclass(frozen=True)
class State:
    """What any process needs to know to use or remove a local cluster."""

    name: str
    keep: bool  # outlives its creator
    creator: ProcessId
    host: str  # address of the API server; everything else is on loopback
    server: str  # its URL
    ports: dict[str, int]
    data: str  # directory of etcd's files
    nodes: int
    programs: str  # directory of the control plane's programs
    kubectl: str

    def write(self, directory: Path) -> None:
        """Leave the state in that directory, whole or not at all."""
        temporary = directory / f".{STATE}"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(directory / STATE)

    @classmethod
    def read(cls, directory: Path) -> State:
        """The state in that directory. Raises FileNotFoundError, ValueError."""
        found = json.loads((directory / STATE).read_text())
        try:
            return cls(**{**found, "creator": ProcessId(**found["creator"])})
        except (TypeError, KeyError) as problem:
            raise ValueError(f"{directory / STATE}: {problem}") from problem


@dataclass(frozen=True)
class Processes:
    """The ids that the supervisor left on disk."""

    supervisor: ProcessId | None
    children: dict[str, ProcessId]

    @classmethod
    def read(cls, directory: Path) -> Processes:
        """The ids in that directory; empty when the supervisor never started."""
        try:
            found = json.loads((directory / supervisor.PROCESSES).read_text())
        except FileNotFoundError:
            return cls(None, {})
        return cls(ProcessId(*found["supervisor"]), {name: ProcessId(*pid) for name, pid in found["children"].items()})


def create_directory(name: str) -> Path:
    """Make the state directory of a new cluster. Raises ClusterError when the name is taken."""
    path = state_directory(name)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        raise ClusterError(
            f"a cluster named {name!r} is there already: choose another --name or end it with `python -m tools.cluster down --name {name}`"
        ) from None
    for part in ("log", "pki", "users", "pod-logs"):
        (path / part).mkdir(mode=0o700)
    return path


def reserve_ports(directory: Path, names: Sequence[str], host: str) -> dict[str, int]:
    """Free ports for the listeners of a new state directory, by name.

    Those of a cluster that is being started are taken only seconds later, so ports are reserved under a
    lock: no two directories have the same one.
    """
    root = state_root()
    with (root / ".ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken: set[int] = set()
        for path in root.glob(f"*/{_PORTS}"):
            with contextlib.suppress(FileNotFoundError):  # that cluster is ending
                taken.update(json.loads(path.read_text()).values())
        ports = dict(zip(names, free_ports(len(names), host, taken), strict=True))
        temporary = directory / f".{_PORTS}"
        temporary.write_text(json.dumps(ports))
        temporary.replace(directory / _PORTS)
    return ports


def running() -> list[State]:
    """The local clusters of this user that run now, by name."""
    found = []
    for directory in _directories():
        with contextlib.suppress(FileNotFoundError, ValueError):
            if is_live(directory):
                found.append(State.read(directory))
    return sorted(found, key=lambda state: state.name)


def is_live(directory: Path) -> bool:
    """Whether a cluster runs in that directory, or is being started there right now."""
    processes = Processes.read(directory)
    if processes.supervisor is not None and processes.supervisor.alive():
        return True
    if processes.supervisor is not None:
        return False
    try:
        return State.read(directory).creator.alive()
    except (FileNotFoundError, ValueError):
        # Made, but nothing written yet: only for an instant, so an old one is a left-over.
        return time.time() - directory.stat().st_mtime < 60


def reap() -> list[str]:
    """Remove what clusters left behind whose supervisor was itself killed. Returns their names.

    Processes are ended by id and start time, so that nothing else that got the same id is hit.
    """
    reaped = []
    for directory in _directories():
        try:
            if is_live(directory):
                continue
            remove(directory)
        except FileNotFoundError:
            continue  # somebody else reaps at the same time
        reaped.append(directory.name)
    return reaped


def remove(directory: Path) -> None:
    """End the processes named in a state directory and delete its files and etcd's."""
    processes = Processes.read(directory)
    for process in [processes.supervisor, *processes.children.values()]:
        if process is not None:
            process.kill()
    with contextlib.suppress(FileNotFoundError, ValueError):
        data = Path(State.read(directory).data)
        if data.name.startswith("nightorders-") or data.parent == directory:
            shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _directories() -> Iterator[Path]:
    for path in sorted(state_root().iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield path


class Supervision:
    """The supervisor of one state directory, started here (`start`) or by somebody else."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.directory = directory
        self._process = process

    @classmethod
    def start(cls, directory: Path, data: Path, *, keep: bool) -> Supervision:
        """Start the supervisor; it serves when this returns. Raises ClusterError."""
        argv = [sys.executable, "-P", supervisor.__file__, str(directory), "--data", str(data)]
        if not keep:
            me = ProcessId.current()
            argv += ["--creator", f"{me.pid}:{me.started}"]
        with (directory / "log" / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if keep:
            process.wait()  # it has detached itself
        found = cls(directory, None if keep else process)
        found._wait()
        return found

    def _wait(self) -> None:
        end = time.monotonic() + _LISTEN_SECONDS
        while (self._process is None or self._process.poll() is None) and time.monotonic() < end:
            with contextlib.suppress(SupervisorGone):
                self.status()
                return
            time.sleep(0.01)
        raise ClusterError(f"the supervisor of the cluster did not start: {log_tail(self.directory, 'supervisor')}")

    def spawn(self, name: str, argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None) -> None:
        """Start a process as a child of the supervisor; its output goes to log/NAME.log.

        It runs in the state directory, with `env` added to the supervisor's environment.
        """
        self._ask({"op": "spawn", "name": name, "argv": [os.fspath(part) for part in argv], "env": dict(env or {})})

    def stop_process(self, name: str, grace: float = 0.0) -> None:
        """End one process: SIGTERM first when `grace` (seconds) is above zero, then SIGKILL."""
        self._ask({"op": "stop", "name": name, "grace": grace}, timeout=grace + 10)

    def status(self) -> dict[str, int | None]:
        """The exit code of each process; None for those that run."""
        processes: dict[str, dict[str, Any]] = self._ask({"op": "status"})["processes"]
        return {name: process["exit"] for name, process in processes.items()}

    def check_running(self, name: str) -> None:
        """Raise ClusterError with the end of its log when that process has ended."""
        code = self.status()[name]
        if code is not None:
            raise ClusterError(f"{name} ended with {code}: {log_tail(self.directory, name)}")

    def shutdown(self) -> None:
        """End the cluster and remove its files; nothing happens when it has ended already."""
        try:
            self._ask({"op": "shutdown"})
        except SupervisorGone:
            # It has ended, or it was killed: take care of what it left.
            if self.directory.exists() and not is_live(self.directory):
                remove(self.directory)
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(10)

    def _ask(self, request: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
        """The supervisor's answer. Raises SupervisorGone, and ClusterError for what it refuses."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(str(self.directory / supervisor.SOCKET))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    line = stream.readline()
        except OSError as problem:
            raise SupervisorGone(f"cluster {self.directory.name} does not run any more: {problem}") from problem
        if not line:
            raise SupervisorGone(f"cluster {self.directory.name} ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ClusterError(f"the cluster's supervisor: {answer['error']}")
        return answer


def log_tail(directory: Path, name: str, lines: int = 8) -> str:
    """The last lines of a process's log, for an error text."""
    try:
        text = (directory / "log" / f"{name}.log").read_text(errors="replace").strip()
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"
