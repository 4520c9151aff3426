"""Who the processes are to the database and to Kafka, and whom they trust: passwords, certificates, authorities.

Checked when the settings are read: what must be given together is, every file is there and can be read, and the database's
password stands beside its URL from then on, so that the URL can be shown. Whether a key fits its certificate is found out
when the stream is opened (operations/opening.py); whether a password is right, only the other side knows.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from db.database_url import WrongDatabaseUrl, split_password, tls_files
from operations.settings.types import PREFIX

_FILES = ("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")


class SecuritySettings(BaseModel):
    """Every secret may come from a file: BULK_SWITCH_<NAME>_FILE (operations/settings/secret_files.py)."""

    # For a database URL without one. TLS is said in the URL: sslmode=verify-full&sslrootcert=/etc/…/ca.pem
    database_password: SecretStr = SecretStr("")

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ca_file: str = Field("", description="PEM; empty: the authorities that this machine trusts")
    # The client's own certificate, where brokers ask for one (ssl.client.auth).
    kafka_certificate_file: str = Field("", description="PEM, with the authorities between, if any")
    kafka_key_file: str = Field("", description="PEM; may be the same file as the certificate's")
    kafka_key_password: SecretStr = SecretStr("")
    # SCRAM never shows the password to a broker; PLAIN does, and belongs into SASL_SSL only.
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str = ""
    kafka_sasl_password: SecretStr = SecretStr("")

    @field_validator(*_FILES)
    @classmethod
    def _readable(cls, value: str) -> str:
        return readable(value)

    @model_validator(mode="before")
    @classmethod
    def _password_beside_url(cls, values: Any) -> Any:
        """A mistake in the URL itself is told by the field's own validator, which runs later."""
        url = values.get("database_url") if isinstance(values, dict) else None
        if not isinstance(url, str) or not url:
            return values
        try:
            rest, password = split_password(url)
        except WrongDatabaseUrl:
            return values
        if not password:
            return values
        if _plain(values.get("database_password")):
            raise ValueError(f"{PREFIX}DATABASE_PASSWORD: {PREFIX}DATABASE_URL has a password, too; one is enough")
        return values | {"database_url": rest, "database_password": password}

    @model_validator(mode="after")
    def _kafka_fits_together(self) -> "SecuritySettings":
        protocol = self.kafka_security_protocol
        tls = {
            "KAFKA_CA_FILE": self.kafka_ca_file,
            "KAFKA_CERTIFICATE_FILE": self.kafka_certificate_file,
            "KAFKA_KEY_FILE": self.kafka_key_file,
        }
        sasl = {
            "KAFKA_SASL_USERNAME": self.kafka_sasl_username,
            "KAFKA_SASL_PASSWORD": self.kafka_sasl_password.get_secret_value(),
        }
        for name, value in tls.items():
            if value and not protocol.endswith("SSL"):
                raise ValueError(f"{PREFIX}{name}: means nothing with KAFKA_SECURITY_PROTOCOL={protocol}")
        for name, value in sasl.items():
            if value and not protocol.startswith("SASL"):
                raise ValueError(f"{PREFIX}{name}: means nothing with KAFKA_SECURITY_PROTOCOL={protocol}")
            if not value and protocol.startswith("SASL"):
                raise ValueError(f"{PREFIX}{name}: is needed with KAFKA_SECURITY_PROTOCOL={protocol}")
        if bool(self.kafka_certificate_file) != bool(self.kafka_key_file):
            missing = "KAFKA_KEY_FILE" if self.kafka_certificate_file else "KAFKA_CERTIFICATE_FILE"
            raise ValueError(f"{PREFIX}{missing}: a certificate and its key are given together")
        if self.kafka_key_password.get_secret_value() and not self.kafka_key_file:
            raise ValueError(f"{PREFIX}KAFKA_KEY_PASSWORD: there is no KAFKA_KEY_FILE that it would open")
        return self


def checked_database_url(url: str) -> str:
    """For the field's validator: raises ValueError, which repeats nothing of the URL but the names of its files."""
    if not url.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
        raise ValueError("must begin with postgresql:// or be empty")
    rest, _ = split_password(url)
    for name, path in tls_files(rest).items():
        try:
            readable(path)
        except ValueError as error:
            raise ValueError(f"{name}={error}") from None
    return url


def readable(path: str) -> str:
    """The file's absolute path, "" for none: processes are started elsewhere, too. Raises ValueError."""
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return str(Path(path).absolute())


def _plain(secret: object) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret or "")
