"""Items and transfers: bulk_transfer_association, transfer, transfer_state_change, a batch at a time.

A transfer's current state is the to_state that no step has left. Inserting a step that another transaction has taken
raises the driver's unique violation: the loser's batch is rolled back and sees the other's state when it tries again.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from db.documents import document, hex_bytes, int_array, uuid_array
from domain.fspiop_errors import FspiopError
from domain.identifiers import id_text, transfer_key
from domain.money import format_amount, from_numeric
from domain.states import START, ItemState, TransferState
from domain.transfers import Transfer

# A look-up is an order of magnitude cheaper than calling the enumeration, and there is one per row.
_ITEM_STATE = {state.value: state for state in ItemState}
_TRANSFER_STATE = {state.value: state for state in TransferState}

# ---------------------------------------------------------------------------------------------------------------------
# Items.

_INSERT_ITEMS = text("""
    INSERT INTO bulk_transfer_association (transfer_key, transfer_id, bulk_processing_state)
    SELECT k, i, 'RECEIVED' FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS uuid[])) AS r(k, i)
""")
_ITEM_STATES = text("""
    SELECT transfer_key, bulk_processing_state FROM bulk_transfer_association
    WHERE transfer_key = ANY(CAST(:keys AS bigint[]))
""")
_UPDATE_ITEMS = text("""
    UPDATE bulk_transfer_association AS a
    SET bulk_processing_state = r.to_state, error_code = r.error_code, error_description = r.error_description,
        last_processed_date = now()
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        transfer_key bigint, to_state text, error_code text, error_description text)
    WHERE a.transfer_key = r.transfer_key
