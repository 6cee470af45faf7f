"""`make demo`, as a user runs it: exit status, what it says, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.cluster import attach, supervision
from tools.cluster.paths import state_directory

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
NAME = f"demo-test-{os.getpid()}"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--name", NAME, *arguments]


def environment() -> dict[str, str]:
    """Without a cluster that the machine's user names: the demo must bring its own."""
    return {name: value for name, value in os.environ.items() if name not in ("NIGHTORDERS_TEST_KUBECONFIG", "KUBECONFIG")}


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    demo("--down")


def processes() -> list[int]:
    """Every process whose command line, directory or environment names this test's cluster."""
    mark = str(state_directory(NAME)).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            where = os.fsencode((path / "cwd").readlink())
            if mark in (path / "cmdline").read_bytes() or where.startswith(mark):
                found.append(int(path.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_the_approval_act_ends_as_it_should() -> None:
    done = demo("--auto", "--level", "L3")
    assert done.returncode == 0, done.stdout
    flat = re.sub(r"\s+", " ", done.stdout)
    for said in (
        "Incident checkout-rolloutstuck-",
        "2.4.O; the registry does not have it",
        "- image: registry.example/checkout:2.4.O + image: registry.example/checkout:2.4.0",
        "dan lacks the verb approve",
        "The operator itself never answers its own plans",
        "approves plan sha256:",
        "Recovered: all 5 checks passed",
        "L3 shop 1 1 0 1",
        "elsewhere - 0 0 0 0",
        "Every act ended as it should, and the audit log says the same.",
    ):
        assert said in flat, f"{said!r} is missing in:\n{done.stdout}"
    assert flat.count("ValidatingAdmissionPolicy 'nightorders-approvals' with binding") == 4
    assert "WRONG" not in done.stdout
    assert "\x1b" not in done.stdout
    pasted = [line for line in done.stdout.splitlines() if len(line) > 100]
    assert all(re.search(r"kubectl |nightorders |approve\.nightorders\.dev", line) for line in pasted), pasted
    assert not state_directory(NAME).exists()
    assert processes() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_kept_demo_outlives_its_program_and_down_leaves_nothing() -> None:
    done = demo("--auto", "--level", "L1", "--keep")
    assert done.returncode == 0, done.stdout
    kubeconfig = state_directory(NAME) / "kubeconfig"
    assert f"KUBECONFIG={kubeconfig}" in done.stdout
    assert "Five things to try" in done.stdout
    assert len(processes()) >= 7  # etcd, three of the control plane, kwok, the references simulator, the operator
    operator = supervision.Processes.read(state_directory(NAME)).children["nightorders"]
    assert operator.alive()

    again = demo("--auto", "--level", "L1")
    assert again.returncode == 3
    assert str(kubeconfig) in again.stdout
    assert operator.alive()

    # It still works, with nobody there but the operator: it looks at what it is asked to look at.
    cluster = attach(NAME)
    cluster.kubectl("-n", "shop-l1", "create", "-f", str(ROOT / "manifests/samples/incident.yaml"))
    cluster.kubectl("-n", "shop-l1", "wait", "incident/checkout-looks-slow", "--for=jsonpath={.status.phase}=Diagnosed", "--timeout=30s")

    down = demo("--down")
    assert down.returncode == 0, down.stdout
    assert not operator.alive()
    assert processes() == []
    assert not state_directory(NAME).exists()
    twice = demo("--down")
    assert twice.returncode == 0
    assert "nothing to end" in twice.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_ctrl_c_ends_everything() -> None:
    process = subprocess.Popen(
        command("--auto", "--level", "L3"),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        # As in a terminal, also where this runs in the background of a shell, which ignores SIGINT for its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    seen = ""
    for row in process.stdout:
        seen += row
        if "image updated" in row:
            break
    else:
        pytest.fail(seen)
    assert len(processes()) >= 7
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; cluster and operator have been ended" in rest
    end = time.monotonic() + 10
    while processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert processes() == []
    assert not state_directory(NAME).exists()
    assert "Traceback" not in rest
