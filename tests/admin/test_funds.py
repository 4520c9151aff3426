"""Funds in and out over HTTP: signs, exactness, repeats, refusals and audit rows (reference §10, §11.2, 11.5, 11.7)."""

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from bulk_api_adapter.admin.funds import read_funds_transfer
from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import parse_amount
from domain.states import FundsState
from tests.admin.client import AdminClient, Answered, account_id, assert_refused, audit_of, values

IN = "recordFundsIn"
RESERVE = "recordFundsOutPrepareReserve"
COMMIT = "recordFundsOutCommit"
ABORT = "recordFundsOutAbort"


class Bank:
    """Sends the funds requests of one FSP; each under an id of its own unless one is given."""

    def __init__(self, client: AdminClient, fsp: str) -> None:
        self.client = client
        self.path = f"/participants/{fsp}/accounts/{account_id(client, fsp, 'SETTLEMENT')}"

    def record(self, action: str, amount: Any, transfer_id: str | None = None, **more: Any) -> Answered:
        return self.send({"action": action, "amount": {"amount": amount, "currency": "USD"}, **more}, transfer_id)

    def send(self, fields: dict[str, Any], transfer_id: str | None = None) -> Answered:
        body = {
            "transferId": transfer_id or str(uuid4()),
            "externalReference": "statement 7",
            "action": IN,
            "reason": "prefunding",
            "amount": {"amount": 5, "currency": "USD"},
            "extensionList": {"extension": [{"key": "scheme", "value": "abc"}]},
        }
        return self.client.post(self.path, {**body, **fields})

    def end(self, action: str, transfer_id: str) -> Answered:
        return self.client.put(f"{self.path}/transfers/{transfer_id}", {"action": action, "reason": "done"})

    def values(self) -> tuple[Decimal | int, Decimal | int]:
        """SETTLEMENT and HUB_RECONCILIATION."""
        fsp = self.path.split("/")[2]
        return values(self.client, fsp)["SETTLEMENT"], values(self.client, "Hub")["HUB_RECONCILIATION"]


@pytest.fixture
def bank(client: AdminClient, fsp: str) -> Bank:
    return Bank(client, fsp)


def set_position(engine: Engine, value: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE participant_position SET value = CAST(:value AS numeric) WHERE participant_currency_id ="
                " (SELECT participant_currency_id FROM participant_currency WHERE ledger_account_type = 'POSITION')"
            ),
            {"value": value},
        )


def test_the_signs_of_funds_in_and_out(bank: Bank) -> None:  # reference §11.5
    assert bank.values() == (-1000, 1000)
    came_in = bank.record(IN, 200)
    assert (came_in.status, came_in.content) == (202, b"")
    assert bank.values() == (-1200, 1200)
    first, second = str(uuid4()), str(uuid4())
    assert bank.record(RESERVE, "300.00", first).status == 202
    assert bank.values() == (-900, 1200)
    assert bank.record(RESERVE, "50", second).status == 202
    assert bank.values() == (-850, 1200)
    committed = bank.end(COMMIT, first)
    assert (committed.status, committed.content) == (202, b"")
    assert bank.values() == (-850, 900)
    assert bank.end(ABORT, second).status == 202
    assert bank.values() == (-900, 900)


def test_22_digits_come_in_and_are_shown_to_the_last_one(client: AdminClient, engine: Engine) -> None:  # D26
    provision_fsp(engine, "payeefsp", "USD", 0, 0, {})
    bank = Bank(client, "payeefsp")
    amount = "999999999999999999.9999"
    raw = f"""{{"transferId": "{uuid4()}", "externalReference": "e", "action": "{IN}", "reason": "r",
                "amount": {{"amount": {amount}, "currency": "USD"}}}}"""
    assert client.send("POST", bank.path, raw=raw.encode()).status == 202
    assert f'"value":-{amount},'.encode() in client.get("/participants/payeefsp/accounts").content
    assert f'"value":{amount},'.encode() in client.get("/participants/Hub/accounts").content
    # There is no room for more, and so nothing happens.
    assert_refused(bank.record(IN, "0.0001"), "3100", "18 digits")
    assert bank.values() == (-Decimal(amount), Decimal(amount))
    transfer = str(uuid4())
    assert bank.record(RESERVE, amount, transfer).status == 202
    assert bank.values() == (0, Decimal(amount))
    assert bank.end(ABORT, transfer).status == 202
    assert bank.values() == (-Decimal(amount), Decimal(amount))


def test_money_goes_out_only_as_far_as_the_position_allows(bank: Bank, engine: Engine) -> None:  # architecture §6
    set_position(engine, "399.9999")
    assert_refused(bank.record(RESERVE, "600.0002"), "4001", "cover left, 399.9998, would be below 399.9999")
    assert bank.values() == (-1000, 1000)
    assert audit_of(engine) == []
    assert bank.record(RESERVE, "600.0001").status == 202
    assert bank.values()[0] == Decimal("-399.9999")


