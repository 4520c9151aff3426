"""Killed, held, and with its parts taken away, a switch comes to what it comes to undisturbed, and tells it once."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from operations.lag import read_lag
from operations.printing import print_json
from operations.simulated_bulk import timestamp
from tests.chaos.comparison import faults_of_reference
from tests.chaos.parts import Parts
from tests.chaos.plan import FAR_MS, Kind, make_plan
from tests.chaos.report import outcome_document, print_outcome
from tests.chaos.run import Outcome, Progress, play, run_chaos
from tests.chaos.world import ChaosWorld

pytestmark = [pytest.mark.process, pytest.mark.kafka, pytest.mark.services, pytest.mark.timeout(1_500)]

FIXED_SEED = 20_261_121
# Whether a payee has heard of it before or not, it expires, and its payer is told so.
SILENT_EXPIRES_IN_MS = 40_000


def require_nothing_wrong(outcome: Outcome, capsys: pytest.CaptureFixture[str], kills: int, payments: int) -> None:
    """By the document that `scripts/chaos --json` prints."""
    capsys.readouterr()
    print_json(outcome_document(outcome))
    document = json.loads(capsys.readouterr().out)
    assert document["faults"] == []
    wrong = ("lost", "doubled", "outcomes_missing", "outcomes_differing", "states_differing", "repeats_unexplained")
    assert {name: document[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert document["positions_equal"] is True
    assert (document["kills"], document["payments"]) == (kills, payments)
    assert sum(document["disturbances"].values()) == kills
    assert document["callbacks_repeated"] >= 0
    assert document["seconds"] > 0
    assert outcome.is_good


def test_a_disturbance_of_every_kind_changes_nothing(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str], world_name: Callable[[str], str]
) -> None:
    """BULK-134, D2, D3, D10, D17, X-30, X-36: each kind once, with batches so small that a bulk crosses many of them."""
    plan = make_plan(FIXED_SEED, 1_200, len(Kind), silent_expires_in_ms=SILENT_EXPIRES_IN_MS)
    outcome = run_chaos(
        parts, tmp_path, plan, Progress(), workers=1, settings={"batch_items": 50}, name=world_name("fixed")
    )
    require_nothing_wrong(outcome, capsys, kills=len(Kind), payments=1_200)
    assert set(outcome.disturbances) == set(Kind)
    out = io.StringIO()
    print_outcome(outcome, Console(file=out, width=100))
    assert "each side was told once" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_nor_do_kills_drawn_anew_in_every_run(
    parts: Parts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    world_name: Callable[[str], str],
    random_seed: int,
) -> None:
    """BULK-134, X-30, X-36: kill -9 of handlers, edge and deliverers, one after the other."""
    kinds = (Kind.KILL_HANDLER, Kind.KILL_HANDLER_AFTER_COMMIT, Kind.KILL_EDGE, Kind.KILL_DELIVERER)
    plan = make_plan(random_seed, 1_500, 8, silent_expires_in_ms=SILENT_EXPIRES_IN_MS, kinds=kinds)
    outcome = run_chaos(parts, tmp_path, plan, Progress(), name=world_name("random"))
    require_nothing_wrong(outcome, capsys, kills=8, payments=1_500)


def test_of_three_kafka_nodes_one_may_die_and_come_back(
    parts_with_three_nodes: Parts, tmp_path: Path, world_name: Callable[[str], str], random_seed: int
) -> None:
    """BULK-134: two copies of each record are enough to go on; the lag returns to zero, and nothing was lost meanwhile."""
    parts = parts_with_three_nodes
    plan = make_plan(random_seed, 1_500, 2, silent_expires_in_ms=SILENT_EXPIRES_IN_MS, kinds=(Kind.RESTART_KAFKA,))
    before = parts.kafka.node_pids()
    with ChaosWorld(parts, tmp_path, world_name("nodes"), workers=1) as world:
        played = play(world, plan, timestamp(FAR_MS), Progress())
        assert played.faults == []
        with world.engine.connect() as tx:
            assert {row.lag for row in read_lag(tx, world.stream, ages=False, members=False)} == {0}
    assert played.disturbances == {Kind.RESTART_KAFKA: 2}
    assert faults_of_reference(plan, played.books, played.resends) == []
    after = parts.kafka.node_pids()
    assert before.keys() == after.keys()
    assert before != after
