"""Secrets come from the environment or from files, and what does not fit together is one line that never shows a secret."""

import os
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from operations.opening import kafka_security
from operations.settings import Settings, SettingsError, environment_of, read_settings, unknown_names
from operations.settings.secret_files import comes_from_file
from operations.settings.types import PREFIX

SECRET = "mark-7f3a91"
SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def sasl(**more: str) -> dict[str, str]:
    return {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_username": "switch",
        "kafka_sasl_password": SECRET,
    } | more


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_come_from_a_file(name: str, secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"kafka_key_password": _client_certificate(secret_file.parent)}.get(name, {})
    if name == "kafka_sasl_password":
        more = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "switch"}
    monkeypatch.setenv(f"{PREFIX}{name.upper()}_FILE", str(secret_file))
    settings = read_settings(**more)
    assert getattr(settings, name).get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    # A child that is started with these settings has the secret, and does not look for the file.
    for variable, value in environment_of(settings).items():
        monkeypatch.setenv(variable, value)
    secret_file.unlink()
    assert read_settings() == settings


def test_the_database_url_may_come_from_a_file_with_a_password_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(f"postgresql://switch:{SECRET}%40@db/switch?sslmode=require\r\n")
    monkeypatch.setenv("BULK_SWITCH_DATABASE_URL_FILE", str(tmp_path / "url"))
    settings = read_settings()
    assert settings.database_url == "postgresql://switch@db/switch?sslmode=require"
    assert settings.database_password.get_secret_value() == f"{SECRET}@"
    assert SECRET not in repr(settings)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_given_twice_is_refused(name: str, secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}_FILE", str(secret_file))
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", SECRET)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert (
        str(raised.value) == f"{PREFIX}{name.upper()}_FILE: {PREFIX}{name.upper()} is given, too; one of them is enough"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (f"{SECRET}\n{SECRET}\n".encode(), "more than one line"),
        (SECRET.encode() + b"\xff", "no text in UTF-8"),
        (SECRET.encode() * 1_000, "longer than 8192 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_named_and_its_content_is_not(
    content: bytes | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("BULK_SWITCH_ADMIN_TOKEN_FILE", str(path))
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert str(raised.value) == f"BULK_SWITCH_ADMIN_TOKEN_FILE: {path}: {why}"
    # The chain of exceptions, which a traceback prints, has nothing either.
    assert not (raised.value.__context__ and not raised.value.__suppress_context__)


def test_a_misspelled_file_variable_is_noticed_and_a_right_one_is_not() -> None:
    known = dict.fromkeys((f"{PREFIX}{name.upper()}_FILE" for name in [*SECRETS, "database_url"]), "x")
    assert unknown_names(known) == []
    assert unknown_names({"BULK_SWITCH_ADMIN_TOKN_FILE": "x"}) == [
        "BULK_SWITCH_ADMIN_TOKN_FILE is no setting; did you mean BULK_SWITCH_ADMIN_TOKEN_FILE?"
    ]


def test_no_setting_is_called_like_the_file_of_a_secret() -> None:
    files = {f"{name}_file" for name, field in Settings.model_fields.items() if comes_from_file(name, field)}
    assert files & set(Settings.model_fields) == set()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://switch:{SECRET}/db",
        f"postgresql://switch:a@{SECRET}@host/db",
        f"postgresql://switch@host:{SECRET}/db",
        f"postgresql://switch:{SECRET}@host/db?sslmode=maybe",
        f"postgresql://switch@host/db?sslpassword={SECRET}",
        f"mysql://switch:{SECRET}@host/db",
    ],
)
def test_a_wrong_database_url_is_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULK_SWITCH_DATABASE_URL", url)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert str(raised.value).startswith("BULK_SWITCH_DATABASE_URL: ")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_missing_file_of_the_database_url_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"^--database-url: {name}=.*missing\.pem: No such file or directory$"):
        read_settings(database_url=f"postgresql://host/db?sslmode=verify-full&{name}={tmp_path}/missing.pem")
    assert read_settings(database_url="postgresql://host/db?sslmode=verify-full&sslrootcert=system").database_url


def test_a_password_in_the_url_and_beside_it_is_one_too_many() -> None:
    with pytest.raises(SettingsError, match=r"^BULK_SWITCH_DATABASE_PASSWORD: BULK_SWITCH_DATABASE_URL has a password"):
        read_settings(database_url=f"postgresql://switch:{SECRET}@host/db", database_password=SECRET)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (sasl(kafka_sasl_username=""), "BULK_SWITCH_KAFKA_SASL_USERNAME: is needed with"),
        (sasl(kafka_sasl_password=""), "BULK_SWITCH_KAFKA_SASL_PASSWORD: is needed with"),
        (sasl(kafka_security_protocol="SSL"), "BULK_SWITCH_KAFKA_SASL_USERNAME: means nothing with"),
        (sasl(kafka_sasl_mechanism="GSSAPI"), "--kafka-sasl-mechanism: input should be 'PLAIN', 'SCRAM"),
        (sasl(kafka_ca_file="/missing.pem"), "--kafka-ca-file: /missing.pem: No such file or directory"),
        (sasl(kafka_ca_file="/"), "--kafka-ca-file: /: Is a directory"),
        (sasl(kafka_certificate_file="/dev/null"), "BULK_SWITCH_KAFKA_KEY_FILE: a certificate and its key are"),
        (sasl(kafka_key_file="/dev/null"), "BULK_SWITCH_KAFKA_CERTIFICATE_FILE: a certificate and its key are"),
        (sasl(kafka_key_password=SECRET), "BULK_SWITCH_KAFKA_KEY_PASSWORD: there is no KAFKA_KEY_FILE"),
        (
            {"kafka_ca_file": "/dev/null"},
            "BULK_SWITCH_KAFKA_CA_FILE: means nothing with KAFKA_SECURITY_PROTOCOL=PLAINTEXT",
        ),
    ],
)
def test_what_does_not_fit_together_is_a_line_that_names_the_variable(given: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings(**given)
    assert str(raised.value).startswith(line)
    assert SECRET not in str(raised.value)


def test_files_are_absolute_because_processes_are_started_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.chdir(tmp_path)
    settings = read_settings(**sasl(kafka_ca_file="ca.pem"))
    assert settings.kafka_ca_file == str(tmp_path / "ca.pem")
    assert kafka_security(settings).ca_file == settings.kafka_ca_file


def test_a_key_that_is_not_the_certificates_is_found_before_anything_is_connected(tmp_path: Path) -> None:
    mine = _client_certificate(tmp_path)
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("other").private_key_pem.write_to_path(str(other))
    assert kafka_security(read_settings(**mine)).key_file == mine["kafka_key_file"]
    with pytest.raises(SettingsError, match=rf"^BULK_SWITCH_KAFKA_KEY_FILE: {other}: no key in PEM that belongs to"):
        kafka_security(read_settings(**mine | {"kafka_key_file": str(other)}))
    with pytest.raises(SettingsError, match=rf"^BULK_SWITCH_KAFKA_CA_FILE: {other}: no certificates in PEM"):
        kafka_security(read_settings(**sasl(kafka_ca_file=str(other))))


def _client_certificate(folder: Path) -> dict[str, str]:
    certificate = trustme.CA().issue_cert("switch")
    files = {"kafka_certificate_file": folder / "switch.pem", "kafka_key_file": folder / "switch.key"}
    certificate.cert_chain_pems[0].write_to_path(str(files["kafka_certificate_file"]))
    certificate.private_key_pem.write_to_path(str(files["kafka_key_file"]))
    return {"kafka_security_protocol": "SSL"} | {name: str(path) for name, path in files.items()}
