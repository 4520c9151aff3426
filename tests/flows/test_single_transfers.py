"""Single transfers on the same rail: every end, who is told what of it, resends, strangers, expiry, money beside bulks."""

from typing import Any

import pytest
from sqlalchemy import text

from domain.combinations import (
    TOPIC_SINGLE_FULFIL,
    TOPIC_SINGLE_NOTIFICATION,
    TOPIC_SINGLE_POSITION,
    TOPIC_SINGLE_PREPARE,
)
from domain.money import UNITS
from tests import singles
from tests.bulks import PAYEE, PAYER, STRANGER, bulk, item, world
from tests.flows.test_expiry import expire
from tests.pipeline import Pipeline
from tests.singles import failed, fulfilled, states, told, transfer

NOT_FOUND = failed("3208", "Transfer ID not found - Provided Transfer ID was not found on the server.")


def run(pipeline: Pipeline, body: dict[str, Any], answer: dict[str, Any] | None = None) -> str:
    """Post a transfer and let the payee answer; returns its id."""
    singles.post(pipeline, body)
    pipeline.run()
    if answer is not None:
        singles.put(pipeline, body["transferId"], answer)
        pipeline.run()
    return str(body["transferId"])


def position(pipeline: Pipeline, fsp: str) -> int:
    return world(pipeline.engine).positions[fsp, "USD"]


def open_expirations(pipeline: Pipeline) -> int:
    with pipeline.engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM open_expiration")).scalar_one())


def test_a_committed_transfer_reaches_both_sides_as_it_was_sent(pipeline: Pipeline) -> None:  # BULK-132
    body = transfer("12.5", now_ms=pipeline.now())
    answer = fulfilled(body, completedTimestamp="2020-11-20T10:00:00.000Z")
    transfer_id = run(pipeline, body, answer)
    assert states(pipeline, transfer_id) == ["RECEIVED_PREPARE", "RESERVED", "RECEIVED_FULFIL", "COMMITTED"]
    [forwarded] = told(pipeline, PAYEE, transfer_id)
    assert (forwarded.callback, forwarded.kind, forwarded.body, forwarded.sent_by) == ("POST", "FORWARD", body, PAYER)
    [final] = told(pipeline, PAYER, transfer_id)
    assert (final.callback, final.kind, final.body, final.sent_by) == ("PUT", "FINAL", answer, PAYEE)
    assert (position(pipeline, PAYER), position(pipeline, PAYEE)) == (125_000, -125_000)
    assert open_expirations(pipeline) == 0


