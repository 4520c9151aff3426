"""The admin resources one by one: what each reads from its request, which act it asks for, what it answers.

POST PUT GET  /participants, /participants/{name}             name, currency, isProxy? · isActive
GET           /participants/limits                            ?currency&type
POST GET      /participants/{name}/accounts                   the hub's: type, currency
PUT           /participants/{name}/accounts/{id}              isActive
POST          /participants/{name}/accounts/{id}              funds: action, transferId, amount, reason, …
PUT           /participants/{name}/accounts/{id}/transfers/{transferId}   action, reason
POST          /participants/{name}/initialPositionAndLimits   currency, limit, initialPosition?
GET PUT       /participants/{name}/limits                     currency, limit
GET           /participants/{name}/positions                  ?currency: one object instead of an array
POST GET      /participants/{name}/endpoints                  type, value · ?type: one object instead of an array
POST GET      /participants/{name}/keys                       key, kid?, validFrom?, validUntil? (ours, not Mojaloop's)
PUT           /participants/{name}/keys/{id}                  isActive: false revokes it (ours)
POST GET PUT  /settlementModels, /settlementModels/{name}
GET           /ledgerAccountTypes
GET           /transactions/{id}                              the transaction object of a transfer's ilpPacket
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from http import HTTPStatus

from sqlalchemy import Engine

from bulk_api_adapter.admin import answers, funds, keys, limits, participants, settlement_models, transactions
from bulk_api_adapter.admin.acts import NAME_PATTERN, account_not_found, participant_not_found, require_currency
from bulk_api_adapter.admin.answers import Answer, answer
from bulk_api_adapter.admin.bodies import Fields, read_body, uuid_of
from bulk_api_adapter.admin.funds import FundsOrder
from bulk_api_adapter.admin.limits import ALARM_PERCENTAGE
from db.accounts import NET_DEBIT_CAP
from db.settlement_models import SettlementModel
from domain.fspiop_errors import ErrorCode
from domain.funds import FundsAction
from object_store.interface import ObjectStore
from schemas.callback_addresses import AllowedAddresses
from schemas.fspiop.errors import Refusal

TEXT_LENGTH_MAX = 512
ENDPOINT_LENGTH_MAX = 2_048
CURRENCY_LENGTH = 3

_ENDPOINT_TYPE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ACCOUNT_ID = re.compile(r"[0-9]{1,9}")
_YES = frozenset({"true", "1"})
_NO = frozenset({"false", "0"})


@dataclass(frozen=True)
class AdminRequest:
    """A request whose body has been read, and who says that he makes it."""

    engine: Engine
    base_url: str
    actor: str
    allowed: AllowedAddresses
    object_store: ObjectStore | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    raw_body: bytes

    @cached_property
    def body(self) -> Fields:
        return read_body(self.raw_body)

    @property
    def name(self) -> str:
        """The participant's; what cannot be a name is nobody's."""
        name = self.path["name"]
        if NAME_PATTERN.fullmatch(name) is None:
            raise participant_not_found(name)
        return name

    @property
    def account_id(self) -> int:
        text = self.path["id"]
        if _ACCOUNT_ID.fullmatch(text) is None:
            raise account_not_found(self.name, "of that id")
        return int(text)

    @property
    def currency_asked_for(self) -> str | None:
        currency = self.query.get("currency") or None
        if currency is not None:
            require_currency(currency)
        return currency

    @property
    def limit_type_asked_for(self) -> str | None:
        type_ = self.query.get("type") or None
        if type_ not in {None, NET_DEBIT_CAP}:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"type must be {NET_DEBIT_CAP}")
        return type_


Route = Callable[[AdminRequest], Answer]


def _currency(body: Fields) -> str:
    currency = body.text("currency", length_max=CURRENCY_LENGTH, length_min=CURRENCY_LENGTH)
    require_currency(currency)
    return currency


def post_participants(request: AdminRequest) -> Answer:
    body = request.body
    details = participants.add_participant(
        request.engine,
        body.text("name", length_max=30, length_min=2),
        _currency(body),
        is_proxy=body.has("isProxy") and body.boolean("isProxy"),
        actor=request.actor,
    )
    return answer(HTTPStatus.CREATED, answers.participant(details, request.base_url))


def get_participants(request: AdminRequest) -> Answer:
    found = participants.list_participants(request.engine)
    asked_for = request.query.get("isProxy", "")
    if asked_for in _YES | _NO:
        found = [details for details in found if details.participant.is_proxy == (asked_for in _YES)]
    return answer(HTTPStatus.OK, [answers.participant(details, request.base_url) for details in found])


def get_participant(request: AdminRequest) -> Answer:
    details = participants.read_participant(request.engine, request.name)
    return answer(HTTPStatus.OK, answers.participant(details, request.base_url))


def put_participant(request: AdminRequest) -> Answer:
    is_active = request.body.boolean("isActive")
    details = participants.set_active(request.engine, request.name, is_active=is_active, actor=request.actor)
    return answer(HTTPStatus.OK, answers.participant(details, request.base_url))


def post_accounts(request: AdminRequest) -> Answer:
    type_ = request.body.text("type", length_max=TEXT_LENGTH_MAX)
    details = participants.add_hub_account(
        request.engine, type_, _currency(request.body), name=request.name, actor=request.actor
    )
    return answer(HTTPStatus.CREATED, answers.participant(details, request.base_url))


def get_accounts(request: AdminRequest) -> Answer:
    currency = request.currency_asked_for
    details = participants.read_participant(request.engine, request.name)
    found = [account for account in details.accounts if currency in {None, account.currency}]
    return answer(HTTPStatus.OK, answers.accounts(found))


def put_account(request: AdminRequest) -> Answer:
    participants.set_account_active(
        request.engine,
        request.name,
        request.account_id,
        is_active=request.body.boolean("isActive"),
        actor=request.actor,
    )
    return Answer(HTTPStatus.OK)


def post_funds(request: AdminRequest) -> Answer:
    body = request.body
    action = body.choice("action", [FundsAction.IN, FundsAction.OUT_PREPARE_RESERVE])
    amount = body.object("amount")
    order = FundsOrder(
        transfer_id=body.uuid("transferId"),
        amount=amount.units("amount"),
        currency=_currency(amount) if amount.has("currency") else None,
        reason=body.text("reason", length_max=TEXT_LENGTH_MAX),
        external_reference=body.text("externalReference", length_max=TEXT_LENGTH_MAX),
        extension_list=body.extension_list("extensionList"),
    )
    act = funds.funds_in if action == FundsAction.IN else funds.funds_out_reserve
    act(request.engine, request.name, request.account_id, order, actor=request.actor)
    return Answer(HTTPStatus.ACCEPTED)


def put_funds(request: AdminRequest) -> Answer:
    transfer_id = uuid_of(request.path["transferId"], "transferId in the path")
    action = request.body.choice("action", [FundsAction.OUT_COMMIT, FundsAction.OUT_ABORT])
    reason = request.body.text("reason", length_max=TEXT_LENGTH_MAX)
    act = funds.funds_out_commit if action == FundsAction.OUT_COMMIT else funds.funds_out_abort
    act(request.engine, request.name, request.account_id, transfer_id, reason=reason, actor=request.actor)
    return Answer(HTTPStatus.ACCEPTED)


def post_initial_position_and_limits(request: AdminRequest) -> Answer:
    currency = _currency(request.body)
    value, alarm_percentage = _limit(request.body)
    limits.initial_position_and_limits(
        request.engine,
        request.name,
        currency,
        value,
        initial_position=request.body.units("initialPosition") if request.body.has("initialPosition") else 0,
        alarm_percentage=ALARM_PERCENTAGE if alarm_percentage is None else alarm_percentage,
        actor=request.actor,
    )
    return Answer(HTTPStatus.CREATED)


def _limit(body: Fields) -> tuple[int, Decimal | None]:
    """The value and the alarm percentage of the limit that a body holds."""
    limit = body.object("limit")
    limit.choice("type", [NET_DEBIT_CAP])
    return limit.units("value"), limit.percentage("alarmPercentage") if limit.has("alarmPercentage") else None


def get_limits(request: AdminRequest) -> Answer:
    found = limits.list_limits(
        request.engine, request.name, currency=request.currency_asked_for, type_=request.limit_type_asked_for
    )
    return answer(HTTPStatus.OK, [answers.limit(limit) for limit in found])


def put_limits(request: AdminRequest) -> Answer:
    currency = _currency(request.body)
    value, alarm_percentage = _limit(request.body)
    limit = limits.set_limit(
        request.engine, request.name, currency, value, alarm_percentage=alarm_percentage, actor=request.actor
    )
    return answer(HTTPStatus.OK, answers.limit(limit))


def get_limits_of_all(request: AdminRequest) -> Answer:
    found = limits.list_limits(request.engine, currency=request.currency_asked_for, type_=request.limit_type_asked_for)
    return answer(HTTPStatus.OK, [{"name": limit.participant, **answers.limit(limit)} for limit in found])


def get_positions(request: AdminRequest) -> Answer:
    currency = request.currency_asked_for
    found = limits.list_positions(request.engine, request.name)
    if currency is None:
        return answer(HTTPStatus.OK, [answers.position(account) for account in found])
    for account in found:
        if account.currency == currency:
            return answer(HTTPStatus.OK, answers.position(account))
    raise account_not_found(request.name, f"in {currency}")


def post_endpoints(request: AdminRequest) -> Answer:
    type_ = request.body.text("type", length_max=TEXT_LENGTH_MAX)
    if _ENDPOINT_TYPE.fullmatch(type_) is None:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "type must be 1 to 128 of A-Z a-z 0-9 . _ -")
    value = request.body.text("value", length_max=ENDPOINT_LENGTH_MAX)
    participants.set_endpoint(request.engine, request.name, type_, value, allowed=request.allowed, actor=request.actor)
    return Answer(HTTPStatus.CREATED)


def get_endpoints(request: AdminRequest) -> Answer:
    found = participants.list_endpoints(request.engine, request.name)
    type_ = request.query.get("type") or None
    if type_ is None:
        return answer(HTTPStatus.OK, answers.endpoints(found))
    return answer(HTTPStatus.OK, {"type": type_, "value": found[type_]} if type_ in found else {})


def post_keys(request: AdminRequest) -> Answer:
    body = request.body
    key = keys.add_key(
        request.engine,
        request.name,
        body.key("key"),
        kid=body.text("kid", length_max=keys.KID_LENGTH_MAX) if body.has("kid") else None,
        valid_from=body.instant("validFrom") if body.has("validFrom") else None,
        valid_until=body.instant("validUntil") if body.has("validUntil") else None,
        actor=request.actor,
    )
    return answer(HTTPStatus.CREATED, answers.key(key))


def get_keys(request: AdminRequest) -> Answer:
    return answer(HTTPStatus.OK, [answers.key(key) for key in keys.list_keys(request.engine, request.name)])


def put_key(request: AdminRequest) -> Answer:
    name, text = request.name, request.path["id"]
    if _ACCOUNT_ID.fullmatch(text) is None:
        raise Refusal(ErrorCode.ID_NOT_FOUND, f"Participant {name} has no key of that id")
    if request.body.boolean("isActive"):
        raise Refusal(ErrorCode.VALIDATION_ERROR, "isActive must be false: a revoked key stays revoked")
    return answer(HTTPStatus.OK, answers.key(keys.revoke_key(request.engine, name, int(text), actor=request.actor)))


def post_settlement_models(request: AdminRequest) -> Answer:
    body = request.body
    model = SettlementModel(
        name=body.text("name", length_max=30, length_min=2),
        settlement_granularity=body.choice("settlementGranularity", settlement_models.GRANULARITIES),
        settlement_interchange=body.choice("settlementInterchange", settlement_models.INTERCHANGES),
        settlement_delay=body.choice("settlementDelay", settlement_models.DELAYS),
        currency=_currency(body) if body.has("currency") else None,
        require_liquidity_check=body.boolean("requireLiquidityCheck"),
        ledger_account_type=body.choice("ledgerAccountType", settlement_models.LEDGER_ACCOUNT_TYPES),
        settlement_account_type=body.choice("settlementAccountType", settlement_models.SETTLEMENT_ACCOUNT_TYPES),
        auto_position_reset=body.boolean("autoPositionReset"),
    )
    settlement_models.add_settlement_model(request.engine, model, actor=request.actor)
    return Answer(HTTPStatus.CREATED)


def get_settlement_models(request: AdminRequest) -> Answer:
    found = settlement_models.list_settlement_models(request.engine)
    return answer(HTTPStatus.OK, [answers.settlement_model(model) for model in found])


def get_settlement_model(request: AdminRequest) -> Answer:
    model = settlement_models.read_settlement_model(request.engine, request.path["name"])
    return answer(HTTPStatus.OK, answers.settlement_model(model))


def put_settlement_model(request: AdminRequest) -> Answer:
    is_active = request.body.boolean("isActive")
    # Reading first, because what cannot be a name must not reach a statement.
    name = settlement_models.read_settlement_model(request.engine, request.path["name"]).name
    model = settlement_models.set_settlement_model_active(
        request.engine, name, is_active=is_active, actor=request.actor
    )
    return answer(HTTPStatus.OK, answers.settlement_model(model))


def get_ledger_account_types(_: AdminRequest) -> Answer:
    return answer(HTTPStatus.OK, answers.ledger_account_types())


def get_transaction(request: AdminRequest) -> Answer:
    transfer_id = uuid_of(request.path["id"], "id in the path")
    return answer(HTTPStatus.OK, transactions.read_transaction(request.engine, request.object_store, transfer_id))


# The first line that fits is taken, so what has a name of its own stands before {name}.
ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/participants/limits", get_limits_of_all),
    ("POST", "/participants", post_participants),
    ("GET", "/participants", get_participants),
    ("GET", "/participants/{name}", get_participant),
    ("PUT", "/participants/{name}", put_participant),
    ("POST", "/participants/{name}/accounts", post_accounts),
    ("GET", "/participants/{name}/accounts", get_accounts),
    ("PUT", "/participants/{name}/accounts/{id}", put_account),
    ("POST", "/participants/{name}/accounts/{id}", post_funds),
    ("PUT", "/participants/{name}/accounts/{id}/transfers/{transferId}", put_funds),
    ("POST", "/participants/{name}/initialPositionAndLimits", post_initial_position_and_limits),
    ("GET", "/participants/{name}/limits", get_limits),
    ("PUT", "/participants/{name}/limits", put_limits),
    ("GET", "/participants/{name}/positions", get_positions),
    ("POST", "/participants/{name}/endpoints", post_endpoints),
    ("GET", "/participants/{name}/endpoints", get_endpoints),
    ("POST", "/participants/{name}/keys", post_keys),
    ("GET", "/participants/{name}/keys", get_keys),
    ("PUT", "/participants/{name}/keys/{id}", put_key),
    ("POST", "/settlementModels", post_settlement_models),
    ("GET", "/settlementModels", get_settlement_models),
    ("GET", "/settlementModels/{name}", get_settlement_model),
    ("PUT", "/settlementModels/{name}", put_settlement_model),
    ("GET", "/ledgerAccountTypes", get_ledger_account_types),
    ("GET", "/transactions/{id}", get_transaction),
)
