"""`bulk-switch`: help for every command, one JSON document with --json, one clear line for every mistake."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from typer.main import get_group

from operations.command_line import app, main
from schemas.fspiop.bodies import parse_post
from tests.fspiop.signing import key_pair


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, on a data folder of its own unless a database is given."""
    for name in list(os.environ):
        if name.startswith("BULK_SWITCH_"):
            monkeypatch.delenv(name)

    def run(*arguments: str, **environment: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["bulk-switch", *arguments])
            for name, value in {"BULK_SWITCH_DATA_FOLDER": str(tmp_path / "data"), **environment}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return run


def _commands() -> list[tuple[str, ...]]:
    """Every command and group of commands, as it is typed."""
    root: Any = get_group(app)
    paths: list[tuple[str, ...]] = [()]
    for name in root.list_commands(None):
        paths.append((name,))
        paths += [(name, below) for below in getattr(root.get_command(None, name), "commands", {})]
    return paths


@pytest.mark.parametrize("path", _commands(), ids=" ".join)
def test_every_command_explains_itself(run: Run, path: tuple[str, ...]) -> None:
    done = run(*path, "--help")
    assert done.returncode == 0
    usage, explanation = [line.strip() for line in done.stdout.splitlines() if line.strip()][:2]
    assert usage.startswith(f"Usage: {' '.join(('bulk-switch', *path))} ")
    # The line below the usage says what it does: a sentence, no box of options yet.
    assert explanation[0].isupper()


def test_an_option_that_does_not_exist_is_a_mistake(run: Run) -> None:
    done = run("up", "--streem-url", "table:")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option: --streem-url" in done.stderr


def test_the_commands_are_those_of_the_manual() -> None:
    assert {" ".join(path) for path in _commands()} >= {
        "up", "demo", "api", "admin", "handler", "deliver", "migrate", "lag", "bulk show", "bulk why", "transfer why",
        "verify", "retention", "dead-letters list", "dead-letters show", "dead-letters send-again",
        "delivery list", "delivery send-again", "simulate payer", "simulate payee", "simulate bulk",
        "participant add", "participant list", "participant show", "participant limit", "participant endpoint",
        "participant funds-in", "participant funds-out", "participant activate", "participant deactivate",
    }  # fmt: skip


def test_a_participant_is_made_changed_and_shown(run: Run, database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    added = run(
        *("participant", "add", "payerfsp", "USD", "--net-debit-cap", "1000.50", "--funds-in", "2000"),
        *("--url", "http://127.0.0.1:9/fsp", "--json"),
        **database,
        BULK_SWITCH_CALLBACK_INTERNAL_ADDRESSES="loopback",
    )
    assert added.returncode == 0, added.stderr
    assert orjson.loads(added.stdout)["endpoints"] == {
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST": "http://127.0.0.1:9/fsp/bulkTransfers",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT": "http://127.0.0.1:9/fsp/bulkTransfers/{{id}}",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR": "http://127.0.0.1:9/fsp/bulkTransfers/{{id}}/error",
        "FSPIOP_CALLBACK_URL_TRANSFER_POST": "http://127.0.0.1:9/fsp/transfers",
        "FSPIOP_CALLBACK_URL_TRANSFER_PUT": "http://127.0.0.1:9/fsp/transfers/{{transferId}}",
        "FSPIOP_CALLBACK_URL_TRANSFER_ERROR": "http://127.0.0.1:9/fsp/transfers/{{transferId}}/error",
    }

    for arguments in (
        ("limit", "payerfsp", "USD", "500"),
        ("funds-in", "payerfsp", "USD", "30.00"),
        ("funds-out", "payerfsp", "USD", "10"),
        ("deactivate", "payerfsp"),
    ):
        done = run("participant", *arguments, **database)
        assert done.returncode == 0, done.stderr

    shown = orjson.loads(run("participant", "show", "payerfsp", "--json", **database).stdout)
    assert shown["limits"] == [{"currency": "USD", "type": "NET_DEBIT_CAP", "value": "500"}]
    assert shown["is_active"] is False
    # Cover is minus the settlement account: 2000 + 30 - 10.
    assert {one["type"]: one["value"] for one in shown["accounts"]} == {"POSITION": "0", "SETTLEMENT": "-2020"}
    everybody = orjson.loads(run("participant", "list", "--json", **database).stdout)
    assert [one["name"] for one in everybody] == ["Hub", "payerfsp"]


def test_a_key_is_added_replaced_and_revoked(run: Run, database_url: str, tmp_path: Path) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    assert run("participant", "add", "payerfsp", "USD", **database).returncode == 0
    for name in ("old", "new"):
        (tmp_path / f"{name}.pem").write_text(key_pair(name).public)
    added = run("participant", "key", "add", "payerfsp", str(tmp_path / "old.pem"), "--kid", "2026", **database)
    assert added.returncode == 0, added.stderr
    assert "RS256" in added.stdout
    until = ("--valid-until", "2099-01-01T00:00:00Z", "--json")
    both = orjson.loads(
        run("participant", "key", "add", "payerfsp", str(tmp_path / "new.pem"), *until, **database).stdout
    )
    assert [(one["kid"], one["valid_until"]) for one in both] == [("2026", None), (None, "2099-01-01T00:00:00Z")]
    revoked = run("participant", "key", "revoke", "payerfsp", str(both[0]["key"]), "--json", **database)
    assert [one["revoked_date"] is None for one in orjson.loads(revoked.stdout)] == [False, True]
    assert run("participant", "key", "list", "payerfsp", "--json", **database).stdout == revoked.stdout


def test_a_file_that_is_no_key_is_a_mistake(run: Run, database_url: str, tmp_path: Path) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    run("participant", "add", "payerfsp", "USD", **database)
    contents = {"text": b"nonsense", "bytes": b"\xff", "json": b"{", "jwk": b'{"kty":"oct"}', "long": b"x" * 70_000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "missing"):
        done = run("participant", "key", "add", "payerfsp", str(tmp_path / name), **database)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), name