def test_a_payee_that_answers_reserved_is_told_the_outcome_by_patch(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = run(pipeline, body, fulfilled(body, "RESERVED", completedTimestamp="2020-11-20T10:00:00.000Z"))
    assert states(pipeline, transfer_id)[-1] == "COMMITTED"
    [final] = told(pipeline, PAYER, transfer_id)
    assert (final.callback, final.sent_by) == ("PUT", None)
    assert final.body == fulfilled(body, completedTimestamp="2020-11-20T10:00:00.000Z")
    [_, patch] = told(pipeline, PAYEE, transfer_id)
    assert (patch.callback, patch.kind) == ("PATCH", "FINAL")
    assert patch.body == {"transferState": "COMMITTED", "completedTimestamp": "2020-11-20T10:00:00.000Z"}


@pytest.mark.parametrize("answer", ["wrong", "missing"])
def test_a_wrong_or_missing_fulfilment_aborts_at_once(pipeline: Pipeline, answer: str) -> None:  # D4
    body = transfer(now_ms=pipeline.now())
    said = {"transferState": "COMMITTED"}
    if answer == "wrong":
        said["fulfilment"] = "A" * 43
    transfer_id = run(pipeline, body, said)
    assert states(pipeline, transfer_id)[-2:] == ["RECEIVED_ERROR", "ABORTED_ERROR"]
    [final] = told(pipeline, PAYER, transfer_id)
    assert (final.callback, final.body) == (
        "PUT_ERROR",
        failed("3100", "Generic validation error - invalid fulfilment"),
    )
    assert [one.callback for one in told(pipeline, PAYEE, transfer_id)] == ["POST"]
    assert position(pipeline, PAYER) == 0
    singles.get(pipeline, transfer_id, source=PAYER)
    pipeline.run()
    shown = told(pipeline, PAYER, transfer_id)[-1]
    assert shown.body == {
        "transferState": "ABORTED",
        "extensionList": {
            "extension": [{"key": "cause", "value": "3100: Generic validation error - invalid fulfilment"}]
        },
    }


def test_a_wrong_fulfilment_after_reserved_tells_the_payee_that_it_was_aborted(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = run(pipeline, body, {"transferState": "RESERVED", "fulfilment": "A" * 43})
    patch = told(pipeline, PAYEE, transfer_id)[-1]
    assert (patch.callback, patch.body["transferState"]) == ("PATCH", "ABORTED")
    assert told(pipeline, PAYER, transfer_id)[-1].callback == "PUT_ERROR"


def test_the_payees_error_reaches_the_payer_as_it_was_sent(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    answer = failed("5104", "no such customer")
    transfer_id = run(pipeline, body, answer)
    [final] = told(pipeline, PAYER, transfer_id)
    assert (final.callback, final.body, final.sent_by) == ("PUT_ERROR", answer, PAYEE)
    assert position(pipeline, PAYER) == 0


def test_what_cannot_be_covered_is_refused_to_the_payer_and_never_forwarded(pipeline: Pipeline) -> None:
    body = transfer("1000000.0001", now_ms=pipeline.now())
    transfer_id = run(pipeline, body)
    assert states(pipeline, transfer_id) == ["RECEIVED_PREPARE", "ABORTED_REJECTED"]
    [final] = told(pipeline, PAYER, transfer_id)
    assert final.body == failed("4001", "Payer FSP insufficient liquidity")
    assert told(pipeline, PAYEE, transfer_id) == []
    assert open_expirations(pipeline) == 0


@pytest.mark.parametrize(
    ("change", "code", "description"),
    [
        ({"payeeFsp": "nobody"}, "3203", "Payee FSP ID not found - Participant nobody not found"),
        ({"payeeFsp": PAYER}, "3100", "Generic validation error - payerFsp and payeeFsp must differ"),
        (
            {"amount": {"currency": "EUR", "amount": "1"}},
            "3100",
            f"Generic validation error - Participant {PAYER} EUR account not found",
        ),
        ({"condition": "AAAA"}, "3100", "Generic validation error - condition is not 32 bytes"),
        (
            {"expiration": "2001-01-01T00:00:00.000Z"},
            "3100",
            "Generic validation error - expiration is not in the future",
        ),
    ],
)
def test_a_transfer_that_cannot_stand_is_refused_with_its_reason_and_kept(
    pipeline: Pipeline, change: dict[str, Any], code: str, description: str
) -> None:
    body = transfer(now_ms=pipeline.now()) | change
    transfer_id = run(pipeline, body)
    assert states(pipeline, transfer_id) == ["INVALID"]
    assert [one.body for one in told(pipeline, PAYER, transfer_id)] == [failed(code, description)]
    assert open_expirations(pipeline) == 0


def test_an_inactive_payee_and_an_inactive_account_are_told_apart(pipeline: Pipeline) -> None:
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant SET is_active = false WHERE name = :name"), {"name": PAYEE})
    first = run(pipeline, transfer(now_ms=pipeline.now()))
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant SET is_active = true"))
        tx.execute(text("UPDATE participant_currency SET is_active = false"))
    second = run(pipeline, transfer(now_ms=pipeline.now()))
    errors = [told(pipeline, PAYER, one)[0].body["errorInformation"] for one in (first, second)]
    assert [one["errorCode"] for one in errors] == ["3100", "3100"]
    assert errors[0]["errorDescription"] == f"Generic validation error - Participant {PAYEE} is inactive"
    assert errors[1]["errorDescription"].endswith("account is inactive")


def test_resends_get_the_outcome_again_and_other_bodies_3106(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = run(pipeline, body)
    # Unfinished: the same body is nothing, another one is 3106 to its sender alone.
    singles.post(pipeline, body)
    singles.post(pipeline, body | {"amount": {"currency": "USD", "amount": "11"}})
    pipeline.run()
    assert [one.body for one in told(pipeline, PAYER, transfer_id)] == [failed("3106", "Modified request")]
    answer = fulfilled(body, completedTimestamp="2020-11-20T10:00:00.000Z")
    singles.put(pipeline, transfer_id, answer)
    pipeline.run()
    singles.post(pipeline, body)
    singles.put(pipeline, transfer_id, answer)
    singles.put(pipeline, transfer_id, failed())
    pipeline.run()
    [_, final, again] = told(pipeline, PAYER, transfer_id)
    assert (again.callback, again.kind, again.body, again.sent_by) == ("PUT", "ANSWER", final.body, None)
    [_, told_again, modified] = told(pipeline, PAYEE, transfer_id)
    assert (told_again.callback, told_again.body) == ("PUT", answer)
    assert modified.body == failed("3106", "Modified request")
    assert position(pipeline, PAYER) == 10 * UNITS


def test_nobody_but_its_parties_touches_or_sees_a_transfer(pipeline: Pipeline) -> None:  # D12, D13
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body, source=STRANGER)
    pipeline.run()
    assert states(pipeline, body["transferId"]) == []
    text_ = "Generic validation error - FSPIOP-Source header should match Payer FSP"
    assert [one.body for one in told(pipeline, STRANGER, body["transferId"])] == [failed("3100", text_)]
    transfer_id = run(pipeline, body)
    for source in (STRANGER, PAYER):
        singles.put(pipeline, transfer_id, fulfilled(body), source=source)
        singles.put(pipeline, transfer_id, failed(), source=source)
    singles.put(pipeline, transfer_id, fulfilled(body), source="unknownfsp")
    singles.get(pipeline, transfer_id, source=STRANGER)
    pipeline.run()
    assert states(pipeline, transfer_id) == ["RECEIVED_PREPARE", "RESERVED"]
    assert [one.body for one in told(pipeline, STRANGER, transfer_id)][1:] == [
        NOT_FOUND,
        NOT_FOUND,
        failed("3000", "Generic client error"),
    ]
    with pipeline.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM single_transfer_fulfilment")).scalar_one() == 0


def test_get_shows_each_state_to_its_parties(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = body["transferId"]
    singles.post(pipeline, body)

    def shown(source: str) -> Any:
        singles.get(pipeline, transfer_id, source=source)
        pipeline.run("topic-transfer-get", TOPIC_SINGLE_NOTIFICATION)
        return told(pipeline, source, transfer_id)[-1].body

    # Stored, and not yet read: to its sender alone.
    assert shown(PAYER) == {"transferState": "RECEIVED"}
    assert shown(PAYEE) == NOT_FOUND
    pipeline.run(TOPIC_SINGLE_PREPARE)
    assert shown(PAYER) == {"transferState": "RECEIVED"}
    assert shown(PAYEE) == NOT_FOUND
    pipeline.run()
    assert shown(PAYER) == shown(PAYEE) == {"transferState": "RESERVED"}
    answer = fulfilled(body, completedTimestamp="2020-11-20T10:00:00.000Z")
    singles.put(pipeline, transfer_id, answer)
    pipeline.run(TOPIC_SINGLE_FULFIL)
    assert shown(PAYER) == {"transferState": "RESERVED"}, "the fulfilment is a secret until the transfer is committed"
    pipeline.run()
    assert shown(PAYER) == shown(PAYEE) == answer


def test_get_of_a_bulks_item_and_of_funds(pipeline: Pipeline) -> None:
    one = item()
    pipeline.post(bulk([one], now_ms=pipeline.now()), source=PAYER)
    pipeline.run()
    with pipeline.engine.connect() as tx:
        funds = str(
            tx.execute(
                text(
                    "SELECT transfer_id FROM funds_transfer JOIN participant_currency USING (participant_currency_id)"
                    " JOIN participant USING (participant_id) WHERE participant.name = :name"
                ),
                {"name": PAYER},
            ).scalar_one()
        )
    for transfer_id in (one["transferId"], funds):
        for source in (PAYER, STRANGER):
            singles.get(pipeline, transfer_id, source=source)
    pipeline.run()
    assert told(pipeline, PAYER, one["transferId"])[-1].body == {"transferState": "RESERVED"}
    assert told(pipeline, STRANGER, one["transferId"])[-1].body == failed("3000", "Generic client error")
    assert told(pipeline, PAYER, funds)[-1].body == {"transferState": "COMMITTED"}
    assert told(pipeline, STRANGER, funds)[-1].body == NOT_FOUND


@pytest.mark.parametrize("phase", ["prepared", "reserved", "answered"])
def test_expiry_ends_a_transfer_in_every_phase_and_gives_the_money_back_once(  # BULK-127, D16, D17
    pipeline: Pipeline, phase: str
) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = body["transferId"]
    singles.post(pipeline, body)
    if phase == "prepared":
        pipeline.run(TOPIC_SINGLE_PREPARE)
        pipeline.held = {TOPIC_SINGLE_POSITION}
    else:
        pipeline.run()
    if phase == "answered":
        # The commit is on its way to position, and its message is lost: time pushes it forward, and never ends it.
        singles.put(pipeline, transfer_id, fulfilled(body))
        pipeline.run(TOPIC_SINGLE_FULFIL)
        pipeline.queues[TOPIC_SINGLE_POSITION].clear()
    expire(pipeline.engine)
    for _ in range(3):
        pipeline.tick()
        pipeline.run()
    pipeline.held = set()
    pipeline.run()
    expired = failed("3303", "Transfer expired")
    if phase == "answered":
        assert states(pipeline, transfer_id)[-1] == "COMMITTED"
        assert position(pipeline, PAYER) == 10 * UNITS
    elif phase == "prepared":
        assert states(pipeline, transfer_id)[-1] == "EXPIRED_PREPARED"
        assert [one.body for one in told(pipeline, PAYER, transfer_id)] == [expired]
        assert told(pipeline, PAYEE, transfer_id) == []
        assert position(pipeline, PAYER) == 0
    else:
        assert states(pipeline, transfer_id)[-1] == "EXPIRED_RESERVED"
        assert [one.body for one in told(pipeline, PAYER, transfer_id)] == [expired]
        assert [one.body for one in told(pipeline, PAYEE, transfer_id)] == [body, expired]
        assert position(pipeline, PAYER) == 0
        # The answer that comes too late has no effect at all.
        singles.put(pipeline, transfer_id, fulfilled(body))
        pipeline.run()
        assert states(pipeline, transfer_id)[-1] == "EXPIRED_RESERVED"
    assert open_expirations(pipeline) == 0


@pytest.mark.parametrize("answer", ["commit", "reserve", "abort", "invalid", "expire"])
def test_every_message_twice_and_in_any_order_changes_nothing(  # D3, X-36
    pipeline: Pipeline, answer: str
) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = body["transferId"]
    pipeline.copies, pipeline.seed = 2, 7
    said = {
        "commit": fulfilled(body),
        "reserve": fulfilled(body, "RESERVED"),
        "abort": failed(),
        "invalid": {"transferState": "COMMITTED"},
    }
    singles.post(pipeline, body)
    pipeline.queues[TOPIC_SINGLE_PREPARE] *= 2
    pipeline.run()
    if answer in said:
        singles.put(pipeline, transfer_id, said[answer])
        pipeline.queues[TOPIC_SINGLE_FULFIL] *= 2
    else:
        expire(pipeline.engine)
        pipeline.tick()
    pipeline.run()
    for sent in list(pipeline.sent):
        pipeline.queues[sent.topic].append(sent.message)
    pipeline.run()
    callbacks = {fsp: [one.callback for one in told(pipeline, fsp, transfer_id)] for fsp in (PAYER, PAYEE)}
    final = "PUT" if answer in ("commit", "reserve") else "PUT_ERROR"
    to_payee = {"reserve": ["POST", "PATCH"], "expire": ["POST", "PUT_ERROR"]}.get(answer, ["POST"])
    assert callbacks == {PAYER: [final], PAYEE: to_payee}
    assert position(pipeline, PAYER) == (10 * UNITS if final == "PUT" else 0)


def test_a_party_that_is_inactive_is_refused_whatever_it_asks_for(pipeline: Pipeline) -> None:  # D12
    body = transfer(now_ms=pipeline.now())
    transfer_id = run(pipeline, body)
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE participant SET is_active = false WHERE name = :name"), {"name": PAYEE})
    singles.put(pipeline, transfer_id, fulfilled(body))
    singles.get(pipeline, transfer_id, source=PAYEE)
    pipeline.run()
    assert states(pipeline, transfer_id)[-1] == "RESERVED"
    refused = failed("3100", f"Generic validation error - Participant {PAYEE} is inactive")
    assert [one.body for one in told(pipeline, PAYEE, transfer_id)][1:] == [refused, refused]
