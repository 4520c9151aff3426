"""How a process gets its parts from the settings: the database, the object store, the stream."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from db.engine import make_engine
from object_store.folder import FolderObjectStore
from operations.settings import Settings, SettingsError
from schemas.topics import CATALOGUE
from stream.interface import Stream, TopicDescription
from stream.opening import open_stream


@contextmanager
def opened_engine(settings: Settings, application_name: str, pool_size: int = 5) -> Iterator[Engine]:
    """An engine on the settings' database; closed with the block."""
    engine = make_engine(settings.database_url, application_name=application_name, pool_size=pool_size)
    try:
        yield engine
    finally:
        engine.dispose()


def make_object_store(settings: Settings) -> FolderObjectStore:
    return FolderObjectStore(settings.object_store_folder)


@contextmanager
def opened_stream(settings: Settings, engine: Engine) -> Iterator[Stream]:
    """The settings' stream; the engine is for the one that lives in the database. Raises SettingsError."""
    try:
        stream = open_stream(
            settings.stream_url,
            engine,
            replication_factor=settings.kafka_replication_factor,
            session_timeout_ms=settings.kafka_session_timeout_ms,
        )
    except ValueError as error:
        raise SettingsError(f"BULK_SWITCH_STREAM_URL: {error}") from None
    try:
        yield stream
    finally:
        stream.close()


def make_topics(settings: Settings, engine: Engine) -> None:
    """Make the topics of the catalogue that are missing."""
    with opened_stream(settings, engine) as stream:
        stream.create_topics(
            TopicDescription(topic.name, topic.partitions, topic.retention_ms) for topic in CATALOGUE.values()
        )
