"""How a process gets its parts from the settings: the database, the object store, the stream."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from db.engine import make_engine
from object_store.interface import ObjectStore, ObjectStoreRefused, ObjectStoreUnavailable
from object_store.limits import S3Limits
from object_store.opening import open_object_store
from operations.settings import Settings, SettingsError
from operations.topics import wanted_topics
from stream.interface import Stream
from stream.kafka_security import KafkaSecurity
from stream.opening import open_stream

_log = logging.getLogger(__name__)


@contextmanager
def opened_engine(settings: Settings, application_name: str, pool_size: int = 5) -> Iterator[Engine]:
    """An engine on the settings' database; closed with the block."""
    engine = make_engine(
        settings.database_url,
        application_name=application_name,
        pool_size=pool_size,
        password=settings.database_password.get_secret_value(),
    )
    try:
        yield engine
    finally:
        engine.dispose()


def make_object_store(settings: Settings) -> ObjectStore:
    """The settings' object store; raises SettingsError when it answers and refuses to work with us.

    One that does not answer is waited for by whoever puts and gets: a process that starts while it is away must not end.
    """
    store = _object_store(settings)
    try:
        store.check()
    except ObjectStoreRefused as error:
        raise SettingsError(f"BULK_SWITCH_OBJECT_STORE_URL: {error}") from None
    except ObjectStoreUnavailable as error:
        _log.warning("the object store does not answer yet: %s", error)
    return store


def provision_object_store(settings: Settings) -> None:
    """Make what the object store needs before the first put; raises SettingsError, ObjectStoreUnavailable."""
    try:
        _object_store(settings).provision()
    except ObjectStoreRefused as error:
        raise SettingsError(f"BULK_SWITCH_OBJECT_STORE_URL: {error}") from None


def _object_store(settings: Settings) -> ObjectStore:
    limits = S3Limits(
        attempt_timeout_ms=settings.object_store_attempt_timeout_ms,
        connect_timeout_ms=settings.object_store_connect_timeout_ms,
        attempts_max=settings.object_store_attempts_max,
        connections_max=settings.object_store_connections_max,
    )
    try:
        if settings.object_store_ca_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.object_store_ca_file)
    except (OSError, ValueError):
        raise SettingsError(
            f"BULK_SWITCH_OBJECT_STORE_CA_FILE: {settings.object_store_ca_file}: no certificates in PEM"
        ) from None
    try:
        return open_object_store(
            settings.object_store_absolute_url,
            access_key=settings.object_store_access_key,
            secret_key=settings.object_store_secret_key.get_secret_value(),
            ca_file=Path(settings.object_store_ca_file) if settings.object_store_ca_file else None,
            limits=limits,
        )
    except ValueError as error:
        # The URL may come from a running world's world.json, which holds no credentials.
        raise SettingsError(f"BULK_SWITCH_OBJECT_STORE_URL: {error}") from None


@contextmanager
def opened_stream(settings: Settings, engine: Engine) -> Iterator[Stream]:
    """The settings' stream; the engine is for the one that lives in the database. Raises SettingsError."""
    try:
        stream = open_stream(
            settings.stream_url,
            engine,
            replication_factor=settings.kafka_replication_factor,
            session_timeout_ms=settings.kafka_session_timeout_ms,
            partitions_kept_ms=settings.partitions_kept_ms,
            security=kafka_security(settings),
        )
    except ValueError as error:
        raise SettingsError(f"BULK_SWITCH_STREAM_URL: {error}") from None
    try:
        yield stream
    finally:
        stream.close()


def kafka_security(settings: Settings) -> KafkaSecurity:
    """Who we are to the brokers and whom we trust; raises SettingsError for files that do not hold what they should.

    Looked at here because the client would say less, and the consumer's would say it only in its log.
    """
    if settings.kafka_security_protocol.endswith("SSL"):
        _require_fitting(settings)
    return KafkaSecurity(
        protocol=settings.kafka_security_protocol,
        ca_file=settings.kafka_ca_file,
        certificate_file=settings.kafka_certificate_file,
        key_file=settings.kafka_key_file,
        key_password=settings.kafka_key_password.get_secret_value(),
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=settings.kafka_sasl_password.get_secret_value(),
    )


def _require_fitting(settings: Settings) -> None:
    """Authorities, certificate and key can be loaded, and the key is the certificate's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if settings.kafka_ca_file:
            context.load_verify_locations(settings.kafka_ca_file)
    except (OSError, ValueError):
        raise SettingsError(f"BULK_SWITCH_KAFKA_CA_FILE: {settings.kafka_ca_file}: no certificates in PEM") from None
    try:
        if settings.kafka_certificate_file:
            # Never asks at the terminal: an empty passphrase is a wrong one.
            password = settings.kafka_key_password.get_secret_value
            context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file, password)
    except (OSError, ValueError):
        raise SettingsError(
            f"BULK_SWITCH_KAFKA_KEY_FILE: {settings.kafka_key_file}: no key in PEM that belongs to "
            f"{settings.kafka_certificate_file} and that KAFKA_KEY_PASSWORD opens"
        ) from None


def make_topics(settings: Settings, engine: Engine) -> None:
    """Make the topics of the catalogue that are missing; what is there stays as it is (operations/topics.py)."""
    with opened_stream(settings, engine) as stream:
        stream.create_topics(wanted_topics(settings))
