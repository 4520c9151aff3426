"""What the edge has kept becomes the very message again that the edge has published."""

from collections.abc import Mapping
from typing import Any

import pytest

from operations.redrive_requests import kept_since, kind_of, unread_requests
from schemas.codec import codec
from schemas.topics import CATALOGUE
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item
from tests.flows.over_http import over_http
from tests.pipeline import Pipeline

ERROR = {"errorInformation": {"errorCode": "5104", "errorDescription": "No."}}


def requests(now: int) -> list[tuple[str, str, Mapping[str, Any], str]]:
    one, other = bulk([item(), item()], now_ms=now), bulk([item()], now_ms=now)
    single, second = singles.transfer(now_ms=now), singles.transfer(now_ms=now)
    results = [committed(entry) for entry in one["individualTransfers"]]
    return [
        ("POST", "/bulkTransfers", one, PAYER),
        ("PUT", f"/bulkTransfers/{one['bulkTransferId']}", answer(results), PAYEE),
        ("PUT", f"/bulkTransfers/{one['bulkTransferId']}", answer([], state="REJECTED"), PAYEE),
        ("PUT", f"/bulkTransfers/{other['bulkTransferId']}/error", ERROR, PAYEE),
        ("POST", "/transfers", single, PAYER),
        ("PUT", f"/transfers/{single['transferId']}", singles.fulfilled(single), PAYEE),
        ("PUT", f"/transfers/{second['transferId']}", singles.fulfilled(second, "RESERVED"), PAYEE),
        ("PUT", f"/transfers/{second['transferId']}/error", ERROR, PAYEE),
    ]


def test_every_kept_request_is_made_into_the_message_that_the_edge_published(pipeline: Pipeline) -> None:
    sent = requests(pipeline.now())
    with over_http(pipeline, signed=False) as edge:
        for method, path, body, source in sent:
            assert edge.send(method, path, body, source).status_code in (200, 202)
    published = {
        message.request_id: (topic.name, message)
        for topic in CATALOGUE.values()
        if "adapter" in topic.producers
        for partition in range(pipeline.stream.partitions(topic.name))
        for record in pipeline.stream.read(topic.name, partition, 0, 100)
        for message in codec(topic.message).decode(record.value)
    }
    assert len(published) == len(sent)
    found = []
    with pipeline.engine.connect() as tx:
        for page in kept_since(pipeline.store, 0, 3):
            found += unread_requests(tx, pipeline.store, page, weight_max=1_000)
    assert {one.request_id: (one.output.topic, one.output.message) for one in found if one.output} == published
    # Requests of one id are not parted by a page of three, and come in the order of their receipt.
    assert sorted(one.request_id for one in found) == sorted(published)
    by_entity: dict[bytes, list[int]] = {}
    for one in found:
        by_entity.setdefault(one.entity_id, []).append(one.received_at_ms)
    assert all(times == sorted(times) for times in by_entity.values())


def test_only_what_was_put_since_is_found(pipeline: Pipeline) -> None:
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER)
    [[kept]] = kept_since(pipeline.store, 0, 10)
    assert list(kept_since(pipeline.store, kept.put_ms + 1, 10)) == []
    assert list(kept_since(pipeline.store, kept.put_ms, 10)) == [[kept]]


@pytest.mark.parametrize("body", [{}, {"errorInformation": {}}, {"transferId": "x"}])
def test_what_is_no_request_of_the_edge_is_told_apart(body: dict[str, Any]) -> None:
    assert kind_of("application/json", body) is None
