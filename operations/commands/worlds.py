"""`bulk-switch up`: the embedded world, in the foreground; `bulk-switch migrate`: only its schema and topics."""

import signal
import threading
from typing import Annotated

import typer

from operations.commands.database import DataFolder
from operations.embedded_postgres import start
from operations.printing import console
from operations.settings import read_settings
from operations.world import prepare, run_world
from operations.world_file import NoWorld, World, settings_of_world

app = typer.Typer()


@app.command()
def up(
    data_folder: DataFolder = None,
    stream_url: Annotated[str | None, typer.Option(help="table: or kafka://host:port,…")] = None,
    database_url: Annotated[str | None, typer.Option(help="postgresql://…; not given: the embedded one.")] = None,
    object_store_url: Annotated[str | None, typer.Option(help="A folder, or s3://host:port/bucket.")] = None,
    fspiop_port: Annotated[int | None, typer.Option(help="The FSPIOP app's port.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="The admin app's port.")] = None,
) -> None:
    """The embedded world: PostgreSQL, both HTTP apps, every handler, the deliverer, the exporter; starts again what dies."""
    settings = read_settings(
        data_folder=data_folder,
        stream_url=stream_url,
        database_url=database_url,
        object_store_url=object_store_url,
        fspiop_port=fspiop_port,
        admin_port=admin_port,
    )
    run_world(settings, stopped_by_signals(), console().print, _print_world)
    console().print("Everything has ended.")


def stopped_by_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP (a closed terminal) set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _print_world(world: World) -> None:
    out = console()
    out.print("\n[bold]The switch runs.[/bold] Ctrl-C ends it; what it has done stays in the data folder.\n")
    for name, pid in world.processes.items():
        out.print(f"  {name:<16} pid {pid:<8} {world.logs[name]}")
    out.print(f"  FSPIOP           {world.fspiop_url}")
    out.print(f"  admin            {world.admin_url}")
    out.print(f"  database         {world.database_url}")
    out.print(f"  topics           {world.stream_url}")
    out.print("\nTry, in another terminal:")
    out.print("  bulk-switch participant add payerfsp USD --net-debit-cap 10000 --funds-in 10000")
    out.print("  bulk-switch participant list")
    out.print("  bulk-switch lag")


@app.command()
def migrate(data_folder: DataFolder = None) -> None:
    """Bring the database to the newest schema, and make the topics that are missing."""
    settings = read_settings(data_folder=data_folder)
    try:
        settings = settings_of_world(settings)
    except NoWorld:
        # The embedded world's own database, which nobody has started: it is started, and left running for `up`.
        settings = settings.model_copy(update={"database_url": start(settings.data_folder / "postgres")})
    prepare(settings)
    typer.echo("The database has the newest schema, and every topic is there.")
