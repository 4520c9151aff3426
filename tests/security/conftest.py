"""An authority that nobody else knows, certificates of it, and real servers that show them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from deploy.services import KafkaService, PostgresService, SeaweedService, ServiceError
from deploy.services.tls import ServerTls
from operations.settings.types import PREFIX
from tests.security.kafka_users import SCRAM_USER, add_scram_user
from tests.shared_service import skip_or_fail

PLAIN_USER, PLAIN_PASSWORD = "plain-switch", "plain-password-of-the-switch"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files. `server` is valid for 127.0.0.1, `elsewhere` for another host, `other_ca` has signed nothing here."""

    server: ServerTls
    elsewhere: ServerTls
    other_ca_file: Path
    client_certificate_file: Path
    client_key_file: Path
    key_store: Path


@pytest.fixture(scope="session")
def service_folder() -> Iterator[Path]:
    """A folder through which PostgreSQL, which as root runs as a user of its own, may pass."""
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-security-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(service_folder: Path) -> Certificates:
    authority = trustme.CA()
    ca_file = service_folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    trustme.CA().cert_pem.write_to_path(str(service_folder / "other-ca.pem"))

    def issued(name: str, *identities: str) -> ServerTls:
        certificate = authority.issue_cert(*identities)
        file, key_file = service_folder / f"{name}.pem", service_folder / f"{name}.key"
        file.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        # PKCS #8, the only form that Kafka reads.
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return ServerTls(file, key_file, ca_file)

    server, client = issued("server", "127.0.0.1", "localhost"), issued("client", "switch.example")
    key_store = service_folder / "key-store.pem"
    key_store.write_bytes(server.key_file.read_bytes() + server.certificate_file.read_bytes())
    return Certificates(
        server=server,
        elsewhere=issued("elsewhere", "elsewhere.example"),
        other_ca_file=service_folder / "other-ca.pem",
        client_certificate_file=client.certificate_file,
        client_key_file=client.key_file,
        key_store=key_store,
    )


@pytest.fixture(scope="module")
def secure_kafka(service_folder: Path, certificates: Certificates) -> Iterator[KafkaService]:
    """A broker on SASL_SSL with SCRAM and PLAIN, that asks for a client's certificate as well."""
    login = "org.apache.kafka.common.security"
    listener = "listener.name.client"
    service = KafkaService(
        service_folder / "kafka",
        client_protocol="SASL_SSL",
        heap_mb=256,
        properties={
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(certificates.key_store),
            f"{listener}.ssl.truststore.type": "PEM",
            f"{listener}.ssl.truststore.location": str(certificates.server.ca_file),
            f"{listener}.ssl.client.auth": "required",
            f"{listener}.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            f"{listener}.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            f"{listener}.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            f"{listener}.plain.sasl.jaas.config": (
                f'{login}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
            ),
        },
    )
    with _started(service):
        add_scram_user(service.nodes_bootstrap, SCRAM_USER)
        yield service


@pytest.fixture(scope="module")
def secure_postgres(service_folder: Path, certificates: Certificates) -> Iterator[PostgresService]:
    """A server that speaks TLS to whoever wants it."""
    service = PostgresService(service_folder / "postgres", tls=certificates.server)
    with _started(service):
        yield service


@pytest.fixture(scope="module")
def secure_s3(service_folder: Path, certificates: Certificates) -> Iterator[SeaweedService]:
    """A server that speaks HTTPS only."""
    service = SeaweedService(service_folder / "s3", tls=certificates.server)
    with _started(service):
        yield service


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}SERVICES"):
            monkeypatch.delenv(name)


@contextmanager
def _started(service: KafkaService | PostgresService | SeaweedService) -> Iterator[None]:
    """Started within the block; one that cannot be had skips the test, and in CI fails it."""
    try:
        service.start()
    except ServiceError as error:
        skip_or_fail(f"no {service.name}: {str(error).splitlines()[0]}")
    try:
        yield
    finally:
        service.kill()
