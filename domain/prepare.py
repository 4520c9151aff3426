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
# 32 bytes in base64url, whose one padding character FSPIOP leaves out.
CONDITION_CHARACTERS = 43


class TransferTerms(Protocol):
    """What any transfer says of itself, an item of a bulk or a single one. Times in milliseconds since 1970."""

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


class ItemToPrepare(TransferTerms, Protocol):
    """What prepare is asked to look at, as its message says it."""

    @property
    def transfer_key(self) -> int: ...
    @property
    def transfer_id(self) -> bytes: ...
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
    judged = judge_terms(item, facts.accounts, facts.now_ms)
    return PreparedItem(
        item,
        PrepareVerdict.VALID if judged.error is None else PrepareVerdict.INVALID,
        judged.error,
        amount=judged.amount,
        payer_account=judged.payer_account,
        payee_account=judged.payee_account,
        condition=judged.condition,
    )


class JudgedTerms(NamedTuple):
    """The first check that the terms fail, if one does, and what they say; None (amount: 0) where they say it wrongly."""

    error: FspiopError | None
    amount: int
    payer_account: int | None
    payee_account: int | None
    condition: bytes | None


def judge_terms(terms: TransferTerms, accounts: Mapping[tuple[str, str], AccountFact], now_ms: int) -> JudgedTerms:
    """Checks 3 to 6 of the module's docstring."""
    payer = accounts.get((terms.payer_fsp, terms.currency))
    payee = accounts.get((terms.payee_fsp, terms.currency))
    try:
        amount = parse_amount(terms.amount)
    except MalformedAmount:
        amount = None
    condition = decode_32_bytes(terms.condition)
    return JudgedTerms(
        _refusal(terms, now_ms, amount, payer, payee, condition),
        amount or 0,
        None if payer is None else payer.account_id,
        None if payee is None else payee.account_id,
        condition,
    )


def _refusal(
    terms: TransferTerms,
    now_ms: int,
    amount: int | None,
    payer: AccountFact | None,
    payee: AccountFact | None,
    condition: bytes | None,
) -> FspiopError | None:
    if terms.expiration_ms <= now_ms:
        return TRANSFER_EXPIRED
    if amount is None:
        return _invalid("transferAmount is not an amount of at most 18 digits and 4 decimals")
    for name, account in ((terms.payer_fsp, payer), (terms.payee_fsp, payee)):
        if account is None:
            return _invalid(f"Participant {name} {terms.currency} account not found")
        if not account.is_active:
            return _invalid(f"Participant {name} {terms.currency} account is inactive")
    if condition is None:
        return _invalid("condition is not 32 bytes")
    return None


def decode_32_bytes(text: str) -> bytes | None:
    """The 32 bytes behind 43 characters of base64url, as conditions and fulfilments are written; None if it is not that."""
    if len(text) != CONDITION_CHARACTERS:
        return None
    try:
        value = base64.urlsafe_b64decode(text + "=")
    except ValueError:
        return None
    # A character of no value, or padding of the sender's own, makes it shorter.
    return value if len(value) == CONDITION_BYTES else None


def _invalid(detail: str) -> FspiopError:
    return fspiop_error(ErrorCode.VALIDATION_ERROR, detail)
