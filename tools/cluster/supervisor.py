"""The process that owns the processes of one local cluster.

It starts and stops them on request, over a Unix socket in the state directory, and ends all of them and
removes the cluster's files when it is told to or when its creator is gone - killed without any chance
to clean up, for example. The creator holds the other end of this process's standard input, so its death
is an end of file here; without ``--creator`` it detaches itself, and only `shutdown` or SIGTERM ends the cluster.

It is run as a file (``python -P supervisor.py DIR``) and uses nothing but the standard library, so that
it is there within some 50 ms and does not depend on the state of the checkout while the cluster runs.

Requests and answers are one JSON object per connection, each ended by a newline:

* ``{"op": "spawn", "name", "argv": [...], "env": {...}}`` -> ``{"pid", "started"}``
* ``{"op": "stop", "name", "grace": seconds}`` -> ``{}``; SIGTERM, then SIGKILL when the grace is over
* ``{"op": "status"}`` -> ``{"processes": {name: {"pid", "started", "exit": code or null}}}``
* ``{"op": "shutdown"}`` -> ``{}``; sent when everything has ended and the files are gone

A request that fails is answered with ``{"error": text}``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SOCKET = "supervisor.sock"
PROCESSES = "processes.json"

# How often to look whether the creator still runs: an end of file does not come when a process that the
# creator forked has inherited the pipe.
_CREATOR_CHECK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def start_time(pid: int) -> str | None:
    """Start time of a running process on Linux (clock ticks since boot), None when it has ended.

    The same notion as `tools.cluster.processes`, which this file must not import.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Supervisor:
    """Children by name, the socket, and the files to remove at the end."""

    def __init__(self, directory: Path, data: list[Path], creator: tuple[int, str] | None) -> None:
        self.directory = directory
        self.data = data
        self.creator = creator
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.started: dict[str, str] = {}
        self.over = False
        self._die_with_parent = _die_with_parent()

    def run(self) -> None:
        """Serve until told to stop or until the creator is gone, then end everything."""
        with selectors.DefaultSelector() as selector, self._listen() as listener:
            selector.register(listener, selectors.EVENT_READ)
            if self.creator is not None:
                selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            while not self.over:
                for key, _ in selector.select(timeout=_CREATOR_CHECK_SECONDS):
                    if key.fileobj is listener:
                        self._serve(listener)
                    elif not os.read(sys.stdin.fileno(), 4096):
                        self.over = True
                for child in self.children.values():
                    child.poll()  # no zombies
                self.over = self.over or self._creator_gone()
        self.end()

    def _creator_gone(self) -> bool:
        # Elsewhere than on Linux the end of file must do.
        return self.creator is not None and sys.platform == "linux" and start_time(self.creator[0]) != self.creator[1]

    def end(self) -> None:
        """Kill all children and remove the files. Safe to call twice.

        SIGKILL, because the data is thrown away and an orderly stop of etcd and API server takes seconds.
        """
        for child in self.children.values():
            if child.poll() is None:
                child.kill()
        for child in self.children.values():
            child.wait()
        for path in [*self.data, self.directory]:
            shutil.rmtree(path, ignore_errors=True)

    def _listen(self) -> socket.socket:
        # A Unix socket's path may have some 100 bytes, its state directory is where we are.
        os.chdir(self.directory)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SOCKET)
        listener.listen(16)
        return listener

    def _serve(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(10)
        with connection, connection.makefile("rwb") as stream:
            try:
                line = stream.readline()
                if not line:
                    return
                answer = self._do(json.loads(line))
            except Exception as problem:  # noqa: BLE001 - the asker is told, and the children must not die of it
                answer = {"error": f"{type(problem).__name__}: {problem}"}
            with contextlib.suppress(OSError):
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "spawn":
                return self._spawn(request["name"], request["argv"], request.get("env", {}))
            case "stop":
                return self._stop(request["name"], float(request.get("grace", 0)))
            case "status":
                return {"processes": self._status()}
            case "shutdown":
                self.end()
                self.over = True
                return {}
        raise ValueError(f"unknown op {request['op']!r}")

    def _spawn(self, name: str, argv: list[str], env: dict[str, str]) -> dict[str, Any]:
        old = self.children.get(name)
        if old is not None and old.poll() is None:
            raise ValueError(f"{name} runs already")
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **env},
                start_new_session=True,
                preexec_fn=self._die_with_parent,  # safe: there are no threads here
            )
        self.children[name] = child
        self.started[name] = start_time(child.pid) or ""
        self._save()
        return {"pid": child.pid, "started": self.started[name]}

    def _stop(self, name: str, grace: float) -> dict[str, Any]:
        child = self.children[name]
        if child.poll() is None and grace > 0:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
        if child.poll() is None:
            child.kill()
            child.wait()
        return {}

    def _status(self) -> dict[str, Any]:
        return {name: {"pid": child.pid, "started": self.started[name], "exit": child.poll()} for name, child in self.children.items()}

    def _save(self) -> None:
        """Leave the process ids for whoever must clean up should this process be killed."""
        pids = {name: [child.pid, self.started[name]] for name, child in self.children.items()}
        temporary = self.directory / f".{PROCESSES}"
        temporary.write_text(json.dumps({"supervisor": [os.getpid(), start_time(os.getpid())], "children": pids}))
        temporary.replace(self.directory / PROCESSES)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before exec so that the kernel kills it when this process dies (Linux only)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: nothing but the call itself may happen after the fork

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return ask


def main() -> None:
    """Run the supervisor of the state directory named on the command line; writes "ready" when it serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[], help="another directory to remove at the end")
    parser.add_argument("--creator", help="PID:START of the process whose end is the end of the cluster")
    arguments = parser.parse_args()
    if not arguments.creator and os.fork():
        # Nobody waits for a supervisor that outlives its creator: this process ends, its child goes on.
        os._exit(0)
    creator = None
    if arguments.creator:
        pid, _, started = arguments.creator.partition(":")
        creator = (int(pid), started)
    supervisor = Supervisor(arguments.directory.resolve(), arguments.data, creator)

    def over(_signal: int, _frame: FrameType | None) -> None:
        supervisor.over = True

    signal.signal(signal.SIGTERM, over)
    # An interrupt from the terminal is for the creator, who decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor._save()
    try:
        supervisor.run()
    finally:
        supervisor.end()


if __name__ == "__main__":
    main()
