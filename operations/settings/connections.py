"""Which world it is: the three URLs of the database, the stream and the object store, and what connecting to them takes."""

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from object_store.url import SCHEME, read_url
from operations.settings.security import checked_database_url, readable
from operations.settings.types import PREFIX, Count, Milliseconds


class ConnectionSettings(BaseModel):
    """Left alone, all three live in the data folder of this machine."""

    database_url: str = Field("", description="postgresql://…; empty: PostgreSQL from a wheel, in the data folder")
    stream_url: str = Field(
        "table:", description="table: (a log in the database), or kafka://host:9092,host:9092[/namespace]"
    )
    object_store_url: str = Field(
        "",
        description="a folder, file:///folder or s3://host[:port]/bucket[/prefix][?secure=false&region=…]; "
        "empty: objects/ in the data folder",
    )
    data_folder: Path = Field(Path(".bulk-switch"), description="where the embedded world keeps everything")
    # How many brokers keep each record (3 in production), and how long a member may be silent before its partitions go to
    # others; a killed one that starts again gets them back at once, whatever this says.
    kafka_replication_factor: Count = 1
    kafka_session_timeout_ms: Milliseconds = 6_000
    # Who we are to the S3 server, and whom we trust to be it.
    object_store_access_key: str = ""
    object_store_secret_key: SecretStr = SecretStr("")
    object_store_ca_file: str = Field("", description="PEM; empty: the authorities that this machine trusts")
    # One attempt at one object, of which so much to connect. All attempts together stay below PUBLISH_WAIT_MS, else the edge
    # has given up before the second one could help; two, because the first may meet a connection that has just died.
    object_store_attempt_timeout_ms: Milliseconds = 1_100
    object_store_connect_timeout_ms: Milliseconds = 500
    object_store_attempts_max: Count = 2
    # Per process: more than the threads that ask at once (13 of the edge, the handlers of a process, callbacks at once).
    object_store_connections_max: Count = 64

    @field_validator("stream_url")
    @classmethod
    def _known_stream(cls, value: str) -> str:
        if value != "table:" and not (value.startswith("kafka://") and len(value) > len("kafka://")):
            raise ValueError("must be table: or kafka://host:port,host:port")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        return checked_database_url(value) if value else ""

    @field_validator("object_store_url")
    @classmethod
    def _known_object_store(cls, value: str) -> str:
        if value:
            read_url(value)
        return value

    @field_validator("object_store_ca_file")
    @classmethod
    def _readable_object_store_ca(cls, value: str) -> str:
        return readable(value)

    @model_validator(mode="after")
    def _object_store_fits_together(self) -> "ConnectionSettings":
        given = {
            "OBJECT_STORE_ACCESS_KEY": self.object_store_access_key,
            "OBJECT_STORE_SECRET_KEY": self.object_store_secret_key.get_secret_value(),
        }
        for name, value in given.items():
            if self.object_store_url.startswith(SCHEME) and not value:
                raise ValueError(f"{PREFIX}{name}: is needed with an OBJECT_STORE_URL of {SCHEME}…")
        return self

    @property
    def object_store_absolute_url(self) -> str:
        """The object store's URL for any process of this machine, wherever it was started."""
        if self.object_store_url.startswith(SCHEME):
            return self.object_store_url
        return str(read_url(self.object_store_url or str(self.data_folder.absolute() / "objects")))
