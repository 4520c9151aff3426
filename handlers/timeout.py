"""timeout: bulks and single transfers past their expiration are ended, and what is stuck is pushed forward.

Consumes    ticks of the clock (stream/ticks.py); the progress row of that one partition elects who looks
Refuses     nothing
Changes     a due bulk becomes EXPIRING; its open transfers take the step that domain/timeout.py says; the bulk is looked at
            again after `look_again_ms`, until bulk-processing has ended it
Emits       #22 to bulk-processing, #23 to position, and for transfers on their way the message their state calls for;
            for single transfers see handlers/single_timeout.py

What is due stands in one small table (db/expirations.py). A tick looks at bulks of about `items_max` items and at
`singles_max` single transfers, so the work of one tick is bounded.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.bulks import BulkStateChange, bulks_by_key, insert_bulk_steps, lock_bulks
from db.expirations import due_numbers, look_again
from db.transfers import OpenItemRow, TransferStateChange, insert_transfer_steps, open_items_of
from domain.fspiop_errors import TRANSFER_EXPIRED
from domain.identifiers import bulk_key_of
from domain.states import BulkState, TransferState, is_final
from domain.timeout import OpenItem, becomes_expiring, decide_timeout
from handlers.handler import Crash, Output
from handlers.news import due_output
from handlers.single_timeout import expire_singles
from schemas.messages import Tick
from stream.ticks import TICK_TOPIC


class TimeoutHandler:
    """See the module's docstring. The bounds are a tick's; `look_again_ms` is the pause between looks at one bulk."""

    name = "timeout"
    topic = TICK_TOPIC
    message = Tick

    def __init__(self, items_max: int = 20_000, singles_max: int = 1_000, look_again_ms: int = 2_000) -> None:
        self._items_max = items_max
        self._singles_max = singles_max
        self._look_again_ms = look_again_ms

    def weight(self, message: Tick) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[Tick]) -> list[Output]:
        bulks, singles = due_numbers(tx, items_max=self._items_max, singles_max=self._singles_max)
        outputs = self._expire_bulks(tx, bulks) if bulks else []
        if singles:
            outputs += expire_singles(tx, singles, self._look_again_ms)
        return outputs

    def give_up(self, tx: Connection, message: Tick, reason: str) -> list[Output]:
        raise Crash(f"timeout: a tick failed, and time cannot be skipped: {reason}")

    def _expire_bulks(self, tx: Connection, due: Sequence[int]) -> list[Output]:
        lock_bulks(tx, due)
        bulks = {key: bulk for key, bulk in bulks_by_key(tx, due).items() if not is_final(bulk.state)}
        expiring = [bulk for bulk in bulks.values() if becomes_expiring(bulk.state)]
        if expiring:
            steps = [
                BulkStateChange(bulk.bulk_key, bulk.state, BulkState.EXPIRING, TRANSFER_EXPIRED.description)
                for bulk in expiring
            ]
            insert_bulk_steps(tx, steps)
        rows = open_items_of(tx, {key: bulk.item_count for key, bulk in bulks.items()})
        decision = decide_timeout(_open_item(row) for row in rows)
        if decision.steps:
            insert_transfer_steps(
                tx,
                [
                    TransferStateChange(
                        step.transfer_key,
                        step.from_state,
                        step.to_state,
                        _REASONS[step.to_state],
                        error=TRANSFER_EXPIRED,
                    )
                    for step in decision.steps
                ],
            )
        look_again(tx, due, self._look_again_ms)
        by_key = {row.transfer_key: row for row in rows}
        return [
            due_output(message, by_key[message.transfer_key], bulks[bulk_key_of(message.transfer_key)].bulk_transfer_id)
            for message in decision.messages
        ]


_REASONS = {
    TransferState.EXPIRED_PREPARED: "bulk-timeout-received",
    TransferState.RESERVED_TIMEOUT: "bulk-timeout-reserved",
}


def _open_item(row: OpenItemRow) -> OpenItem:
    return OpenItem(row.transfer_key, row.item_state, row.transfer_state, row.reason, row.error)
