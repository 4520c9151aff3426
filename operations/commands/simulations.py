"""`bulk-switch simulate`: an FSP that behaves like one."""

from typing import Annotated

import typer

from domain.money import MalformedAmount
from operations.commands.mistakes import Mistake
from operations.settings import SettingsError, read_settings
from operations.simulated_fsp import BEHAVIOURS, build_bulk, callback_endpoints, run_simulated_fsp
from operations.simulated_transfer import build_transfer
from operations.world import fspiop_url
from operations.world_file import NoWorld, read_world

simulate = typer.Typer(help="Simulated FSPs: a payer that takes callbacks, a payee that answers.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(simulate, name="simulate")

Name = Annotated[str, typer.Option(help="Its FSP id; provision it with `participant add NAME CURRENCY --url URL`.")]
Port = Annotated[int, typer.Option(min=1, max=65_535, help="Where it takes callbacks, on 127.0.0.1.")]
SwitchUrl = Annotated[str | None, typer.Option(help="The FSPIOP app, where it is not the running world's.")]


@simulate.command()
def payer(name: Name = "payerfsp", port: Port = 4001, switch_url: SwitchUrl = None) -> None:
    """A payer: answers 200 to every callback and prints it."""
    _run("payer", name, port, switch_url, "commit")


@simulate.command()
def payee(
    name: Name = "payeefsp",
    port: Port = 4002,
    switch_url: SwitchUrl = None,
    behaviour: Annotated[str, typer.Option(help=f"One of: {', '.join(BEHAVIOURS)}.")] = "commit",
) -> None:
    """A payee: takes forwarded bulks and single transfers and answers each with a PUT, as its behaviour says."""
    if behaviour not in BEHAVIOURS:
        raise SettingsError(f"--behaviour: there are {', '.join(BEHAVIOURS)}")
    _run("payee", name, port, switch_url, behaviour)


@simulate.command()
def bulk(
    payer_fsp: Annotated[str, typer.Option(help="The payer's FSP id.")] = "payerfsp",
    payee_fsp: Annotated[str, typer.Option(help="The payee's FSP id.")] = "payeefsp",
    items: Annotated[int, typer.Option(min=1, max=1_000, help="How many transfers.")] = 3,
    amount: Annotated[str, typer.Option(help="The amount of each.")] = "10",
    currency: Annotated[str, typer.Option(help="The currency of each.")] = "USD",
    expires_in_ms: Annotated[int, typer.Option(min=1, help="When the bulk expires, from now.")] = 60_000,
) -> None:
    """Print the body of a POST /bulkTransfers that a simulated payee can fulfil, with new ids."""
    try:
        body = build_bulk(
            payer_fsp, payee_fsp, items=items, amount=amount, currency=currency, expires_in_ms=expires_in_ms
        ).body
    except MalformedAmount as error:
        raise Mistake(str(error)) from None
    typer.echo(body)


@simulate.command()
def transfer(
    payer_fsp: Annotated[str, typer.Option(help="The payer's FSP id.")] = "payerfsp",
    payee_fsp: Annotated[str, typer.Option(help="The payee's FSP id.")] = "payeefsp",
    amount: Annotated[str, typer.Option(help="Its amount.")] = "10",
    currency: Annotated[str, typer.Option(help="Its currency.")] = "USD",
    expires_in_ms: Annotated[int, typer.Option(min=1, help="When it expires, from now.")] = 60_000,
) -> None:
    """Print the body of a POST /transfers that a simulated payee can fulfil, with a new id."""
    try:
        body = build_transfer(payer_fsp, payee_fsp, amount=amount, currency=currency, expires_in_ms=expires_in_ms).body
    except MalformedAmount as error:
        raise Mistake(str(error)) from None
    typer.echo(body)


def _run(role: str, name: str, port: int, switch_url: str | None, behaviour: str) -> None:
    settings = read_settings()
    if switch_url is None:
        try:
            switch_url = read_world(settings.data_folder).fspiop_url
        except NoWorld:
            switch_url = fspiop_url(settings)
    typer.echo(f"{role} {name} at http://127.0.0.1:{port}, of the switch at {switch_url}; Ctrl-C ends it. Endpoints:")
    for type_, value in callback_endpoints(f"http://127.0.0.1:{port}").items():
        typer.echo(f"  {type_} {value}")
    try:
        run_simulated_fsp(
            role,
            name,
            port,
            switch_url,
            BEHAVIOURS[behaviour],
            on_receipt=lambda one: typer.echo(f"{one.method} {one.path} ({len(one.body)} bytes) -> {one.status}"),
        )
    except OSError as error:
        raise Mistake(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
