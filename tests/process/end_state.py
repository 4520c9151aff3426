"""What a set of bulks has come to: in the database, with each FSP, and in the books of the handlers.

`stories` says it per script in terms that are comparable between two sets: numbers of items instead of ids, no times. What
depends on how messages fall into batches (PENDING_FULFIL), or on who was dead when time ran out (how far a silent bulk
had come), is left out of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from db.deliveries import Delivery
from domain.money import UNITS
from domain.states import BULK_API_STATES, BulkState
from operations.bulk_story import read_bulk_story
from operations.lag import read_dead_letters, read_lag
from operations.simulated_bulk import SECRET, fulfilment_text
from operations.simulated_fsp import Receipt, SimulatedEndpoint
from operations.verification import verify_database
from stream.opening import open_stream
from tests.bulks import PAYEE, PAYER, world
from tests.operations.processes import wait_until
from tests.process.bulk_scripts import AMOUNT, Fate, Script
from tests.process.running_world import Played, RunningWorld
from tests.process.single_scripts import PlayedSingle, SingleScript, states_of, unfinished_singles

# What a callback says: which it is, the state of the bulk or its error, and per item its number and "" or a code.
Told = tuple[str, str | None, tuple[tuple[int, str], ...]]


@dataclass(frozen=True)
class Story:
    """What became of one bulk. `told` are the payer's final outcome, and the payee's request and final outcome."""

    history: tuple[str, ...]
    items: tuple[str, ...]
    transfers: tuple[tuple[str, ...], ...]
    payer_was_told: Told
    payee_was_told: tuple[Told, ...]


def expected_story(script: Script) -> Story:
    """What the script's construction says that it must come to."""
    numbered = list(enumerate(script.fates, start=1))
    forwarded = [(number, fate) for number, fate in numbered if fate.is_forwarded and script.is_forwarded]
    state = BULK_API_STATES[script.history[-1]]
    everything = _results(numbered) if script.bulk_code is None else ()
    final = (script.callback, script.bulk_code or state, everything)
    request = ("POST", None, tuple((number, "") for number, _ in forwarded))
    told_payee: tuple[Told, ...] = (request, ("PUT", state, _results(forwarded))) if script.is_forwarded else ()
    story = Story(
        tuple(script.history),
        tuple(fate.item for fate in script.fates),
        tuple(tuple(fate.transfer) for fate in script.fates),
        final,
        told_payee,
    )
    return _comparable(script, story)


def _results(fates: Iterable[tuple[int, Fate]]) -> tuple[tuple[int, str], ...]:
    return tuple((number, fate.code) for number, fate in fates)


def stories(running: RunningWorld, played: Iterable[Played]) -> dict[str, Story]:
    """What became of each bulk, by the name of its script; both FSPs were told their one outcome, or this fails."""
    with running.engine.connect() as tx:
        found = {one.script.name: _comparable(one.script, _story(tx, running, one)) for one in played}
    for one in played:
        may_be_too_late = one.script.name == "silent" and (one.resends or one.is_late)
        if may_be_too_late and found[one.script.name] == _TAKEN_TOO_LATE:
            # The edge was away or slow until its time was over, and what it took then is rightly refused as a whole.
            found[one.script.name] = expected_story(one.script)
    return found


_TAKEN_TOO_LATE = Story((BulkState.REJECTED,), (), (), ("PUT_ERROR", "3100", ()), ())


def _comparable(script: Script, story: Story) -> Story:
    history = tuple(state for state in story.history if state != BulkState.PENDING_FULFIL)
    if script.name != "silent":
        return Story(history, story.items, story.transfers, story.payer_was_told, story.payee_was_told)
    # When its time ran out it had come as far as whoever was dead then let it come.
    return Story(history[-1:], (), (), story.payer_was_told, ())


def _story(tx: Connection, running: RunningWorld, played: Played) -> Story:
    id_ = UUID(played.bulk.bulk_transfer_id)
    found = read_bulk_story(tx, id_)
    assert found is not None, f"{played.script.name}: the switch knows no bulk {id_}"
    callbacks = [callback.delivery for callback in found.callbacks]
    told_payer = _told_by(running.payer, played, callbacks)
    told_payee = _told_by(running.payee, played, callbacks)
    assert len(told_payer) == 1, f"{played.script.name}: the payer was told {told_payer}"
    return Story(
        tuple(step.to_state for step in found.steps),
        tuple(item.state for item in found.items),
        _transfers(tx, id_),
        told_payer[0],
        told_payee,
    )


