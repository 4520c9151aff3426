"""A PostgreSQL that was killed is started again, also where its process stays a zombie because nobody reaps it."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text

from db.engine import make_engine
from operations import embedded_postgres
from tests.operations.processes import wait_until

pytestmark = pytest.mark.process


def test_a_backend_that_outlives_its_killed_server_keeps_nobody_from_starting(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    engine = make_engine(embedded_postgres.start(folder), application_name="tests")
    try:
        with engine.connect() as tx:
            backend: int = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            # As one that waits for a lock in shared memory whose holder was killed.
            os.kill(backend, signal.SIGSTOP)
            os.kill(int((folder / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGKILL)
            wait_until(lambda: not embedded_postgres.is_running(folder), "the end of the server")
            embedded_postgres.start(folder)
            tx.invalidate()
        with engine.connect() as tx:
            assert tx.execute(text("SELECT pg_backend_pid()")).scalar_one() != backend
    finally:
        engine.dispose()
        embedded_postgres.stop(folder)


def test_a_zombie_is_no_server(tmp_path: Path) -> None:
    """As in a container whose process 1 is the switch: the zombie keeps the number that postmaster.pid names."""
    folder = tmp_path / "postgres"
    embedded_postgres.start(folder)
    left_by_a_kill = (folder / "postmaster.pid").read_text().split("\n")
    socket_lock = Path(left_by_a_kill[4], f".s.PGSQL.{left_by_a_kill[3]}.lock")
    left_beside_the_socket = socket_lock.read_text().split("\n")
    embedded_postgres.stop(folder)
    program = tmp_path / "bin" / "postgres"
    program.parent.mkdir()
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "600"]) as zombie:
        zombie.kill()
        stat = Path(f"/proc/{zombie.pid}/stat")
        wait_until(lambda: stat.read_text().startswith(f"{zombie.pid} (postgres) Z"), "the end of the program")
        (folder / "postmaster.pid").write_text("\n".join([str(zombie.pid), *left_by_a_kill[1:]]))
        socket_lock.write_text("\n".join([str(zombie.pid), *left_beside_the_socket[1:]]))
        assert not embedded_postgres.is_running(folder)
        try:
            engine = make_engine(embedded_postgres.start(folder), application_name="tests")
            with engine.connect():
                assert embedded_postgres.is_running(folder)
            engine.dispose()
        finally:
            embedded_postgres.stop(folder)
