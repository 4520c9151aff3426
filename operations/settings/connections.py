"""Which world it is: the three URLs of the database, the stream and the object store, and what connecting to them takes."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, field_validator

from operations.settings.types import Count, Milliseconds


class ConnectionSettings(BaseModel):
    """Left alone, all three live in the data folder of this machine."""

    database_url: str = Field("", description="postgresql://…; empty: PostgreSQL from a wheel, in the data folder")
    stream_url: str = Field(
        "table:", description="table: (a log in the database), or kafka://host:9092,host:9092[/namespace]"
    )
    object_store_url: str = Field("", description="a folder or file:///folder; empty: objects/ in the data folder")
    data_folder: Path = Field(Path(".bulk-switch"), description="where the embedded world keeps everything")
    # How many brokers keep each record (3 in production), and how long a member may be silent before its partitions go to
    # others; a killed one that starts again gets them back at once, whatever this says.
    kafka_replication_factor: Count = 1
    kafka_session_timeout_ms: Milliseconds = 6_000

    @field_validator("stream_url")
    @classmethod
    def _known_stream(cls, value: str) -> str:
        if value != "table:" and not (value.startswith("kafka://") and len(value) > len("kafka://")):
            raise ValueError("must be table: or kafka://host:port,host:port")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
            raise ValueError("must begin with postgresql:// or be empty")
        return value

    @field_validator("object_store_url")
    @classmethod
    def _known_object_store(cls, value: str) -> str:
        if "://" in value and not value.startswith("file:///"):
            raise ValueError("must be a folder or file:///folder")
        return value

    @property
    def object_store_folder(self) -> Path:
        """The folder that the object store's URL means."""
        if not self.object_store_url:
            return self.data_folder.absolute() / "objects"
        if self.object_store_url.startswith("file:"):
            return Path(unquote(urlsplit(self.object_store_url).path))
        return Path(self.object_store_url).absolute()
