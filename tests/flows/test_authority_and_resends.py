"""Who may do what to a bulk, what a second request with the same id does, and what a GET shows to whom."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, text

from bulk_api_adapter.admin.participants import set_active
from domain.combinations import TOPIC_BULK_FULFIL, TOPIC_BULK_PREPARE
from tests.bulks import PAYEE, PAYER, STRANGER, answer, bulk, committed, item, world
from tests.flows.test_outcomes import final, results
from tests.pipeline import Pipeline


def everything(engine: Engine) -> Mapping[str, Any]:
    """Every row that is about bulks and money, to compare before and after."""
    tables = [
        "bulk_transfer",
        "bulk_transfer_state_change",
        "bulk_transfer_error",
        "bulk_transfer_duplicate_check",
        "bulk_transfer_result",
        "bulk_transfer_fulfilment",
        "bulk_transfer_fulfilment_duplicate_check",
        "bulk_transfer_association",
        "open_expiration",
        "transfer",
        "transfer_state_change",
        "participant_position",
    ]
    with engine.connect() as tx:
        return {table: sorted(map(str, tx.execute(text(f"SELECT * FROM {table}")).all())) for table in tables}


def errors(pipeline: Pipeline, to: str) -> list[str]:
    return [
        pipeline.body(one)["errorInformation"]["errorCode"]
        + " "
        + pipeline.body(one)["errorInformation"]["errorDescription"]
        for one in pipeline.notifications(to)
        if one.callback == "PUT_ERROR"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"payerFsp": "someoneelse"}, "3100 Generic validation error - FSPIOP-Source header should match Payer FSP"),
        ({"payeeFsp": "ghost"}, "3203 Payee FSP ID not found - Participant ghost not found"),
        ({"payeeFsp": PAYER}, "3100 Generic validation error - payerFsp and payeeFsp must differ"),
        ({"payeeFsp": "Hub"}, "3203 Payee FSP ID not found - Participant Hub not found"),
        (
            {"expiration": "2020-01-01T00:00:00.000Z"},
            "3100 Generic validation error - expiration is not in the future",
        ),
        (
            {"expiration": "2999-01-01T00:00:00.000Z"},
            "3100 Generic validation error - expiration is more than 30 days ahead",
        ),
    ],
)
def test_a_bulk_is_refused_with_the_exact_text(
    pipeline: Pipeline, change: Mapping[str, Any], expected: str
) -> None:  # BULK-18, BULK-19, BULK-60, BULK-136, BULK-137, D15
    body = {**bulk([item()], now_ms=pipeline.now()), **change}
    pipeline.post(body, source=PAYER)
    pipeline.run()
    assert errors(pipeline, PAYER) == [expected]
    states = world(pipeline.engine).bulks
    if "payerFsp" in change:
        # A refusal of identity writes nothing under the id (D12).
        assert states == {}
    else:
        assert states == {body["bulkTransferId"]: ["RECEIVED", "PENDING_INVALID", "REJECTED"]}


def test_one_transfer_id_twice_in_a_bulk_is_refused(pipeline: Pipeline) -> None:  # BULK-17
    one = item()
    pipeline.post(bulk([one, item(transfer_id=one["transferId"])], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert errors(pipeline, PAYER) == [
        f"3100 Generic validation error - transferId {one['transferId']} stands twice in the bulk"
    ]


@pytest.mark.parametrize(("name", "code"), [(PAYER, "3202 Payer"), (PAYEE, "3203 Payee")])
def test_inactive_fsps_are_refused(pipeline: Pipeline, name: str, code: str) -> None:
    set_active(pipeline.engine, name, is_active=False, actor="test")
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert errors(pipeline, PAYER) == [f"{code} FSP ID not found - Participant {name} is inactive"]


def test_a_destination_header_that_names_nobody_is_refused(pipeline: Pipeline) -> None:
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER, destination="ghost")
    pipeline.run()
    assert errors(pipeline, PAYER) == ["3203 Payee FSP ID not found - Participant ghost not found"]


@pytest.mark.parametrize("lost", [True, False])
def test_a_payload_that_is_missing_or_corrupt_refuses_the_bulk(pipeline: Pipeline, *, lost: bool) -> None:  # BULK-128
    from object_store.envelope import request_key

    body = bulk([item()], now_ms=pipeline.now())
    request_id = pipeline.post(body, source=PAYER)
    key = request_key(pipeline.queues[TOPIC_BULK_PREPARE][0].bulk_transfer_id, request_id)
    if lost:
        pipeline.store.delete(key)
    else:
        pipeline.store.put(key, b"\x00 not a request")
    pipeline.run()
    assert errors(pipeline, PAYER)[0].startswith("2001")
    assert world(pipeline.engine).bulks[body["bulkTransferId"]] == ["RECEIVED", "PENDING_INVALID", "REJECTED"]


def test_a_stranger_can_do_nothing_to_a_bulk(pipeline: Pipeline) -> None:  # D12, D13, BULK-125
    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    before = everything(pipeline.engine)
    bulk_id = body["bulkTransferId"]
    pipeline.put(bulk_id, answer([committed(one) for one in items]), source=STRANGER)
    pipeline.put(bulk_id, answer([committed(one) for one in items]), source=PAYER)
    pipeline.put_error(
        bulk_id, {"errorInformation": {"errorCode": "5100", "errorDescription": "mine now"}}, source=STRANGER
    )
    pipeline.post({**body, "payerFsp": STRANGER}, source=STRANGER)
    pipeline.get(bulk_id, source=STRANGER)
    pipeline.run()
    assert everything(pipeline.engine) == before
    not_found = "3210 Bulk transfer ID not found - Provided Bulk Transfer ID was not found on the server."
    assert sorted(errors(pipeline, STRANGER)) == ["3106 Modified request", not_found, not_found, not_found]
    # The payee is not poisoned by what the stranger tried.
    pipeline.put(bulk_id, answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run()
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def test_a_fulfil_that_names_foreign_transfers_is_refused_and_the_bulk_waits(
    pipeline: Pipeline,
) -> None:  # D13, BULK-125
    other = bulk([item()], now_ms=pipeline.now())
    items = [item(), item("5", currency="EUR")]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(other, source=PAYER)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    before = everything(pipeline.engine)
    foreign = refused_of(other["individualTransfers"][0])
    for results_ in (
        [committed(items[0]), foreign],
        [committed(items[0]), committed(items[0])],
        [committed(items[0]), refused_of(items[1])],
    ):
        pipeline.put(body["bulkTransferId"], answer(results_), source=PAYEE)
    pipeline.run()
    assert everything(pipeline.engine) == before
    assert [text_[:4] for text_ in errors(pipeline, PAYEE)] == ["3100"] * 3
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])]), source=PAYEE)
    pipeline.run()
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def refused_of(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"transferId": one["transferId"], "errorInformation": {"errorCode": "5104", "errorDescription": "No"}}


def test_resends_of_post(pipeline: Pipeline) -> None:  # BULK-59, BULK-123, D25
    """Unfinished → nothing; finished → the stored callback, byte for byte; another body → 3106."""
    items = [item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.post(dict(reversed(body.items())), source=PAYER)
    pipeline.run()
    assert pipeline.notifications(PAYER) == []
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])]), source=PAYEE)
    pipeline.run()
    pipeline.post(body, source=PAYER)
    pipeline.post({**body, "bulkQuoteId": body["bulkTransferId"]}, source=PAYER)
    pipeline.run()
    first, again, modified = pipeline.notifications(PAYER)
    assert (again.action, again.content) == ("bulk-prepare-duplicate", first.content)
    assert pipeline.body(modified)["errorInformation"] == {"errorCode": "3106", "errorDescription": "Modified request"}
    assert len(world(pipeline.engine).bulks) == 1


def test_a_resend_of_a_refused_post_gets_the_error_again(pipeline: Pipeline) -> None:  # D25
    body = {**bulk([item()], now_ms=pipeline.now()), "payeeFsp": "ghost"}
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.post(body, source=PAYER)
    pipeline.run()
    first, again = pipeline.notifications(PAYER)
    assert (first.callback, first.content) == (again.callback, again.content)


def test_resends_of_put(pipeline: Pipeline) -> None:  # BULK-124
    items = [item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    good = answer([committed(items[0])])
    pipeline.put(body["bulkTransferId"], good, source=PAYEE)
    pipeline.put(body["bulkTransferId"], good, source=PAYEE)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], good, source=PAYEE)
    pipeline.put(body["bulkTransferId"], answer([refused_of(items[0])]), source=PAYEE)
    pipeline.run()
    _, finished, again, modified = pipeline.notifications(PAYEE)
    assert (again.action, again.content) == ("bulk-fulfil-duplicate", finished.content)
    assert pipeline.body(modified)["errorInformation"]["errorCode"] == "3106"
    assert len(pipeline.notifications(PAYER)) == 1


def test_a_transfer_id_used_in_another_bulk(pipeline: Pipeline) -> None:  # BULK-62, BULK-63, D7
    one = item()
    first = bulk([one], now_ms=pipeline.now())
    second = bulk([one, {**item(), "transferId": one["transferId"]} | {"ilpPacket": "BBBB"}][:1], now_ms=pipeline.now())
    third = bulk([{**one, "ilpPacket": "BBBB"}, item()], now_ms=pipeline.now())
    for body in (first, second, third):
        pipeline.post(body, source=PAYER)
    pipeline.run()
    told = [pipeline.body(one_) for one_ in pipeline.notifications(PAYER)]
    assert [(body["bulkTransferState"], results(body)[0][1]) for body in told] == [("REJECTED", "3100")]
    with pipeline.engine.connect() as tx:
        duplicates = tx.execute(
            text("SELECT error_code FROM bulk_transfer_association WHERE bulk_processing_state = 'RECEIVED_DUPLICATE'")
        ).scalars()
        assert sorted(duplicates) == ["3100", "3106"]


@pytest.mark.parametrize("state", ["RECEIVED", "PENDING", "ACCEPTED", "PROCESSING"])
def test_a_result_with_a_state_that_is_not_final(pipeline: Pipeline, state: str) -> None:
    """Without results it says nothing and leaves nothing; with results it counts as COMPLETED."""
    items = [item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    before = everything(pipeline.engine)
    pipeline.put(body["bulkTransferId"], {"bulkTransferState": state}, source=PAYEE)
    pipeline.run()
    assert everything(pipeline.engine) == before
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])], state=state), source=PAYEE)
    pipeline.run()
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def test_a_fulfil_before_the_bulk_was_forwarded(pipeline: Pipeline) -> None:
    items = [item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run(TOPIC_BULK_PREPARE)
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])]), source=PAYEE)
    pipeline.run(TOPIC_BULK_FULFIL)
    assert errors(pipeline, PAYEE)[0].startswith("3210")
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])]), source=PAYEE)
    pipeline.run()
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def shown(pipeline: Pipeline, bulk_transfer_id: str, source: str) -> Any:
    """What a GET of this FSP is answered: the error's code, or the body."""
    before = len(pipeline.notifications(source))
    pipeline.get(bulk_transfer_id, source=source)
    pipeline.run("topic-bulk-get")
    [told] = pipeline.notifications(source)[before:]
    body = pipeline.body(told)
    return body["errorInformation"]["errorCode"] if told.callback == "PUT_ERROR" else body


