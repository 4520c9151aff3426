"""Settings are read once from the environment, and a wrong one is told in a line that names it."""

from pathlib import Path

import pytest

from operations.settings import PREFIX, Settings, SettingsError, environment_of, read_settings, unknown_names


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_the_defaults_are_the_embedded_world() -> None:
    settings = read_settings()
    assert (settings.database_url, settings.stream_url) == ("", "table:")
    assert settings.object_store_folder == Path(".bulk-switch/objects").absolute()


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
        ("OBJECT_STORE_URL", "s3://bucket", "BULK_SWITCH_OBJECT_STORE_URL: must be a folder or file:///folder"),
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
    assert "secret" not in repr(read_settings(admin_token="secret"))


@pytest.mark.parametrize("url", ["/srv/objects", "file:///srv/objects"])
def test_the_object_store_is_a_folder_or_its_file_url(url: str) -> None:
    assert read_settings(object_store_url=url).object_store_folder == Path("/srv/objects")


def test_every_limit_says_its_unit() -> None:
    """A number that is no count, port, ratio or flag ends in its unit (habit 12)."""
    numbers = [name for name, field in Settings.model_fields.items() if field.annotation in {int, float}]
    units = ("_ms", "_bytes_max", "_max", "_port", "_items", "_factor")
    assert [name for name in numbers if not name.endswith(units)] == []
