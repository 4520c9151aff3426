"""The simulated FSPs are good judges and honest players: real conditions, valid bodies, every behaviour as it is called."""

import json
import signal
import socket
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from sqlalchemy import Engine

from domain.delivery import Callback, Resource
from handlers.deliverer import DelivererSettings, DelivererThread
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from operations.ports import free_ports
from operations.simulated_bulk import ilp_packet, timestamp
from operations.simulated_fsp import (
    BEHAVIOURS,
    Bulk,
    PayeeBehaviour,
    SimulatedEndpoint,
    SimulatedPayee,
    SimulatedPayer,
    build_bulk,
    callback_endpoints,
    run_simulated_fsp,
    served,
)
from schemas.callbacks import callback_headers
from tests.callbacks.callback_rows import CLIENT, add_participant, final, forward, wait_until, write
from tests.callbacks.receiver import OK, UNAVAILABLE, RawRequest, Receiver, answer
from tests.fspiop_document import check_body, check_callback, requires_document

REPOSITORY = Path(__file__).parent.parent.parent
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def switch() -> Iterator[Receiver]:
    """Takes what FSPs send to the switch."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def payer(switch: Receiver) -> Iterator[SimulatedPayer]:
    payer = SimulatedPayer("payerfsp", switch.url)
    yield payer
    payer.close_client()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=")


def send_forward(url: str, bulk: Bulk, **changes: str) -> int:
    """What the switch does: the payer's body, under the headers of a forward."""
    key = UUID(bulk.bulk_transfer_id).bytes
    at = datetime(2026, 11, 3, tzinfo=UTC)
    headers = callback_headers(Resource.BULK_TRANSFERS, Callback.POST, "Hub", bulk.payee_fsp, key, at) | changes
    return httpx.post(f"{url}/bulkTransfers", headers=headers, content=bulk.body).status_code


# --- the payer ---


@requires_document
def test_a_bulk_is_valid_by_the_document(payer: SimulatedPayer) -> None:
    bulk = payer.build("payeefsp", items=1000, amount=["1", "2.5", "999999.0001"], currency=["USD", "EUR"])
    assert check_body("POST", "/bulkTransfers", bulk.body) == []
    body = orjson.loads(bulk.body)
    amounts = [one["transferAmount"]["amount"] for one in body["individualTransfers"]]
    assert amounts[:4] == ["1", "2.5", "999999.0001", "1"]
    assert [one["transferId"] for one in body["individualTransfers"]] == list(bulk.transfer_ids)
    assert len(set(bulk.transfer_ids)) == 1000


def test_a_post_carries_the_headers_of_a_real_client(payer: SimulatedPayer, switch: Receiver) -> None:
    switch.respond = answer(ACCEPTED)
    bulk = payer.build("payeefsp", items=2)
    assert payer.post(bulk).status == 202
    assert payer.post(bulk, fspiop_source="thief").status == 202
    honest, thief = switch.requests
    assert honest.body == thief.body == bulk.body
    assert honest.headers["fspiop-source"] == "payerfsp"
    assert thief.headers["fspiop-source"] == "thief"
    assert honest.headers["accept"] == honest.headers["content-type"]
    assert honest.headers["content-type"] == "application/vnd.interoperability.bulkTransfers+json;version=1.1"
    assert honest.headers["fspiop-destination"] == "payeefsp"


def test_a_post_is_sent_again_while_the_switch_cannot_take_it(payer: SimulatedPayer, switch: Receiver) -> None:
    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(UNAVAILABLE if len(switch.requests) < 3 else ACCEPTED)

    switch.respond = respond
    bulk = payer.build("payeefsp", items=1)
    assert payer.post(bulk, attempts_max=2, retry_ms=1).status == 503
    assert payer.post(bulk, attempts_max=2, retry_ms=1).status == 202
    assert payer.get(bulk.bulk_transfer_id).status == 202
    assert [one.line.split()[0] for one in switch.requests] == ["POST", "POST", "POST", "GET"]


def test_an_ilp_packet_says_its_amount_and_lengths() -> None:
    packet = ilp_packet(12_5000, b"g.payeefsp", bytes(200))
    assert packet[0] == 1
    assert packet[1] == 0x81
    assert packet[2] == len(packet) - 3
    assert int.from_bytes(packet[3:11], "big") == 12_5000
    assert packet[12:22] == b"g.payeefsp"


# --- the payee ---


