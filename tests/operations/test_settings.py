"""Settings are read once from the environment, and a wrong one is told in a line that names it."""

from pathlib import Path

import pytest

from operations.deliverer_process import deliverer_settings
from operations.settings import Settings, SettingsError, environment_of, read_settings, unknown_names
from operations.settings.types import PREFIX
from operations.world_file import World, settings_of_world, write_world
from tests.fspiop.signing import key_pair


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_the_defaults_are_the_embedded_world() -> None:
    settings = read_settings()
    assert (settings.database_url, settings.stream_url) == ("", "table:")
    assert settings.object_store_absolute_url == str(Path(".bulk-switch/objects").absolute())


def test_the_environment_is_read_and_the_command_line_stands_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULK_SWITCH_BATCH_ITEMS", "77")
    monkeypatch.setenv("BULK_SWITCH_ADMIN_PORT", "4001")
    settings = read_settings(admin_port=4002, fspiop_port=None)
    assert (settings.batch_items, settings.admin_port, settings.fspiop_port) == (77, 4002, 3003)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("BATCH_ITEMS", "0", "BULK_SWITCH_BATCH_ITEMS: input should be greater than or equal to 1"),
        ("BATCH_ITEMS", "many", "BULK_SWITCH_BATCH_ITEMS: input should be a valid integer"),
        ("ITEMS_PER_BULK_MAX", "1001", "BULK_SWITCH_ITEMS_PER_BULK_MAX: input should be less than or equal to 1000"),
        ("FSPIOP_PORT", "65536", "BULK_SWITCH_FSPIOP_PORT: input should be less than or equal to 65535"),
        ("STREAM_URL", "rabbit://x", "BULK_SWITCH_STREAM_URL: must be table: or kafka://host:port,host:port"),
        ("DATABASE_URL", "mysql://x", "BULK_SWITCH_DATABASE_URL: must begin with postgresql:// or be empty"),
        (
            "OBJECT_STORE_URL",
            "s3://bucket",
            "BULK_SWITCH_OBJECT_STORE_URL: must be a folder, file:///folder or s3://host",
        ),
        ("OBJECT_STORE_URL", "s3://host/bucket", "BULK_SWITCH_OBJECT_STORE_ACCESS_KEY: is needed with"),
        ("OBJECT_STORE_CA_FILE", "/nowhere/ca.pem", "BULK_SWITCH_OBJECT_STORE_CA_FILE: /nowhere/ca.pem: No such file"),
        (
            "OBJECT_STORE_ATTEMPTS_MAX",
            "3",
            "BULK_SWITCH_OBJECT_STORE_ATTEMPTS_MAX times OBJECT_STORE_ATTEMPT_TIMEOUT_MS",
        ),
        ("SIGNATURES", "on", "BULK_SWITCH_SIGNATURES: input should be 'off', 'optional' or 'required'"),
        (
            "CALLBACK_INTERNAL_ADDRESSES",
            "10.0.0.1/8",
            "BULK_SWITCH_CALLBACK_INTERNAL_ADDRESSES: must be none, loopback, any, or networks like 10.0.0.0/8",
        ),
        ("HANDLER_GROUPS", "prepare position,prepare", "BULK_SWITCH_HANDLER_GROUPS: names prepare more than once"),
        ("CALLBACK_LEASE_MS", "10000", "BULK_SWITCH_CALLBACK_LEASE_MS must be at least 1000 ms longer than"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(f"BULK_SWITCH_{name}", value)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


def test_a_wrong_option_is_named_as_it_was_typed() -> None:
    with pytest.raises(SettingsError, match=r"^--fspiop-port: input should be less than"):
        read_settings(fspiop_port=70_000)


def test_callbacks_reach_this_machine_in_the_embedded_world_and_nothing_internal_in_a_real_one() -> None:
    assert read_settings().internal_addresses == "loopback"
    real = {"database_url": "postgresql://db/switch"}
    assert read_settings(**real).internal_addresses == "none"
    assert read_settings(**real, callback_internal_addresses="10.0.0.0/8").internal_addresses == "10.0.0.0/8"
    assert read_settings(callback_internal_addresses="none").internal_addresses == "none"


def test_a_world_tells_its_commands_where_endpoints_may_lead(tmp_path: Path) -> None:
    world = World(
        database_url="postgresql://somewhere/switch",
        stream_url="table:",
        object_store_url=str(tmp_path),
        fspiop_url="http://127.0.0.1:1",
        admin_url="http://127.0.0.1:2",
        internal_addresses="loopback",
        supervisor=1,
        processes={},
        logs={},
        health={},
        ready=True,
    )
    write_world(tmp_path, world)
    assert settings_of_world(read_settings(data_folder=tmp_path)).internal_addresses == "loopback"


def test_the_hubs_key_signs_or_is_named_in_one_line(tmp_path: Path) -> None:
    assert deliverer_settings(read_settings()).signer is None
    file = tmp_path / "hub.pem"
    file.write_bytes(key_pair("hub", "ES256").private)
    signer = deliverer_settings(read_settings(hub_key_file=str(file))).signer
    assert signer is not None
    assert signer.algorithm == "ES256"
    file.write_text(key_pair("hub", "ES256").public)
    for name, text in (("hub.pem", "no private key in PEM"), ("missing.pem", "No such file")):
        with pytest.raises(SettingsError, match=rf"^BULK_SWITCH_HUB_KEY_FILE: .*{name}: .*{text}"):
            deliverer_settings(read_settings(hub_key_file=str(tmp_path / name)))


def test_a_misspelled_name_is_noticed() -> None:
    environment = {"BULK_SWITCH_BATCH_ITEM": "5", "BULK_SWITCH_ADMIN_PORT": "1", "BULK_SWITCH_SERVICES": "x"}
    assert unknown_names(environment) == ["BULK_SWITCH_BATCH_ITEM is no setting; did you mean BULK_SWITCH_BATCH_ITEMS?"]


def test_settings_survive_the_way_through_the_environment_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(
        batch_items=5, admin_token="secret", ascending_amount_order=True, data_folder=Path("/tmp/elsewhere")
    )
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings


def test_a_secret_does_not_show_when_settings_are_printed() -> None:
    assert "hush-hush" not in repr(read_settings(admin_token="hush-hush"))


@pytest.mark.parametrize("url", ["/srv/objects", "file:///srv/objects"])
def test_the_object_store_is_a_folder_or_its_file_url(url: str) -> None:
    assert read_settings(object_store_url=url).object_store_absolute_url == "/srv/objects"


def test_every_limit_says_its_unit() -> None:
    """A number that is no count, port, ratio or flag ends in its unit (habit 12)."""
    numbers = [name for name, field in Settings.model_fields.items() if field.annotation in {int, float}]
    units = ("_ms", "_days", "_bytes_max", "_max", "_min", "_port", "_items", "_factor", "_ratio")
    assert [name for name in numbers if not name.endswith(units)] == []