def test_get_shows_payer_payee_and_stranger_what_is_theirs(pipeline: Pipeline) -> None:  # BULK-107, BULK-108, D25, D27
    items = [item(), item("5", currency="EUR")]
    body = bulk(items, now_ms=pipeline.now())
    bulk_id = body["bulkTransferId"]
    pipeline.post(body, source=PAYER)
    # Stored but unread: the sender alone is told that it was received.
    assert shown(pipeline, bulk_id, PAYER) == {"bulkTransferState": "RECEIVED"}
    assert shown(pipeline, bulk_id, PAYEE) == "3210"
    pipeline.run(TOPIC_BULK_PREPARE)
    assert shown(pipeline, bulk_id, PAYER) == {"bulkTransferState": "PENDING"}
    assert shown(pipeline, bulk_id, PAYEE) == "3210"
    pipeline.run()
    assert [code for _, code in results(shown(pipeline, bulk_id, PAYER))] == ["committed", "3100"]
    waiting = shown(pipeline, bulk_id, PAYEE)
    assert waiting == {
        "bulkTransferState": "ACCEPTED",
        "individualTransferResults": [{"transferId": items[0]["transferId"]}],
    }
    pipeline.put(bulk_id, answer([committed(items[0])]), source=PAYEE)
    pipeline.run(TOPIC_BULK_FULFIL)
    assert shown(pipeline, bulk_id, PAYER) == {"bulkTransferState": "PROCESSING"}
    pipeline.run()
    assert shown(pipeline, bulk_id, PAYER) == final(pipeline, PAYER)[1]
    assert results(shown(pipeline, bulk_id, PAYEE)) == [(items[0]["transferId"], "committed")]
    assert shown(pipeline, bulk_id, STRANGER) == "3210"
    assert shown(pipeline, "00000000-0000-4000-8000-000000000000", PAYER) == "3210"


