"""transfer-get: a GET /transfers/{ID} is answered by a PUT or a PUT /error, by who asks and how far the transfer is.

Consumes    topic-transfer-get: TransferGet
Refuses     3100 to a sender that is inactive; 3208 for an id that is not known, 3000 to whoever is neither payer nor payee
            (domain/transfer_get.py)
Changes     nothing
Emits       the answer (get success or error), by single-notification

Single transfers, items of bulks, and funds in and out are all transfers (reference §11.6). One that is not in the database
may lie in the object store still unread (handlers/unread.py); the store has a bounded time for a batch (`object_calls`).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from db.participants import participants_by_name
from db.progress import read_times_ms
from db.singles import funds_to_show, transfers_to_show
from domain.combinations import (
    TOPIC_SINGLE_PREPARE,
    TOPIC_TRANSFER_GET,
    TRANSFER_GET_ANSWER,
    TRANSFER_GET_ERROR,
    require_all_known,
)
from domain.fspiop_errors import source_inactive
from domain.transfer_get import TransferView, decide_transfer_get
from handlers.handler import Output
from handlers.object_calls import ObjectCalls
from handlers.single_news import view_answer
from handlers.unread import has_unread_post
from object_store.interface import ObjectStore
from schemas.messages import TransferGet
from stream.interface import Stream

_SINGLE_PREPARE = "single-prepare"


class TransferGetHandler:
    """See the module's docstring. `stream` says in which partition a transfer's request would stand."""

    name = "transfer-get"
    topic = TOPIC_TRANSFER_GET
    message = TransferGet

    def __init__(self, store: ObjectStore, stream: Stream) -> None:
        self._store = store
        self._calls = ObjectCalls(store)
        self._stream = stream

    def weight(self, message: TransferGet) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[TransferGet]) -> list[Output]:
        require_all_known(self.topic, messages)
        participants = participants_by_name(tx, {message.source for message in messages})
        # Whoever is no participant has no endpoint, so there is nobody to answer.
        asked = [message for message in messages if message.source in participants]
        ids = [message.transfer_id for message in asked]
        transfers = transfers_to_show(tx, ids)
        missing = [transfer_id for transfer_id in ids if transfer_id not in transfers]
        funds = funds_to_show(tx, missing) if missing else {}
        read_ms = read_times_ms(tx, _SINGLE_PREPARE, TOPIC_SINGLE_PREPARE) if missing else {}
        unknown = [
            message
            for message in asked
            if participants[message.source].is_active
            and message.transfer_id not in transfers
            and message.transfer_id not in funds
        ]
        with self._calls.of_batch() as calls:
            found = list(calls.in_order(lambda message: self._unread(message, read_ms), unknown))
        unread = {message.request_id for message, is_unread in zip(unknown, found, strict=True) if is_unread}
        outputs = []
        for message in asked:
            if not participants[message.source].is_active:
                outputs.append(_answer(message, TransferView(error=source_inactive(message.source))))
                continue
            transfer, fund = transfers.get(message.transfer_id), funds.get(message.transfer_id)
            is_unread = message.request_id in unread
            view = decide_transfer_get(message.source, transfer, fund, unread_request_of_source=is_unread)
            outputs.append(_answer(message, view))
        return outputs

    def give_up(self, tx: Connection, message: TransferGet, reason: str) -> list[Output]:
        """Nothing waits for a GET but its sender, who can ask again."""
        return []

    def _unread(self, message: TransferGet, read_ms: Mapping[int, int]) -> bool:
        return has_unread_post(
            self._store,
            self._stream,
            TOPIC_SINGLE_PREPARE,
            message.transfer_id,
            message.source,
            read_ms,
            lambda body: b'"payerFsp"' in body and b'"individualTransfers"' not in body,
        )


def _answer(message: TransferGet, view: TransferView) -> Output:
    combination = TRANSFER_GET_ANSWER if view.error is None else TRANSFER_GET_ERROR
    return view_answer(combination, message.transfer_id, message.source, view, message.request_id)
