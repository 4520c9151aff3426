"""The embedded world: one per data folder, restarts what dies, goes on after a kill -9 of everything, ends with its `up`."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import parse_amount
from operations.opening import opened_engine
from operations.ports import free_ports
from operations.settings import read_settings
from operations.simulated_fsp import BEHAVIOURS, SimulatedPayee, SimulatedPayer, callback_endpoints, served
from operations.world_file import World, read_world
from tests.operations.processes import DEADLINE_S, processes_of, run, start, wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def data_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    kill_everything(folder)


@pytest.fixture
def ports() -> dict[str, str]:
    """Settings that nobody else's world has."""
    fspiop_port, admin_port = free_ports(2)
    return {"BULK_SWITCH_FSPIOP_PORT": str(fspiop_port), "BULK_SWITCH_ADMIN_PORT": str(admin_port)}


def kill_everything(data_folder: Path) -> None:
    """SIGKILL to every process of the world, the supervisor first, PostgreSQL included."""
    for pid in sorted(processes_of(data_folder)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_until(lambda: processes_of(data_folder) == {}, "the end of every process")


def wait_until_ready(data_folder: Path) -> World:
    wait_until(lambda: (data_folder / "world.json").exists() and read_world(data_folder).ready, "a ready world")
    return read_world(data_folder)


def test_a_killed_world_goes_on_where_it_was(data_folder: Path, ports: dict[str, str]) -> None:
    """What was answered with 202 ends, although everything was killed before the payee had heard of it (BULK-134)."""
    url = f"http://127.0.0.1:{ports['BULK_SWITCH_FSPIOP_PORT']}"
    with ExitStack() as stack:
        payer = SimulatedPayer("payerfsp", url)
        stack.callback(payer.close_client)
        payee = SimulatedPayee("payeefsp", url, behaviour=BEHAVIOURS["commit"])
        payee.status_of = lambda _method, _path: 503
        endpoints = {one.name: callback_endpoints(stack.enter_context(served(one))) for one in (payer, payee)}

        first = stack.enter_context(start("up", data_folder=data_folder, **ports))
        world = wait_until_ready(data_folder)
        settings = read_settings(database_url=world.database_url)
        with opened_engine(settings, "tests") as engine:
            for name, amounts in endpoints.items():
                provision_fsp(engine, name, "USD", parse_amount("1000"), parse_amount("1000"), amounts)
        bulk = payer.build("payeefsp", items=10, expires_in_ms=600_000)
        assert payer.post(bulk).status == 202
        kill_everything(data_folder)
        assert first.wait(DEADLINE_S) == -signal.SIGKILL

        payee.status_of = lambda _method, _path: None
        second = stack.enter_context(start("up", data_folder=data_folder, **ports))
        wait_until_ready(data_folder)
        [told] = payer.wait_for(bulk.bulk_transfer_id, timeout_s=DEADLINE_S)
        assert told.json()["bulkTransferState"] == "COMPLETED"
        assert [one["transferId"] for one in told.json()["individualTransferResults"]] == list(bulk.transfer_ids)

        # The other commands find the world by its data folder, and tell the same.
        shown = orjson.loads(run("bulk", "show", bulk.bulk_transfer_id, "--json", data_folder=data_folder).stdout)
        assert (shown["api_state"], len(shown["items"])) == ("COMPLETED", 10)
        listed = orjson.loads(run("delivery", "list", "--json", data_folder=data_folder).stdout)
        assert {(one["fsp"], one["kind"]) for one in listed} >= {("payeefsp", "FORWARD"), ("payerfsp", "FINAL")}
        table = run("bulk", "show", bulk.bulk_transfer_id, "--items", data_folder=data_folder).stdout
        assert all(transfer_id in table for transfer_id in bulk.transfer_ids)

        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE_S) == 0
    assert processes_of(data_folder) == {}
    assert not (data_folder / "world.json").exists()


def test_a_killed_postgres_is_started_again(data_folder: Path, ports: dict[str, str]) -> None:
    pid_file = data_folder / "postgres" / "postmaster.pid"
    with start("up", data_folder=data_folder, **ports) as up:
        wait_until_ready(data_folder)
        before = int(pid_file.read_text().split()[0])
        os.kill(before, signal.SIGKILL)

        def answers_again() -> bool:
            try:
                after = int(pid_file.read_text().split()[0])
            except (OSError, IndexError, ValueError):
                return False
            return after != before and run("participant", "list", data_folder=data_folder).returncode == 0

        wait_until(answers_again, "the restart of PostgreSQL")
        up.send_signal(signal.SIGTERM)
        assert up.wait(DEADLINE_S) == 0


def test_a_second_world_in_the_same_folder_is_refused(data_folder: Path, ports: dict[str, str]) -> None:
    with start("up", data_folder=data_folder, **ports) as up:
        wait_until((data_folder / "lock").exists, "the lock")
        second = run("up", data_folder=data_folder, **ports)
        assert (second.returncode, second.stderr) == (
            1,
            f"bulk-switch: a world already runs in {data_folder}\n",
        )
        up.send_signal(signal.SIGTERM)
        assert up.wait(DEADLINE_S) == 0


def test_a_port_that_is_taken_is_named(data_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("up", "--admin-port", str(port), data_folder=data_folder)
    assert done.returncode == 1
    assert f"the admin app cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--admin-port" in done.stderr
    assert processes_of(data_folder) == {}


def test_a_handler_group_that_does_not_exist_ends_the_world_with_a_line(
    data_folder: Path, ports: dict[str, str]
) -> None:
    done = run("up", data_folder=data_folder, BULK_SWITCH_HANDLER_GROUPS="prepare positon", **ports)
    assert done.returncode == 1
    assert "positon cannot run: no handler positon; there are bulk-prepare, " in done.stderr
    assert processes_of(data_folder) == {}


def test_an_admin_app_for_everybody_needs_a_token(data_folder: Path, ports: dict[str, str]) -> None:
    done = run("up", data_folder=data_folder, BULK_SWITCH_ADMIN_HOST="0.0.0.0", **ports)
    assert done.returncode == 2
    assert done.stderr.startswith("bulk-switch: BULK_SWITCH_ADMIN_HOST: the admin resources move money")