def test_an_unread_request_is_unknown_once_bulk_prepare_has_read_past_it(pipeline: Pipeline) -> None:
    body = bulk([item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    message = pipeline.queues[TOPIC_BULK_PREPARE].popleft()
    from stream.interface import partition_of

    partition = partition_of(message.bulk_transfer_id, pipeline.stream.partitions(TOPIC_BULK_PREPARE))
    with pipeline.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO handler_progress (handler, topic, partition, next_offset, read_date)"
                " VALUES ('bulk-prepare', :topic, :partition, 1, now() + interval '1 minute')"
            ),
            {"topic": TOPIC_BULK_PREPARE, "partition": partition},
        )
    assert shown(pipeline, body["bulkTransferId"], PAYER) == "3210"


def test_a_party_that_is_inactive_is_refused_whatever_it_asks_for(pipeline: Pipeline) -> None:  # D12, reference §11.9
    body = bulk([item()], now_ms=pipeline.now())
    bulk_id = body["bulkTransferId"]
    pipeline.post(body, source=PAYER)
    pipeline.run()
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant SET is_active = false WHERE name = ANY(:names)"), {"names": [PAYER, PAYEE]})
    pipeline.put(bulk_id, answer([committed(body["individualTransfers"][0])]), source=PAYEE)
    pipeline.get(bulk_id, source=PAYER)
    pipeline.get(bulk_id, source=PAYEE)
    pipeline.run()
    assert world(pipeline.engine).bulks[bulk_id][-1] == "ACCEPTED", "nothing was written"
    for fsp, count in ((PAYER, 1), (PAYEE, 2)):
        refusals = [one for one in pipeline.notifications(fsp) if one.callback == "PUT_ERROR"]
        error = {"errorCode": "3100", "errorDescription": f"Generic validation error - Participant {fsp} is inactive"}
        assert [pipeline.body(one) for one in refusals] == [{"errorInformation": error}] * count
    # Active again, the payee answers as if nothing had been.
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant SET is_active = true"))
    pipeline.put(bulk_id, answer([committed(body["individualTransfers"][0])]), source=PAYEE)
    pipeline.run()
    assert world(pipeline.engine).bulks[bulk_id][-1] == "COMPLETED"
