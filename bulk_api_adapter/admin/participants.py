"""The acts on participants, their accounts and their endpoints.

A participant gets, per currency, the accounts that the settlement models of that currency name: a POSITION and a SETTLEMENT
account normally, a pair of interchange fee accounts for a model of that kind. They are closed until its first limit is
set. A currency that has no model of its own takes the default one; a currency that has models, but none that settles
POSITION accounts, takes the default one for those, because without them nobody can pay.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from bulk_api_adapter.admin.acts import (
    account_not_found,
    begin_act,
    participant_not_found,
    require_currency,
    require_name,
)
from db import accounts, participants, positions
from db.accounts import HUB_ACCOUNT_TYPES, POSITION, AccountDetails
from db.participants import ParticipantRow
from db.reference_data import HUB_NAME
from db.settlement_models import SettlementModel, settlement_models
from domain.fspiop_errors import ErrorCode
from schemas.callback_addresses import AddressRefused, AllowedAddresses
from schemas.fspiop.errors import Refusal

_CALLBACK_TYPES = "FSPIOP_CALLBACK_URL"


@dataclass(frozen=True, slots=True)
class ParticipantDetails:
    """A participant with all its accounts."""

    participant: ParticipantRow
    accounts: tuple[AccountDetails, ...]


def list_participants(engine: Engine) -> list[ParticipantDetails]:
    """Everybody, the hub first."""
    with engine.connect() as tx:
        rows = participants.participants(tx)
        of_all = accounts.accounts_of_participants(tx, [row.name for row in rows])
    by_name: dict[str, list[AccountDetails]] = {row.name: [] for row in rows}
    for account in of_all:
        by_name[account.participant].append(account)
    return [ParticipantDetails(row, tuple(by_name[row.name])) for row in rows]


def read_participant(engine: Engine, name: str) -> ParticipantDetails:
    """One participant; refuses with 3200 when there is none of that name."""
    with engine.connect() as tx:
        return details_of(tx, name)


def details_of(tx: Connection, name: str) -> ParticipantDetails:
    """One participant as the transaction sees it; refuses with 3200."""
    row = participants.participant_named(tx, name)
    if row is None:
        raise participant_not_found(name)
    return ParticipantDetails(row, tuple(accounts.accounts_of_participants(tx, [name])))


def add_participant(
    engine: Engine, name: str, currency: str, *, actor: str, is_proxy: bool = False
) -> ParticipantDetails:
    """A new participant, or a new currency for a known one.

    Refused, in this order: the hub has no accounts in the currency 3100, the participant has 3000, no model 3100.
    """
    require_name(name)
    require_currency(currency)
    with begin_act(engine, actor=actor, action="add_participant", subject=f"participants/{name}") as act:
        is_new = participants.add_participant(act.tx, name, is_proxy=is_proxy, created_by=actor)
        participants.lock_participant(act.tx, name)
        _require_hub_accounts(act.tx, currency)
        before = details_of(act.tx, name)
        if any(account.currency == currency for account in before.accounts):
            raise Refusal(ErrorCode.CLIENT_ERROR, "Participant currency has already been registered")
        types = _account_types(settlement_models(act.tx), currency)
        accounts.add_accounts(
            act.tx, before.participant.participant_id, currency, types, is_active=False, created_by=actor
        )
        after = details_of(act.tx, name)
        act.record(before=None if is_new else _facts(before), after=_facts(after))
    return after


def _require_hub_accounts(tx: Connection, currency: str) -> None:
    there = {account.ledger_account_type for account in hub_accounts(tx) if account.currency == currency}
    for type_, text in zip(HUB_ACCOUNT_TYPES, ("reconciliation", "multilateral net settlement"), strict=True):
        if type_ not in there:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"Hub {text} account for {currency} does not exist")


def hub_accounts(tx: Connection) -> list[AccountDetails]:
    """The hub's accounts in all currencies."""
    return accounts.accounts_of_participants(tx, [HUB_NAME])


def models_for(models: Iterable[SettlementModel], currency: str) -> list[SettlementModel]:
    """The models that decide which accounts a participant gets in a currency; [] when nobody could pay in it."""
    in_use = [model for model in models if model.is_active]
    chosen = [model for model in in_use if model.currency == currency]
    if all(model.ledger_account_type != POSITION for model in chosen):
        chosen += [
            model
            for model in in_use
            if model.currency is None and (not chosen or model.ledger_account_type == POSITION)
        ]
    return chosen if any(model.ledger_account_type == POSITION for model in chosen) else []


def _account_types(models: Iterable[SettlementModel], currency: str) -> list[str]:
    chosen = models_for(models, currency)
    if not chosen:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "Unable to find a matching or default, Settlement Model")
    pairs = [(model.ledger_account_type, model.settlement_account_type) for model in chosen]
    return list(dict.fromkeys(type_ for pair in pairs for type_ in pair))


