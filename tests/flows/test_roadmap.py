"""What the seed plans for later must not half exist today: it is refused, has no effect, or is served by what there is."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import UNITS
from tests.bulks import PAYEE, PAYER, STRANGER, answer, bulk, committed, item, world
from tests.flows.over_http import over_http
from tests.flows.test_outcomes import forwarded, results
from tests.pipeline import Pipeline

TESTS = Path(__file__).parents[1]


def test_an_item_cannot_name_a_payee_of_its_own(pipeline: Pipeline) -> None:
    """BULK-110: several payee FSPs in one bulk are for later; until then no item's money goes elsewhere than the bulk's."""
    one = item(payeeFsp=STRANGER)
    pipeline.post(bulk([one], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    assert [sent.to for sent in pipeline.notifications(PAYEE)] == [PAYEE]
    assert pipeline.notifications(STRANGER) == []
    pipeline.put(forwarded(pipeline)["bulkTransferId"], answer([committed(one)]), source=PAYEE)
    pipeline.run()
    positions = world(pipeline.engine).positions
    assert (positions[PAYEE, "USD"], positions[STRANGER, "USD"]) == (-10 * UNITS, 0)


@pytest.mark.parametrize("path", ["/bulkMake", "/bulkMake/{ID}", "/bulkQuotes"])
def test_lookup_quote_and_transfer_in_one_is_no_resource(pipeline: Pipeline, path: str) -> None:
    """BULK-112: /bulkMake is for later; a client that tries it is told so, and nothing is kept."""
    body = bulk([item()], now_ms=pipeline.now())
    with over_http(pipeline, signed=False) as edge:
        response = edge.send("POST", path.replace("{ID}", body["bulkTransferId"]), body, PAYER)
    assert (response.status_code, response.json()["errorInformation"]["errorCode"]) == (404, "3002")
    assert list(pipeline.store.keys(f"requests/{body['bulkTransferId']}/")) == []


def test_a_bulk_beyond_the_liquidity_is_paid_as_far_as_it_goes_and_the_rest_after_funds_in(pipeline: Pipeline) -> None:
    """BULK-115: a government's bulk may exceed its cover: what fits is paid, the rest may be sent again."""
    government = "governmentfsp"
    provision_fsp(pipeline.engine, government, "USD", 1_000 * UNITS, 25 * UNITS, {})
    items = [item("10") for _ in range(4)]
    for round_, funds in enumerate((0, 15)):
        if funds:
            with pipeline.engine.begin() as tx:
                # Funds in lower the value of the settlement account: the cover rises to 40.
                tx.execute(
                    text(
                        "UPDATE participant_position SET value = -40 WHERE participant_currency_id ="
                        " (SELECT participant_currency_id FROM participant_currency JOIN participant USING (participant_id)"
                        "  WHERE name = :name AND ledger_account_type = 'SETTLEMENT')"
                    ),
                    {"name": government},
                )
        wanted = items if round_ == 0 else [item("10") for _ in range(2)]
        body = bulk(wanted, now_ms=pipeline.now(), payerFsp=government)
        pipeline.post(body, source=government)
        pipeline.run()
        reserved = [one for one in pipeline.notifications(PAYEE) if one.callback == "POST"][-1]
        pipeline.put(
            body["bulkTransferId"],
            answer([committed(one) for one in pipeline.body(reserved)["individualTransfers"]]),
            source=PAYEE,
        )
        pipeline.run()
        told = pipeline.body(pipeline.notifications(government)[-1])
        expected = ["committed", "committed", "4001", "4001"] if round_ == 0 else ["committed", "committed"]
        assert [code for _, code in results(told)] == expected
    assert world(pipeline.engine).positions[government, "USD"] == 40 * UNITS


def test_every_issue_of_the_proof_of_concept_is_named_by_a_test() -> None:
    """BULK-111: what was found in the real pipeline, D1 to D28, is worked off: a test names each."""
    named: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        if path != Path(__file__):
            named |= {int(number) for number in re.findall(r"\bD(\d+)\b", path.read_text())}
    assert named >= set(range(1, 29))
