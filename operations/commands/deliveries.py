"""`bulk-switch delivery`: callbacks on their way, and sending dead ones again."""

from typing import Annotated

import typer

from db.audit import write_audit
from db.deliveries import list_deliveries, send_again
from domain.delivery import DeliveryState
from operations.commands.acting import actor_name
from operations.commands.database import DataFolder, bulk_transfer_id_of, connected
from operations.commands.mistakes import Mistake
from operations.printing import AsJson, clock, print_json, print_table

delivery = typer.Typer(help="Look at callbacks, and send dead ones again.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(delivery, name="delivery")

_ROWS_MAX = 100


@delivery.command("list")
def list_(
    state: Annotated[DeliveryState | None, typer.Option(help="Only callbacks in this state.")] = None,
    fsp: Annotated[str | None, typer.Option(help="Only callbacks to this FSP.")] = None,
    bulk: Annotated[str | None, typer.Option(help="Only callbacks of this bulkTransferId.")] = None,
    rows_max: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most, the newest.")] = _ROWS_MAX,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Callbacks, newest first, with what became of the newest attempt of each."""
    bulk_transfer_id = None if bulk is None else bulk_transfer_id_of(bulk)
    with connected(data_folder) as (_, engine), engine.connect() as tx:
        rows = list_deliveries(tx, rows_max=rows_max, state=state, fsp=fsp, entity_id=bulk_transfer_id)
    if as_json:
        print_json(rows)
        return
    print_table(
        "Callbacks",
        ("delivery", "bulkTransferId", "to", "kind", "callback", "state", "attempts", "answer", "written (UTC)"),
        (
            (
                one.delivery_id,
                one.entity_id,
                one.fsp,
                one.kind,
                one.callback,
                one.state,
                one.attempts,
                one.last_error or one.last_status,
                clock(one.created_date),
            )
            for one in rows
        ),
    )


@delivery.command("send-again")
def send_again_(
    delivery_ids: Annotated[list[int], typer.Argument(metavar="DELIVERY...", help="Numbers from `delivery list`.")],
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give dead callbacks a new budget of attempts; the same bytes are sent."""
    with connected(data_folder) as (_, engine), engine.begin() as tx:
        waiting = send_again(tx, delivery_ids)
        for delivery_id in waiting:
            write_audit(
                tx,
                actor=actor_name(),
                action="send_callback_again",
                subject=f"deliveries/{delivery_id}",
                before={"state": DeliveryState.DEAD},
                after={"state": DeliveryState.WAITING},
            )
    left = sorted(set(delivery_ids) - set(waiting))
    if as_json:
        print_json({"waiting": waiting, "left": left})
    elif waiting:
        print_table("Waiting again", ("delivery",), ((one,) for one in waiting))
    if left:
        raise Mistake(
            f"left as they are: {', '.join(map(str, left))} (not there, not DEAD, or a POST whose bulk has expired)"
        )
