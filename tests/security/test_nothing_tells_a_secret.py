"""A whole world on TLS and passwords, its failures included, writes no secret anywhere and shows none in a command line."""

import os
import signal
import stat
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.services import KafkaService, PostgresService, SeaweedService
from operations.ports import free_ports
from operations.settings.types import PREFIX
from operations.world_file import NoWorld, read_world
from tests.operations.processes import processes_of, run, start, wait_until
from tests.security.conftest import Certificates
from tests.security.kafka_users import SCRAM_USER

pytestmark = [
    pytest.mark.process,
    pytest.mark.kafka,
    pytest.mark.services,
    # Three services and a world of ten processes, on a machine that does other things as well.
    pytest.mark.timeout(900),
]

ADMIN_TOKEN = "mark-of-the-admin-token-5c1d"
WRONG_PASSWORD = "mark-of-a-wrong-password-88e2"


@pytest.fixture
def parts(
    secure_kafka: KafkaService, secure_postgres: PostgresService, secure_s3: SeaweedService
) -> Iterator[tuple[KafkaService, PostgresService, SeaweedService]]:
    yield secure_kafka, secure_postgres, secure_s3
    for service in (secure_kafka, secure_postgres, secure_s3):
        service.start()


def test_nothing_tells_a_secret(
    parts: tuple[KafkaService, PostgresService, SeaweedService], certificates: Certificates, tmp_path: Path
) -> None:
    kafka, postgres, s3 = parts
    secrets = {
        "database_password": postgres.password,
        "kafka_sasl_password": SCRAM_USER.password,
        "object_store_secret_key": s3.secret_key,
        "admin_token": ADMIN_TOKEN,
    }
    # The database's stands in its URL, which stands in a file: the way on which most could go wrong.
    url = f"{postgres.url}?sslmode=verify-full&sslrootcert={certificates.server.ca_file}"
    given = {name: secret for name, secret in secrets.items() if name != "database_password"} | {"database_url": url}
    fspiop_port, admin_port = free_ports(2)
    settings = {
        "STREAM_URL": f"{kafka.url}/{uuid.uuid4().hex}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_CA_FILE": str(certificates.server.ca_file),
        "KAFKA_CERTIFICATE_FILE": str(certificates.client_certificate_file),
        "KAFKA_KEY_FILE": str(certificates.client_key_file),
        "KAFKA_SASL_USERNAME": SCRAM_USER.name,
        "OBJECT_STORE_URL": s3.url,
        "OBJECT_STORE_ACCESS_KEY": s3.access_key,
        "OBJECT_STORE_CA_FILE": str(certificates.server.ca_file),
        "LOG_LEVEL": "DEBUG",
        "FSPIOP_PORT": str(fspiop_port),
        "ADMIN_PORT": str(admin_port),
    }
    (tmp_path / "secrets").mkdir()
    for name, secret in given.items():
        (tmp_path / "secrets" / name).write_text(f"{secret}\n")
        settings[f"{name.upper()}_FILE"] = str(tmp_path / "secrets" / name)
    variables = {f"{PREFIX}{name}": value for name, value in settings.items()}
    data_folder = tmp_path / "world"
    told = []

    world = start("up", data_folder=data_folder, **variables)
    try:
        wait_until(lambda: world.poll() is not None or _is_ready(data_folder), "the world's being ready")
        assert world.poll() is None, (world.stdout and world.stdout.read(), _logs(data_folder))
        # Everybody can see a command line, and the file says where everything is.
        command_lines = processes_of(data_folder)
        assert len(command_lines) > 8
        told += list(command_lines.values())
        assert stat.S_IMODE((data_folder / "world.json").stat().st_mode) == 0o600
        told.append((data_folder / "world.json").read_text())
        _ask(fspiop_port, admin_port)
        done = run("lag", "--json", data_folder=data_folder, **variables)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout + done.stderr)
        # All parts go away while the world is at work: whatever the libraries say about it, they say now.
        for service in parts:
            service.kill()
        _ask(fspiop_port, admin_port)
        wait_until(lambda: "SSL" in _logs(data_folder) or "refused" in _logs(data_folder), "the processes' noticing")
        told.append(_failing("lag", data_folder, variables))
    finally:
        world.send_signal(signal.SIGINT)
        told.append(_end_of(world))
    for service in parts:
        service.start()
    wrong = variables | {f"{PREFIX}DATABASE_URL_FILE": "", f"{PREFIX}DATABASE_PASSWORD": WRONG_PASSWORD}
    wrong[f"{PREFIX}DATABASE_URL"] = url.replace(f":{postgres.password}@", "@")
    told.append(_failing("lag", tmp_path / "none", wrong))
    assert "password authentication failed" in told[-1]
    wrong = variables | {f"{PREFIX}KAFKA_SASL_PASSWORD_FILE": "", f"{PREFIX}KAFKA_SASL_PASSWORD": WRONG_PASSWORD}
    told.append(_failing("lag", tmp_path / "none", wrong))
    assert "invalid credentials" in told[-1]

    told.append(_logs(data_folder))
    everything = "\n".join(told)
    found = [name for name, secret in (secrets | {"wrong": WRONG_PASSWORD}).items() if secret in everything]
    assert found == []
    # The search would have found them: what is no secret is there.
    assert SCRAM_USER.name in everything
    assert url.replace(f":{postgres.password}@", "@") in everything


def _is_ready(data_folder: Path) -> bool:
    try:
        return read_world(data_folder).ready
    except NoWorld:
        return False


def _ask(fspiop_port: int, admin_port: int) -> None:
    """Requests with and without the token, one that is kept, and two that are nonsense; their answers do not matter."""
    with httpx.Client(timeout=30, trust_env=False) as client:
        for token in (ADMIN_TOKEN, "another"):
            client.get(f"http://127.0.0.1:{admin_port}/participants", headers={"Authorization": f"Bearer {token}"})
        client.post(f"http://127.0.0.1:{fspiop_port}/bulkTransfers", content=b"{}")
        client.get(
            f"http://127.0.0.1:{fspiop_port}/bulkTransfers/{uuid.uuid4()}",
            headers={
                "Accept": "application/vnd.interoperability.bulkTransfers+json;version=1.1",
                "Content-Type": "application/vnd.interoperability.bulkTransfers+json;version=1.1",
                "Date": "Fri, 20 Nov 2026 10:00:00 GMT",
                "FSPIOP-Source": "payerfsp",
            },
        )


def _failing(command: str, data_folder: Path, variables: dict[str, str]) -> str:
    done = run(command, data_folder=data_folder, **variables)
    text = done.stdout + done.stderr
    assert done.returncode == 1, text
    # One clear line for a person, no traceback.
    assert "Traceback" not in text
    return text


def _end_of(world: subprocess.Popen[str]) -> str:
    try:
        return world.communicate(timeout=120)[0]
    finally:
        if world.poll() is None:
            os.kill(world.pid, signal.SIGKILL)
            world.wait()


def _logs(data_folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in data_folder.glob("logs/*"))
