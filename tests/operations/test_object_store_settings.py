"""A process opens the object store that its settings name, or says in one line what is wrong with it."""

import socket
import uuid
from pathlib import Path
from typing import Any

import pytest

from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStoreUnavailable
from object_store.url import S3Place, read_url
from operations.opening import make_object_store, provision_object_store
from operations.settings import Settings, SettingsError, read_settings
from tests.stores import PATIENT, S3Server


def settings_for(server: S3Server, **changes: Any) -> Settings:
    """On a bucket that nobody has made."""
    place = read_url(server.url)
    assert isinstance(place, S3Place)
    secure = str(place.secure).lower()
    values = {
        "object_store_url": f"s3://{place.endpoint}/{uuid.uuid4().hex}?secure={secure}&region={place.region}",
        "object_store_access_key": server.access_key,
        "object_store_secret_key": server.secret_key,
        # No test here waits these out, and a busy server may stand still for longer than the defaults allow.
        "publish_wait_ms": 2 * PATIENT.attempt_timeout_ms,
        "object_store_attempt_timeout_ms": PATIENT.attempt_timeout_ms,
        "object_store_connect_timeout_ms": PATIENT.connect_timeout_ms,
    }
    return read_settings(**(values | changes))


def test_a_folder_needs_nothing_else(tmp_path: Path) -> None:
    settings = read_settings(data_folder=tmp_path)
    provision_object_store(settings)
    assert isinstance(make_object_store(settings), FolderObjectStore)
    assert (tmp_path / "objects").is_dir()


def test_the_secret_key_may_come_from_a_file_and_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("the-secret\n")
    monkeypatch.setenv("BULK_SWITCH_OBJECT_STORE_SECRET_KEY_FILE", str(file))
    settings = read_settings(object_store_url="s3://127.0.0.1:1/bucket", object_store_access_key="key")
    assert settings.object_store_secret_key.get_secret_value() == "the-secret"
    assert "the-secret" not in repr(settings)


def test_a_store_that_is_away_is_waited_for_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"s3://127.0.0.1:{nobody.getsockname()[1]}/bucket?secure=false"
        keys = {"object_store_access_key": "the-key", "object_store_secret_key": "the-secret"}
        store = make_object_store(read_settings(object_store_url=url, **keys))
        with pytest.raises(ObjectStoreUnavailable):
            store.put("content/ab/x", b"")
    assert "the object store does not answer yet" in caplog.text
    assert "the-secret" not in caplog.text


def test_a_world_that_runs_on_s3_asks_its_commands_for_the_keys(tmp_path: Path) -> None:
    """world.json holds the URL and no credentials; they are the environment's to give."""
    settings = read_settings(data_folder=tmp_path).model_copy(update={"object_store_url": "s3://127.0.0.1:1/bucket"})
    with pytest.raises(SettingsError, match=r"^BULK_SWITCH_OBJECT_STORE_URL: .*access key"):
        make_object_store(settings)


def test_a_file_that_is_no_authority_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"^BULK_SWITCH_OBJECT_STORE_CA_FILE: .*ca.pem: no certificates in PEM$"):
        make_object_store(read_settings(data_folder=tmp_path, object_store_ca_file=str(file)))


@pytest.mark.services
def test_a_missing_bucket_is_said_and_made_by_provisioning(s3_server: S3Server) -> None:
    settings = settings_for(s3_server)
    with pytest.raises(SettingsError, match=r"there is no bucket .*: `bulk-switch migrate` makes it"):
        make_object_store(settings)
    provision_object_store(settings)
    store = make_object_store(settings)
    store.put("content/ab/x", b"x")
    assert store.get("content/ab/x") == b"x"


@pytest.mark.services
def test_wrong_credentials_stop_a_process_with_one_line(s3_server: S3Server) -> None:
    settings = settings_for(s3_server, object_store_secret_key="not-the-secret")
    for opening in (make_object_store, provision_object_store):
        with pytest.raises(SettingsError, match=r"^BULK_SWITCH_OBJECT_STORE_URL: cannot .*AccessDenied") as raised:
            opening(settings)
        assert "not-the-secret" not in str(raised.value)
        assert "\n" not in str(raised.value)
