"""Single transfers beside bulks: one position, one space of transferIds, and callbacks that keep out of each other's way."""

from sqlalchemy import text

from domain.money import UNITS
from tests import singles
from tests.bulks import PAYEE, PAYER, bulk, committed, item, provision, world
from tests.flows.test_single_transfers import NOT_FOUND, position, run
from tests.pipeline import Pipeline
from tests.singles import failed, fulfilled, states, told, transfer


def test_a_member_of_a_bulk_is_neither_fulfilled_nor_taken_as_a_single_transfer(pipeline: Pipeline) -> None:
    one = item()
    pipeline.post(bulk([one], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    singles.put(pipeline, one["transferId"], fulfilled(one))
    body = transfer(now_ms=pipeline.now(), transferId=one["transferId"])
    singles.post(pipeline, body)
    pipeline.run()
    assert states(pipeline, one["transferId"]) == ["RECEIVED_PREPARE", "RESERVED"]
    assert told(pipeline, PAYEE, one["transferId"])[-1].body == NOT_FOUND
    assert told(pipeline, PAYER, one["transferId"])[-1].body == failed("3106", "Modified request")


def test_a_transfer_id_that_a_single_transfer_has_used_is_a_duplicate_in_a_bulk(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = run(pipeline, body)
    pipeline.post(bulk([item(transfer_id=transfer_id), item()], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert world(pipeline.engine).items == {"RECEIVED_DUPLICATE": 1, "ACCEPTED": 1}
    assert states(pipeline, transfer_id) == ["RECEIVED_PREPARE", "RESERVED"]


def test_single_transfers_and_bulks_share_one_position(pipeline: Pipeline) -> None:  # BULK-122, D1
    provision(pipeline.engine, cap=25, funds=25, fsps=("smallfsp",))
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant_limit SET value = 25"))
    items = [item("10"), item("10")]
    pipeline.post(bulk(items, now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    refused = run(pipeline, transfer("10", now_ms=pipeline.now()))
    accepted = run(pipeline, transfer("5", now_ms=pipeline.now()))
    assert told(pipeline, PAYER, refused)[-1].body == failed("4200", "Payer limit error")
    assert states(pipeline, accepted)[-1] == "RESERVED"
    assert position(pipeline, PAYER) == 25 * UNITS


def test_a_single_transfer_may_have_the_id_of_a_bulk(pipeline: Pipeline) -> None:
    """A hostile payer must not be able to take the place of another's callbacks by choosing its id."""
    body = bulk([item()], now_ms=pipeline.now())
    single = transfer(now_ms=pipeline.now(), transferId=body["bulkTransferId"])
    run(pipeline, single)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(
        body["bulkTransferId"],
        {"bulkTransferState": "COMPLETED", "individualTransferResults": [committed(body["individualTransfers"][0])]},
        source=PAYEE,
    )
    pipeline.run()
    with pipeline.engine.connect() as tx:
        kinds = tx.execute(text("SELECT resource, fsp, kind FROM delivery ORDER BY resource, fsp, kind")).all()
    assert [tuple(row) for row in kinds] == [
        ("bulkTransfers", PAYEE, "FINAL"),
        ("bulkTransfers", PAYEE, "FORWARD"),
        ("bulkTransfers", PAYER, "FINAL"),
        ("transfers", PAYEE, "FORWARD"),
    ]
