"""A deliverer process that is killed at any moment loses no callback, and repeats only the same bytes."""

import random
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from object_store.content import put_content
from object_store.folder import FolderObjectStore
from tests.callbacks.callback_rows import add_participant, final, forward, rows, wait_until, write
from tests.callbacks.receiver import OK, RawRequest, Receiver

REPOSITORY = Path(__file__).parent.parent.parent
BULKS = 100
LEASE_MS = 3_000

PROCESS = f"""
import sys
from pathlib import Path
from db.engine import make_engine
from domain.delivery import RetryLimits
from handlers.deliverer import DelivererSettings, run_deliverer
from handlers.delivery_client import ClientLimits
from object_store.folder import FolderObjectStore
from schemas.callback_addresses import LOOPBACK

settings = DelivererSettings(
    concurrency_max=16, concurrency_per_fsp_max=8, lease_ms={LEASE_MS}, idle_poll_ms=50, stop_timeout_ms=5_000,
    client=ClientLimits(attempt_timeout_ms=900, allowed=LOOPBACK),
    retry=RetryLimits(backoff_first_ms=5, backoff_max_ms=20),
)
engine = make_engine(sys.argv[1], application_name="deliverer")
run_deliverer(engine, FolderObjectStore(Path(sys.argv[2])), settings)
"""


def start(database_url: str, objects: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PROCESS, database_url, str(objects)], cwd=REPOSITORY)


def take_a_moment(_: RawRequest, connection: socket.socket) -> None:
    """As long as a real answer may take, so that a kill hits requests that are under way."""
    time.sleep(0.02)
    connection.sendall(OK)


@pytest.mark.process
def test_every_callback_arrives_although_its_deliverer_is_killed_again_and_again(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    # BULK-134, D19, X-36.
    objects = tmp_path / "objects"
    store = FolderObjectStore(objects)
    bulks = [uuid4() for _ in range(BULKS)]
    kills = 0
    with Receiver(take_a_moment) as payer, Receiver(take_a_moment) as payee:
        add_participant(engine, "payerfsp", payer.url)
        add_participant(engine, "payeefsp", payee.url)
        for number, bulk in enumerate(bulks):
            body = put_content(store, f'{{"n":{number}}}'.encode())
            write(engine, forward("payeefsp", body, bulk), final("payeefsp", body, bulk), final("payerfsp", body, bulk))
        process = start(database_url, objects)
        try:
            arrived = 0
            while arrived < 2 * BULKS:
                arrived += random.randint(20, 50)
                payee.wait_for(min(arrived, 2 * BULKS - 10), 60)
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                process = start(database_url, objects)
            wait_until(engine, "SELECT bool_and(state = 'DELIVERED') FROM delivery", 60)
        finally:
            process.kill()
            process.wait()
    assert kills >= 4
    for fsp, expected in ((payer, BULKS), (payee, 2 * BULKS)):
        copies: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        for request in fsp.requests:
            copies[request.line, request.headers["fspiop-uri"] + request.body.decode()].add(request.head + request.body)
        assert len(copies) == expected
        assert all(len(bytes_sent) == 1 for bytes_sent in copies.values()), "a repeat differed"
    for number in range(BULKS):
        methods = [one.line.split()[0] for one in payee.requests if one.body == f'{{"n":{number}}}'.encode()]
        assert methods == sorted(methods), "the forward comes before the final callback, repeats included"
    sent = len(payer.requests) + len(payee.requests)
    (counted,) = rows(engine, "SELECT sum(attempts) AS attempts FROM delivery")
    assert sent <= counted["attempts"], "every attempt was counted before it was made"
    assert sent > 3 * BULKS, "the kills hit requests under way"


@pytest.mark.process
def test_a_process_told_to_stop_records_what_is_under_way_and_ends_well(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    store = FolderObjectStore(tmp_path / "objects")
    content = put_content(store, b"{}")
    with Receiver(take_a_moment) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, *(final("payerfsp", content) for _ in range(400)))
        process = start(database_url, tmp_path / "objects")
        try:
            fsp.wait_for(20)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    found = {
        row["state"]: row
        for row in rows(engine, "SELECT state, count(*) AS n, count(lease_date) AS leased FROM delivery GROUP BY 1")
    }
    assert found["DELIVERED"]["n"] == len(fsp.requests)
    assert found["WAITING"]["leased"] == 0