def payee_answer(behaviour: PayeeBehaviour, switch: Receiver, items: int = 10) -> tuple[Bulk, list[RawRequest]]:
    """Forward a bulk to a payee of this behaviour, and see what it sends to the switch."""
    bulk = build_bulk("payerfsp", "payeefsp", items=items)
    payee = SimulatedPayee("payeefsp", switch.url, behaviour=behaviour, retry_ms=1)
    with served(payee) as url:
        assert send_forward(url, bulk) == 202
        return bulk, switch.wait_for(behaviour.times)


def committed(bulk: Bulk, results: list[Mapping[str, Any]]) -> list[str]:
    """The ids whose fulfilment fits the condition of the bulk, in the order of the results."""
    conditions = {one["transferId"]: one["condition"] for one in orjson.loads(bulk.body)["individualTransfers"]}
    return [
        one["transferId"]
        for one in results
        if "fulfilment" in one and sha256(decoded(one["fulfilment"])).digest() == decoded(conditions[one["transferId"]])
    ]


@requires_document
@pytest.mark.parametrize("name", sorted(set(BEHAVIOURS) - {"silent", "late"}))
def test_every_answer_is_valid_by_the_document(name: str, switch: Receiver) -> None:
    _, requests = payee_answer(BEHAVIOURS[name], switch)
    for request in requests:
        assert check_body("PUT", request.path, request.body) == []
        assert "accept" not in request.headers
        assert request.headers["fspiop-source"] == "payeefsp"
        assert request.headers["fspiop-destination"] == "payerfsp"


def test_a_good_payee_fulfils_every_transfer_in_order(switch: Receiver) -> None:
    bulk, (request,) = payee_answer(PayeeBehaviour(), switch, items=1000)
    body = orjson.loads(request.body)
    assert request.path == f"/bulkTransfers/{bulk.bulk_transfer_id}"
    assert body["bulkTransferState"] == "COMPLETED"
    assert committed(bulk, body["individualTransferResults"]) == list(bulk.transfer_ids)


def test_a_payee_commits_some_and_refuses_the_rest(switch: Receiver) -> None:
    bulk, (request,) = payee_answer(PayeeBehaviour(commit_max=6), switch)
    results = orjson.loads(request.body)["individualTransferResults"]
    assert committed(bulk, results) == list(bulk.transfer_ids[:6])
    error = {"errorCode": "5100", "errorDescription": "Payee rejection"}
    assert results[6:] == [{"transferId": one, "errorInformation": error} for one in bulk.transfer_ids[6:]]


def test_a_payee_rejects_the_whole_bulk(switch: Receiver) -> None:
    _, (request,) = payee_answer(BEHAVIOURS["reject"], switch)
    body = orjson.loads(request.body)
    assert (body["bulkTransferState"], "individualTransferResults" in body) == ("REJECTED", False)


def test_a_payee_answers_with_an_error(switch: Receiver) -> None:
    bulk, (request,) = payee_answer(PayeeBehaviour(answer="error", error_code="5105"), switch)
    assert request.path == f"/bulkTransfers/{bulk.bulk_transfer_id}/error"
    error = {"errorCode": "5105", "errorDescription": "Payee rejection"}
    assert orjson.loads(request.body) == {"errorInformation": error}


def test_a_payee_leaves_out_the_last_and_fails_the_first(switch: Receiver) -> None:
    bulk, (request,) = payee_answer(PayeeBehaviour(omit=3, wrong_fulfilments=2), switch)
    results = orjson.loads(request.body)["individualTransferResults"]
    assert [one["transferId"] for one in results] == list(bulk.transfer_ids[:7])
    assert committed(bulk, results) == list(bulk.transfer_ids[2:7])
    assert all(len(decoded(one["fulfilment"])) == 32 for one in results)


@pytest.mark.parametrize(("results", "expected"), [("empty", []), ("absent", None)])
def test_a_payee_says_nothing_of_any_transfer(results: str, expected: list[Any] | None, switch: Receiver) -> None:
    _, (request,) = payee_answer(PayeeBehaviour(results=results), switch)
    assert orjson.loads(request.body).get("individualTransferResults") == expected


def test_a_payee_whose_clock_is_ahead_says_so(switch: Receiver) -> None:
    _, (request,) = payee_answer(BEHAVIOURS["future"], switch)
    assert orjson.loads(request.body)["completedTimestamp"] > timestamp(30_000)


