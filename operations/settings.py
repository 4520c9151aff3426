"""Every setting of the switch: one class, read once, passed down as plain values.

A setting `batch_items` is the environment variable BULK_SWITCH_BATCH_ITEMS. Three URLs choose the world: the database,
the stream and the object store; left alone, all three live in the data folder of this machine. Every limit carries its
unit in its name, its default and the reason for it. A wrong value raises SettingsError with one line per mistake, and a
name that is no setting but looks like one is told to whoever starts the program (`unknown_names`).
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.callback_addresses import allowed_addresses

PREFIX = "BULK_SWITCH_"

Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
# More than the two days by which retention stays behind whatever is under way (operations/retention.py).
Days = Annotated[int, Field(ge=3, le=36_500)]

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

# The handlers that share a process in `bulk-switch up`, a group per process. The two that decide about money and outcomes
# have one each. Four processes took 4–20 % less CPU a transfer than two, whose threads wait for each other's interpreter.
_HANDLER_GROUPS = (
    "bulk-prepare,bulk-fulfil,bulk-get,timeout prepare,fulfil position,notification bulk-processing"
    " single-prepare,single-position,single-fulfil,single-notification,transfer-get"
)

# Between the end of an attempt and the record of it.
_LEASE_MARGIN_MS = 1_000


class SettingsError(Exception):
    """One line per wrong setting, for the person who set it."""


class Settings(BaseSettings):
    """What can be set. Defaults are for one small machine; docs/operating.md says what to change for a real one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    # --- The world ---------------------------------------------------------------------------------------------------
    database_url: str = Field("", description="postgresql://…; empty: PostgreSQL from a wheel, in the data folder")
    stream_url: str = Field(
        "table:", description="table: (a log in the database), or kafka://host:9092,host:9092[/namespace]"
    )
    object_store_url: str = Field("", description="a folder or file:///folder; empty: objects/ in the data folder")
    data_folder: Path = Field(Path(".bulk-switch"), description="where the embedded world keeps everything")
    log_level: LogLevel = Field("INFO", description="the least severe lines that are written")

    # --- Where it listens --------------------------------------------------------------------------------------------
    # Loopback, because neither app asks who calls: where others can reach them, a gateway with TLS stands before them.
    fspiop_host: str = "127.0.0.1"
    # The bulk API adapter's usual port, so that simulators and test suites of the ecosystem find it.
    fspiop_port: Port = 3003
    admin_host: str = "127.0.0.1"
    # The admin API's usual port.
    admin_port: Port = 3001
    # Empty: the admin app asks for no token (it listens on loopback); anything else must come as `Bearer …`.
    admin_token: SecretStr = SecretStr("")

    # --- Signatures --------------------------------------------------------------------------------------------------
    # Of what FSPs send: not looked at, checked where there is one, or asked for on every POST and PUT (a GET has none).
    signatures: Literal["off", "optional", "required"] = "off"
    # A revoked key stops working within this; the keys are read in one statement, when a request needs them.
    key_refresh_ms: Milliseconds = 5_000
    # Requests whose key is not known let the keys be read again, but all of them together not more often than this.
    key_search_ms: Milliseconds = 500
    # The hub's own private key, PEM without a passphrase; empty: the hub signs nothing. Its kid is told if it has one.
    hub_key_file: str = Field("", description="the file of the key that signs callbacks")
    hub_key_id: str = ""

    # --- The edge ----------------------------------------------------------------------------------------------------
    # A bulk of 1,000 items with the largest ilpPackets stays below this; more is 3104 before it is parsed.
    body_bytes_max: Bytes = 5 * 1024 * 1024
    # A JWS and a traceparent take 2 KiB; more headers than this are someone's mistake or an attack.
    header_bytes_max: Bytes = 64 * 1024
    # FSPIOP allows 1..1000 individual transfers in a bulk; a scheme may allow fewer.
    items_per_bulk_max: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    # From a request's headers to the end of its body; a sender that takes longer is cut off.
    body_wait_ms: Milliseconds = 10_000
    # Store and stream together: a sender gives up after 3 s, so what takes longer is answered with 503/2003 before.
    publish_wait_ms: Milliseconds = 2_500
    # Requests at once, each of which may hold a body in memory; more are answered with 503/2003 at once.
    requests_in_flight_max: Count = 64
    connections_max: Count = 1_000
    # Past it a payer, and nobody else, is answered with 503/2003: 100 of the largest bulks, 20 s of work for one machine.
    in_flight_transfers_per_payer_max: Count = 100_000
    # Of these, how many only single transfers may take: the bulks that a payer queues must not keep them out (BULK-133).
    in_flight_single_transfers_min: Annotated[int, Field(ge=0)] = 1_000
    # How soon an FSP may send again after its transfers have ended; the reading takes 20 ms with 100,000 open transfers.
    in_flight_refresh_ms: Milliseconds = 500
    # A restart of the database is waited out; after that no handler works either, and no POST is taken in.
    in_flight_stale_ms: Milliseconds = 10_000

    # --- Rules of the scheme -----------------------------------------------------------------------------------------
    # Funds must not stay reserved for longer than a scheme means: an expiration beyond this is refused (3100).
    expiration_horizon_ms: Milliseconds = 30 * 24 * 60 * 60 * 1000
    # Reserve small amounts first, so that more transfers fit under a limit (BULK-11); results keep the request's order.
    ascending_amount_order: bool = False
    # How far a payee's clock may run ahead of ours in completedTimestamp.
    completed_timestamp_ahead_ms: Milliseconds = 5_000
    # How old completedTimestamp may be; empty: any age, because a bulk takes as long as its expiration allows.
    completed_timestamp_age_ms: Milliseconds | None = None

    # --- The loop ----------------------------------------------------------------------------------------------------
    handler_groups: str = Field(_HANDLER_GROUPS, description="groups of handlers, one process each: a,b c,d")
    # Items in one transaction: statements cost the same for any number, and locks are held for its time.
    batch_items: Count = 1_000
    # How long a handler waits for the first record of a batch before it looks after other things.
    batch_wait_ms: Milliseconds = 200
    # Encoded outputs of one batch, kept in its progress row: more inputs wait for the next batch.
    batch_output_bytes_max: Bytes = 16 * 1024 * 1024
    # How long a transaction stays open for the broker's acks of the batch before; then it is rolled back and retried.
    acks_wait_ms: Milliseconds = 5_000
    # With Kafka: how many brokers keep each record (3 in production), and how long a member may be silent before its
    # partitions go to others; a killed one that starts again gets them back at once, whatever this says.
    kafka_replication_factor: Count = 1
    kafka_session_timeout_ms: Milliseconds = 6_000
    # How often the timeout handler looks for what is due; it must act within a second of an expiration.
    tick_ms: Milliseconds = 250
    # A deploy that cannot read its inputs stops instead of dead-lettering everything: so many in a row, or this share.
    dead_letters_in_a_row_max: Count = 100
    dead_letter_ratio_max: Annotated[float, Field(gt=0, le=1)] = 0.1
    # How long a process may take to finish its work after SIGTERM; then it is killed, which loses nothing.
    stop_wait_ms: Milliseconds = 10_000

    # --- Callbacks ---------------------------------------------------------------------------------------------------
    # An FSP that is away is tried for hours: whichever of the two bounds is reached first makes the callback dead.
    callback_attempts_max: Count = 200
    callback_age_ms: Milliseconds = 24 * 60 * 60 * 1000
    callback_connect_timeout_ms: Milliseconds = 3_000
    callback_read_timeout_ms: Milliseconds = 8_000
    # One attempt as a whole: an FSP that sends its answer byte by byte holds no slot for longer.
    callback_timeout_ms: Milliseconds = 10_000
    # The pause doubles from the first to the longest, with jitter, so that an FSP that comes back is not run over.
    callback_first_pause_ms: Milliseconds = 500
    callback_longest_pause_ms: Milliseconds = 5 * 60 * 1000
    # Requests at once, for one FSP and for all: a slow FSP fills its own share and delays nobody else.
    callbacks_per_fsp_max: Count = 8
    callbacks_at_once_max: Count = 64
    # Endpoints may lead to the public internet only, lest an FSP's DNS points the hub at itself; what else is said here.
    callback_internal_addresses: str = Field(
        "",
        description="none, loopback, any, or networks like 10.0.0.0/8,fd00::/8; empty: loopback in the embedded world, "
        "none where a database is given",
    )
    # After this a callback that was claimed by a deliverer which died is claimed again.
    callback_lease_ms: Milliseconds = 15_000

    # --- Retention (`bulk-switch retention`) -------------------------------------------------------------------------
    # Callbacks that are delivered or dead, with their attempts; a dead one can be sent again as long as it is kept.
    callbacks_kept_days: Days = 90
    # Requests and results of bulks and transfers that have ended; after it a GET shows the state without the list.
    objects_kept_days: Days = 90
    # Requests that never became a bulk or a transfer: twice the time for which a topic keeps a record that was read.
    orphans_kept_days: Days = 14
    # As long as the dead-letter topics of the catalogue are kept by a broker.
    dead_letters_kept_days: Days = 90

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

    @field_validator("callback_internal_addresses")
    @classmethod
    def _known_addresses(cls, value: str) -> str:
        if value:
            allowed_addresses(value)
        return value

    @field_validator("handler_groups")
    @classmethod
    def _some_handlers(cls, value: str) -> str:
        names = value.replace(",", " ").split()
        if not names:
            raise ValueError("names no handler")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} more than once")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.callback_lease_ms < self.callback_timeout_ms + _LEASE_MARGIN_MS:
            raise ValueError(
                f"{PREFIX}CALLBACK_LEASE_MS must be at least {_LEASE_MARGIN_MS} ms longer than CALLBACK_TIMEOUT_MS, "
                "else a callback that is still on its way is sent a second time"
            )
        if self.in_flight_transfers_per_payer_max < self.items_per_bulk_max + self.in_flight_single_transfers_min:
            raise ValueError(
                f"{PREFIX}IN_FLIGHT_TRANSFERS_PER_PAYER_MAX must not be less than ITEMS_PER_BULK_MAX and "
                "IN_FLIGHT_SINGLE_TRANSFERS_MIN together, else the largest bulk is never taken in"
            )
        if self.in_flight_refresh_ms > self.in_flight_stale_ms:
            raise ValueError(f"{PREFIX}IN_FLIGHT_REFRESH_MS must not exceed IN_FLIGHT_STALE_MS")
        if self.callback_first_pause_ms > self.callback_longest_pause_ms:
            raise ValueError(f"{PREFIX}CALLBACK_FIRST_PAUSE_MS must not exceed CALLBACK_LONGEST_PAUSE_MS")
        if self.callbacks_per_fsp_max > self.callbacks_at_once_max:
            raise ValueError(f"{PREFIX}CALLBACKS_PER_FSP_MAX must not exceed CALLBACKS_AT_ONCE_MAX")
        return self

    @property
    def object_store_folder(self) -> Path:
        """The folder that the object store's URL means."""
        if not self.object_store_url:
            return self.data_folder.absolute() / "objects"
        if self.object_store_url.startswith("file:"):
            return Path(unquote(urlsplit(self.object_store_url).path))
        return Path(self.object_store_url).absolute()

    @property
    def internal_addresses(self) -> str:
        """Where callbacks may go besides the public internet; the embedded world's FSPs are on this machine."""
        return self.callback_internal_addresses or ("none" if self.database_url else "loopback")

    @property
    def groups(self) -> list[list[str]]:
        """The handlers of each process."""
        return [[name for name in group.split(",") if name] for group in self.handler_groups.split()]


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with `overrides` (from the command line) over them; raises SettingsError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(line, given) for line in error.errors())) from None


def _explain(line: Any, given: Mapping[str, object]) -> str:
    message = line["msg"].removeprefix("Value error, ")
    if not line["loc"]:
        return str(message)
    name = str(line["loc"][0])
    shown = f"--{name.replace('_', '-')}" if name in given else f"{PREFIX}{name.upper()}"
    return f"{shown}: {message[0].lower()}{message[1:]}"


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """A line for every BULK_SWITCH_… that is nearly a setting: a typing error must not go unnoticed.

    Other names are left alone: scripts have their own, and an older release may run beside a newer one's settings.
    """
    known = {name.upper() for name in Settings.model_fields}
    lines = []
    for name in sorted(environment):
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short not in known:
            close = difflib.get_close_matches(short, known, n=1, cutoff=0.8)
            lines += [f"{name} is no setting; did you mean {PREFIX}{close[0]}?"] if close else []
    return lines


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for processes that are started with them."""
    variables = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            variables[f"{PREFIX}{name.upper()}"] = str(value)
    return variables
