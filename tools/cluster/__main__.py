"""Clusters from the command line: python -m tools.cluster {build,up,down,list,user}."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from tools.cluster import attach, build, provide, supervision
from tools.cluster.errors import ClusterError
from tools.cluster.paths import state_directory

DEFAULT_NAME = "default"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; the process's exit code."""
    arguments = _parser().parse_args(argv)
    try:
        result: int = arguments.run(arguments)
    except ClusterError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as problem:
        print(f"error: no answer within {problem.timeout:.0f} s: {problem.cmd}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description="Throw-away Kubernetes clusters.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="build the programs of a local cluster now and not at its first start")
    command.add_argument(
        "--set",
        dest="sets",
        action="append",
        choices=sorted(build.SETS),
        help="may be repeated; default: control-plane",
    )
    command.set_defaults(run=_build)

    command = commands.add_parser("up", help="start a cluster and print KUBECONFIG=...; it ends with Ctrl-C unless --keep")
    _name(command)
    command.add_argument("--nodes", type=int, default=3, help="number of nodes (default: %(default)s)")
    command.add_argument("--keep", action="store_true", help="return when it is up; `down` ends it")
    command.add_argument("--require", choices=["kubeconfig", "kind", "local"], help="take this provider or fail")
    command.set_defaults(run=_up)

    command = commands.add_parser("down", help="end a local cluster")
    _name(command)
    command.set_defaults(run=_down)

    command = commands.add_parser("list", help="show the local clusters that run")
    command.set_defaults(run=_list)

    command = commands.add_parser("user", help="make a user with a client certificate and print the kubeconfig's path")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--cluster", default=DEFAULT_NAME, help="(default: %(default)s)")
    command.add_argument("--group", dest="groups", action="append", default=[], help="may be repeated")
    command.set_defaults(run=_user)
    return parser


def _name(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", default=DEFAULT_NAME, help="(default: %(default)s)")


def _build(arguments: argparse.Namespace) -> int:
    for name in arguments.sets or ["control-plane"]:
        print(build.ensure(name))
    return 0


def _up(arguments: argparse.Namespace) -> int:
    cluster = provide(name=arguments.name, nodes=arguments.nodes, keep=arguments.keep, require=arguments.require)
    print(f"KUBECONFIG={cluster.kubeconfig}", flush=True)
    if arguments.keep:
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        build.to_stderr("Ctrl-C ends the cluster")
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _down(arguments: argparse.Namespace) -> int:
    attach(arguments.name).stop()
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    for state in supervision.running():
        print(f"{state.name}\t{state.server}\tKUBECONFIG={state_directory(state.name) / 'kubeconfig'}")
    return 0


def _user(arguments: argparse.Namespace) -> int:
    print(attach(arguments.cluster).user(arguments.name, *arguments.groups))
    return 0


if __name__ == "__main__":
    sys.exit(main())
