"""`bulk-switch transfer`: what became of one transfer, single or of a bulk."""

from typing import Annotated

import typer

from operations.commands.database import DataFolder, transfer_id_of
from operations.commands.whys import RecordsMax, tell_why
from operations.message_search import RECORDS_MAX
from operations.printing import AsJson
from operations.why import why_transfer

transfer = typer.Typer(help="Look at transfers, single or of a bulk.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(transfer, name="transfer")


@transfer.callback()
def _transfer() -> None:
    """Look at transfers, single or of a bulk."""


@transfer.command()
def why(
    transfer_id: Annotated[str, typer.Argument(metavar="TRANSFER", help="The transferId.")],
    records_max: RecordsMax = RECORDS_MAX,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Everything that happened to a transfer, and what it waits for or why it ended."""
    wanted = transfer_id_of(transfer_id)
    tell_why(
        lambda tx: why_transfer(tx, wanted),
        f"no transfer {wanted} (it may not have been read yet, or be an item that was refused: ask `bulk why`)",
        data_folder=data_folder,
        records_max=records_max,
        as_json=as_json,
    )
