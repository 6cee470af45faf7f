"""Processes by id and start time, and free ports.

A process id alone is never enough to signal a process: ids are used again. An id together with the
start time names one process for as long as the machine runs.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """One process: its id, and its start time in whatever form the system tells it."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The running process with that id; None when there is none."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def current(cls) -> ProcessId:
        """This very process."""
        found = cls.of(os.getpid())
        assert found is not None
        return found

    def alive(self) -> bool:
        """Whether this process still runs; a zombie does not."""
        return _start_time(self.pid) == self.started

    def kill(self) -> bool:
        """End the process at once. False when it had already gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def _start_time(pid: int) -> str | None:
    """When the process started, as text; None when it does not run (zombies included)."""
    if sys.platform != "linux":
        answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], check=False, capture_output=True, text=True)
        state, _, started = answer.stdout.strip().partition(" ")
        return None if not state or state.startswith("Z") else started.strip()
    try:
        # The command name, in parentheses, may itself hold blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def free_ports(count: int, host: str = "127.0.0.1", avoid: Collection[int] = ()) -> list[int]:
    """So many different TCP ports that nothing listens on right now, none of them in `avoid`.

    They lie below the range from which the system takes the ports of outgoing connections: a port from
    that range may be gone by the time a server asks for it, and while the server is down a client that
    tries again and again can even connect to itself and so keep the port from it.
    """
    low = _lowest_ephemeral_port()
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        for port in random.sample(range(max(1024, low // 2), low), k=min(2000, low - max(1024, low // 2))):
            if len(ports) == count:
                break
            if port in avoid:
                continue
            probe = socket.socket()
            try:
                probe.bind((host, port))
            except OSError:
                probe.close()
                continue
            held.append(probe)
            ports.append(port)
    finally:
        for probe in held:
            probe.close()
    if len(ports) < count:
        raise OSError(f"no {count} free TCP ports on {host}")
    return ports


def _lowest_ephemeral_port() -> int:
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    return low if low > 2048 else 32768
