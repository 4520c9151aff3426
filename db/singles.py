"""Single transfers, a batch at a time: what only they have, read together with their transfer and its current state."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from db.documents import document, hex_bytes, int_array, uuid_array
from db.transfers import NewTransfer, error_of, insert_transfers
from domain.identifiers import ITEMS_PER_BULK, id_text, single_key
from domain.single_transfers import SingleTransfer
from domain.states import FundsState, TransferState
from domain.transfer_get import FundsToShow, TransferToShow

_SELECT = """
    SELECT t.transfer_key, uuid_send(t.transfer_id), t.hash, x.payer_fsp, x.payee_fsp, t.payer_participant_currency_id,
           t.payee_participant_currency_id, t.condition, CAST(extract(epoch FROM t.expiration) * 1000 AS bigint),
           uuid_send(x.request_id), s.to_state, s.reason, s.error_code, s.error_description, uuid_send(f.request_id),
           f.hash, f.completed_timestamp, g.fulfilment
    FROM transfer t
    JOIN single_transfer x ON x.transfer_key = t.transfer_key
    JOIN transfer_state_change s ON s.transfer_key = t.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    LEFT JOIN transfer_state_change g ON g.transfer_key = t.transfer_key AND g.from_state = 'RESERVED'
    LEFT JOIN single_transfer_fulfilment f ON f.transfer_key = t.transfer_key
"""
_BY_ID = text(_SELECT + "WHERE t.transfer_id = ANY(CAST(:ids AS uuid[]))")
_BY_KEY = text(_SELECT + "WHERE t.transfer_key = ANY(CAST(:keys AS bigint[]))")


def _single(row: Any) -> SingleTransfer:
    return SingleTransfer(
        transfer_key=row[0],
        transfer_id=row[1],
        hash=row[2],
        payer_fsp=row[3],
        payee_fsp=row[4],
        payer_account=row[5],
        payee_account=row[6],
        condition=row[7],
        expiration_ms=row[8],
        request_id=row[9],
        state=TransferState(row[10]),
        reason=row[11],
        error=error_of(row[12], row[13]),
        fulfil_request_id=row[14],
        fulfil_hash=row[15],
        completed_timestamp=row[16],
        fulfilment=row[17],
    )


def singles_by_id(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, SingleTransfer]:
    """The single transfers that stand under these transferIds."""
    singles = [_single(row) for row in tx.execute(_BY_ID, {"ids": uuid_array(ids)}).all()]
    return {single.transfer_id: single for single in singles}


def singles_by_key(tx: Connection, keys: Sequence[int]) -> dict[int, SingleTransfer]:
    singles = [_single(row) for row in tx.execute(_BY_KEY, {"keys": int_array(keys)}).all()]
    return {single.transfer_key: single for single in singles}


class NewSingle(NamedTuple):
    """A single transfer to write down: the transfer (its key is drawn here), and what only a single one has.

    `expires`: it is open, and due at its expiration.
    """

    transfer: NewTransfer
    payer_fsp: str
    payee_fsp: str
    request_id: bytes
    received_at_ms: int
    expires: bool


_NUMBERS = text("SELECT nextval('bulk_transfer_bulk_key_seq') FROM generate_series(1, :count)")
_INSERT_SINGLES = text("""
    WITH input AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            number bigint, transfer_key bigint, payer_fsp text, payee_fsp text, request_id uuid,
            received_at_ms bigint, expiration_ms bigint, expires boolean)
    ), expirations AS (
        INSERT INTO open_expiration (number, is_single, due_date, payer_fsp, item_count)
        SELECT number, true, to_timestamp(expiration_ms / 1000.0), payer_fsp, 1 FROM input WHERE expires
    )
    INSERT INTO single_transfer (transfer_key, payer_fsp, payee_fsp, request_id, received_date)
    SELECT transfer_key, payer_fsp, payee_fsp, request_id, to_timestamp(received_at_ms / 1000.0) FROM input
""")


def insert_singles(tx: Connection, singles: Sequence[NewSingle]) -> list[int]:
    """Write the transfers with their first step; returns their keys, in order.

    A transferId that another transaction wrote meanwhile raises the driver's unique violation (a lost race).
    """
    numbers = list(tx.execute(_NUMBERS, {"count": len(singles)}).scalars())
    keys = [single_key(number) for number in numbers]
    insert_transfers(
        tx, [single.transfer._replace(transfer_key=key) for key, single in zip(keys, singles, strict=True)]
    )
    rows = document(
        {
            "number": number,
            "transfer_key": key,
            "payer_fsp": single.payer_fsp,
            "payee_fsp": single.payee_fsp,
            "request_id": id_text(single.request_id),
            "received_at_ms": single.received_at_ms,
            "expiration_ms": single.transfer.expiration_ms,
            "expires": single.expires,
        }
        for number, key, single in zip(numbers, keys, singles, strict=True)
    )
    tx.execute(_INSERT_SINGLES, {"rows": rows})
    return keys


class SingleFulfilment(NamedTuple):
    """The payee's answer that was accepted."""

    transfer_key: int
    request_id: bytes
    hash: bytes
    completed_timestamp: str | None
    received_at_ms: int


