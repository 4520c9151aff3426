"""The demo shows seed 002's own example, on both streams, also when its processes are killed, and leaves nothing behind."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from handlers.host import HANDLER_NAMES
from operations.world_file import read_world
from tests.operations.processes import DEADLINE_S, processes_of, run, start, wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def data_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    for pid in processes_of(folder):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["table", pytest.param("kafka", marks=pytest.mark.kafka)])
def stream_url(request: pytest.FixtureRequest) -> str:
    if request.param == "table":
        return "table:"
    return f"kafka://{request.getfixturevalue('kafka_bootstrap')}"


def test_a_thousand_payments_end_as_in_the_seeds_own_example(data_folder: Path) -> None:
    """BULK-09, BULK-131, BULK-33: 1,000 sent, 900 forwarded, 800 committed, and one list of all to the payer."""
    done = run("demo", "--json", data_folder=data_folder)
    assert done.returncode == 0, done.stderr
    outcome = orjson.loads(done.stdout)

    counts = ("sent", "reserved", "committed", "aborted", "refused")
    assert [outcome[name] for name in counts] == [1000, 900, 800, 100, 100]
    assert [outcome[name] for name in ("payer_callbacks", "payee_requests", "payee_callbacks")] == [1, 1, 1]
    assert outcome["results_in_request_order"] is True
    assert {(one["error_code"], one["items"]) for one in outcome["reasons"]} == {
        ("5100", 100),
        ("3100", 40),
        ("4200", 30),
        ("4001", 30),
    }
    assert outcome["positions_before"] == {"payerfsp": {"USD": "0"}, "payeefsp": {"USD": "0"}}
    # BULK-121: what the payer owes is what the payee is owed, and nothing stays reserved.
    after = outcome["positions_after"]
    assert after["payeefsp"]["USD"] == f"-{after['payerfsp']['USD']}"
    assert outcome["seconds"]["bulk"] <= outcome["seconds"]["total"]


def test_nothing_is_left_when_the_demo_has_ended(tmp_path: Path) -> None:
    done = run("demo", data_folder=tmp_path / "unused", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "What became of the payments" in done.stdout
    assert "\x1b" not in done.stdout
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.glob("bulk-switch-demo-*")) == []


def test_a_demo_clears_what_a_killed_one_has_left(tmp_path: Path) -> None:
    with start("demo", data_folder=tmp_path / "unused", TMPDIR=str(tmp_path)) as killed:
        wait_until(lambda: list(tmp_path.glob("bulk-switch-demo-*/world.json")), "the start of the world")
        killed.kill()
    [left] = tmp_path.glob("bulk-switch-demo-*")
    # PostgreSQL alone outlives its killed parent.
    wait_until(lambda: all("postgres" in command for command in processes_of(left).values()), "the end of the others")
    assert processes_of(left)

    done = run("demo", data_folder=tmp_path / "unused", TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert not left.exists()
    assert processes_of(left) == {}


@pytest.mark.timeout(900)
def test_kill_9_of_every_process_during_the_bulk_changes_nothing(data_folder: Path, stream_url: str) -> None:
    """BULK-134, D2, D3, D10: each handler in a process of its own, every process killed twice while the bulk runs.

    The demo itself requires the example's figures and one outcome per side; a repeat has to be byte for byte the same.
    """
    with start(
        *("demo", "--data-folder", str(data_folder), "--stream-url", stream_url),
        data_folder=data_folder,
        BULK_SWITCH_HANDLER_GROUPS=" ".join(HANDLER_NAMES),
        BULK_SWITCH_CALLBACK_TIMEOUT_MS="2000",
        BULK_SWITCH_CALLBACK_LEASE_MS="3000",
    ) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "202 Accepted" in line:
                killed = [_kill_all(data_folder) for _ in range(2)]
        output = "".join(lines)
        assert demo.wait(DEADLINE_S) == 0, output
    assert all(set(HANDLER_NAMES) <= names for names in killed)
    assert output.count("was killed by signal 9") >= len(HANDLER_NAMES)


def _kill_all(data_folder: Path) -> set[str]:
    """Kill every process of the world once, and wait until each runs again."""
    before = read_world(data_folder).processes
    for pid in before.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def run_again() -> bool:
        now = read_world(data_folder).processes
        return all(now.get(name, pid) != pid for name, pid in before.items())

    wait_until(run_again, "the restart of every killed process")
    return set(before)


def test_ctrl_c_ends_the_demo_and_everything_it_started(data_folder: Path) -> None:
    with start("demo", "--data-folder", str(data_folder), data_folder=data_folder) as demo:
        wait_until((data_folder / "world.json").exists, "the start of the world")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(DEADLINE_S) == 130
    assert processes_of(data_folder) == {}
