"""A bulk ends in every way it can end, and both sides are told one outcome."""

from typing import Any

import pytest

from domain.money import UNITS
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused, world
from tests.pipeline import Pipeline

Body = dict[str, Any]


def forwarded(pipeline: Pipeline) -> Body:
    """The POST that the payee was sent."""
    [post] = [one for one in pipeline.notifications(PAYEE) if one.callback == "POST"]
    body: Body = pipeline.body(post)
    return body


def final(pipeline: Pipeline, fsp: str) -> tuple[str, Body]:
    """The one final callback of this FSP."""
    [told] = [one for one in pipeline.notifications(fsp) if one.request_id is None and one.callback != "POST"]
    return told.callback, pipeline.body(told)


def results(body: Body) -> list[tuple[str, str]]:
    """Per result its transferId, and the error's code or 'committed'."""
    return [
        (one["transferId"], one["errorInformation"]["errorCode"] if "errorInformation" in one else "committed")
        for one in body["individualTransferResults"]
    ]


def test_seed_example_900_reserved_800_committed_100_aborted(pipeline: Pipeline) -> None:
    """BULK-07, BULK-08, BULK-09, BULK-31, BULK-33, BULK-121, BULK-131: the figures of seed 002."""
    provision(pipeline.engine, cap=9_000)
    items = [item("10") for _ in range(1_000)]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    post = forwarded(pipeline)
    assert [one["transferId"] for one in post["individualTransfers"]] == [one["transferId"] for one in items[:900]]
    assert post["individualTransfers"][0] == items[0]
    reserved = items[:900]
    pipeline.put(
        body["bulkTransferId"],
        answer([*map(committed, reserved[:800]), *map(refused, reserved[800:])]),
        source=PAYEE,
    )
    pipeline.run()
    callback, told = final(pipeline, PAYER)
    assert (callback, told["bulkTransferState"]) == ("PUT", "COMPLETED")
    expected = ["committed"] * 800 + ["5104"] * 100 + ["4200"] * 100
    assert results(told) == [(one["transferId"], code) for one, code in zip(items, expected, strict=True)]
    callback, told = final(pipeline, PAYEE)
    assert (callback, told["bulkTransferState"]) == ("PUT", "COMPLETED")
    assert results(told) == [(one["transferId"], code) for one, code in zip(reserved, expected, strict=False)]
    after = world(pipeline.engine)
    assert after.bulks[body["bulkTransferId"]] == [
        "RECEIVED",
        "PENDING_PREPARE",
        "ACCEPTED",
        "PROCESSING",
        "COMPLETED",
    ]
    assert after.items == {"COMPLETED": 800, "REJECTED": 100, "RECEIVED_INVALID": 100}
    assert after.transfers == {"COMMITTED": 800, "ABORTED_ERROR": 100, "ABORTED_REJECTED": 100}
    assert after.positions[PAYER, "USD"] == 8_000 * UNITS == -after.positions[PAYEE, "USD"]


def test_small_batches_pass_through_pending_fulfil(pipeline: Pipeline) -> None:  # BULK-42, BULK-68
    pipeline.batch_items = 2
    items = [item("1") for _ in range(5)]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run()
    assert world(pipeline.engine).bulks[body["bulkTransferId"]][-2:] == ["PENDING_FULFIL", "COMPLETED"]
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def test_none_accepted_ends_rejected_without_contacting_the_payee(pipeline: Pipeline) -> None:
    """BULK-126, D6: the payer gets the list with a reason for each item."""
    provision(pipeline.engine, cap=5)
    items = [item("10"), item("10", currency="EUR")]
    pipeline.post(bulk(items, now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert pipeline.notifications(PAYEE) == []
    callback, told = final(pipeline, PAYER)
    assert (callback, told["bulkTransferState"]) == ("PUT", "REJECTED")
    assert [code for _, code in results(told)] == ["4200", "3100"]
    assert told["individualTransferResults"][1]["errorInformation"]["errorDescription"] == (
        f"Generic validation error - Participant {PAYER} EUR account not found"
    )


def test_liquidity_goes_before_the_cap(pipeline: Pipeline) -> None:
    """4001 where cover is short, even if the cap is short too (mojaloop-pipeline.md §9)."""
    provision(pipeline.engine, cap=5, funds=1_000_000)
    items = [item("2000000"), item("10")]
    pipeline.post(bulk(items, now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert [code for _, code in results(final(pipeline, PAYER)[1])] == ["4001", "4200"]


def test_mixed_currencies_in_one_bulk(pipeline: Pipeline) -> None:
    provision(pipeline.engine, currency="BGN", fsps=(PAYER, PAYEE))
    items = [item("10"), item("20.5", currency="BGN")]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run()
    positions = world(pipeline.engine).positions
    assert positions[PAYER, "USD"] == 10 * UNITS == -positions[PAYEE, "USD"]
    assert positions[PAYER, "BGN"] == 205_000 == -positions[PAYEE, "BGN"]


def test_ascending_amount_order_reserves_as_many_as_possible(pipeline: Pipeline) -> None:  # BULK-11, BULK-114
    provision(pipeline.engine, cap=60)
    items = [item("50"), item("20"), item("10"), item("30")]
    sorting = Pipeline(pipeline.engine, pipeline.store, pipeline.stream, transport=pipeline.transport)
    sorting.handlers["topic-bulk-prepare"]._rules = type(pipeline.bulk_rules)(ascending_amount_order=True)  # type: ignore[attr-defined]  # the one setting under test
    body = bulk(items, now_ms=pipeline.now())
    sorting.post(body, source=PAYER)
    sorting.run()
    # The payee sees the order of the request all the same (BULK-12).
    assert forwarded(sorting)["individualTransfers"] == items[1:]


def test_payee_rejects_the_bulk(pipeline: Pipeline) -> None:
    """BULK-32: REJECTED aborts everything, fulfilments inside it notwithstanding; the payer gets a PUT with the list."""
    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(items[0])], state="REJECTED"), source=PAYEE)
    pipeline.run()
    for fsp in (PAYER, PAYEE):
        callback, told = final(pipeline, fsp)
        assert (callback, told["bulkTransferState"]) == ("PUT", "REJECTED")
        assert [code for _, code in results(told)] == ["5100", "5100"]
        assert "fulfilment" not in told["individualTransferResults"][0]
    after = world(pipeline.engine)
    assert after.items == {"REJECTED": 2}
    assert after.positions[PAYER, "USD"] == 0


def test_payees_put_error_reaches_the_payer_word_for_word(pipeline: Pipeline) -> None:  # D22
    items = [item(), item("5", currency="EUR")]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    raw = b'{"errorInformation": {"errorDescription": "No.", "errorCode": "5100"}}'
    pipeline.put_error(
        body["bulkTransferId"],
        {"errorInformation": {"errorDescription": "No.", "errorCode": "5100"}},
        source=PAYEE,
        raw=raw,
    )
    pipeline.run()
    [told] = [one for one in pipeline.notifications(PAYER) if one.request_id is None]
    assert told.callback == "PUT_ERROR"
    assert pipeline.store.get(told.content) == raw
    callback, list_of_payee = final(pipeline, PAYEE)
    assert (callback, list_of_payee["bulkTransferState"]) == ("PUT", "REJECTED")
    # A GET afterwards is answered by a PUT with the list (reference §11.18).
    pipeline.get(body["bulkTransferId"], source=PAYER)
    pipeline.run()
    asked = pipeline.notifications(PAYER)[-1]
    assert asked.callback == "PUT"
    assert results(pipeline.body(asked)) == [(items[0]["transferId"], "5100"), (items[1]["transferId"], "3100")]
    assert world(pipeline.engine).items == {"REJECTED": 1, "RECEIVED_INVALID": 1}


@pytest.mark.parametrize("given", [{"individualTransferResults": []}, {}])
def test_no_results_abort_everything(pipeline: Pipeline, given: Body) -> None:  # D23
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], {"bulkTransferState": "COMPLETED", **given}, source=PAYEE)
    pipeline.run()
    callback, told = final(pipeline, PAYER)
    assert (callback, told["bulkTransferState"]) == ("PUT", "REJECTED")
    assert [code for _, code in results(told)] == ["5000", "5000"]


