"""Everything that one FSP needs to pay and be paid, in one call: for the demo, the tests and the bench."""

from collections.abc import Mapping
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Engine

from bulk_api_adapter.admin.funds import FundsOrder
from bulk_api_adapter.admin.funds import funds_in as bring_in
from bulk_api_adapter.admin.limits import initial_position_and_limits, list_limits, set_limit
from bulk_api_adapter.admin.participants import (
    ParticipantDetails,
    add_hub_account,
    add_participant,
    list_participants,
    models_for,
    read_participant,
    require_endpoint,
    set_endpoint,
)
from bulk_api_adapter.admin.settlement_models import add_settlement_model, list_settlement_models
from db.accounts import HUB_ACCOUNT_TYPES, POSITION, SETTLEMENT
from db.reference_data import HUB_NAME
from db.settlement_models import SettlementModel
from domain.money import format_amount
from schemas.callback_addresses import ANY_ADDRESS, AllowedAddresses

ACTOR = "provision"

DEFAULT_MODEL = SettlementModel(
    name="DEFERREDNET",
    settlement_granularity="NET",
    settlement_interchange="MULTILATERAL",
    settlement_delay="DEFERRED",
    currency=None,
    require_liquidity_check=True,
    ledger_account_type=POSITION,
    settlement_account_type=SETTLEMENT,
    auto_position_reset=True,
)


def provision_hub(engine: Engine, currency: str, *, actor: str = ACTOR) -> None:
    """The hub's accounts in a currency and a settlement model for it, where they are missing."""
    there = {(account.ledger_account_type, account.currency) for account in read_participant(engine, HUB_NAME).accounts}
    for type_ in HUB_ACCOUNT_TYPES:
        if (type_, currency) not in there:
            add_hub_account(engine, type_, currency, actor=actor)
    if not models_for(list_settlement_models(engine), currency):
        add_settlement_model(engine, DEFAULT_MODEL, actor=actor)


def provision_fsp(
    engine: Engine,
    name: str,
    currency: str,
    net_debit_cap: int,
    funds_in: int,
    endpoints: Mapping[str, str],
    *,
    actor: str = ACTOR,
    allowed: AllowedAddresses = ANY_ADDRESS,
) -> ParticipantDetails:
    """Make an FSP with its accounts, limit, funds and endpoints; what the hub lacks for it is made too.

    The amounts are counts of 1/10,000 (`domain.money`). A second call with the same values changes nothing; with another
    cap it sets that, with other funds it brings those in as well. Endpoints may name any address unless `allowed` says less.
    """
    for type_, value in endpoints.items():
        require_endpoint(type_, value, allowed)
    provision_hub(engine, currency, actor=actor)
    known = {details.participant.name: details for details in list_participants(engine)}.get(name)
    if known is None or all(account.currency != currency for account in known.accounts):
        known = add_participant(engine, name, currency, actor=actor)
    if list_limits(engine, name, currency=currency):
        set_limit(engine, name, currency, net_debit_cap, actor=actor)
    else:
        initial_position_and_limits(engine, name, currency, net_debit_cap, actor=actor)
    if funds_in:
        [account_id] = [
            account.account_id
            for account in known.accounts
            if account.currency == currency and account.ledger_account_type == SETTLEMENT
        ]
        # The same funds have the same id, so that they come in once.
        transfer_id = uuid5(NAMESPACE_URL, f"provision:{name}:{currency}:{format_amount(funds_in)}")
        order = FundsOrder(transfer_id, funds_in, currency, reason="provision", external_reference=ACTOR)
        bring_in(engine, name, account_id, order, actor=actor)
    for type_, value in endpoints.items():
        set_endpoint(engine, name, type_, value, allowed=allowed, actor=actor)
    return read_participant(engine, name)