_INSERT_FULFILMENTS = text("""
    INSERT INTO single_transfer_fulfilment (transfer_key, request_id, hash, completed_timestamp, received_date)
    SELECT transfer_key, request_id, hash, completed_timestamp, to_timestamp(received_at_ms / 1000.0)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        transfer_key bigint, request_id uuid, hash bytea, completed_timestamp text, received_at_ms bigint)
""")


def insert_single_fulfilments(tx: Connection, fulfilments: Sequence[SingleFulfilment]) -> None:
    """Write the answers; one that is there already raises the driver's unique violation (a lost race)."""
    rows = document(
        {
            "transfer_key": one.transfer_key,
            "request_id": id_text(one.request_id),
            "hash": hex_bytes(one.hash),
            "completed_timestamp": one.completed_timestamp,
            "received_at_ms": one.received_at_ms,
        }
        for one in fulfilments
    )
    tx.execute(_INSERT_FULFILMENTS, {"rows": rows})


# A transfer is a single one or an item of a bulk. An item was forwarded if its bulk was ACCEPTED with it reserved; a single
# transfer, if it was reserved.
_TO_SHOW = text("""
    SELECT uuid_send(t.transfer_id), coalesce(x.payer_fsp, b.payer_fsp), coalesce(x.payee_fsp, b.payee_fsp),
           s.to_state, s.error_code, s.error_description, g.fulfilment,
           coalesce(f.completed_timestamp, bf.completed_timestamp),
           EXISTS (SELECT FROM transfer_state_change r
                   WHERE r.transfer_key = t.transfer_key AND r.from_state = 'RECEIVED_PREPARE'
                     AND r.to_state = 'RESERVED')
           AND (x.transfer_key IS NOT NULL
                OR EXISTS (SELECT FROM bulk_transfer_state_change a
                           WHERE a.bulk_key = b.bulk_key AND a.from_state = 'PENDING_PREPARE'
                             AND a.to_state = 'ACCEPTED'))
    FROM transfer t
    LEFT JOIN single_transfer x ON x.transfer_key = t.transfer_key
    LEFT JOIN single_transfer_fulfilment f ON f.transfer_key = t.transfer_key
    LEFT JOIN bulk_transfer b ON b.bulk_key = t.transfer_key / :items_per_bulk AND x.transfer_key IS NULL
    LEFT JOIN bulk_transfer_fulfilment bf ON bf.bulk_key = b.bulk_key
    JOIN transfer_state_change s ON s.transfer_key = t.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    LEFT JOIN transfer_state_change g ON g.transfer_key = t.transfer_key AND g.from_state = 'RESERVED'
    WHERE t.transfer_id = ANY(CAST(:ids AS uuid[]))
""")
_FUNDS_TO_SHOW = text("""
    SELECT uuid_send(funds.transfer_id), participant.name, step.to_state
    FROM funds_transfer AS funds
    JOIN participant_currency USING (participant_currency_id)
    JOIN participant USING (participant_id)
    JOIN funds_transfer_state_change AS step ON step.transfer_id = funds.transfer_id AND NOT EXISTS (
        SELECT FROM funds_transfer_state_change AS later
        WHERE later.transfer_id = step.transfer_id AND later.from_state = step.to_state)
    WHERE funds.transfer_id = ANY(CAST(:ids AS uuid[]))
""")


def transfers_to_show(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, TransferToShow]:
    """What a GET may show of the transfers under these ids, single ones and items of bulks."""
    return {
        transfer_id: TransferToShow(
            payer, payee, TransferState(state), error_of(code, description), fulfilment, completed, was_forwarded
        )
        for transfer_id, payer, payee, state, code, description, fulfilment, completed, was_forwarded in tx.execute(
            _TO_SHOW, {"ids": uuid_array(ids), "items_per_bulk": ITEMS_PER_BULK}
        ).all()
    }


def funds_to_show(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, FundsToShow]:
    """What a GET may show of funds in and out under these ids (reference §11.6)."""
    found = tx.execute(_FUNDS_TO_SHOW, {"ids": uuid_array(ids)}).all()
    return {transfer_id: FundsToShow(name, FundsState(state)) for transfer_id, name, state in found}
