"""Every message of every kind of bulk comes twice, in any order that keeps the order of its key: nothing changes."""

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from schemas.fspiop.datetimes import format_datetime
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, refused, world
from tests.flows.expirations import end_its_time
from tests.flows.over_http import whole_database
from tests.flows.replays import Replays
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(900)

Body = dict[str, Any]
NEVER_FITS = "999999999"
ERROR = {"errorInformation": {"errorCode": "5100", "errorDescription": "No."}}


class Script:
    """One bulk per way to end, and what the payee says to each when it hears of it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        now = pipeline.now()
        used = item()
        self.bulks: dict[str, Body] = {
            "used": bulk([used], now_ms=now),
            "mixed": bulk([item() for _ in range(5)] + [item("5", currency="EUR"), item(NEVER_FITS)], now_ms=now),
            "rejected": bulk([item(), item()], now_ms=now),
            "error": bulk([item(), item("5", currency="EUR")], now_ms=now),
            "invalid": bulk([item(), item()], now_ms=now),
            "none": bulk([item(NEVER_FITS)], now_ms=now),
            "silent": bulk([item(), item()], now_ms=now),
            "refused": {**bulk([item()], now_ms=now), "payeeFsp": "ghostfsp"},
        }
        # Sent when the first one's transfer stands: one id with another body, one with the same.
        self.late = {
            "duplicates": bulk([{**used, "ilpPacket": "CCCC"}, item()], now_ms=now),
            "all duplicates": bulk([used], now_ms=now),
        }
        self.answered: set[str] = set()

    def post(self, bulks: Mapping[str, Body]) -> None:
        for body in bulks.values():
            self.pipeline.post(body, source=PAYER)

    def answer(self) -> bool:
        """The payee's answers to what it has heard of since; whether there were any."""
        heard = {one.bulk_transfer_id.hex() for one in self.pipeline.notifications(PAYEE) if one.callback == "POST"}
        news = False
        for name, body in {**self.bulks, **self.late}.items():
            if body["bulkTransferId"].replace("-", "") in heard and name not in self.answered:
                self.answered.add(name)
                news = True
                self._answer(name, body["bulkTransferId"], body["individualTransfers"])
        return news

    def _answer(self, name: str, id_: str, items: list[Body]) -> None:
        put = self.pipeline.put
        ahead = format_datetime(self.pipeline.now() + 60_000)
        match name:
            case "mixed":
                wrong = {"transferId": items[2]["transferId"], "fulfilment": committed(items[0])["fulfilment"]}
                missing = {"transferId": items[3]["transferId"]}
                put(id_, answer([committed(items[0]), refused(items[1]), wrong, missing]), source=PAYEE)
            case "rejected":
                put(id_, answer([committed(items[0])], state="REJECTED"), source=PAYEE)
            case "error":
                self.pipeline.put_error(id_, ERROR, source=PAYEE)
            case "invalid":
                results = [committed(one) for one in items]
                put(id_, answer(results, completedTimestamp=ahead), source=PAYEE)
            case "silent":
                put(id_, {"bulkTransferState": "PROCESSING"}, source=PAYEE)
            case _:
                put(id_, answer([committed(one) for one in items if one["ilpPacket"] != "CCCC"]), source=PAYEE)

    def resend_and_ask(self) -> None:
        """After the end: the payer sends everything again and asks for everything."""
        for body in {**self.bulks, **self.late}.values():
            self.pipeline.post(body, source=PAYER)
            self.pipeline.get(body["bulkTransferId"], source=PAYER)


def outcome(script: Script) -> dict[str, Any]:
    """What became of each bulk: its end, its items and transfers in order, and every callback about it, in full."""
    found = {}
    with script.pipeline.engine.connect() as tx:
        for name, body in {**script.bulks, **script.late}.items():
            parameters = {"id": body["bulkTransferId"]}
            states = world(script.pipeline.engine).bulks[body["bulkTransferId"]]
            items = tx.execute(_ITEMS, parameters).all()
            told = Counter((row.fsp, row.kind, row.callback) for row in tx.execute(_TOLD, parameters))
            finals = {
                row.fsp: _numbered(script.pipeline.store.get(row.content), body)
                for row in tx.execute(_TOLD, parameters)
                if row.kind == "FINAL"
            }
            found[name] = (states[-1], [tuple(row) for row in items], told, finals)
    return found