def add_hub_account(
    engine: Engine, type_: str, currency: str, *, actor: str, name: str = HUB_NAME
) -> ParticipantDetails:
    """An account of the hub, open from the start; every other participant gets its accounts with its currency."""
    require_currency(currency)
    subject = f"participants/{name}"
    with begin_act(engine, actor=actor, action="add_hub_account", subject=subject) as act:
        if not participants.lock_participant(act.tx, name):
            raise participant_not_found(name)
        before = details_of(act.tx, name)
        if name != HUB_NAME:
            raise Refusal(
                ErrorCode.ADD_PARTY_INFO_ERROR, "Endpoint is reserved for creation of Hub account types only."
            )
        if type_ not in HUB_ACCOUNT_TYPES:
            raise Refusal(ErrorCode.ADD_PARTY_INFO_ERROR, "The requested hub operator account type is not allowed.")
        made = accounts.add_accounts(
            act.tx, before.participant.participant_id, currency, [type_], is_active=True, created_by=actor
        )
        if not made:
            raise Refusal(ErrorCode.ADD_PARTY_INFO_ERROR, "Hub account has already been registered.")
        after = details_of(act.tx, name)
        act.record(before=_facts(before), after=_facts(after))
    return after


def set_active(engine: Engine, name: str, *, is_active: bool, actor: str) -> ParticipantDetails:
    """Let a participant take part, or no longer; callbacks to it are delivered either way."""
    with begin_act(engine, actor=actor, action="set_active", subject=f"participants/{name}") as act:
        if not participants.lock_participant(act.tx, name):
            raise participant_not_found(name)
        before = details_of(act.tx, name)
        participants.set_participant_active(act.tx, before.participant.participant_id, is_active=is_active)
        act.record(before={"isActive": before.participant.is_active}, after={"isActive": is_active})
        return details_of(act.tx, name)


def set_account_active(engine: Engine, name: str, account_id: int, *, is_active: bool, actor: str) -> None:
    """Open or close a POSITION account; the others follow no switch of their own."""
    subject = f"participants/{name}/accounts/{account_id}"
    with begin_act(engine, actor=actor, action="set_account_active", subject=subject) as act:
        if all(account.account_id != account_id for account in details_of(act.tx, name).accounts):
            raise account_not_found(name, str(account_id))
        positions.lock_positions(act.tx, [account_id])
        account = accounts.accounts_by_id(act.tx, [account_id])[account_id]
        if account.ledger_account_type != POSITION:
            raise Refusal(ErrorCode.VALIDATION_ERROR, "Only position account update is permitted")
        accounts.set_accounts_active(act.tx, [account_id], is_active=is_active)
        act.record(before={"isActive": account.is_active}, after={"isActive": is_active})


def list_endpoints(engine: Engine, name: str) -> Mapping[str, str]:
    """A participant's endpoints by type; refuses with 3200 when there is no participant of that name."""
    with engine.connect() as tx:
        if participants.participant_named(tx, name) is None:
            raise participant_not_found(name)
        return participants.endpoints(tx, name)


def require_endpoint(type_: str, value: str, allowed: AllowedAddresses) -> None:
    """Refuse with 3100 an address of callbacks that is internal, where it can be told before a look-up in the DNS."""
    if type_.startswith(_CALLBACK_TYPES):
        try:
            allowed.require_literal(value)
        except AddressRefused as error:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"value: {error}") from None


def set_endpoint(engine: Engine, name: str, type_: str, value: str, *, allowed: AllowedAddresses, actor: str) -> None:
    """Set or replace where callbacks of a type go; types that the switch does not use are kept all the same.

    Whatever stands here, the deliverer looks at every address before it connects; refusing it now is telling it early.
    """
    require_endpoint(type_, value, allowed)
    subject = f"participants/{name}/endpoints"
    with begin_act(engine, actor=actor, action="set_endpoint", subject=subject) as act:
        if not participants.lock_participant(act.tx, name):
            raise participant_not_found(name)
        old = participants.endpoints(act.tx, name).get(type_)
        participant_id = details_of(act.tx, name).participant.participant_id
        participants.set_endpoint(act.tx, participant_id, type_, value)
        act.record(before=None if old is None else {type_: old}, after={type_: value})


def _facts(details: ParticipantDetails) -> dict[str, object]:
    """What the audit keeps of a participant."""
    return {
        "isActive": details.participant.is_active,
        "isProxy": details.participant.is_proxy,
        "accounts": [
            {"id": account.account_id, "ledgerAccountType": account.ledger_account_type, "currency": account.currency}
            for account in details.accounts
        ],
    }
