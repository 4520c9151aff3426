"""`scripts/services` starts, describes, restarts and stops services, and says what is missing."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.services.downloads import kafka_jars, require_hashes
from deploy.services.errors import ServiceError
from operations.settings import read_settings
from tests.operations.processes import wait_until
from tests.shared_service import skip_or_fail

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 200


def services(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deploy.services", *arguments],
        cwd=_ROOT,
        env={**os.environ, "BULK_SWITCH_SERVICES_DATA": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.mark.process
@pytest.mark.services
def test_services_are_started_described_restarted_and_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = services(folder, "env")
    assert nothing.returncode == 1
    assert "nothing runs" in nothing.stderr
    assert "scripts/services up" in nothing.stderr
    started = services(folder, "up", "postgres", "s3")
    try:
        if started.returncode:
            skip_or_fail(started.stderr.strip().splitlines()[0])
        database_url, objects_url = started.stdout.split()
        described: list[dict[str, Any]] = []
        lines = ""

        def are_described() -> bool:
            # A busy server that keeps silent for a moment is told as such.
            described[:] = json.loads(services(folder, "status", "--json").stdout)["services"]
            states = {one["name"]: one["state"] for one in described}
            return states == {"kafka": "down", "kafka-3": "down", "postgres": "up", "s3": "up"}

        def is_shown() -> bool:
            nonlocal lines
            lines = services(folder, "status").stdout
            return f"s3 up {objects_url}" in lines and "postgres up " in lines

        wait_until(are_described, "two services that are up", lambda: str(described))
        pids = [pid for one in described for pid in one["pids"]]
        wait_until(is_shown, "a line for each of them", lambda: lines)
        password = database_url.partition("@")[0].rpartition(":")[2]
        assert password not in lines

        # What `env` prints is the switch's settings.
        for line in services(folder, "env").stdout.splitlines():
            name, _, value = shlex.split(line)[1].partition("=")
            monkeypatch.setenv(name, value)
        settings = read_settings()
        assert settings.object_store_url == objects_url
        assert settings.database_password.get_secret_value() == password
        assert password not in settings.database_url

        assert services(folder, "restart", "s3").stdout.strip() == objects_url
    finally:
        stopped = services(folder, "down", "--remove-data")
    assert stopped.returncode == 0, stopped.stderr
    assert services(folder, "status").returncode == 1
    assert not any(_is_postgres_or_weed(pid) for pid in pids)
    assert list(folder.iterdir()) == []


def _is_postgres_or_weed(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() in {"postgres", "weed"} and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.process
def test_what_is_missing_is_named_and_nothing_is_started(folder: Path) -> None:
    without_java = services(folder, "up", "kafka", PATH="/nonexistent", JAVA_HOME="")
    assert without_java.returncode == 1
    assert "java is missing" in without_java.stderr
    assert "Traceback" not in without_java.stderr
    assert services(folder, "up", "cassandra").returncode == 2
    assert services(folder, "status").returncode == 1


@pytest.mark.kafka
def test_maven_is_asked_for_only_when_jars_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("BULK_SWITCH_SERVICES", str(tmp_path))
    with pytest.raises(ServiceError, match=r"mvn .* is missing"):
        kafka_jars()
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".part-")] == []


def test_files_that_were_not_pinned_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.jar").write_bytes(b"one")
    pinned = f"{hashlib.sha256(b'one').hexdigest()}  one.jar\n"
    require_hashes(tmp_path, pinned)
    (tmp_path / "two.jar").write_bytes(b"two")
    with pytest.raises(ServiceError, match=r"two\.jar"):
        require_hashes(tmp_path, pinned)
    (tmp_path / "two.jar").unlink()
    (tmp_path / "one.jar").write_bytes(b"another one")
    with pytest.raises(ServiceError, match=r"one\.jar"):
        require_hashes(tmp_path, pinned)
    with pytest.raises(ServiceError, match=r"three\.jar"):
        require_hashes(tmp_path, pinned + pinned.replace("one.jar", "three.jar"))
