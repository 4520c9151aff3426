"""An FSP whose endpoint is away for the whole run gets all that it would have got, in order, once it is back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from operations.simulated_bulk import timestamp
from operations.simulated_fsp import SimulatedEndpoint
from tests.bulks import PAYEE
from tests.chaos.books import Books
from tests.chaos.comparison import compare, faults_of_reference
from tests.chaos.parts import Parts
from tests.chaos.plan import FAR_MS, Plan, PlannedBulk, entity_id_of, make_plan
from tests.chaos.run import Played, Progress, play
from tests.chaos.world import ChaosWorld
from tests.operations.processes import wait_until

pytestmark = [pytest.mark.process, pytest.mark.kafka, pytest.mark.services, pytest.mark.timeout(1_200)]

PLAN = make_plan(7, 600, 0, silent_expires_in_ms=40_000)
EXPIRATION = timestamp(FAR_MS)


def has_come_as_far_as_it_can(world: ChaosWorld, plan: Plan) -> bool:
    """Whether everything that was posted has ended, or is reserved and waits for its payee to be told."""
    query = text(
        "SELECT (SELECT count(*) FROM bulk_transfer) + (SELECT count(*) FROM transfer WHERE transfer_key % 10000 = 0),"
        " (SELECT count(*) FROM open_expiration),"
        " (SELECT count(*) FROM delivery d WHERE d.kind = 'FORWARD' AND d.state = 'WAITING'),"
        " (SELECT count(*) FROM open_expiration WHERE due_date < now() + interval '1 hour')"
    )
    with world.engine.connect() as tx:
        known, still_open, forwards, expiring = tx.execute(query).one()
    return bool(known == len(list(plan.entities)) and still_open == forwards and not expiring)


def play_without(
    parts: Parts, folder: Path, name: str, away: Callable[[ChaosWorld], SimulatedEndpoint]
) -> tuple[Played, dict[str, list[str]]]:
    """A run in which an FSP comes only when nothing can go on without it; and what it got of each entity, in order."""
    with ChaosWorld(parts, folder, name, workers=1) as world:
        fsp = away(world)
        world.take_down(fsp)

        def come_back(_: int) -> None:
            wait_until(
                lambda: has_come_as_far_as_it_can(world, PLAN), "the wait for the FSP", world.processes.last_words
            )
            assert fsp.receipts == []
            world.bring_up(fsp)

        played = play(
            world, PLAN, EXPIRATION, Progress(), in_flight_max=PLAN.payments, disturb=False, between=come_back
        )
        got = {id_: [one.callback for one in receipts] for id_, receipts in fsp.outcomes.items()}
    return played, got


@pytest.fixture(scope="module")
def as_usual(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """What the same payments come to when both FSPs are there."""
    with ChaosWorld(parts, tmp_path_factory.mktemp("usual"), "absent-fsps-usual", workers=1) as world:
        played = play(world, PLAN, EXPIRATION, Progress(), in_flight_max=PLAN.payments, disturb=False)
    assert played.faults == []
    assert faults_of_reference(PLAN, played.books, played.resends) == []
    return played.books


def silent_ids() -> list[str]:
    return [entity_id_of(one) for one in PLAN.entities if one.script.name == "silent"]


def test_a_payee_that_comes_back_gets_every_callback_but_the_requests_that_have_expired(
    parts: Parts, as_usual: Books, tmp_path: Path, world_name: Callable[[str], str]
) -> None:
    """D19, BULK-127, X-36: in the order of each bulk, and byte for byte what it would have got."""
    played, got = play_without(parts, tmp_path, world_name("payee"), lambda world: world.payee)
    assert played.faults == []
    verdict = compare(PLAN, as_usual, played.books, played.resends)
    assert verdict.explanations == []
    assert verdict.is_good
    bulks = [one for one in PLAN.entities if isinstance(one, PlannedBulk) and one.script.is_forwarded]
    assert bulks
    for bulk in bulks:
        wanted = ["PUT"] if bulk.script.name == "silent" else ["POST", "PUT"]
        assert list(dict.fromkeys(got[bulk.bulk_transfer_id])) == wanted, bulk.script.name
    # No request to the payee was sent past its time, not even one that was tried before.
    assert silent_ids()
    for id_ in silent_ids():
        assert "POST" not in got.get(id_, [])
        finals = [one for one in as_usual.told[PAYEE, id_] if one.callback != "POST"]
        assert list(played.books.told.get((PAYEE, id_), ())) == finals


def test_a_payer_that_comes_back_gets_every_outcome(
    parts: Parts, as_usual: Books, tmp_path: Path, world_name: Callable[[str], str]
) -> None:
    """D19, X-36: its bulks ended without it, and it is told what it would have been told."""
    played, got = play_without(parts, tmp_path, world_name("payer"), lambda world: world.payer)
    assert played.faults == []
    verdict = compare(PLAN, as_usual, played.books, played.resends)
    assert verdict.explanations == []
    assert verdict.is_good
    assert got.keys() == {entity_id_of(one) for one in PLAN.entities}
