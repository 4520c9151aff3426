"""`bulk-switch participant`: who takes part, with which accounts, limits, funds and addresses.

The acts are those of the admin app, each one transaction with its audit row; these commands do them without HTTP.
"""

from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
from sqlalchemy import Engine

from bulk_api_adapter.admin import funds, limits, participants
from bulk_api_adapter.admin.funds import FundsOrder
from bulk_api_adapter.admin.participants import ParticipantDetails
from bulk_api_adapter.admin.provision import provision_fsp
from db.accounts import SETTLEMENT
from domain.money import MalformedAmount, format_amount, parse_amount
from operations.commands.acting import acting
from operations.commands.database import DataFolder
from operations.commands.mistakes import Mistake
from operations.commands.participant_keys import key
from operations.printing import AsJson, console, print_json, print_table
from operations.simulated_fsp import callback_endpoints

participant = typer.Typer(help="Participants: accounts, limits, funds, endpoints.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(participant, name="participant")
participant.add_typer(key, name="key")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The participant's name, its FSP id.")]
Currency = Annotated[str, typer.Argument(metavar="CURRENCY", help="A code of ISO 4217.")]
AmountText = Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 1500 or 1500.75.")]


@participant.command()
def add(
    name: Name,
    currency: Currency,
    net_debit_cap: Annotated[str, typer.Option(help="How far its position may rise.")] = "0",
    funds_in: Annotated[str, typer.Option(help="What it has brought in: its cover.")] = "0",
    url: Annotated[str | None, typer.Option(help="The base URL of its callbacks.")] = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """A new participant, or a new currency for a known one; repeating it changes nothing."""
    cap, cover = _amount(net_debit_cap), _amount(funds_in)
    endpoints = callback_endpoints(url.rstrip("/")) if url else {}
    with acting(data_folder) as (engine, actor, allowed):
        provision_fsp(engine, name, currency, cap, cover, endpoints, actor=actor, allowed=allowed)
        _print_one(engine, name, as_json=as_json)


@participant.command("list")
def list_(data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """Every participant with its accounts."""
    with acting(data_folder) as (engine, _, _):
        everybody = participants.list_participants(engine)
    if as_json:
        print_json([_facts(one) for one in everybody])
        return
    rows: list[tuple[object, ...]] = []
    for one in everybody:
        head = (one.participant.name, _yes(one.participant.is_active))
        rows += [
            (
                *head,
                account.currency,
                account.account_id,
                account.ledger_account_type,
                _yes(account.is_active),
                format_amount(account.value),
            )
            for account in one.accounts
        ] or [(*head, None, None, None, None, None)]
    print_table("Participants", ("name", "active", "currency", "account", "type", "open", "value"), rows)


@participant.command()
def show(name: Name, data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """One participant: accounts, limits and endpoints."""
    with acting(data_folder) as (engine, _, _):
        _print_one(engine, name, as_json=as_json)


@participant.command()
def limit(
    name: Name, currency: Currency, amount: AmountText, data_folder: DataFolder = None, as_json: AsJson = False
) -> None:
    """Change how far its position may rise (NET_DEBIT_CAP); holds for the next reservation."""
    cap = _amount(amount)
    with acting(data_folder) as (engine, actor, _):
        limits.set_limit(engine, name, currency, cap, actor=actor)
        _print_one(engine, name, as_json=as_json)


@participant.command()
def endpoint(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="The base URL, or with --type the whole template.")],
    type_: Annotated[str | None, typer.Option("--type", help="Only the endpoint of this type.")] = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Where its callbacks go: below a base URL, or one type of them."""
    with acting(data_folder) as (engine, actor, allowed):
        for one, value in ({type_: url} if type_ else callback_endpoints(url.rstrip("/"))).items():
            participants.set_endpoint(engine, name, one, value, allowed=allowed, actor=actor)
        _print_one(engine, name, as_json=as_json)


@participant.command("funds-in")
def funds_in_(
    name: Name,
    currency: Currency,
    amount: AmountText,
    transfer_id: Annotated[UUID | None, typer.Option(help="The same id again brings nothing in again.")] = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Money came in at the hub's bank: its cover rises."""
    order = FundsOrder(transfer_id or uuid4(), _amount(amount), currency, reason="bulk-switch participant funds-in")
    with acting(data_folder) as (engine, actor, _):
        funds.funds_in(engine, name, _settlement_account(engine, name, currency), order, actor=actor)
        _print_one(engine, name, as_json=as_json)


@participant.command("funds-out")
def funds_out(
    name: Name, currency: Currency, amount: AmountText, data_folder: DataFolder = None, as_json: AsJson = False
) -> None:
    """Money went out: reserved, then committed; refused where its position needs it as cover."""
    order = FundsOrder(uuid4(), _amount(amount), currency, reason="bulk-switch participant funds-out")
    with acting(data_folder) as (engine, actor, _):
        account_id = _settlement_account(engine, name, currency)
        funds.funds_out_reserve(engine, name, account_id, order, actor=actor)
        funds.funds_out_commit(engine, name, account_id, order.transfer_id, actor=actor)
        _print_one(engine, name, as_json=as_json)


@participant.command()
def activate(name: Name, data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """Let it take part."""
    _set_active(name, data_folder, is_active=True, as_json=as_json)


@participant.command()
def deactivate(name: Name, data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """Let it take part no longer; what is under way still ends, and its callbacks are still delivered."""
    _set_active(name, data_folder, is_active=False, as_json=as_json)


def _set_active(name: str, data_folder: DataFolder, *, is_active: bool, as_json: bool) -> None:
    with acting(data_folder) as (engine, actor, _):
        participants.set_active(engine, name, is_active=is_active, actor=actor)
        _print_one(engine, name, as_json=as_json)


def _amount(text: str) -> int:
    try:
        return parse_amount(text.rstrip("0").rstrip(".") if "." in text else text)
    except MalformedAmount as error:
        raise Mistake(str(error)) from None


def _settlement_account(engine: Engine, name: str, currency: str) -> int:
    for account in participants.read_participant(engine, name).accounts:
        if account.ledger_account_type == SETTLEMENT and account.currency == currency:
            return account.account_id
    raise Mistake(f"{name} has no SETTLEMENT account in {currency}")


def _print_one(engine: Engine, name: str, *, as_json: bool) -> None:
    details = participants.read_participant(engine, name)
    caps = limits.list_limits(engine, name)
    endpoints = participants.list_endpoints(engine, name)
    if as_json:
        all_limits = [{"currency": one.currency, "type": one.type, "value": format_amount(one.value)} for one in caps]
        print_json({**_facts(details), "limits": all_limits, "endpoints": dict(endpoints)})
        return
    state = "active" if details.participant.is_active else "not active"
    console().print(f"[bold]{name}[/bold] ({state})")
    print_table(
        "Accounts",
        ("currency", "account", "type", "open", "value"),
        (
            (one.currency, one.account_id, one.ledger_account_type, _yes(one.is_active), format_amount(one.value))
            for one in details.accounts
        ),
    )
    if caps:
        print_table(
            "Limits",
            ("currency", "type", "value"),
            ((one.currency, one.type, format_amount(one.value)) for one in caps),
        )
    if endpoints:
        print_table("Endpoints", ("type", "value"), endpoints.items())


def _facts(details: ParticipantDetails) -> dict[str, Any]:
    """The participant as JSON; amounts as text, because a JSON number is a float to most readers."""
    return {
        "name": details.participant.name,
        "is_active": details.participant.is_active,
        "accounts": [
            {
                "id": account.account_id,
                "currency": account.currency,
                "type": account.ledger_account_type,
                "is_active": account.is_active,
                "value": format_amount(account.value),
            }
            for account in details.accounts
        ],
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
