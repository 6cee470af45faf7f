"""A cluster of its own with everything installed, and the operator as its own process under its own account."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.cluster.scene import Scene
from tools.cluster import Cluster, provide
from tools.operator_process import NAMESPACE, OperatorProcess, install

_numbers = itertools.count(1)
# The whole tier is one fleet: more happens here within an hour than any real fleet would allow.
GENEROUS = {
    "apiVersion": "nightorders.dev/v1alpha1",
    "kind": "ClusterRemediationPolicy",
    "metadata": {"name": "tests"},
    "spec": {"fleet": {"maxConcurrent": 100, "perHour": 10000, "namespaceShare": 100}},
}


@pytest.fixture(scope="session")
def arena() -> Iterator[Cluster]:
    """Not the cluster of the admission tests: those write status as the operator, and here the operator itself does."""
    found = provide()
    try:
        install(found)
        found.apply(GENEROUS)
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def _shared_operator(arena: Cluster) -> Iterator[OperatorProcess]:
    process = OperatorProcess(arena)
    yield process
    process.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the operator's log."""
    report = yield
    process = getattr(item, "funcargs", {}).get("operator") or getattr(item, "funcargs", {}).get("_shared_operator")
    if report.failed and isinstance(process, OperatorProcess):
        report.sections.append(("operator log", process.tail(40)))
    return report


@pytest.fixture
def operator(_shared_operator: OperatorProcess) -> OperatorProcess:
    """The operator, running, leading and with a proven guard. A test may kill it: the next one starts it again."""
    if _shared_operator.process is None or _shared_operator.process.poll() is not None:
        _shared_operator.start()
    return _shared_operator.wait_ready()


@pytest.fixture
def no_operator(_shared_operator: OperatorProcess) -> None:
    """The shared operator is down: the test starts its own."""
    if _shared_operator.process is not None and _shared_operator.process.poll() is None:
        _shared_operator.kill()


@pytest.fixture
def two_operators(arena: Cluster, no_operator: None) -> Iterator[list[OperatorProcess]]:
    """Both act: leader election is off, as if a stale leader went on. Nothing may be left of the Lease, or admission would refuse both."""
    arena.kubectl("-n", NAMESPACE, "delete", "lease", "nightorders", "--ignore-not-found")
    both = [OperatorProcess(arena, name=f"operator-{n}", environment={"NIGHTORDERS_LEADER_ELECTION": "false"}).start() for n in (1, 2)]
    for one in both:
        one.wait_ready()
    yield both
    for one in both:
        one.stop()


@pytest.fixture
def scene(arena: Cluster, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A namespace with the right to roll back; gone afterwards."""
    made = Scene(arena, f"t{next(_numbers)}")
    made.operator_may_roll_back()
    yield made
    arena.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture
def new_scene(arena: Cluster) -> Iterator[Callable[[], Scene]]:
    """More namespaces, for tests that need two."""
    made: list[Scene] = []

    def make() -> Scene:
        made.append(Scene(arena, f"t{next(_numbers)}"))
        made[-1].operator_may_roll_back()
        return made[-1]

    yield make
    for one in made:
        arena.kubectl("delete", "namespace", one.namespace, "--wait=false")
