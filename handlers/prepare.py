"""prepare: one item of a bulk becomes a transfer, or is refused before money is touched.

Consumes    topic-transfer-prepare: TransferPrepare (#4)
Refuses     as domain/prepare.py says, in that order
Changes     a transfer with RECEIVED_PREPARE, or with INVALID and its error; nothing for a duplicate or a repeat
Emits       valid: TransferPosition (#7), by the payer's account; refused: BulkProcessing (#8; duplicates #5 and #6)

The bulks are locked in share mode first: bulk-processing and timeout, which may end an item, wait until the transfers are
written, or were quicker, and then the item is not RECEIVED any more. Two batches that carry one transferId race on its
unique key; the loser tries again and sees a duplicate.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.bulks import lock_bulks_shared
from db.clock import now_ms
from db.participants import accounts_of
from db.transfers import NewTransfer, insert_transfers, item_states, used_transfer_ids
from domain.combinations import (
    ITEM_DUPLICATE,
    ITEM_INVALID,
    ITEM_MODIFIED,
    POSITION_PREPARE,
    TOPIC_TRANSFER_PREPARE,
    Combination,
    require_all_known,
)
from domain.fspiop_errors import ErrorCode, FspiopError, fspiop_error
from domain.identifiers import bulk_key_of
from domain.prepare import (
    AccountFact,
    PreparedItem,
    PrepareFacts,
    PrepareVerdict,
    decide_prepare,
)
from domain.states import ItemState, TransferState
from handlers.handler import Output
from handlers.news import item_news, to_position
from schemas.messages import TransferPrepare


class PrepareHandler:
    """See the module's docstring."""

    name = "prepare"
    topic = TOPIC_TRANSFER_PREPARE
    message = TransferPrepare

    def weight(self, message: TransferPrepare) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[TransferPrepare]) -> list[Output]:
        require_all_known(self.topic, messages)
        lock_bulks_shared(tx, list({bulk_key_of(message.transfer_key) for message in messages}))
        facts = self._load(tx, messages)
        decided = decide_prepare(messages, facts)
        return self._save(tx, messages, decided)

    def give_up(self, tx: Connection, message: TransferPrepare, reason: str) -> list[Output]:
        """No money has moved: the item ends as RECEIVED_INVALID with 2001."""
        lock_bulks_shared(tx, [bulk_key_of(message.transfer_key)])
        if item_states(tx, [message.transfer_key]).get(message.transfer_key) is not ItemState.RECEIVED:
            return []
        if used_transfer_ids(tx, [message.transfer_id]).get(message.transfer_id, (0, b""))[0] == message.transfer_key:
            return []
        error = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the transfer could not be prepared")
        return [_news(ITEM_INVALID, message, error)]

    def _load(self, tx: Connection, messages: Sequence[TransferPrepare]) -> PrepareFacts:
        pairs = {(name, message.currency) for message in messages for name in (message.payer_fsp, message.payee_fsp)}
        return PrepareFacts(
            item_states=item_states(tx, [message.transfer_key for message in messages]),
            used=used_transfer_ids(tx, [message.transfer_id for message in messages]),
            accounts={
                pair: AccountFact(account.position_account_id, account.is_active)
                for pair, account in accounts_of(tx, pairs).items()
            },
            now_ms=now_ms(tx),
        )

    def _save(
        self, tx: Connection, messages: Sequence[TransferPrepare], decided: Sequence[PreparedItem]
    ) -> list[Output]:
        transfers: list[NewTransfer] = []
        outputs: list[Output] = []
        for message, prepared in zip(messages, decided, strict=True):
            match prepared.verdict:
                case PrepareVerdict.REPEAT:
                    continue
                case PrepareVerdict.DUPLICATE:
                    outputs.append(_news(ITEM_DUPLICATE, message, prepared.error))
                case PrepareVerdict.MODIFIED:
                    outputs.append(_news(ITEM_MODIFIED, message, prepared.error))
                case PrepareVerdict.INVALID:
                    transfers.append(_transfer(prepared, TransferState.INVALID))
                    outputs.append(_news(ITEM_INVALID, message, prepared.error))
                case PrepareVerdict.VALID:
                    transfers.append(_transfer(prepared, TransferState.RECEIVED_PREPARE))
                    outputs.append(_to_position(message, prepared))
        if transfers:
            insert_transfers(tx, transfers)
        return outputs


def _transfer(prepared: PreparedItem, state: TransferState) -> NewTransfer:
    item = prepared.item
    return NewTransfer(
        item.transfer_key,
        item.transfer_id,
        item.hash,
        prepared.amount,
        item.currency,
        prepared.payer_account,
        prepared.payee_account,
        prepared.condition,
        item.expiration_ms,
        state,
        POSITION_PREPARE.action,
        prepared.error,
    )


def _to_position(message: TransferPrepare, prepared: PreparedItem) -> Output:
    assert prepared.payer_account is not None
    return to_position(
        POSITION_PREPARE,
        prepared.payer_account,
        message.bulk_transfer_id,
        message.transfer_key,
        message.transfer_id,
    )


def _news(combination: Combination, message: TransferPrepare, error: FspiopError | None) -> Output:
    return item_news(combination, message.bulk_transfer_id, message.transfer_key, message.transfer_id, error)