def _transfers(tx: Connection, bulk_transfer_id: UUID) -> tuple[tuple[str, ...], ...]:
    """The steps of each item's transfer, in the order of the request; each step begins where the one before ended."""
    rows = tx.execute(
        text(
            "SELECT a.transfer_key, s.from_state, s.to_state"
            " FROM bulk_transfer b JOIN bulk_transfer_association a ON a.transfer_key / 10000 = b.bulk_key"
            " LEFT JOIN transfer_state_change s USING (transfer_key)"
            " WHERE b.bulk_transfer_id = :id ORDER BY a.transfer_key"
        ),
        {"id": bulk_transfer_id},
    )
    steps: dict[int, dict[str, str]] = {}
    for key, from_state, to_state in rows:
        steps.setdefault(key, {})
        if from_state is not None:
            steps[key][from_state] = to_state
    return tuple(_walk(one) for one in steps.values())


def _walk(steps: Mapping[str, str]) -> tuple[str, ...]:
    states, state = [], "-"
    while state in steps:
        state = steps[state]
        states.append(state)
    assert len(states) == len(steps), f"these steps are no way through the states: {steps}"
    return tuple(states)


def _told_by(fsp: SimulatedEndpoint, played: Played, callbacks: Sequence[Delivery]) -> tuple[Told, ...]:
    """The different things that an FSP was told of a bulk, in their order: each was said in the same bytes every time.

    Who has sent its request again may be told its outcome again, as the answer to that: it says the very same.
    """
    what = f"{fsp.name}, {played.script.name}"
    # All repeats that are no answers to a request of their own are byte for byte: `is_repeat` covers the headers, too.
    different = [one for one in fsp.received(played.bulk.bulk_transfer_id) if not one.is_repeat]
    rows = [one for one in callbacks if one.fsp == fsp.name]
    answers = [one for one in rows if one.kind == "ANSWER"]
    assert len(answers) <= _resends(fsp, played), f"{what}: {answers}"
    assert len(different) <= len(rows), f"{what} got {len(different)} different requests for {rows}"
    # A request to the payee is not made any more once its time is over.
    late = [one for one in rows if one.kind == "FORWARD" and played.script.name == "silent"]
    assert all(one.state == "DELIVERED" or one in late for one in rows), f"{what}: {rows}"
    told: list[Told] = []
    for receipt in different:
        said = _told(receipt, played)
        if said not in told:
            told.append(said)
    bodies = {receipt.body for receipt in different if receipt.callback != "POST"}
    assert len(bodies) == 1 or not different, f"{what} was told {bodies}"
    return tuple(told)


def _resends(fsp: SimulatedEndpoint, played: Played) -> int:
    if fsp.name == PAYER:
        return played.resends
    return len([one for one in fsp.received(played.bulk.bulk_transfer_id) if one.callback == "POST"])


def _told(receipt: Receipt, played: Played) -> Told:
    body: dict[str, Any] = receipt.json()
    if receipt.callback == "PUT_ERROR":
        return receipt.callback, body["errorInformation"]["errorCode"], ()
    numbers = {transfer_id: number for number, transfer_id in enumerate(played.bulk.transfer_ids, start=1)}
    if receipt.callback == "POST":
        return "POST", None, tuple((numbers[one["transferId"]], "") for one in body["individualTransfers"])
    results = body.get("individualTransferResults", [])
    return (
        receipt.callback,
        body["bulkTransferState"],
        tuple((numbers[one["transferId"]], _code(one)) for one in results),
    )


def _code(result: Mapping[str, Any]) -> str:
    if "errorInformation" in result:
        return str(result["errorInformation"]["errorCode"])
    assert result["fulfilment"] == fulfilment_text(SECRET, result["transferId"])
    return ""


# --- waiting for the end, and what must hold then ---


def wait_for_the_end(running: RunningWorld, played: Sequence[Played], singles: Sequence[PlayedSingle]) -> None:
    """Until each bulk and transfer has ended, both FSPs have been told, and every handler has read everything."""
    ids = [one.bulk.bulk_transfer_id for one in played]

    def has_ended() -> bool:
        with running.engine.connect() as tx:
            if unfinished_singles(tx, singles):
                return False
        return not unfinished(running.engine, ids) and _is_at_rest(running)

    wait_until(has_ended, f"the end of {[one.script.name for one in played] + [one.script.name for one in singles]}")


