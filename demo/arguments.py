"""The command line of `python -m demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

ACTS = ("L3", "L1", "L2", "L4", "cause")  # in the order in which they are played
NAME = "demo"
_ABOUT = """\
Breaks a release on a throw-away cluster and shows what the operator does about it, once per level of autonomy:
  L3     it stages a rollback and waits; forged approvals are refused, a real one counts
  L1     it explains, and stages nothing
  L2     it writes the command, a human runs it, it notices and verifies
  L4     it acts alone within its limits
  cause  a fault that no rollback would repair, under L4: it says so, and leaves it alone
Without --level all of them are played, about three minutes once the cluster is up. The first run on a machine also builds
the cluster's programs: minutes, once.
"""
_MORE = """\
The cluster is a local one (real API server, simulated nodes) unless NIGHTORDERS_TEST_KUBECONFIG names a cluster for this
purpose, or --provider says otherwise; no other cluster is ever touched. Only a local one has an audit log to count from.

Exit status: 0 everything ended as it should and the audit log says the same; 1 something did not; 2 wrong arguments;
3 not played, with the reason (a demo runs or is kept already, no cluster to be had); 130 interrupted.
"""


@dataclass(frozen=True)
class Arguments:
    """What was asked for."""

    acts: tuple[str, ...]
    auto: bool
    keep: bool
    down: bool
    name: str
    provider: str | None


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """The arguments. Ends the process with status 2 and a hint when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=_ABOUT, epilog=_MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--level", choices=("all", *ACTS), default="all", type=_level, help="play this act only (default: all)")
    parser.add_argument(
        "--auto", action="store_true", help="do not wait for an approval from the keyboard: ann, a user of the demo, gives it"
    )
    parser.add_argument("--keep", action="store_true", help="leave cluster and operator running; --down ends them")
    parser.add_argument("--down", action="store_true", help="end what --keep left running, and nothing else")
    parser.add_argument("--provider", choices=("local", "kind", "kubeconfig"), help="where the cluster comes from")
    parser.add_argument("--name", default=NAME, help="name of the local cluster, to tell several apart (default: %(default)s)")
    found = parser.parse_args(argv)
    if found.keep and found.provider in ("kind", "kubeconfig"):
        parser.error("--keep is for local clusters: elsewhere the operator runs as this program's child and ends with it")
    return Arguments(
        acts=ACTS if found.level == "all" else (found.level,),
        auto=found.auto,
        keep=found.keep,
        down=found.down,
        name=found.name,
        provider=found.provider,
    )


def _level(text: str) -> str:
    """`l3` means L3."""
    return text.upper() if text.upper() in ACTS else text.lower()
