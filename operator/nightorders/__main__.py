"""The `nightorders` command."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
import yaml

from . import __version__
from .cli.app import add_to

app = typer.Typer(
    name="nightorders",
    help="Incident response for Kubernetes with graded autonomy.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


add_to(app)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: people read it."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the base class's signature
        return True


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def crds() -> None:
    """Print the CustomResourceDefinitions: nightorders crds | kubectl apply --server-side -f -"""
    from .api.crdgen import all_crds

    typer.echo(yaml.dump_all(all_crds().values(), Dumper=_Plain, sort_keys=False, width=140, allow_unicode=True), nl=False)


@app.command()
def run(
    kubeconfig: Annotated[str | None, typer.Option(help="Kubeconfig; default: the pod's own account.", envvar="KUBECONFIG")] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Prometheus for PromQL checks, such as http://prometheus:9090.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the operator. Everything else is set by NIGHTORDERS_* environment variables (docs/reference/settings.md)."""
    from .ports import PortError
    from .settings import from_environment
    from .wiring import run as run_operator

    try:
        settings = from_environment(kubeconfig=kubeconfig, prometheus_url=prometheus_url, log_format=log_format, log_level=log_level)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    try:
        status = asyncio.run(run_operator(settings))
    except (PortError, FileNotFoundError) as error:
        typer.echo(f"nightorders cannot run: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