def test_a_payee_says_the_same_twice_or_something_else(switch: Receiver) -> None:
    _, (first, second) = payee_answer(BEHAVIOURS["twice"], switch)
    assert first.body == second.body
    switch.requests.clear()
    _, (first, second) = payee_answer(BEHAVIOURS["twice-differing"], switch)
    assert first.body != second.body


def test_a_payee_sends_its_answer_until_the_switch_takes_it(switch: Receiver) -> None:
    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(UNAVAILABLE if len(switch.requests) < 3 else OK)

    switch.respond = respond
    bulk = build_bulk("payerfsp", "payeefsp", items=1)
    payee = SimulatedPayee("payeefsp", switch.url, behaviour=PayeeBehaviour(delay_ms=20), retry_ms=1)
    with served(payee) as url:
        send_forward(url, bulk)
        requests = switch.wait_for(3)
    assert len({request.body for request in requests}) == 1


def test_a_forward_that_comes_again_is_taken_and_not_answered_again(switch: Receiver) -> None:
    bulk, other = (build_bulk("payerfsp", "payeefsp", items=1) for _ in range(2))
    payee = SimulatedPayee("payeefsp", switch.url)
    payee.behaviours[bulk.bulk_transfer_id] = PayeeBehaviour(bulk_transfer_state="REJECTED")
    with served(payee) as url:
        assert [send_forward(url, bulk), send_forward(url, bulk), send_forward(url, other)] == [202, 202, 202]
        first, second = sorted(switch.wait_for(2), key=lambda request: other.bulk_transfer_id in request.path)
    assert payee.repeats == 1
    assert len(switch.requests) == 2
    assert orjson.loads(first.body)["bulkTransferState"] == "REJECTED"
    assert orjson.loads(second.body)["bulkTransferState"] == "COMPLETED"


def test_a_silent_payee_takes_and_never_answers(switch: Receiver) -> None:
    payee = SimulatedPayee("payeefsp", switch.url, behaviour=BEHAVIOURS["silent"])
    with served(payee) as url:
        assert send_forward(url, build_bulk("payerfsp", "payeefsp", items=1)) == 202
    assert switch.requests == []
    assert len(payee.receipts) == 1


def test_a_behaviour_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no such answer"):
        PayeeBehaviour(answer="shrug")


# --- what both do with callbacks ---


def test_what_is_wrong_with_a_callback_is_remembered(switch: Receiver) -> None:
    payee = SimulatedPayee("payeefsp", switch.url, check=lambda *_: ["no good"], behaviour=BEHAVIOURS["silent"])
    with served(payee) as url:
        bulk = build_bulk("payerfsp", "payeefsp", items=1)
        send_forward(url, bulk, **{"fspiop-destination": "another"})
        payee.wait_for(bulk.bulk_transfer_id)
        assert httpx.get(f"{url}/summary").json()["violations"] == ["no good", "this is payeefsp, not another"]
    assert payee.violations == [
        "POST /bulkTransfers: no good",
        "POST /bulkTransfers: this is payeefsp, not another",
    ]


def test_a_repeat_is_the_same_bytes_and_nothing_less(switch: Receiver) -> None:
    fsp = SimulatedEndpoint("payeefsp")
    bulk = build_bulk("payerfsp", "payeefsp", items=1)
    with served(fsp) as url:
        for date in ("Tue, 03 Nov 2026 07:05:09 GMT", "Tue, 03 Nov 2026 07:05:10 GMT", "Tue, 03 Nov 2026 07:05:09 GMT"):
            send_forward(url, bulk, date=date)
        assert len(fsp.wait_for(bulk.bulk_transfer_id, 2)) == 2
    assert [one.is_repeat for one in fsp.receipts] == [False, False, True]
    assert fsp.receipts[0].json()["bulkTransferId"] == bulk.bulk_transfer_id


def test_an_fsp_can_be_made_to_refuse_and_to_be_unknown(switch: Receiver) -> None:
    fsp = SimulatedEndpoint("payeefsp")
    fsp.status_of = lambda method, _path: 500 if method == "POST" else None
    bulk = build_bulk("payerfsp", "payeefsp", items=1)
    with served(fsp) as url:
        assert send_forward(url, bulk) == 500
        assert httpx.post(f"{url}/other").status_code == 404
        assert httpx.put(f"{url}/bulkTransfers/x", content=bytes(6_000_000)).status_code == 413
    assert fsp.outcomes == {}
    assert [one.status for one in fsp.receipts] == [500]