def test_what_others_owe_cannot_be_taken_out_before_it_is_settled(bank: Bank, engine: Engine) -> None:
    set_position(engine, "-5000")
    assert_refused(bank.record(RESERVE, "1000.0001"), "4001", "would be below 0")
    assert bank.record(RESERVE, "1000").status == 202


def test_what_is_reserved_counts_with_the_position(bank: Bank, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE participant_position SET reserved_value = 700"))
    assert_refused(bank.record(RESERVE, 301), "4001", "below 700")
    assert bank.record(RESERVE, 300).status == 202


def test_the_same_request_again_is_202_and_doubles_nothing(bank: Bank, engine: Engine) -> None:
    came_in, went_out = str(uuid4()), str(uuid4())
    for _ in range(2):
        assert bank.record(IN, "200", came_in).status == 202
        # The same amount in another form is the same amount.
        assert bank.record(IN, 200.0, came_in.upper()).status == 202
        assert bank.record(RESERVE, 100, went_out).status == 202
    assert bank.values() == (-1100, 1200)
    for _ in range(2):
        assert bank.end(COMMIT, went_out).status == 202
    assert bank.values() == (-1100, 1100)
    # A repeat is no act of its own, not even after the transfer has ended.
    assert bank.record(RESERVE, 100, went_out).status == 202
    assert [audit.action for audit in audit_of(engine)] == [IN, RESERVE, COMMIT]


def test_the_same_id_with_another_body_is_3106(bank: Bank, client: AdminClient, engine: Engine) -> None:
    transfer = str(uuid4())
    assert bank.record(IN, 200, transfer).status == 202
    for modified in (
        bank.record(IN, 201, transfer),
        bank.record(RESERVE, 200, transfer),
        bank.record(IN, 200, transfer, reason="another"),
        bank.record(IN, 200, transfer, externalReference="another"),
        bank.record(IN, 200, transfer, extensionList=None),
    ):
        assert_refused(modified, "3106", "Modified request")
    provision_fsp(engine, "payeefsp", "USD", 0, 0, {})
    assert_refused(Bank(client, "payeefsp").record(IN, 200, transfer), "3106", "Modified request")
    assert bank.values() == (-1200, 1200)


def test_a_funds_out_ends_once(bank: Bank, engine: Engine) -> None:
    committed, aborted, came_in = str(uuid4()), str(uuid4()), str(uuid4())
    bank.record(RESERVE, 10, committed)
    bank.record(RESERVE, 20, aborted)
    bank.record(IN, 5, came_in)
    assert bank.end(COMMIT, committed).status == 202
    assert bank.end(ABORT, aborted).status == 202
    before = bank.values()
    assert_refused(bank.end(ABORT, committed), "3100", "is COMMITTED and can no longer be ABORTED")
    assert_refused(bank.end(COMMIT, aborted), "3100", "is ABORTED and can no longer be COMMITTED")
    assert_refused(bank.end(COMMIT, came_in), "3100", "not a funds-out")
    assert_refused(bank.end(ABORT, came_in), "3100", "not a funds-out")
    assert_refused(bank.end(COMMIT, str(uuid4())), "3200", "not found")
    assert bank.end(ABORT, aborted).status == 202
    assert bank.values() == before
    states = {name: read_funds_transfer(engine, UUID(name)) for name in (committed, aborted, came_in)}
    assert [found.state for found in states.values() if found] == [
        FundsState.COMMITTED,
        FundsState.ABORTED,
        FundsState.COMMITTED,
    ]
    with engine.connect() as connection:
        steps = connection.execute(
            text("SELECT from_state, to_state FROM funds_transfer_state_change WHERE transfer_id = :id ORDER BY 1"),
            {"id": UUID(aborted)},
        ).all()
    assert [tuple(step) for step in steps] == [("-", "RESERVED"), ("RESERVED", "ABORTED")]


def test_another_fsp_cannot_end_it(bank: Bank, client: AdminClient, engine: Engine) -> None:
    transfer = str(uuid4())
    bank.record(RESERVE, 10, transfer)
    provision_fsp(engine, "payeefsp", "USD", 0, parse_amount("10"), {})
    assert_refused(Bank(client, "payeefsp").end(COMMIT, transfer), "3200", "not found")


def test_new_money_needs_open_doors_but_what_was_reserved_may_end(bank: Bank, client: AdminClient, fsp: str) -> None:
    first, second = str(uuid4()), str(uuid4())
    bank.record(RESERVE, 10, first)
    bank.record(RESERVE, 20, second)
    client.put(f"/participants/{fsp}", {"isActive": False})
    assert_refused(bank.record(IN, 1), "3100", "Participant is currently set inactive")
    assert_refused(bank.record(RESERVE, 1), "3100", "Participant is currently set inactive")
    assert bank.record(RESERVE, 10, first).status == 202
    assert bank.end(COMMIT, first).status == 202
    assert bank.end(ABORT, second).status == 202
    assert bank.values() == (-990, 990)


@pytest.mark.usefixtures("hub")
def test_an_account_that_was_never_opened_takes_no_money(client: AdminClient) -> None:  # reference §11.1
    client.post("/participants", {"name": "payerfsp", "currency": "USD"})
    bank = Bank(client, "payerfsp")
    assert_refused(bank.record(IN, 1), "3100", "Account is currently set inactive")
    assert bank.values() == (0, 0)


def test_each_act_has_its_audit_row(bank: Bank, engine: Engine) -> None:
    transfer = str(uuid4())
    bank.record(RESERVE, "0.5", transfer)
    bank.end(COMMIT, transfer)
    subject = f"{bank.path.lstrip('/')}/transfers/{transfer}"
    assert [(audit.actor, audit.action, audit.subject, audit.before, audit.after) for audit in audit_of(engine)] == [
        (
            "anonymous",
            RESERVE,
            subject,
            {"state": "-", "settlement": "-1000", "hubReconciliation": "1000"},
            {"state": "RESERVED", "amount": "0.5", "settlement": "-999.5", "hubReconciliation": "1000"},
        ),
        (
            "anonymous",
            COMMIT,
            subject,
            {"state": "RESERVED", "settlement": "-999.5", "hubReconciliation": "1000"},
            {"state": "COMMITTED", "amount": "0.5", "settlement": "-999.5", "hubReconciliation": "999.5"},
        ),
    ]


def test_a_wrong_body_is_refused_naming_the_field(bank: Bank, engine: Engine) -> None:
    long = {"extension": [{"key": "k", "value": "v"}] * 17}
    for fields, code, field in (
        ({"transferId": None}, "3102", "transferId"),
        ({"transferId": "1"}, "3101", "transferId"),
        ({"transferId": 1}, "3101", "transferId"),
        ({"action": None}, "3102", "action"),
        ({"action": COMMIT}, "3100", "action"),
        ({"reason": None}, "3102", "reason"),
        ({"reason": "x" * 513}, "3100", "reason"),
        ({"reason": "\ud800"}, "3101", "reason"),
        ({"externalReference": None}, "3102", "externalReference"),
        ({"externalReference": 5}, "3101", "externalReference"),
        ({"amount": None}, "3102", "amount"),
        ({"amount": "5"}, "3101", "amount"),
        ({"amount": {"currency": "USD"}}, "3102", "amount.amount"),
        ({"amount": {"amount": 0, "currency": "USD"}}, "3100", "amount"),
        ({"amount": {"amount": -5, "currency": "USD"}}, "3100", "amount"),
        ({"amount": {"amount": "5,0", "currency": "USD"}}, "3101", "amount.amount"),
        ({"amount": {"amount": "5.00001", "currency": "USD"}}, "3100", "amount.amount"),
        ({"amount": {"amount": "1" + "0" * 18, "currency": "USD"}}, "3100", "amount.amount"),
        ({"amount": {"amount": 5, "currency": "EUR"}}, "3100", "does not match participant or currency"),
        ({"amount": {"amount": 5, "currency": "ZZZ"}}, "3100", "currency"),
        ({"extensionList": []}, "3101", "extensionList"),
        ({"extensionList": {}}, "3102", "extensionList.extension"),
        ({"extensionList": {"extension": []}}, "3100", "extensionList.extension"),
        ({"extensionList": {"extension": [1]}}, "3101", "extensionList.extension"),
        ({"extensionList": long}, "3103", "extensionList.extension"),
        ({"extensionList": {"extension": [{"key": "k"}]}}, "3102", "extensionList.extension[0].value"),
        ({"extensionList": {"extension": [{"key": "k" * 33, "value": "v"}]}}, "3100", "extensionList.extension[0].key"),
    ):
        assert_refused(bank.send(fields), code, field)
    assert bank.values() == (-1000, 1000)
    assert audit_of(engine) == []


def test_only_a_settlement_account_takes_money(client: AdminClient, fsp: str, bank: Bank) -> None:
    bank.path = f"/participants/{fsp}/accounts/{account_id(client, fsp, 'POSITION')}"
    assert_refused(bank.record(IN, 5), "3100", "Account is not SETTLEMENT type")
    bank.path = f"/participants/{fsp}/accounts/{account_id(client, 'Hub', 'HUB_RECONCILIATION')}"
    assert_refused(bank.record(IN, 5), "3200", "has no account")
    bank.path = "/participants/nobody/accounts/1"
    assert_refused(bank.record(IN, 5), "3200", "nobody not found")


def test_a_wrong_end_is_refused_naming_the_field(bank: Bank, client: AdminClient) -> None:
    transfer = str(uuid4())
    bank.record(RESERVE, 10, transfer)
    transfers = f"{bank.path}/transfers"
    for path, body, code, field in (
        (f"{transfers}/{transfer}", {"action": COMMIT}, "3102", "reason"),
        (f"{transfers}/{transfer}", {"reason": "r"}, "3102", "action"),
        (f"{transfers}/{transfer}", {"action": IN, "reason": "r"}, "3100", "action"),
        (f"{transfers}/nothing", {"action": COMMIT, "reason": "r"}, "3101", "transferId"),
    ):
        assert_refused(client.put(path, body), code, field)
    assert bank.values() == (-990, 1000)
