"""What the handlers ask of participants and accounts: one statement, whatever the size of the batch."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, event

from bulk_api_adapter.admin.participants import add_participant, read_participant, set_account_active, set_active
from bulk_api_adapter.admin.provision import provision_fsp, provision_hub
from db.participants import accounts_of, participants_by_name
from db.reference_data import HUB_NAME


@contextmanager
def counted(connection: Connection) -> Iterator[list[str]]:
    statements: list[str] = []

    def count(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", count)
    yield statements
    event.remove(connection, "before_cursor_execute", count)


def test_participants_are_found_by_name_in_one_statement(engine: Engine) -> None:
    provision_fsp(engine, "payerfsp", "USD", 0, 0, {})
    provision_fsp(engine, "payeefsp", "USD", 0, 0, {})
    set_active(engine, "payeefsp", is_active=False, actor="test")
    asked_for = ["payerfsp", "payeefsp", "payerfsp", HUB_NAME, *(f"nobody{number}" for number in range(1_000))]
    with engine.connect() as connection, counted(connection) as statements:
        found = participants_by_name(connection, asked_for)
        assert participants_by_name(connection, []) == {}
    assert {name: participant.is_active for name, participant in found.items()} == {
        "payerfsp": True,
        "payeefsp": False,
        HUB_NAME: True,
    }
    assert {name: found[name].name for name in found} == {name: name for name in found}
    assert len({participant.participant_id for participant in found.values()}) == 3
    assert len(statements) == 2


def test_accounts_are_found_by_name_and_currency_in_one_statement(engine: Engine) -> None:
    provision_fsp(engine, "payerfsp", "USD", 0, 0, {})
    provision_fsp(engine, "payeefsp", "USD", 0, 0, {})
    provision_fsp(engine, "payeefsp", "BGN", 0, 0, {})
    provision_hub(engine, "EUR")
    add_participant(engine, "payerfsp", "EUR", actor="test")
    accounts = {
        (name, account.currency, account.ledger_account_type): account.account_id
        for name in ("payerfsp", "payeefsp")
        for account in read_participant(engine, name).accounts
    }
    set_account_active(engine, "payeefsp", accounts["payeefsp", "BGN", "POSITION"], is_active=False, actor="test")
    pairs = [
        ("payerfsp", "USD"), ("payerfsp", "USD"), ("payerfsp", "EUR"), ("payerfsp", "BGN"), ("payeefsp", "USD"),
        ("payeefsp", "BGN"), (HUB_NAME, "USD"), ("nobody", "USD"), ("payerfsp", "ZZZ"),
    ]  # fmt: skip
    with engine.connect() as connection, counted(connection) as statements:
        found = accounts_of(connection, pairs)
        assert accounts_of(connection, []) == {}
    assert {pair: account.is_active for pair, account in found.items()} == {
        ("payerfsp", "USD"): True,
        # Not opened by a first limit yet.
        ("payerfsp", "EUR"): False,
        ("payeefsp", "USD"): True,
        ("payeefsp", "BGN"): False,
    }
    for (name, currency), account in found.items():
        assert account.position_account_id == accounts[name, currency, "POSITION"]
        assert account.settlement_account_id == accounts[name, currency, "SETTLEMENT"]
    assert len(statements) == 2
