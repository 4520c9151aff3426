"""Seed 002 §3.1 on the whole way of a bulk: what the switch does about each consideration, and what it leaves to FSPs."""

from typing import Any

import pytest
from sqlalchemy import text

from domain.money import UNITS
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, world
from tests.flows.over_http import over_http
from tests.flows.test_outcomes import final, forwarded, results
from tests.pipeline import Pipeline

Body = dict[str, Any]


def posted(pipeline: Pipeline, *items: Body, **changes: Any) -> Body:
    body = bulk(items, now_ms=pipeline.now(), **changes)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    return body


def test_a_golden_bulk_from_end_to_end_over_http(pipeline: Pipeline) -> None:
    """BULK-14, BULK-109, BULK-118: the edge alone keeps what it answers; the handlers do the rest, later."""
    body = bulk([item(), item(), item("5", currency="EUR")], now_ms=pipeline.now())
    with over_http(pipeline, signed=False) as edge:
        response = edge.send("POST", "/bulkTransfers", body, PAYER)
        assert (response.status_code, response.content) == (202, b"")
        # bulk-api-adapter owns the endpoints and what came in by them; no handler has run, and no row is written.
        [kept] = pipeline.store.keys(f"requests/{body['bulkTransferId']}/")
        assert pipeline.store.get(kept).endswith(response.request.content)
        assert world(pipeline.engine).bulks == {}
        edge.deliver()
        post = forwarded(pipeline)
        results_ = answer([committed(one) for one in post["individualTransfers"]])
        assert edge.send("PUT", f"/bulkTransfers/{body['bulkTransferId']}", results_, PAYEE).status_code == 200
        edge.deliver()
        assert edge.send("GET", f"/bulkTransfers/{body['bulkTransferId']}", None, PAYER).status_code == 202
        edge.deliver()
    told = final(pipeline, PAYER)[1]
    assert [code for _, code in results(told)] == ["committed", "committed", "3100"]
    assert pipeline.body(pipeline.notifications(PAYER)[-1]) == told
    assert (
        world(pipeline.engine).positions[PAYER, "USD"] == 20 * UNITS == -world(pipeline.engine).positions[PAYEE, "USD"]
    )


def test_funds_are_reserved_transfer_by_transfer(pipeline: Pipeline) -> None:
    """BULK-01: each transfer has a reservation of its own, from its payer's account, with the position after it."""
    posted(pipeline, item("10"), item("20.5"), item("3"))
    with pipeline.engine.connect() as tx:
        rows = tx.execute(
            text(
                "SELECT s.position, payer.name, payee.name FROM transfer_state_change s JOIN transfer t USING (transfer_key)"
                " JOIN participant_currency a ON a.participant_currency_id = t.payer_participant_currency_id"
                " JOIN participant payer ON payer.participant_id = a.participant_id"
                " JOIN participant_currency b ON b.participant_currency_id = t.payee_participant_currency_id"
                " JOIN participant payee ON payee.participant_id = b.participant_id"
                " WHERE s.to_state = 'RESERVED' ORDER BY t.transfer_key"
            )
        ).all()
    assert [tuple(map(str, row)) for row in rows] == [
        ("10.0000", PAYER, PAYEE),
        ("30.5000", PAYER, PAYEE),
        ("33.5000", PAYER, PAYEE),
    ]


def test_one_transfer_that_fails_does_not_fail_the_others(pipeline: Pipeline) -> None:
    """BULK-02 and BULK-06 are the reading of FSPIOP 1.0, all or nothing; BULK-07 stands in its place."""
    good, bad = item(), item("5", currency="EUR")
    posted(pipeline, bad, good)
    assert forwarded(pipeline)["individualTransfers"] == [good]


@pytest.mark.parametrize("path", ["/parties/MSISDN/1", "/participants/MSISDN/1", "/quotes", "/bulkQuotes"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_lookups_and_quotes_are_between_the_fsps(pipeline: Pipeline, path: str, method: str) -> None:
    """BULK-03, BULK-04: the payer has looked up and quoted before; the switch has no such resource."""
    with over_http(pipeline, signed=False) as edge:
        response = edge.send(method, path, None, PAYER)
    assert (response.status_code, response.json()["errorInformation"]["errorCode"]) == (404, "3002")


def test_the_payer_groups_by_payee_and_the_quote_goes_along(pipeline: Pipeline) -> None:
    """BULK-04, BULK-05: one payee per bulk, whatever an item says beside; bulkQuoteId reaches it as it was sent."""
    body = posted(pipeline, item(), item())
    post = forwarded(pipeline)
    assert (post["bulkQuoteId"], post["payeeFsp"]) == (body["bulkQuoteId"], PAYEE)
    elsewhere = bulk([{**item(), "payeeFsp": "otherfsp"}], now_ms=pipeline.now())
    with over_http(pipeline, signed=False) as edge:
        edge.send("POST", "/bulkTransfers", elsewhere, PAYER)
        edge.deliver()
    assert world(pipeline.engine).bulks[elsewhere["bulkTransferId"]][-1] == "ACCEPTED"
    with pipeline.engine.connect() as tx:
        payees = tx.execute(text("SELECT count(DISTINCT payee_participant_currency_id) FROM transfer")).scalar_one()
        assert payees == 1


def test_the_payees_post_is_the_hubs_own_and_carries_nothing_that_the_payer_signed(pipeline: Pipeline) -> None:
    """BULK-10: the subset differs from what the payer signed, so its signature cannot go along; the hub signs instead."""
    body = bulk([item(), item("5", currency="EUR")], now_ms=pipeline.now())
    with over_http(pipeline, signed=False) as edge:
        signature = '{"signature":"AAAA","protectedHeader":"AAAA"}'
        edge.send("POST", "/bulkTransfers", body, PAYER, fspiop_signature=signature)
        edge.deliver()
    assert forwarded(pipeline) != body
    with pipeline.engine.connect() as tx:
        headers = tx.execute(text("SELECT headers FROM delivery WHERE kind = 'FORWARD'")).scalar_one()
    # With headers of its own a callback is signed when it is sent, over these bytes, by the hub alone.
    assert {name.lower(): value for name, value in headers.items()}["fspiop-destination"] == PAYEE
    assert "fspiop-signature" not in {name.lower() for name in headers}


def test_a_large_payer_has_no_rule_of_its_own(pipeline: Pipeline) -> None:
    """BULK-13: what a scheme wants for a government's bulks it says in that payer's cap and funds, and nowhere else."""
    salaries = [item("900000") for _ in range(3)]
    posted(pipeline, *salaries)
    assert len(forwarded(pipeline)["individualTransfers"]) == 1
    provision(pipeline.engine, cap=10_000_000, funds=10_000_000)
    again = [item("900000") for _ in range(3)]
    second = posted(pipeline, *again)
    assert world(pipeline.engine).bulks[second["bulkTransferId"]][-1] == "ACCEPTED"
    assert world(pipeline.engine).transfers == {"RESERVED": 4, "ABORTED_REJECTED": 2}
