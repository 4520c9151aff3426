"""The commands that are processes: what `bulk-switch up` starts, and what runs as units of their own in production.

Each imports what it runs when it is asked for it: the handlers need no HTTP framework, the edge no handler.
"""

from typing import Annotated

import typer

from operations.garbage import collect_garbage_seldom
from operations.logs import configure_logs
from operations.settings import Settings, read_settings
from operations.world_file import settings_of_world

app = typer.Typer()


@app.command()
def api() -> None:
    """The FSPIOP resources: POST, GET, PUT and PUT /error of /bulkTransfers and /transfers."""
    settings = _process_settings("api")
    from operations.edge_process import run_fspiop

    collect_garbage_seldom()
    run_fspiop(settings)


@app.command()
def admin() -> None:
    """The admin resources: participants, accounts, limits, endpoints and funds."""
    settings = _process_settings("admin")
    from operations.edge_process import run_admin

    collect_garbage_seldom()
    run_admin(settings)


@app.command()
def handler(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="One handler, or several to share a process.")],
    health_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Answer GET /health and /metrics here; 0 is nowhere.")
    ] = 0,
    health_host: Annotated[str, typer.Option(help="The address of the health port.")] = "127.0.0.1",
) -> None:
    """One or several handlers: bulk-prepare, prepare, position, bulk-processing, bulk-fulfil, fulfil, timeout, …"""
    settings = _process_settings(f"handler {' '.join(names)}")
    from operations.handler_process import run

    collect_garbage_seldom()
    run(names, settings, health_host=health_host, health_port=health_port)


@app.command()
def deliver(
    health_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Answer GET /health and /metrics here; 0 is nowhere.")
    ] = 0,
    health_host: Annotated[str, typer.Option(help="The address of the health port.")] = "127.0.0.1",
) -> None:
    """The deliverer: sends callbacks to the FSPs."""
    settings = _process_settings("deliverer")
    from operations.deliverer_process import run

    collect_garbage_seldom()
    run(settings, health_host=health_host, health_port=health_port)


@app.command()
def exporter(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Answer GET /metrics and /health here.")] = 9_464,
    host: Annotated[str, typer.Option(help="The address of the port.")] = "127.0.0.1",
) -> None:
    """Tells Prometheus about lag, money, what is unfinished and what waits: one process for the whole switch."""
    settings = _process_settings("exporter")
    from operations.exporter_process import run

    run(settings, host, port)


def _process_settings(process: str) -> Settings:
    """The settings of a process, which finds the world that runs where it is not told one; logs go to its output."""
    settings = settings_of_world(read_settings())
    configure_logs(process, settings.log_level, settings.log_format)
    return settings
