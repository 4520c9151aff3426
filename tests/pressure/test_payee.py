"""A payee that hangs fills its payer's bound and its own slots: nobody else waits for it, and all of it ends afterwards."""

import pytest

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import UNITS
from operations.simulated_fsp import SimulatedPayee, SimulatedPayer, callback_endpoints, served
from tests.bulks import PAYEE, PAYER, STRANGER
from tests.pressure.conftest import StartPressed
from tests.pressure.pressed_world import ITEMS, Memory, require_refusals
from tests.pressure.proxy import Proxy
from tests.process.bulk_scripts import COVER, NET_DEBIT_CAP

pytestmark = pytest.mark.process
SLOW_PAYEE = "slowpayee"
BULKS_PER_PAYER = 20


def test_a_payee_that_hangs_holds_up_nobody_but_who_pays_it(  # BULK-113, D19
    start_pressed: StartPressed, database_url: str
) -> None:
    world = start_pressed(database_url=database_url, in_flight_transfers_per_payer_max=str(BULKS_PER_PAYER * ITEMS))
    switch_url = world.running.switch_url
    slow_payee, other_payer = SimulatedPayee(SLOW_PAYEE, switch_url), SimulatedPayer(STRANGER, switch_url)
    with served(slow_payee) as payee_url, served(other_payer) as payer_url, Proxy(_port_of(payee_url)) as proxy:
        endpoints = {
            SLOW_PAYEE: callback_endpoints(f"http://127.0.0.1:{proxy.port}"),
            STRANGER: callback_endpoints(payer_url),
        }
        for name, urls in endpoints.items():
            provision_fsp(world.running.engine, name, "USD", NET_DEBIT_CAP * UNITS, COVER * UNITS, urls)
        world.flood(world.bulks(16), posts=1_000)
        world.wait_until_ended()

        with Memory(lambda: world.running.world.processes).watched() as memory:
            proxy.hold()
            to_slow = world.bulks(2 * BULKS_PER_PAYER, payer=PAYER, payee=SLOW_PAYEE)
            answers = world.flood(to_slow, posts=1_000)
            texts = require_refusals(answers)
            # What it has in flight stays so, however often it asks: exactly its bound is taken in.
            assert sum(one.status == 202 for one in answers) == BULKS_PER_PAYER
            full = f"{BULKS_PER_PAYER * ITEMS} of your transfers are in flight"
            assert sum(count for words, count in texts.items() if words.startswith(full)) > 100, texts
            # Who pays others is served meanwhile, from the POST to the last callback.
            others = world.bulks(20, payer=STRANGER, payee=PAYEE)
            world.send_until_taken(others)
            world.wait_until_ended([bulk.bulk_transfer_id for bulk in others])
            assert not slow_payee.receipts
            proxy.release()
            world.send_until_taken(to_slow)
            world.wait_until_ended()
        memory.require_flat()
    other_payer.close_client()


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2].strip("/"))