def test_an_endpoint_inside_the_network_is_a_mistake(run: Run, database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    run("participant", "add", "payerfsp", "USD", **database)
    for arguments in (("endpoint", "payerfsp", "http://10.0.0.1"), ("add", "other", "USD", "--url", "http://10.0.0.1")):
        done = run("participant", *arguments, **database)
        assert done.returncode == 1
        assert "10.0.0.1 is internal and not in CALLBACK_INTERNAL_ADDRESSES" in done.stderr


def test_tables_are_plain_text_where_nobody_watches(run: Run, database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    run("participant", "add", "payerfsp", "USD", "--net-debit-cap", "1000.5", **database)
    shown = run("participant", "show", "payerfsp", **database)
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "NET_DEBIT_CAP" in shown.stdout
    assert "1000.5" in shown.stdout


def test_migrate_makes_the_topics_and_lag_shows_every_partition(run: Run, database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    migrated = run("migrate", **database)
    assert migrated.returncode == 0, migrated.stderr
    lag = orjson.loads(run("lag", "--json", **database).stdout)
    assert (lag["lag"], lag["dead_letters"]) == (0, [])
    first = {"handler": "bulk-prepare", "topic": "topic-bulk-prepare", "partition": 0}
    unknown = dict.fromkeys(("committed_offset", "oldest_unread_age_ms", "owner"))
    assert lag["partitions"][0] == {**first, "end_offset": 0, "next_offset": 0, "lag": 0, **unknown}
    shown = run("lag", **database).stdout
    assert "bulk-prepare/5" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (("bulk", "show", "not-an-id"), 1, "not-an-id is no bulkTransferId: a UUID is wanted"),
        (("bulk", "show", str(uuid4())), 1, "no bulk "),
        (("delivery", "send-again", "4711"), 1, "left as they are: 4711 "),
        (("participant", "show", "nobody"), 1, "3200 Generic ID not found - Participant nobody not found"),
        (("participant", "limit", "nobody", "USD", "1e3"), 1, "'1e3' is not an FSPIOP Amount"),
        (("participant", "add", "fsp", "USDOLLAR"), 1, "3100 Generic validation error - currency"),
        (("handler", "no-such-handler"), 2, "no handler no-such-handler"),
    ],
)
def test_a_mistake_is_one_line(run: Run, database_url: str, arguments: tuple[str, ...], status: int, line: str) -> None:
    done = run(*arguments, BULK_SWITCH_DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"bulk-switch: {line}")
    assert done.stderr.count("\n") == 1


def test_a_simulated_bulk_is_one_that_the_edge_takes(run: Run) -> None:
    done = run("simulate", "bulk", "--items", "2", "--amount", "7.5", "--currency", "EUR")
    body = parse_post(done.stdout.encode())
    assert [one["transferAmount"] for one in body["individualTransfers"]] == 2 * [{"currency": "EUR", "amount": "7.5"}]


def test_commands_without_a_world_say_how_to_start_one(run: Run, tmp_path: Path) -> None:
    done = run("lag")
    assert done.returncode == 1
    assert done.stderr == (f"bulk-switch: no world runs in {tmp_path / 'data'}: start one with `bulk-switch up`\n")


def test_a_database_that_does_not_answer_is_no_traceback(run: Run) -> None:
    done = run("participant", "list", BULK_SWITCH_DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert done.returncode == 1
    assert done.stderr.startswith("bulk-switch: the database does not answer: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_setting_stops_the_command_with_status_2(run: Run) -> None:
    done = run("lag", BULK_SWITCH_BATCH_ITEMS="many")
    assert done.returncode == 2
    assert done.stderr.startswith("bulk-switch: BULK_SWITCH_BATCH_ITEMS: ")


def test_a_misspelled_setting_is_told(run: Run) -> None:
    done = run("lag", BULK_SWITCH_BATCH_ITEM="5")
    assert "BULK_SWITCH_BATCH_ITEM is no setting; did you mean BULK_SWITCH_BATCH_ITEMS?" in done.stderr
