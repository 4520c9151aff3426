"""single-prepare: a POST /transfers becomes a transfer, or is refused before money is touched.

Consumes    topic-single-transfer-prepare: SinglePrepare
Refuses     as domain/single_prepare.py says, in that order
Changes     a transfer with RECEIVED_PREPARE and its open expiration, or with INVALID and its error; nothing for a refusal of
            identity, a duplicate or a repeat
Emits       valid: SinglePosition, by the payer's account; refused: PUT /error to the payer, by single-notification; the same
            body again: the outcome once more

Two batches that carry one transferId race on its unique key; the loser tries again and sees a duplicate.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from db.clock import now_ms
from db.participants import accounts_of, participants_by_name
from db.singles import NewSingle, insert_singles, singles_by_id
from db.transfers import NewTransfer, used_transfer_ids
from domain.combinations import (
    SINGLE_POSITION_PREPARE,
    SINGLE_PREPARE,
    SINGLE_PREPARE_DUPLICATE,
    SINGLE_PREPARE_MODIFIED,
    SINGLE_PREPARE_REFUSED,
    TOPIC_SINGLE_PREPARE,
    require_all_known,
)
from domain.fspiop_errors import MODIFIED_REQUEST, ErrorCode, fspiop_error
from domain.prepare import AccountFact
from domain.single_prepare import (
    KnownTransfer,
    PreparedSingle,
    SinglePrepareFacts,
    SingleVerdict,
    decide_single_prepare,
)
from domain.single_transfers import SingleTransfer, has_ended
from domain.states import TransferState
from handlers.handler import Output
from handlers.single_news import outcome_answer, outcome_news, refusal, to_single_position
from schemas.messages import SinglePrepare


class SinglePrepareHandler:
    """See the module's docstring."""

    name = "single-prepare"
    topic = TOPIC_SINGLE_PREPARE
    message = SinglePrepare

    def __init__(self, expiration_horizon_ms: int, hub_name: str) -> None:
        self._expiration_horizon_ms = expiration_horizon_ms
        self._hub_name = hub_name

    def weight(self, message: SinglePrepare) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[SinglePrepare]) -> list[Output]:
        require_all_known(self.topic, messages)
        singles = singles_by_id(tx, [message.transfer_id for message in messages])
        facts = self._load(tx, messages, singles)
        decided = decide_single_prepare(messages, facts, self._expiration_horizon_ms)
        written = [one for one in decided if one.terms is not None]
        keys = insert_singles(tx, [_new_single(one) for one in written]) if written else []
        key_of = {one.request.request_id: key for one, key in zip(written, keys, strict=True)}
        return [
            output
            for one in decided
            for output in _outputs(one, key_of.get(one.request.request_id), singles.get(one.request.transfer_id))
        ]

    def give_up(self, tx: Connection, message: SinglePrepare, reason: str) -> list[Output]:
        """No money has moved: nothing is written, and the payer is told to send it again."""
        if message.source not in participants_by_name(tx, [message.source]):
            return []
        error = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the transfer could not be prepared")
        return [refusal(SINGLE_PREPARE_REFUSED, message.transfer_id, message.source, error, message.request_id)]

    def _load(
        self, tx: Connection, messages: Sequence[SinglePrepare], singles: Mapping[bytes, SingleTransfer]
    ) -> SinglePrepareFacts:
        names = {
            name
            for message in messages
            for name in (message.source, message.payer_fsp, message.payee_fsp, message.destination)
            if name is not None
        }
        pairs = {(name, message.currency) for message in messages for name in (message.payer_fsp, message.payee_fsp)}
        known = {
            transfer_id: KnownTransfer(hash_, None, None, False)
            for transfer_id, (_, hash_) in used_transfer_ids(tx, [message.transfer_id for message in messages]).items()
        }
        for transfer_id, single in singles.items():
            known[transfer_id] = KnownTransfer(
                single.hash, single.payer_fsp, single.request_id, has_ended(single.state)
            )
        return SinglePrepareFacts(
            participants={name: one.is_active for name, one in participants_by_name(tx, names).items()},
            known=known,
            accounts={
                pair: AccountFact(account.position_account_id, account.is_active)
                for pair, account in accounts_of(tx, pairs).items()
            },
            hub_name=self._hub_name,
            now_ms=now_ms(tx),
        )


def _new_single(prepared: PreparedSingle) -> NewSingle:
    request, terms = prepared.request, prepared.terms
    assert terms is not None
    valid = prepared.verdict is SingleVerdict.VALID
    transfer = NewTransfer(
        0,
        request.transfer_id,
        request.hash,
        terms.amount,
        request.currency,
        terms.payer_account,
        terms.payee_account,
        terms.condition,
        request.expiration_ms,
        TransferState.RECEIVED_PREPARE if valid else TransferState.INVALID,
        SINGLE_PREPARE.action,
        prepared.error,
    )
    return NewSingle(
        transfer, request.payer_fsp, request.payee_fsp, request.request_id, request.received_at_ms, expires=valid
    )


def _outputs(prepared: PreparedSingle, key: int | None, before: SingleTransfer | None) -> list[Output]:
    request = prepared.request
    match prepared.verdict:
        case SingleVerdict.IGNORE:
            return []
        case SingleVerdict.REFUSE:
            assert prepared.error is not None
            modified = prepared.error == MODIFIED_REQUEST
            combination = SINGLE_PREPARE_MODIFIED if modified else SINGLE_PREPARE_REFUSED
            return [refusal(combination, request.transfer_id, request.source, prepared.error, request.request_id)]
        case SingleVerdict.RESEND:
            assert before is not None, "what has ended was read from the database"
            return [outcome_answer(SINGLE_PREPARE_DUPLICATE, before, request.source, request.request_id)]
        case SingleVerdict.INVALID:
            assert key is not None
            return outcome_news(_as_written(prepared, key, TransferState.INVALID))
        case SingleVerdict.VALID:
            assert key is not None
            assert prepared.terms is not None
            assert prepared.terms.payer_account is not None
            return [to_single_position(SINGLE_POSITION_PREPARE, prepared.terms.payer_account, key, request.transfer_id)]


def _as_written(prepared: PreparedSingle, key: int, state: TransferState) -> SingleTransfer:
    """The single transfer that has just been written, as it would be read."""
    request, terms = prepared.request, prepared.terms
    assert terms is not None
    return SingleTransfer(
        key,
        request.transfer_id,
        request.hash,
        request.payer_fsp,
        request.payee_fsp,
        terms.payer_account,
        terms.payee_account,
        terms.condition,
        request.expiration_ms,
        request.request_id,
        state,
        SINGLE_PREPARE.action,
        prepared.error,
        None,
        None,
        None,
        None,
    )
