"""The object store over HTTPS: a server that the authority vouches for, and nobody else."""

import uuid
from pathlib import Path

import pytest

from deploy.services import SeaweedService
from object_store.interface import ObjectStore, ObjectStoreUnavailable
from object_store.opening import open_object_store
from operations.opening import make_object_store
from operations.settings import SettingsError, read_settings
from tests.security.conftest import Certificates
from tests.stores import PATIENT

pytestmark = pytest.mark.services


def store_on(service: SeaweedService, ca_file: Path, url: str = "") -> ObjectStore:
    return open_object_store(
        url or service.url,
        access_key=service.access_key,
        secret_key=service.secret_key,
        ca_file=ca_file,
        limits=PATIENT,
    )


def test_objects_go_over_https_to_a_server_that_is_vouched_for(
    secure_s3: SeaweedService, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{secure_s3.secret_key}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BULK_SWITCH_OBJECT_STORE_SECRET_KEY_FILE", str(tmp_path / "secret"))
        settings = read_settings(
            object_store_url=secure_s3.url,
            object_store_access_key=secure_s3.access_key,
            object_store_ca_file=str(certificates.server.ca_file),
        )
    assert "secure=true" in settings.object_store_url
    store = make_object_store(settings)
    key = f"requests/{uuid.uuid4()}/{uuid.uuid4()}"
    store.put(key, b"body")
    assert store.get(key) == b"body"


def test_a_server_that_nobody_vouches_for_gets_nothing(secure_s3: SeaweedService, certificates: Certificates) -> None:
    store = store_on(secure_s3, certificates.other_ca_file)
    with pytest.raises(ObjectStoreUnavailable, match="certificate verify failed") as raised:
        store.put("requests/a/b", b"body")
    assert secure_s3.secret_key not in str(raised.value)


def test_https_is_not_given_up_for_a_server_that_wants_it(
    secure_s3: SeaweedService, certificates: Certificates
) -> None:
    plain = store_on(secure_s3, certificates.server.ca_file, secure_s3.url.replace("secure=true", "secure=false"))
    with pytest.raises(ObjectStoreUnavailable):
        plain.put("requests/a/b", b"body")


def test_a_wrong_key_is_told_when_a_process_starts(secure_s3: SeaweedService, certificates: Certificates) -> None:
    settings = read_settings(
        object_store_url=secure_s3.url,
        object_store_access_key=secure_s3.access_key,
        object_store_secret_key="wrong-mark-of-a-key",
        object_store_ca_file=str(certificates.server.ca_file),
    )
    with pytest.raises(SettingsError, match=r"^BULK_SWITCH_OBJECT_STORE_URL: ") as raised:
        make_object_store(settings)
    assert "wrong-mark" not in str(raised.value)
