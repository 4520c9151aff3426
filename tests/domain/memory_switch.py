"""The switch's decisions on rows in memory, without a database and a stream: messages are a bag that any worker draws from.

Each handler here loads facts, asks the domain, and saves, as the real ones do in one transaction. The rows refuse what the
database refuses: a state that is left a second time. A message stays in the bag after it was read, so it can be read again
at any time later, in any order and in any batch; `unread` is what has never been read. Who may be told what is counted.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from domain.bulk_fulfil import (
    BulkToFulfil,
    FulfilFacts,
    FulfilRequest,
    FulfilRules,
    FulfilVerdict,
    ItemAnswer,
    MemberAnswer,
    decide_bulk_fulfil,
)
from domain.bulk_processing import BulkTally, FulfilOutcome, ItemNews, decide_bulk, decide_items, is_expired_error
from domain.combinations import (
    ITEM_COMMITTED,
    ITEM_DUPLICATE,
    ITEM_FULFIL_INVALID,
    ITEM_INVALID,
    ITEM_MODIFIED,
    ITEM_NOT_RESERVED,
    ITEM_REFUSED,
    ITEM_RELEASED,
    ITEM_RESERVED,
    POSITION_ABORT,
    POSITION_COMMIT,
    POSITION_PREPARE,
    POSITION_REJECT,
    POSITION_TIMEOUT,
    TOPIC_BULK_PROCESSING,
    TOPIC_TRANSFER_POSITION,
    Combination,
)
from domain.fspiop_errors import FspiopError
from domain.fulfil import TransferAnswer, decide_fulfil
from domain.identifiers import bulk_key_of, transfer_key
from domain.money import format_amount
from domain.position import AccountPosition, Move, Step, decide_positions
from domain.prepare import AccountFact, PrepareFacts, PrepareVerdict, decide_prepare
from domain.states import START, AnyState, BulkState, ItemState, TransferState, is_final, require_step
from domain.timeout import REASON_REJECT, OpenItem, becomes_expiring, decide_timeout
from domain.transfers import Transfer
from schemas.messages import TransferPrepare
from tests.domain.test_transfers import base64url

PAYER_ACCOUNT, PAYEE_ACCOUNT = 1, 2
PREPARE, POSITION, PROCESSING, FULFIL = "prepare", "position", "processing", "fulfil"
TOPICS = (PREPARE, POSITION, PROCESSING, FULFIL)

_MOVES = {
    POSITION_PREPARE: Move.PREPARE,
    POSITION_COMMIT: Move.COMMIT,
    POSITION_REJECT: Move.ABORT,
    POSITION_ABORT: Move.ABORT,
    POSITION_TIMEOUT: Move.TIMEOUT,
}
_ANSWERS = {
    TransferState.RESERVED: ITEM_RESERVED,
    TransferState.ABORTED_REJECTED: ITEM_NOT_RESERVED,
    TransferState.COMMITTED: ITEM_COMMITTED,
    TransferState.EXPIRED_RESERVED: ITEM_RELEASED,
}


def preimage(key: int) -> bytes:
    return hashlib.sha256(b"preimage" + key.to_bytes(8, "big")).digest()


class Asked(NamedTuple):
    """A message to position or to bulk-processing about one transfer."""

    transfer_key: int
    combination: Combination
    error: FspiopError | None = None


@dataclass
class Account:
    """A POSITION account, and what stands beside it."""

    value: int = 0
    cover: int = 0
    cap: int | None = None


@dataclass
class Bulk:
    """A bulk's row; `told` counts its forwards to the payee, `ends` are the final states that both sides were told."""

    key: int
    transfer_ids: dict[bytes, int]
    expiration_ms: int
    state: BulkState = BulkState.PENDING_PREPARE
    outcome: FulfilOutcome | None = None
    fulfil_hash: bytes | None = None
    forwards: int = 0
    ends: list[BulkState] = field(default_factory=list)