""")


def insert_items(tx: Connection, items: Sequence[tuple[int, bytes]]) -> None:
    """Write an item per (transfer key, transferId), each RECEIVED."""
    tx.execute(
        _INSERT_ITEMS, {"keys": int_array(key for key, _ in items), "ids": uuid_array(value for _, value in items)}
    )


def item_states(tx: Connection, keys: Sequence[int]) -> dict[int, ItemState]:
    found = tx.execute(_ITEM_STATES, {"keys": int_array(keys)}).all()
    return {key: _ITEM_STATE[state] for key, state in found}


def update_items(tx: Connection, steps: Sequence[tuple[int, ItemState, FspiopError | None]]) -> None:
    """Set items to a state, with an error where they failed; the caller holds the lock of their bulks."""
    rows = document(
        {
            "transfer_key": key,
            "to_state": state,
            "error_code": None if error is None else error.code,
            "error_description": None if error is None else error.description,
        }
        for key, state, error in steps
    )
    tx.execute(_UPDATE_ITEMS, {"rows": rows})


_TALLY = text("""
    SELECT b.bulk_key, a.bulk_processing_state, count(*), count(*) FILTER (WHERE a.error_code = '3303')
    FROM unnest(CAST(:bulk_keys AS bigint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
         AS b(bulk_key, first, last)
    JOIN bulk_transfer_association a ON a.transfer_key BETWEEN b.first AND b.last
    GROUP BY b.bulk_key, a.bulk_processing_state
""")


def _ranges(bulks: Mapping[int, int]) -> dict[str, str]:
    """The key ranges of bulks, given their item counts."""
    return {
        "bulk_keys": int_array(bulks),
        "firsts": int_array(transfer_key(bulk_key, 1) for bulk_key in bulks),
        "lasts": int_array(transfer_key(bulk_key, max(count, 1)) for bulk_key, count in bulks.items()),
    }


def tally_items(tx: Connection, bulks: Mapping[int, int]) -> dict[int, tuple[dict[ItemState, int], int]]:
    """Per bulk key how many items are in each state, and how many have error 3303; `bulks` maps keys to item counts."""
    tallies: dict[int, tuple[dict[ItemState, int], int]] = {bulk_key: ({}, 0) for bulk_key in bulks}
    for bulk_key, state, count, expired in tx.execute(_TALLY, _ranges(bulks)).all():
        states, expired_before = tallies[bulk_key]
        states[_ITEM_STATE[state]] = count
        tallies[bulk_key] = (states, expired_before + expired)
    return tallies


class ItemRow(NamedTuple):
    """An item as its bulk's result shows it; `fulfilment` where the payee's answer was good."""

    transfer_key: int
    transfer_id: bytes
    state: ItemState
    error: FspiopError | None
    fulfilment: bytes | None


_ITEMS_OF = text("""
    SELECT a.transfer_key, uuid_send(a.transfer_id), a.bulk_processing_state, a.error_code, a.error_description,
           f.fulfilment
    FROM unnest(CAST(:bulk_keys AS bigint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
         AS b(bulk_key, first, last)
    JOIN bulk_transfer_association a ON a.transfer_key BETWEEN b.first AND b.last
    LEFT JOIN transfer_state_change f ON f.transfer_key = a.transfer_key AND f.from_state = 'RESERVED'
    ORDER BY a.transfer_key
""")


def items_of(tx: Connection, bulks: Mapping[int, int]) -> list[ItemRow]:
    """All items of these bulks in the order of their requests; `bulks` maps bulk keys to item counts."""
    return [
        ItemRow(key, transfer_id, _ITEM_STATE[state], error_of(code, description), fulfilment)
        for key, transfer_id, state, code, description, fulfilment in tx.execute(_ITEMS_OF, _ranges(bulks)).all()
    ]


def error_of(code: str | None, description: str | None) -> FspiopError | None:
    """The error behind its two columns, which are both empty where there is none."""
    return None if code is None or description is None else FspiopError(code, description)


class OpenItemRow(NamedTuple):
    """An item that still waits, with its transfer, if there is one, and the reason and error of its last step."""

    transfer_key: int
    transfer_id: bytes
    item_state: ItemState
    transfer_state: TransferState | None
    reason: str | None
    error: FspiopError | None
    payer_account: int | None
    payee_account: int | None


_OPEN_ITEMS = text("""
    SELECT a.transfer_key, uuid_send(a.transfer_id), a.bulk_processing_state, s.to_state, s.reason, s.error_code,
           s.error_description, t.payer_participant_currency_id, t.payee_participant_currency_id
    FROM unnest(CAST(:bulk_keys AS bigint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
         AS b(bulk_key, first, last)
    JOIN bulk_transfer_association a ON a.transfer_key BETWEEN b.first AND b.last
         AND a.bulk_processing_state IN ('RECEIVED', 'ACCEPTED')
    LEFT JOIN transfer t ON t.transfer_key = a.transfer_key
    LEFT JOIN transfer_state_change s ON s.transfer_key = a.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    ORDER BY a.transfer_key
""")


def open_items_of(tx: Connection, bulks: Mapping[int, int]) -> list[OpenItemRow]:
    """The items of these bulks that are RECEIVED or ACCEPTED; `bulks` maps bulk keys to item counts."""
    return [
        OpenItemRow(
            key,
            transfer_id,
            _ITEM_STATE[item_state],
            None if state is None else _TRANSFER_STATE[state],
            reason,
            error_of(code, description),
            payer,
            payee,
        )
        for key, transfer_id, item_state, state, reason, code, description, payer, payee in tx.execute(
            _OPEN_ITEMS, _ranges(bulks)
        ).all()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Transfers.


class NewTransfer(NamedTuple):
    """A transfer with its first step (RECEIVED_PREPARE, or INVALID with its error). The amount counts 1/10,000."""

    transfer_key: int
    transfer_id: bytes
    hash: bytes
    amount: int
    currency: str
    payer_account: int | None
    payee_account: int | None
    condition: bytes | None
    expiration_ms: int
    state: TransferState
    reason: str
    error: FspiopError | None


_INSERT_TRANSFERS = text("""
    WITH input AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            k bigint, id uuid, hash bytea, amount numeric, currency text, payer int, payee int, condition bytea,
            expiration_ms bigint, state text, reason text, error_code text, error_description text)
    ), transfers AS (
        INSERT INTO transfer (transfer_key, transfer_id, hash, amount, currency_id, payer_participant_currency_id,
                              payee_participant_currency_id, condition, expiration)
        SELECT k, id, hash, amount, currency, payer, payee, condition, to_timestamp(expiration_ms / 1000.0) FROM input
    )
    INSERT INTO transfer_state_change (transfer_key, from_state, to_state, reason, error_code, error_description)
    SELECT k, :start, state, reason, error_code, error_description FROM input
""")


def insert_transfers(tx: Connection, transfers: Sequence[NewTransfer]) -> None:
    rows = document(
        {
            "k": one.transfer_key,
            "id": id_text(one.transfer_id),
            "hash": hex_bytes(one.hash),
            "amount": format_amount(one.amount),
            "currency": one.currency,
            "payer": one.payer_account,
            "payee": one.payee_account,
            "condition": None if one.condition is None else hex_bytes(one.condition),
            "expiration_ms": one.expiration_ms,
            "state": one.state,
            "reason": one.reason,
            "error_code": None if one.error is None else one.error.code,
            "error_description": None if one.error is None else one.error.description,
        }
        for one in transfers
    )
    tx.execute(_INSERT_TRANSFERS, {"rows": rows, "start": START})


_USED_IDS = text("""
    SELECT uuid_send(transfer_id), transfer_key, hash FROM transfer WHERE transfer_id = ANY(CAST(:ids AS uuid[]))
""")


def used_transfer_ids(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Which of these transferIds stand already, with the (transfer key, hash) of the transfer that has them."""
    found = tx.execute(_USED_IDS, {"ids": uuid_array(ids)}).all()
    return {transfer_id: (key, hash_) for transfer_id, key, hash_ in found}


_LEGS = text("""
    SELECT payer_participant_currency_id FROM transfer
    WHERE transfer_key = ANY(CAST(:payer_keys AS bigint[])) AND payer_participant_currency_id IS NOT NULL
    UNION
    SELECT payee_participant_currency_id FROM transfer
    WHERE transfer_key = ANY(CAST(:payee_keys AS bigint[])) AND payee_participant_currency_id IS NOT NULL
""")


def legs_of(tx: Connection, payer_keys: Sequence[int], payee_keys: Sequence[int]) -> list[int]:
    """The accounts that move: the payers' of some transfers and the payees' of others. They never change."""
    found = tx.execute(_LEGS, {"payer_keys": int_array(payer_keys), "payee_keys": int_array(payee_keys)})
    return sorted(found.scalars())


_TRANSFERS = text("""
    SELECT t.transfer_key, s.to_state, t.amount, t.payer_participant_currency_id, t.payee_participant_currency_id,
           t.condition, CAST(extract(epoch FROM t.expiration) * 1000 AS bigint), a.bulk_processing_state,
           s.reason, s.error_code, s.error_description
    FROM unnest(CAST(:keys AS bigint[])) AS k(transfer_key)
    JOIN transfer t ON t.transfer_key = k.transfer_key
    JOIN transfer_state_change s ON s.transfer_key = t.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    LEFT JOIN bulk_transfer_association a ON a.transfer_key = t.transfer_key
""")


def transfers_by_key(tx: Connection, keys: Sequence[int]) -> dict[int, Transfer]:
    """The transfers that exist under these keys, each with its current state and its item's."""
    rows: dict[int, Transfer] = {}
    amount: Decimal
    for key, state, amount, payer, payee, condition, expiration_ms, item, reason, code, text_ in tx.execute(
        _TRANSFERS, {"keys": int_array(keys)}
    ).all():
        rows[key] = Transfer(
            key,
            _TRANSFER_STATE[state],
            from_numeric(amount),
            payer,
            payee,
            condition,
            expiration_ms,
            None if item is None else _ITEM_STATE[item],
            reason,
            error_of(code, text_),
        )
    return rows


_STATES = text("""
    SELECT s.transfer_key, s.to_state
    FROM unnest(CAST(:keys AS bigint[])) AS k(transfer_key)
    JOIN transfer_state_change s ON s.transfer_key = k.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
""")


def transfer_states(tx: Connection, keys: Sequence[int]) -> dict[int, TransferState]:
    """The current states of the transfers that exist under these keys."""
    if not keys:
        return {}
    found = tx.execute(_STATES, {"keys": int_array(keys)}).all()
    return {key: _TRANSFER_STATE[state] for key, state in found}


class TransferStateChange(NamedTuple):
    """A step of a transfer; `position` is its account's value afterwards where money moved (a count of 1/10,000)."""

    transfer_key: int
    from_state: TransferState
    to_state: TransferState
    reason: str
    position: int | None = None
    fulfilment: bytes | None = None
    error: FspiopError | None = None


_INSERT_STEPS = text("""
    INSERT INTO transfer_state_change (transfer_key, from_state, to_state, reason, position, fulfilment, error_code,
                                       error_description)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
        k bigint, f text, t text, r text, p numeric, u bytea, c text, d text)
""")


def insert_transfer_steps(tx: Connection, steps: Sequence[TransferStateChange]) -> None:
    rows = document(
        {
            "k": step.transfer_key,
            "f": step.from_state,
            "t": step.to_state,
            "r": step.reason,
            "p": None if step.position is None else format_amount(step.position),
            "u": None if step.fulfilment is None else hex_bytes(step.fulfilment),
            "c": None if step.error is None else step.error.code,
            "d": None if step.error is None else step.error.description,
        }
        for step in steps
    )
    tx.execute(_INSERT_STEPS, {"rows": rows})
