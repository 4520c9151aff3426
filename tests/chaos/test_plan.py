"""A seed means the same payments and disturbances each time, of every kind, and exactly as many as were asked for."""

import random

import pytest

from tests.bulks import PAYEE
from tests.chaos.plan import PAYMENTS_MAX, Kind, PlannedBulk, entity_id_of, make_plan
from tests.process.bulk_scripts import NET_DEBIT_CAP, SCRIPTS

SEED = random.getrandbits(32)
BULK_KINDS = {"whole", *(script.name for script in SCRIPTS)}


def test_a_seed_means_one_plan_and_another_seed_another() -> None:
    first, again, other = (make_plan(seed, 2_000, 30, silent_expires_in_ms=9_000) for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert first.disturbances != other.disturbances
    assert not {entity_id_of(one) for one in first.entities} & {entity_id_of(one) for one in other.entities}


@pytest.mark.parametrize("payments", [1, 7, 1_200, 30_000])
def test_it_has_so_many_payments_and_disturbances(payments: int) -> None:
    plan = make_plan(SEED, payments, 12, silent_expires_in_ms=9_000)
    assert plan.payments == payments
    assert (len(plan.waves), len(plan.disturbances)) == (13, 12)
    assert len({entity_id_of(one) for one in plan.entities}) == sum(len(wave) for wave in plan.waves)


@pytest.mark.parametrize("seed", [SEED, *range(100)])
def test_even_a_small_one_has_bulks_of_every_kind_and_every_disturbance(seed: int) -> None:
    plan = make_plan(seed, 1_200, len(Kind), silent_expires_in_ms=9_000)
    assert {one.script.name for one in plan.entities if isinstance(one, PlannedBulk)} == BULK_KINDS
    assert {one.kind for one in plan.disturbances} == set(Kind)


def test_the_largest_leaves_every_refusal_to_the_amount_alone() -> None:
    """All that is committed fits below the net debit cap, and so does what is reserved and given back meanwhile."""
    assert PAYMENTS_MAX < NET_DEBIT_CAP
    with pytest.raises(ValueError, match="net debit cap"):
        make_plan(SEED, PAYMENTS_MAX + 1, 1, silent_expires_in_ms=9_000)


def test_a_bulk_has_an_id_for_each_of_its_fates() -> None:
    for one in make_plan(SEED, 20_000, 3, silent_expires_in_ms=9_000).entities:
        if isinstance(one, PlannedBulk):
            assert len(one.transfer_ids) == len(one.script.fates or one.transfer_ids) <= 1_000
            assert one.script.payee_fsp == (PAYEE if one.script.name != "refused" else "nobody")
