"""What becomes of one item of a bulk before money is touched: the decision of prepare.

Checks, in this order (architecture §6); the first that fails is the refusal:

    1  its item still waits for it, and no transfer stands under its key: else it is a repeat, and nothing happens
    2  its transferId was never used: else prepare-duplicate, 3106 if the body differs (#5), 3100 if not (#6)
    3  not expired (3303)
    4  the amount keeps to 18 digits and 4 decimals (3100)
    5  payer and payee have an account in the currency, and it is active (3100)
    6  the condition is 32 bytes (3100)

A transfer that fails a check from 3 on is written as INVALID, so that its transferId stays used; a duplicate is not
written, because the id belongs to another transfer.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from domain.fspiop_errors import (
    MODIFIED_REQUEST,
    TRANSFER_EXPIRED,
    ErrorCode,
    FspiopError,
    fspiop_error,
)
from domain.money import MalformedAmount, parse_amount
from domain.states import ItemState

CONDITION_BYTES = 32


class ItemToPrepare(Protocol):
    """What prepare is asked to look at, as its message says it. Times in milliseconds since 1970."""

    @property
    def transfer_key(self) -> int: ...
    @property
    def transfer_id(self) -> bytes: ...
    @property
    def payer_fsp(self) -> str: ...
    @property
    def payee_fsp(self) -> str: ...
    @property
    def currency(self) -> str: ...
    @property
    def amount(self) -> str: ...
    @property
    def condition(self) -> str: ...
    @property
    def expiration_ms(self) -> int: ...
    @property
    def hash(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class AccountFact:
    """A participant's POSITION account in one currency."""

    account_id: int
    is_active: bool


@dataclass(frozen=True, slots=True)
class PrepareFacts:
    """All that is known about a batch of items.

    `item_states` by transfer key; `used` maps every transferId that already stands to its (transfer key, hash);
    `accounts` by (participant's name, currency).
    """

    item_states: Mapping[int, ItemState]
    used: Mapping[bytes, tuple[int, bytes]]
    accounts: Mapping[tuple[str, str], AccountFact]
    now_ms: int


class PrepareVerdict(Enum):
    REPEAT = "nothing happens"
    DUPLICATE = "the transferId was used with the same body"
    MODIFIED = "the transferId was used with another body"
    INVALID = "refused, and written as INVALID"
    VALID = "written as RECEIVED_PREPARE, and on to position"


class PreparedItem(NamedTuple):
    """The verdict on one item. The amount is a count of 1/10,000; account ids and condition are None where unknown."""

    item: ItemToPrepare
    verdict: PrepareVerdict
    error: FspiopError | None = None
    amount: int = 0
    payer_account: int | None = None
    payee_account: int | None = None
    condition: bytes | None = None


def decide_prepare(items: Sequence[ItemToPrepare], facts: PrepareFacts) -> list[PreparedItem]:
    """A verdict per item, in order; of two items with one transferId in a batch the first one has it."""
    used = dict(facts.used)
    decided: list[PreparedItem] = []
    for item in items:
        prepared = _decide(item, facts, used)
        if prepared.verdict in (PrepareVerdict.VALID, PrepareVerdict.INVALID):
            used[item.transfer_id] = (item.transfer_key, item.hash)
        decided.append(prepared)
    return decided


def _decide(item: ItemToPrepare, facts: PrepareFacts, used: Mapping[bytes, tuple[int, bytes]]) -> PreparedItem:
    if facts.item_states.get(item.transfer_key) is not ItemState.RECEIVED:
        return PreparedItem(item, PrepareVerdict.REPEAT)
    before = used.get(item.transfer_id)
    if before is not None:
        key, hash_before = before
        if key == item.transfer_key:
            return PreparedItem(item, PrepareVerdict.REPEAT)
        if hash_before != item.hash:
            return PreparedItem(item, PrepareVerdict.MODIFIED, MODIFIED_REQUEST)
        return PreparedItem(item, PrepareVerdict.DUPLICATE, _invalid("Individual transfer prepare duplicate"))
    payer = facts.accounts.get((item.payer_fsp, item.currency))
    payee = facts.accounts.get((item.payee_fsp, item.currency))
    try:
        amount = parse_amount(item.amount)
    except MalformedAmount:
        amount = None
    condition = decode_32_bytes(item.condition)
    error = _refusal(item, facts.now_ms, amount, payer, payee, condition)
    return PreparedItem(
        item,
        PrepareVerdict.VALID if error is None else PrepareVerdict.INVALID,
        error,
        amount=amount or 0,
        payer_account=None if payer is None else payer.account_id,
        payee_account=None if payee is None else payee.account_id,
        condition=condition,
    )


def _refusal(
    item: ItemToPrepare,
    now_ms: int,
    amount: int | None,
    payer: AccountFact | None,
    payee: AccountFact | None,
    condition: bytes | None,
) -> FspiopError | None:
    if item.expiration_ms <= now_ms:
        return TRANSFER_EXPIRED
    if amount is None:
        return _invalid("transferAmount is not an amount of at most 18 digits and 4 decimals")
    for name, account in ((item.payer_fsp, payer), (item.payee_fsp, payee)):
        if account is None:
            return _invalid(f"Participant {name} {item.currency} account not found")
        if not account.is_active:
            return _invalid(f"Participant {name} {item.currency} account is inactive")
    if condition is None:
        return _invalid("condition is not 32 bytes")
    return None


def decode_32_bytes(text: str) -> bytes | None:
    """The 32 bytes behind base64url text without padding, as conditions and fulfilments are written; None if it is not."""
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return value if len(value) == CONDITION_BYTES else None


def _invalid(detail: str) -> FspiopError:
    return fspiop_error(ErrorCode.VALIDATION_ERROR, detail)
