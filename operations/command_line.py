"""`bulk-switch`: the one command, put together from operations.commands.

Who makes a mistake gets one clear line and exit status 2 (a setting, an argument) or 1 (what was asked for is not
there, or does not answer). A traceback means a bug, and nothing else.

A subject's module is imported when one of its commands is run, so that no process of the switch pays, in time and in
memory, for the libraries of the others.
"""

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from operations.settings import SettingsError, unknown_names
from operations.supervisor import HopelessProcess, die_with_supervisor

# Each command or group of commands, and the module of operations.commands that has it.
_MODULES = {
    "demo": "demos",
    "up": "worlds",
    "api": "processes",
    "admin": "processes",
    "handler": "processes",
    "deliver": "processes",
    "exporter": "processes",
    "migrate": "worlds",
    "participant": "participants",
    "bulk": "bulks",
    "transfer": "transfers",
    "delivery": "deliveries",
    "topics": "topics",
    "lag": "lags",
    "dead-letters": "dead_letters",
    "verify": "verifications",
    "retention": "retentions",
    "redrive": "redrives",
    "restored": "redrives",
    "simulate": "simulations",
}


class _Subjects(TyperGroup):
    """Imports a subject when it is asked for. Typer brings a click of its own, whose types it does not give away."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _MODULES:
            return None
        subject = get_group(import_module(f"operations.commands.{_MODULES[cmd_name]}").app)
        return subject.get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Subjects,
    name="bulk-switch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """A switch for bulk transfers: a thousand payments in one request, one outcome for each side."""


def main() -> None:
    """The console script."""
    die_with_supervisor()
    for line in unknown_names(os.environ):
        sys.stderr.write(f"bulk-switch: {line}\n")
    try:
        app(prog_name="bulk-switch")
    except Exception as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        status, text = explanation
        for line in text.splitlines():
            sys.stderr.write(f"bulk-switch: {line}\n")
        sys.exit(status)


def _explain(error: Exception) -> tuple[int, str] | None:
    """Exit status and text of what is no bug; None for a bug."""
    if isinstance(error, SettingsError):
        return 2, str(error)
    # Imported only now: what was not needed to fail need not be loaded to run.
    from sqlalchemy.exc import DBAPIError

    from handlers.handler import Crash
    from object_store.interface import ObjectStoreError
    from operations.commands.mistakes import Mistake
    from operations.embedded_postgres import EmbeddedPostgresError
    from operations.world import WorldError
    from operations.world_file import NoWorld
    from stream.interface import StreamError

    trouble = (Mistake, WorldError, NoWorld, HopelessProcess, EmbeddedPostgresError, Crash)
    if isinstance(error, (*trouble, StreamError, ObjectStoreError)):
        return 1, str(error)
    # psycopg gives no SQLSTATE when the server could not be reached at all.
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) is None:
        return 1, f"the database does not answer: {str(error.orig).strip().splitlines()[0]}"
    return None
