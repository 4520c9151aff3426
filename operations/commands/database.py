"""How commands reach the running world's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Engine

from operations.commands.mistakes import Mistake
from operations.opening import opened_engine
from operations.settings import Settings, read_settings
from operations.world_file import settings_of_world

DataFolder = Annotated[
    Path | None,
    typer.Option(help="The folder of the embedded world, instead of BULK_SWITCH_DATA_FOLDER or .bulk-switch."),
]


@contextmanager
def connected(data_folder: Path | None) -> Iterator[tuple[Settings, Engine]]:
    """The settings of the world that runs, and an engine on its database."""
    settings = settings_of_world(read_settings(data_folder=data_folder))
    # A connection for what the command reads, one for the stream beside it.
    with opened_engine(settings, "bulk-switch", pool_size=2) as engine:
        yield settings, engine


def bulk_transfer_id_of(text: str) -> UUID:
    """Raises Mistake."""
    try:
        return UUID(text)
    except ValueError:
        raise Mistake(f"{text} is no bulkTransferId: a UUID is wanted") from None


def transfer_id_of(text: str) -> UUID:
    """Raises Mistake."""
    try:
        return UUID(text)
    except ValueError:
        raise Mistake(f"{text} is no transferId: a UUID is wanted") from None
