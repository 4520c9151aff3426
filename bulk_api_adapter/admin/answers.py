"""The answers of the admin resources, in the shapes that central-ledger's clients read (reference §11.2–7).

Amounts are JSON numbers, written digit by digit from their counts and never through a float (D26). isActive and isProxy of
participants and accounts are 1 or 0. What has no content is empty, never the word null, and no field is ever null.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from bulk_api_adapter.admin.participants import ParticipantDetails
from db.accounts import AccountDetails, Limit
from db.keys import ParticipantKey
from db.reference_data import LEDGER_ACCOUNT_TYPES
from db.settlement_models import SettlementModel
from domain.money import format_amount


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, b"" for none."""

    status: HTTPStatus
    body: bytes = b""


def answer(status: HTTPStatus, content: Any) -> Answer:
    return Answer(status, orjson.dumps(content))


def participant(details: ParticipantDetails, base_url: str) -> dict[str, Any]:
    link = f"{base_url}/participants/{details.participant.name}"
    return {
        "name": details.participant.name,
        "id": link,
        "created": _instant(details.participant.created_date),
        "isActive": int(details.participant.is_active),
        "links": {"self": link},
        "accounts": [
            {
                "id": account.account_id,
                "ledgerAccountType": account.ledger_account_type,
                "currency": account.currency,
                "isActive": int(account.is_active),
                "createdDate": _instant(account.created_date),
                "createdBy": account.created_by,
            }
            for account in details.accounts
        ],
        "isProxy": int(details.participant.is_proxy),
    }


def accounts(found: Iterable[AccountDetails]) -> list[dict[str, Any]]:
    return [
        {
            "id": account.account_id,
            "ledgerAccountType": account.ledger_account_type,
            "currency": account.currency,
            "isActive": int(account.is_active),
            "value": amount(account.value),
            "reservedValue": amount(account.reserved_value),
            "changedDate": _instant(account.changed_date),
        }
        for account in found
    ]


def position(account: AccountDetails) -> dict[str, Any]:
    return {
        "currency": account.currency,
        "value": amount(account.value),
        "changedDate": _instant(account.changed_date),
    }


def limit(found: Limit) -> dict[str, Any]:
    return {
        "currency": found.currency,
        "limit": {
            "type": found.type,
            "value": amount(found.value),
            "alarmPercentage": _number(found.alarm_percentage),
        },
    }


def endpoints(found: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"type": type_, "value": value} for type_, value in found.items()]


def key(found: ParticipantKey) -> dict[str, Any]:
    """A key and how long it counts; the key itself as JWK readers and PEM readers both can take it: PEM."""
    pem = load_der_public_key(found.public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    moments = {"validUntil": found.valid_until, "revokedDate": found.revoked_date}
    return {
        "id": found.participant_key_id,
        **({} if found.kid is None else {"kid": found.kid}),
        "algorithm": found.algorithm,
        "fingerprint": found.fingerprint,
        "key": pem.decode(),
        "isActive": int(found.revoked_date is None),
        "validFrom": _instant(found.valid_from),
        **{name: _instant(moment) for name, moment in moments.items() if moment is not None},
        "createdDate": _instant(found.created_date),
        "createdBy": found.created_by,
    }


def settlement_model(model: SettlementModel) -> dict[str, Any]:
    """The fields that it was made of; the default model has no currency."""
    shown: dict[str, Any] = {
        "name": model.name,
        "isActive": model.is_active,
        "settlementGranularity": model.settlement_granularity,
        "settlementInterchange": model.settlement_interchange,
        "settlementDelay": model.settlement_delay,
        "requireLiquidityCheck": model.require_liquidity_check,
        "ledgerAccountType": model.ledger_account_type,
        "settlementAccountType": model.settlement_account_type,
        "autoPositionReset": model.auto_position_reset,
    }
    return shown if model.currency is None else {**shown, "currency": model.currency}


def ledger_account_types() -> list[dict[str, Any]]:
    return [
        {"name": name, "description": description, "isActive": True, "isSettleable": is_settleable}
        for name, description, is_settleable in LEDGER_ACCOUNT_TYPES
    ]


def amount(units: int) -> orjson.Fragment:
    return orjson.Fragment(format_amount(units))


def _number(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(format(value.normalize(), "f"))


def _instant(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
