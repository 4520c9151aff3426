"""GET /transactions/{id}: the transaction object of a transfer's ilpPacket, whether it came in a bulk or alone."""

import base64
import json
import struct
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.folder import FolderObjectStore
from operations.simulated_bulk import ilp_packet
from schemas.fspiop.ilp_packets import NoTransaction, transaction_of
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream
from tests.admin.client import admin_client, assert_refused
from tests.bulks import PAYER, bulk, item, provision
from tests.pipeline import Pipeline

TRANSACTION = {"transactionId": str(uuid4()), "amount": {"currency": "USD", "amount": "10"}, "note": "Gehalt für Mai"}
JSON = json.dumps(TRANSACTION).encode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def version_4(data: bytes) -> bytes:
    """Type 12: amount, expiry, condition, address and data."""
    address = b"g.payeefsp"
    contents = struct.pack(">Q", 10) + b"20261121101530123" + bytes(32) + bytes([len(address)]) + address
    contents += b"\x82" + len(data).to_bytes(2) + data
    return b"\x0c\x82" + len(contents).to_bytes(2) + contents


PACKETS = {
    "version 1, as the SDK makes it": ilp_packet(10, b"g.payeefsp", base64url(JSON).encode()),
    "version 1, plain JSON": ilp_packet(10, b"g.payeefsp", JSON),
    "version 4": version_4(base64url(JSON).encode()),
}


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
def test_the_transaction_is_read_from_every_packet_in_use(packet: bytes) -> None:
    assert transaction_of(base64url(packet)) == TRANSACTION
    assert transaction_of(base64.urlsafe_b64encode(packet).decode()) == TRANSACTION


@pytest.mark.parametrize(
    "packet",
    [
        *("", "=", "AAAA", "not base64url!", "AYIBgQAAAAAAAASwNGxldmVsb25lLmRmc3A", "Af8", "DA"),
        base64url(ilp_packet(10, b"g.payeefsp", bytes(160))),
        base64url(ilp_packet(10, b"g.payeefsp", b"[]")),
        *(base64url(PACKETS["version 4"][:length]) for length in range(1, 90, 7)),
    ],
)
def test_a_packet_without_a_transaction_is_no_crash(packet: str) -> None:
    with pytest.raises(NoTransaction):
        transaction_of(packet)


def test_a_bulks_and_a_single_transfer_show_their_transactions(engine: Engine, object_store: FolderObjectStore) -> None:
    provision(engine)
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
    pipeline = Pipeline(engine, object_store, stream)
    packet = base64url(PACKETS["version 1, as the SDK makes it"])
    known, without = item(ilpPacket=packet), item()
    pipeline.post(bulk([item(), known, without], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    single = str(uuid4())
    keep_single(engine, object_store, {"transferId": single, "ilpPacket": packet})
    with admin_client(engine, object_store=object_store) as client:
        for transfer_id in (known["transferId"], single):
            answered = client.get(f"/transactions/{transfer_id}")
            assert (answered.status, answered.json) == (200, TRANSACTION)
        assert_refused(client.get(f"/transactions/{without['transferId']}"), "3200", "has no transaction")
        assert_refused(client.get(f"/transactions/{uuid4()}"), "3208", "Provided Transfer ID was not found")
        assert_refused(client.get("/transactions/nonsense"), "3101", "id in the path must be a UUID")
        for key in object_store.keys("requests/"):
            object_store.delete(key)
        assert_refused(client.get(f"/transactions/{known['transferId']}"), "3200", "is not kept any more")
    with admin_client(engine) as client:
        assert_refused(client.get(f"/transactions/{known['transferId']}"), "2003", "no object store", status=503)


def keep_single(engine: Engine, object_store: FolderObjectStore, body: dict[str, Any]) -> None:
    """The rows and the object that an accepted POST /transfers leaves."""
    transfer_id, request_id = UUID(body["transferId"]), uuid4()
    kept = KeptRequest(PAYER, None, 0, {}, json.dumps(body).encode())
    object_store.put(request_key(transfer_id.bytes, request_id.bytes), pack_request(kept))
    with engine.begin() as tx:
        tx.execute(
            text(
                "WITH one AS (INSERT INTO transfer (transfer_key, transfer_id, hash, amount, currency_id, expiration)"
                " VALUES (990000, :transfer_id, '', 10, 'USD', now()) RETURNING transfer_key)"
                " INSERT INTO single_transfer (transfer_key, payer_fsp, payee_fsp, request_id, received_date)"
                " SELECT transfer_key, 'payerfsp', 'payeefsp', :request_id, now() FROM one"
            ),
            {"transfer_id": transfer_id, "request_id": request_id},
        )
