"""docker-compose.yml says nothing that the switch does not understand, and leaves no handler out."""

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from handlers.host import HANDLER_NAMES
from operations.command_line import app
from operations.settings import Settings, read_settings
from operations.settings.secret_files import comes_from_file
from operations.settings.types import PREFIX
from tests.deploy.dockerfile import ROOT, pinned, steps

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = {"migrate", "topics", "bulk-switch"}
# What runs our own image.
SWITCH = {name: service for name, service in SERVICES.items() if service["image"].startswith("bulk-switch:")}
HANDLERS = {name: service for name, service in SWITCH.items() if name.startswith("handler-")}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that make-secrets makes beside docker-compose.yml, in a folder of its own."""
    (tmp_path / "deploy" / "compose").mkdir(parents=True)
    script = tmp_path / "deploy" / "compose" / "make-secrets"
    shutil.copy(ROOT / "deploy" / "compose" / "make-secrets", script)
    subprocess.run([script], check=True, capture_output=True, timeout=60)
    return tmp_path / ".secrets"


def test_every_handler_has_a_service_of_its_own() -> None:
    assert {name: service["command"][:2] for name, service in HANDLERS.items()} == {
        f"handler-{name}": ["handler", name] for name in HANDLER_NAMES
    }


def test_images_are_pinned_and_ours_is_built_once() -> None:
    foreign = [service["image"] for name, service in SERVICES.items() if name not in SWITCH]
    foreign += [step.text.split()[0] for step in steps() if step.instruction == "FROM"]
    assert [image for image in foreign if not pinned(image)] == []
    assert len({service["image"] for service in SWITCH.values()}) == 1
    assert [name for name, service in SWITCH.items() if "build" in service] == ["migrate"]
    assert {service["pull_policy"] for name, service in SWITCH.items() if name != "migrate"} == {"never"}


def test_whatever_is_waited_for_or_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully":
                assert other in JOBS, f"{name} waits for the end of {other}, which has none"
            else:
                assert how["condition"] == "service_healthy"
                assert "test" in SERVICES[other]["healthcheck"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), f"{name} mounts {source}"


def test_every_variable_is_a_setting_and_together_they_are_read(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {
        f"{PREFIX}{name.upper()}_FILE" for name, field in Settings.model_fields.items() if comes_from_file(name, field)
    }
    for name, service in SWITCH.items():
        environment = {key: _plain(value) for key, value in service["environment"].items()}
        assert set(environment) <= known, name
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                mounted = value.removeprefix("/run/secrets/")
                assert mounted == value or mounted in service["secrets"], f"{name} does not get {mounted}"
                patch.setenv(key, value.replace("/run/secrets", str(secrets)))
            settings = read_settings()
        assert settings.database_password.get_secret_value()
        assert settings.stream_url.startswith("kafka://")
        assert settings.object_store_url.startswith("s3://")
        for url in (settings.database_url, settings.stream_url, settings.object_store_url):
            assert url.partition("://")[2].rpartition("@")[2].partition(":")[0] in SERVICES


def test_every_command_is_one_that_the_switch_understands() -> None:
    root: Any = get_command(app)
    for name, service in SWITCH.items():
        command = service["command"]
        assert all(isinstance(word, str) for word in command), name
        if command == ["--help"]:
            continue
        parent = root.make_context("bulk-switch", list(command))
        subject = root.get_command(parent, command[0])
        # Raises for an option that is none, or a value of another type.
        subject.make_context(command[0], list(command[1:]), parent=parent)


def test_every_process_says_whether_it_is_well_where_it_is_asked() -> None:
    for name, service in SERVICES.items():
        check = service["healthcheck"]
        if name in JOBS:
            assert check == {"disable": True}
            assert service["restart"] in {"no", "on-failure:5"}
            continue
        assert service["restart"] == "unless-stopped", name
        assert check["test"][0] == "CMD", f"{name}: no shell between"
        if name in SWITCH and name not in {"api", "admin"}:
            port = service["command"][-1]
            assert check["test"][-1] == f"http://127.0.0.1:{port}/health"
            # Prometheus, too, asks there.
            assert "0.0.0.0" in service["command"]


def test_prometheus_asks_every_process_by_its_services_name() -> None:
    [scraping] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "compose.yml").read_text())["scrape_configs"]
    asked = {(name, found["port"]) for found in scraping["dns_sd_configs"] for name in found["names"]}
    ports = {"api": 3003, "admin": 3001}
    assert asked == {(name, ports.get(name, 9464)) for name in SWITCH if name not in JOBS}


def test_scaling_meets_no_fixed_name_and_no_fixed_port() -> None:
    for name, service in SWITCH.items():
        assert "container_name" not in service
        assert "hostname" not in service
        if name != "admin":
            assert all("-" in port for port in service.get("ports", [])), f"{name}: a single port can be had once"
    # Nothing is open to other machines.
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_our_containers_may_do_no_more_than_they_need() -> None:
    for name, service in SWITCH.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "user" not in service, "the image says it"
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["init"] is True


def test_secrets_are_files_that_containers_can_read_and_other_people_cannot(secrets: Path) -> None:
    named = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert {file.name for file in secrets.iterdir()} == named
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o444}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert all(len(text) >= 40 for text in before.values())
    assert before["object_store_secret_key"] in before["object_store_identities"]
    subprocess.run(
        [secrets.parent / "deploy" / "compose" / "make-secrets"], check=True, capture_output=True, timeout=60
    )
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    assert ".secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_compose_itself_finds_the_file_valid() -> None:
    command = compose_command()
    if command is None:
        pytest.skip("no docker compose: neither the plugin nor BULK_SWITCH_TEST_COMPOSE")
    done = subprocess.run(
        [*command, "--file", "docker-compose.yml", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert set(yaml.safe_load(done.stdout)["services"]) == set(SERVICES)


def compose_command() -> list[str] | None:
    given = os.environ.get("BULK_SWITCH_TEST_COMPOSE")
    if given:
        return [given]
    docker = shutil.which("docker")
    if docker is None:
        return None
    found = subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60, check=False)
    return [docker, "compose"] if found.returncode == 0 else None


def _plain(value: object) -> str:
    """The default of ${NAME:-default}."""
    text = str(value)
    return text.partition(":-")[2].rstrip("}") if text.startswith("${") else text