def require_told(running: RunningWorld, played: PlayedSingle) -> None:
    """A single transfer went through its states, and each side got its callbacks, each in the same bytes every time."""
    what, script = f"single transfer {played.script.name}", played.script
    with running.engine.connect() as tx:
        states = states_of(tx, played.transfer.transfer_id)
    if script.name == "silent":
        # How far it had come when its time ran out depends on who was dead then.
        expired = ("INVALID", "ABORTED_REJECTED", "EXPIRED_PREPARED", "EXPIRED_RESERVED")
        assert states[-1] in expired, f"{what}: {states}"
    else:
        assert states == script.states, what
    for fsp, expected in ((running.payer, script.payer), (running.payee, script.payee)):
        different = [one for one in fsp.received(played.transfer.transfer_id) if not one.is_repeat]
        # Who sent its POST again after the end is told the outcome once more, in answer to that, by the hub.
        callbacks = [one.callback for one in different]
        if script.name == "silent":
            assert set(callbacks) <= set(expected), f"{what}: {fsp.name} got {callbacks}"
            assert fsp.name != PAYER or callbacks[:1] == ["PUT_ERROR"], f"{what}: {fsp.name} got {callbacks}"
            continue
        again = callbacks[len(expected) :]
        assert tuple(callbacks[: len(expected)]) == expected, f"{what}: {fsp.name} got {callbacks}"
        assert len(again) <= played.resends + len(script.payee), f"{what}: {fsp.name} got {callbacks}"


def unfinished(engine: Engine, bulk_transfer_ids: Sequence[str]) -> list[str]:
    """Which of these bulks has not ended, or not been told to an FSP that must be told."""
    with engine.connect() as tx:
        found = tx.execute(
            text(
                "SELECT b.bulk_transfer_id FROM bulk_transfer b"
                " JOIN bulk_transfer_result r USING (bulk_key)"
                " JOIN delivery d ON d.entity_id = b.bulk_transfer_id AND d.kind = 'FINAL'"
                "      AND d.fsp = CASE r.role WHEN 'PAYER' THEN b.payer_fsp ELSE b.payee_fsp END"
                " WHERE b.bulk_transfer_id = ANY(CAST(:ids AS uuid[]))"
                " GROUP BY b.bulk_key HAVING bool_and(d.state = 'DELIVERED') AND count(*) ="
                "       (SELECT count(*) FROM bulk_transfer_result n WHERE n.bulk_key = b.bulk_key)"
            ),
            {"ids": list(bulk_transfer_ids)},
        ).scalars()
        ended = {str(one) for one in found}
    return [one for one in bulk_transfer_ids if one not in ended]


def _is_at_rest(running: RunningWorld) -> bool:
    with running.engine.connect() as tx:
        if tx.execute(text("SELECT count(*) FROM delivery WHERE state = 'WAITING'")).scalar_one():
            return False
        return not any(row.lag for row in read_lag(tx, _stream(running), ages=False, members=False))


def _stream(running: RunningWorld) -> Any:
    return open_stream(running.world.stream_url, running.engine)


def wait_for_empty_journals(running: RunningWorld) -> None:
    """An old journal must not be replayed much later: who has nothing to do clears his own."""

    def are_empty() -> bool:
        with running.engine.connect() as tx:
            return not journals(tx)

    wait_until(are_empty, "the clearing of the journals")


def journals(tx: Connection) -> set[str]:
    """The handlers that have outputs in their progress rows."""
    return set(tx.execute(text("SELECT handler FROM handler_progress WHERE outputs IS NOT NULL")).scalars())


def require_consistent(running: RunningWorld) -> None:
    """What must hold when nothing is under way, whatever has happened before: the books hold, and everything has ended."""
    verification = verify_database(running.engine, settled_ms=0)
    assert verification.findings == []
    with running.engine.connect() as tx:
        for what, query in _NONE_OF.items():
            rows = tx.execute(text(query)).all()
            assert rows == [], f"{what}: {rows[:5]}"
    stream = _stream(running)
    assert read_dead_letters(stream) == []
    stream.close()
    assert running.payer.violations == []
    assert running.payee.violations == []
    # Nobody ended but those who were killed or told to.
    crashed = [line for line in running.reports if "ended with status" in line and "status 0;" not in line]
    assert crashed == []


def position_changes(engine: Engine, before: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """By how much each FSP's position has changed, in whole units."""
    after = world(engine).positions
    return {name: (after[name, "USD"] - before[name, "USD"]) // UNITS for name in (PAYER, PAYEE)}


def expected_changes(scripts: Iterable[Script], singles: Iterable[SingleScript]) -> dict[str, int]:
    committed = AMOUNT * (sum(script.committed for script in scripts) + sum(one.committed for one in singles))
    return {PAYER: committed, PAYEE: -committed}


_NONE_OF = {
    "a bulk or single transfer that has not ended": "SELECT number FROM open_expiration",
    "an item that still waits": (
        "SELECT transfer_key, bulk_processing_state FROM bulk_transfer_association"
        " WHERE bulk_processing_state IN ('RECEIVED', 'ACCEPTED')"
    ),
    "a callback that was not delivered, though it was not too late for it": (
        "SELECT delivery_id, state FROM delivery WHERE state <> 'DELIVERED'"
        " AND NOT (state = 'DEAD' AND kind = 'FORWARD' AND finished_date > not_after_date)"
    ),
}