def test_items_the_payee_omits_are_aborted(pipeline: Pipeline) -> None:  # D11
    items = [item(), item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(items[1])]), source=PAYEE)
    pipeline.run()
    _, told = final(pipeline, PAYER)
    assert told["bulkTransferState"] == "COMPLETED"
    assert [code for _, code in results(told)] == ["5000", "committed", "5000"]
    assert world(pipeline.engine).items == {"COMPLETED": 1, "FULFIL_INVALID": 2}


def test_a_wrong_fulfilment_ends_its_item_and_not_the_bulk(pipeline: Pipeline) -> None:  # D4, D5
    items = [item(), item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    wrong = {"transferId": items[0]["transferId"], "fulfilment": committed(items[1])["fulfilment"]}
    missing = {"transferId": items[2]["transferId"]}
    pipeline.put(body["bulkTransferId"], answer([wrong, committed(items[1]), missing]), source=PAYEE)
    pipeline.run()
    _, told = final(pipeline, PAYER)
    assert [code for _, code in results(told)] == ["3100", "committed", "3100"]
    assert told["individualTransferResults"][0]["errorInformation"]["errorDescription"] == (
        "Generic validation error - invalid fulfilment"
    )
    assert world(pipeline.engine).positions[PAYER, "USD"] == 10 * UNITS


def test_a_completed_timestamp_in_the_future_makes_the_fulfil_invalid_as_a_whole(pipeline: Pipeline) -> None:
    """X-32, reference §11.19: 200, then PUT /error 3100 to the payer, REJECTED."""
    from schemas.fspiop.datetimes import format_datetime

    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    ahead = format_datetime(pipeline.now() + 60_000)
    pipeline.put(
        body["bulkTransferId"], answer([committed(one) for one in items], completedTimestamp=ahead), source=PAYEE
    )
    pipeline.run()
    callback, told = final(pipeline, PAYER)
    assert callback == "PUT_ERROR"
    assert told["errorInformation"]["errorCode"] == "3100"
    callback, told = final(pipeline, PAYEE)
    assert (callback, told["bulkTransferState"]) == ("PUT", "REJECTED")
    after = world(pipeline.engine)
    assert after.bulks[body["bulkTransferId"]][-1] == "INVALID"
    assert after.positions[PAYER, "USD"] == 0


def test_the_payees_extras_reach_the_payer(pipeline: Pipeline) -> None:
    """What the payee says beyond the fulfilment is passed on: its extensionLists, its completedTimestamp."""
    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    extension = {"extension": [{"key": "branch", "value": "12"}]}
    no = {
        "transferId": items[1]["transferId"],
        "errorInformation": {"errorCode": "5105", "errorDescription": "Blocked", "extensionList": extension},
    }
    yes = {**committed(items[0]), "extensionList": extension}
    pipeline.put(
        body["bulkTransferId"],
        answer([no, yes], completedTimestamp="2020-11-21T10:00:00.000Z", extensionList=extension),
        source=PAYEE,
    )
    pipeline.run()
    _, told = final(pipeline, PAYER)
    assert told == {
        "bulkTransferState": "COMPLETED",
        "completedTimestamp": "2020-11-21T10:00:00.000Z",
        "individualTransferResults": [yes, no],
        "extensionList": extension,
    }
