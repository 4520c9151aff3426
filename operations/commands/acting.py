"""Acting from a command line: the database, the name that stands in the audit row, and where callbacks may go."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from operations.commands.database import DataFolder, connected
from operations.commands.mistakes import Mistake
from schemas.callback_addresses import AllowedAddresses, allowed_addresses
from schemas.fspiop.errors import Refusal


def actor_name() -> str:
    """The person at this machine, for the audit."""
    try:
        return f"bulk-switch {getpass.getuser()}"
    except (KeyError, OSError):
        # A container may run as a user that has no name.
        return "bulk-switch"


@contextmanager
def acting(data_folder: DataFolder) -> Iterator[tuple[Engine, str, AllowedAddresses]]:
    """The database, who acts, and the internal addresses that an endpoint may name; a refusal is a mistake."""
    with connected(data_folder) as (settings, engine):
        try:
            yield engine, actor_name(), allowed_addresses(settings.internal_addresses)
        except Refusal as refusal:
            raise Mistake(str(refusal)) from None