_ITEMS = text(
    "SELECT a.bulk_processing_state, a.error_code, (SELECT array_agg(s.to_state ORDER BY s.to_state)"
    "   FROM transfer_state_change s WHERE s.transfer_key = a.transfer_key) AS steps"
    " FROM bulk_transfer_association a JOIN bulk_transfer b ON a.transfer_key / 10000 = b.bulk_key"
    " WHERE b.bulk_transfer_id = CAST(:id AS uuid) ORDER BY a.transfer_key"
)
_TOLD = text("SELECT fsp, kind, callback, content FROM delivery WHERE entity_id = CAST(:id AS uuid)")


def _numbered(content: bytes, body: Body) -> bytes:
    """The callback with each transferId replaced by its number, and without the fulfilments that depend on it."""
    for number, one in enumerate(body["individualTransfers"]):
        content = content.replace(committed(one)["fulfilment"].encode(), b"F%d" % number)
        content = content.replace(one["transferId"].encode(), b"T%d" % number)
    # The one timestamp of the script is the time at which it ran.
    return b"" if b"completedTimestamp" in content else content


def play(script: Script, *, twice: bool) -> None:
    """Play the script to its end, the way `pipeline` delivers."""
    pipeline = script.pipeline

    def run() -> None:
        if isinstance(pipeline, Replays):
            pipeline.read_all(twice=False)
        else:
            pipeline.run()

    script.post(script.bulks)
    run()
    script.post(script.late)
    run()
    while script.answer():
        run()
    end_its_time(pipeline.engine, script.bulks["silent"]["bulkTransferId"])
    for _ in range(3):
        pipeline.tick()
        run()
    script.resend_and_ask()
    run()
    if isinstance(pipeline, Replays):
        pipeline.read_all(twice=twice)


@pytest.fixture
def expected(pipeline: Pipeline) -> dict[str, Any]:
    """What becomes of the script when every message comes once, in the order in which it was sent."""
    script = Script(pipeline)
    play(script, twice=False)
    found = outcome(script)
    assert {name: end for name, (end, *_) in found.items()} == {
        "used": "COMPLETED",
        "mixed": "COMPLETED",
        "rejected": "REJECTED",
        "error": "REJECTED",
        "invalid": "INVALID",
        "none": "REJECTED",
        "silent": "EXPIRED",
        "refused": "REJECTED",
        "duplicates": "COMPLETED",
        "all duplicates": "REJECTED",
    }
    for _, _, told, _ in found.values():
        # BULK-116: whatever went wrong, the payer was told how the bulk ended, and once.
        finals = [callback for (fsp, kind, callback), _ in told.items() if fsp == PAYER and kind == "FINAL"]
        assert len(finals) == 1
        assert all(count == 1 for (_, kind, _), count in told.items() if kind == "FINAL")
    return found


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), batch_items=st.sampled_from([1, 3, 1_000]))
def test_every_message_twice_ends_as_every_message_once(
    pipeline: Pipeline, expected: dict[str, Any], seed: int, batch_items: int
) -> None:
    """D3, D7, D8, D9, D14, D22, BULK-119, BULK-120, BULK-134: same ends, items, steps, callbacks; no extra delivery row."""
    parts = (pipeline.engine, pipeline.store, pipeline.stream)
    replays = Replays(*parts, order=Random(seed), batch_items=batch_items, transport=pipeline.transport)
    script = Script(replays)
    play(script, twice=True)
    assert outcome(script) == expected
    # All of it twice once more, now that everything is over: not a row changes anywhere.
    before, said = whole_database(pipeline.engine), len(replays.sent)
    replays.rewind()
    requests = {"topic-bulk-get"}
    for place in [place for place in replays.produced if place[0] in requests]:
        # A GET changes nothing and is answered as often as it comes; its answers are one row per request.
        del replays.produced[place], replays.read[place]
    replays.read_all(twice=True)
    assert whole_database(pipeline.engine) == before
    again = {(one.message.type, one.message.action) for one in replays.sent[said:]}
    assert again <= {("notification", "bulk-prepare-duplicate"), ("notification", "bulk-fulfil-duplicate")}