def test_waiting_for_what_does_not_come_ends(switch: Receiver) -> None:
    with pytest.raises(TimeoutError, match="payeefsp got 0 of 1 callbacks"):
        SimulatedEndpoint("payeefsp").wait_for("x", timeout_s=0.01)


@requires_document
def test_the_switchs_callbacks_pass_their_judgement(
    engine: Engine, object_store: FolderObjectStore, switch: Receiver
) -> None:
    # Issue item 8: header and body of every callback, as the deliverer sends it, held against the document.
    payer = SimulatedPayer("payerfsp", switch.url, check=check_callback)
    payee = SimulatedPayee("payeefsp", switch.url, check=check_callback)
    settings = DelivererSettings(idle_poll_ms=100, client=CLIENT)
    with served(payer) as payer_url, served(payee) as payee_url, DelivererThread(engine, object_store, settings):
        add_participant(engine, "payerfsp", payer_url)
        add_participant(engine, "payeefsp", payee_url)
        bulk = payer.build("payeefsp", items=100)
        bulk_id = UUID(bulk.bulk_transfer_id)
        write(engine, forward("payeefsp", put_content(object_store, bulk.body), bulk_id))
        (answered,) = switch.wait_for(1)
        content = put_content(object_store, answered.body)
        write(engine, final("payerfsp", content, bulk_id), final("payeefsp", content, bulk_id))
        (told,) = payer.wait_for(bulk.bulk_transfer_id)
        payee.wait_for(bulk.bulk_transfer_id, 2)
        wait_until(engine, "SELECT bool_and(state = 'DELIVERED') FROM delivery")
    assert payer.violations == payee.violations == []
    assert [one.callback for one in payee.receipts] == ["POST", "PUT"]
    assert told.body == answered.body
    payer.close_client()


def test_endpoints_are_those_that_the_switch_asks_for() -> None:
    assert callback_endpoints("http://fsp:1") == {
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST": "http://fsp:1/bulkTransfers",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT": "http://fsp:1/bulkTransfers/{{id}}",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR": "http://fsp:1/bulkTransfers/{{id}}/error",
        "FSPIOP_CALLBACK_URL_TRANSFER_POST": "http://fsp:1/transfers",
        "FSPIOP_CALLBACK_URL_TRANSFER_PUT": "http://fsp:1/transfers/{{transferId}}",
        "FSPIOP_CALLBACK_URL_TRANSFER_ERROR": "http://fsp:1/transfers/{{transferId}}/error",
    }


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="a payer or a payee, not 'hub'"):
        run_simulated_fsp("hub", "x", 0, "http://127.0.0.1:1")


@pytest.mark.process
def test_a_payee_of_its_own_process_answers_tells_and_stops(switch: Receiver) -> None:
    [port] = free_ports(1)
    code = (
        "import sys; from operations.simulated_fsp import *;"
        "run_simulated_fsp('payee', 'payeefsp', int(sys.argv[1]), sys.argv[2], BEHAVIOURS['commit'],"
        " on_receipt=lambda receipt: print(receipt.callback, receipt.entity_id, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(port), switch.url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        bulk = build_bulk("payerfsp", "payeefsp", items=3)
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
            assert client.get(f"{url}/summary").json()["bulks"] == 0
        assert send_forward(url, bulk) == 202
        (request,) = switch.wait_for(1)
        assert committed(bulk, json.loads(request.body)["individualTransferResults"]) == list(bulk.transfer_ids)
        assert httpx.get(f"{url}/summary").json()["received"] == {"POST": 1}
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert output == f"POST {bulk.bulk_transfer_id}\n"
    finally:
        process.kill()
        process.wait()


def test_a_request_that_breaks_off_has_told_nothing() -> None:
    """As a deliverer's does that is killed while it sends."""
    path = "/bulkTransfers/7c2a7d7c-6a4b-4b5e-9a3e-3f0f8d2b5a11"
    head = f"PUT {path} HTTP/1.1\r\nhost: fsp\r\nfspiop-destination: payerfsp\r\ncontent-length: 9\r\n\r\n"
    fsp = SimulatedEndpoint("payerfsp")
    with served(fsp) as url:
        for sent in (b"", b"{}"):
            with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0)) as connection:
                connection.sendall(head.encode() + sent)
        whole = httpx.put(f"{url}{path}", content=b"{}", headers={"fspiop-destination": "payerfsp"})
        assert whole.status_code == 200
    # The server has ended, so nothing of the others is still on its way.
    assert [one.body for one in fsp.receipts] == [b"{}"]