class MemorySwitch:
    """One payer, one payee, any number of bulks."""

    def __init__(self, *, cover: int, cap: int) -> None:
        self.now_ms = 0
        self.bulks: dict[int, Bulk] = {}
        self.items: dict[int, ItemState] = {}
        self.errors: dict[int, FspiopError | None] = {}
        self.transfers: dict[int, Transfer] = {}
        self.used: dict[bytes, tuple[int, bytes]] = {}
        self.accounts = {PAYER_ACCOUNT: Account(cover=cover, cap=cap), PAYEE_ACCOUNT: Account()}
        self.reserved_ever: Counter[int] = Counter()
        self.moves: list[tuple[Step, int]] = []
        self.bag: dict[str, list[object]] = {topic: [] for topic in TOPICS}
        self.unread: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self._left: set[tuple[str, int, str]] = set()

    # What FSPs send.

    def post(self, ids: Sequence[bytes], amounts: Sequence[int], lifetime_ms: int) -> Bulk:
        """A bulk that bulk-prepare has accepted; a transferId may have been used by another bulk."""
        key = len(self.bulks) + 1
        keys = [transfer_key(key, number) for number in range(1, len(ids) + 1)]
        bulk = Bulk(key, dict(zip(ids, keys, strict=True)), self.now_ms + lifetime_ms)
        self.bulks[key] = bulk
        for number, id_, amount in zip(keys, ids, amounts, strict=True):
            self.items[number] = ItemState.RECEIVED
            condition = base64url(hashlib.sha256(preimage(number)).digest())
            message = TransferPrepare(
                *("prepare", "bulk-prepare", "success", key.to_bytes(16, "big"), number, id_, "payer", "payee", "USD"),
                amount=format_amount(amount),
                condition=condition,
                expiration_ms=bulk.expiration_ms,
                hash=format_amount(amount).encode(),
            )
            self._send(PREPARE, message)
        return bulk

    def put(
        self, bulk: Bulk, request: FulfilRequest, *, source: str = "payee", request_id: bytes = b"r"
    ) -> FulfilVerdict:
        """The payee's answer, as bulk-fulfil takes it."""
        forwarded = {
            id_: key
            for id_, key in bulk.transfer_ids.items()
            if bulk.state is BulkState.ACCEPTED and self.items[key] is ItemState.ACCEPTED
        }
        # A request that was seen has its id kept; another one with the same body is told apart by its hash.
        known = BulkToFulfil("payee", bulk.state, None, bulk.fulfil_hash, forwarded)
        decided = decide_bulk_fulfil(FulfilFacts(request_id, source, self.now_ms, request, known), FulfilRules())
        if decided.verdict is FulfilVerdict.ACCEPT:
            self._step_bulk(bulk, BulkState.PROCESSING)
            bulk.outcome, bulk.fulfil_hash = decided.outcome, request.hash
            for member in decided.members:
                self._send(FULFIL, member)
        return decided.verdict

    def tick(self) -> None:
        """The timeout handler looks at every bulk that is due."""
        for bulk in self.bulks.values():
            if bulk.expiration_ms > self.now_ms or is_final(bulk.state):
                continue
            if becomes_expiring(bulk.state):
                self._step_bulk(bulk, BulkState.EXPIRING)
            decided = decide_timeout(self._open_item(key) for key in bulk.transfer_ids.values() if self._is_open(key))
            for step in decided.steps:
                reason = "bulk-timeout"
                self._step_transfer(step.transfer_key, step.from_state, step.to_state, reason, None)
            for message in decided.messages:
                topic = {TOPIC_TRANSFER_POSITION: POSITION, TOPIC_BULK_PROCESSING: PROCESSING}[
                    message.combination.topic
                ]
                self._send(topic, Asked(*message))

    # What handlers do with a batch; the numbers are places in the bag, which may have been read before.

    def handle(self, topic: str, numbers: Sequence[int]) -> None:
        unread = set(numbers)
        self.unread[topic] = [number for number in self.unread[topic] if number not in unread]
        batch = [self.bag[topic][number] for number in numbers]
        {PREPARE: self._prepare, POSITION: self._position, PROCESSING: self._processing, FULFIL: self._fulfil}[topic](
            batch
        )

    def drain(self, held: str | None = None) -> None:
        """Read what was never read, until nothing is left but on the topic that is held."""
        topics = [topic for topic in TOPICS if topic != held]
        while any(self.unread[topic] for topic in topics):
            for topic in topics:
                if self.unread[topic]:
                    self.handle(topic, list(self.unread[topic]))

    def _prepare(self, batch: Sequence[object]) -> None:
        messages = [one for one in batch if isinstance(one, TransferPrepare)]
        accounts = {
            ("payer", "USD"): AccountFact(PAYER_ACCOUNT, is_active=True),
            ("payee", "USD"): AccountFact(PAYEE_ACCOUNT, is_active=True),
        }
        for prepared in decide_prepare(messages, PrepareFacts(self.items, self.used, accounts, self.now_ms)):
            item = prepared.item
            match prepared.verdict:
                case PrepareVerdict.DUPLICATE:
                    self._send(PROCESSING, Asked(item.transfer_key, ITEM_DUPLICATE, prepared.error))
                case PrepareVerdict.MODIFIED:
                    self._send(PROCESSING, Asked(item.transfer_key, ITEM_MODIFIED, prepared.error))
                case PrepareVerdict.INVALID | PrepareVerdict.VALID:
                    valid = prepared.verdict is PrepareVerdict.VALID
                    state = TransferState.RECEIVED_PREPARE if valid else TransferState.INVALID
                    assert item.transfer_id not in self.used, "the unique index on transferId"
                    self.used[item.transfer_id] = (item.transfer_key, item.hash)
                    self.transfers[item.transfer_key] = Transfer(
                        *(item.transfer_key, state, prepared.amount, PAYER_ACCOUNT, PAYEE_ACCOUNT, prepared.condition),
                        expiration_ms=item.expiration_ms,
                        item_state=None,
                        reason="bulk-prepare",
                        error=prepared.error,
                    )
                    self._leave("transfer", item.transfer_key, START, state)
                    asked = Asked(item.transfer_key, ITEM_INVALID, prepared.error)
                    self._send(
                        *((POSITION, Asked(item.transfer_key, POSITION_PREPARE)) if valid else (PROCESSING, asked))
                    )

    def _position(self, batch: Sequence[object]) -> None:
        requests = [(one.transfer_key, _MOVES[one.combination]) for one in batch if isinstance(one, Asked)]
        facts = {key: self._transfer(key) for key, _ in requests if key in self.transfers}
        accounts = {id_: AccountPosition(id_, one.value, 0, one.cover, one.cap) for id_, one in self.accounts.items()}
        decided = decide_positions(requests, facts, accounts, self.now_ms)
        for step in decided.steps:
            before = facts[step.transfer_key]
            account = self.accounts[step.account_id]
            if step.to_state is TransferState.RESERVED:
                assert account.cap is not None
                assert step.position is not None
                # as they stood under the lock, which is now.
                assert step.position <= min(account.cap, account.cover)
                self.reserved_ever[step.transfer_key] += 1
            self._step_transfer(step.transfer_key, step.from_state, step.to_state, before.reason, step.error)
            self.moves.append((step, before.amount))
            refused = ITEM_REFUSED if before.reason == REASON_REJECT else ITEM_FULFIL_INVALID
            combination = _ANSWERS.get(step.to_state, refused)
            error = step.error or before.error
            self._send(PROCESSING, Asked(step.transfer_key, combination, error))
        for id_, value in decided.positions.items():
            self.accounts[id_].value = value

    def _processing(self, batch: Sequence[object]) -> None:
        news = [
            ItemNews(
                bulk_key_of(one.transfer_key),
                one.transfer_key,
                one.combination.action,
                one.combination.status,
                one.error,
            )
            for one in batch
            if isinstance(one, Asked)
        ]
        states = {key: transfer.state for key, transfer in self.transfers.items()}
        steps = decide_items(news, self.items, states)
        for step in steps:
            require_step(self.items[step.transfer_key], step.to_state)
            self._leave("item", step.transfer_key, self.items[step.transfer_key], step.to_state)
            self.items[step.transfer_key], self.errors[step.transfer_key] = step.to_state, step.error
        for key in {bulk_key_of(step.transfer_key) for step in steps}:
            bulk = self.bulks[key]
            step_ = decide_bulk(self._tally(bulk))
            if step_ is not None:
                self._step_bulk(bulk, step_.to_state)
                bulk.forwards += step_.to_state is BulkState.ACCEPTED
                if is_final(step_.to_state):
                    bulk.ends.append(step_.to_state)

    def _fulfil(self, batch: Sequence[object]) -> None:
        answers = [
            TransferAnswer(one.transfer_key, one.fulfilment, one.error, one.refused)
            for one in batch
            if isinstance(one, MemberAnswer)
        ]
        facts = {one.transfer_key: self._transfer(one.transfer_key) for one in answers}
        for step in decide_fulfil(answers, facts, self.now_ms):
            if step.to_state is TransferState.RECEIVED_FULFIL:
                combination = POSITION_COMMIT
            else:
                combination = POSITION_REJECT if step.refused else POSITION_ABORT
            before = facts[step.transfer_key].state
            self._step_transfer(step.transfer_key, before, step.to_state, combination.action, step.error)
            self._send(POSITION, Asked(step.transfer_key, combination))

    # Rows.

    def _send(self, topic: str, message: object) -> None:
        self.unread[topic].append(len(self.bag[topic]))
        self.bag[topic].append(message)

    def _transfer(self, key: int) -> Transfer:
        return self.transfers[key]._replace(item_state=self.items[key])

    def _is_open(self, key: int) -> bool:
        return self.items[key] in (ItemState.RECEIVED, ItemState.ACCEPTED)

    def _open_item(self, key: int) -> OpenItem:
        transfer = self.transfers.get(key)
        if transfer is None:
            return OpenItem(key, self.items[key], None)
        return OpenItem(key, self.items[key], transfer.state, transfer.reason, transfer.error)

    def _tally(self, bulk: Bulk) -> BulkTally:
        keys = bulk.transfer_ids.values()
        expired = sum(is_expired_error(self.errors.get(key)) for key in keys)
        return BulkTally(bulk.key, bulk.state, Counter(self.items[key] for key in keys), expired, bulk.outcome)

    def _step_bulk(self, bulk: Bulk, to_state: BulkState) -> None:
        require_step(bulk.state, to_state)
        self._leave("bulk", bulk.key, bulk.state, to_state)
        bulk.state = to_state

    def _step_transfer(
        self, key: int, from_state: TransferState, to_state: TransferState, reason: str, error: FspiopError | None
    ) -> None:
        require_step(from_state, to_state)
        self._leave("transfer", key, from_state, to_state)
        before = self.transfers[key]
        self.transfers[key] = before._replace(state=to_state, reason=reason, error=error or before.error)

    def _leave(self, kind: str, key: int, from_state: str, to_state: AnyState) -> None:
        """The primary key (entity, from_state)."""
        assert (kind, key, from_state) not in self._left, f"{kind} {key} leaves {from_state} twice, for {to_state}"
        self._left.add((kind, key, from_state))


def answers_of(bulk: Bulk, kinds: Iterable[str]) -> list[ItemAnswer]:
    """One answer per item of the bulk, in order: commit, refuse, wrong, missing; `omit` leaves it out."""
    pairs = zip(bulk.transfer_ids.items(), kinds, strict=True)
    return [_answer(id_, key, kind) for (id_, key), kind in pairs if kind != "omit"]


def _answer(transfer_id: bytes, key: int, kind: str) -> ItemAnswer:
    match kind:
        case "commit":
            return ItemAnswer(transfer_id, base64url(preimage(key)), None)
        case "wrong":
            return ItemAnswer(transfer_id, base64url(bytes(32)), None)
        case "missing":
            return ItemAnswer(transfer_id, None, None)
        case _:
            return ItemAnswer(transfer_id, None, FspiopError("5104", "No"))
