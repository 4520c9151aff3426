"""Every setting of the switch: one class, read once, passed down as plain values.

A setting `batch_items` is the environment variable BULK_SWITCH_BATCH_ITEMS. Three URLs choose the world: the database,
the stream and the object store; left alone, all three live in the data folder of this machine. Every limit carries its
unit in its name, its default and the reason for it. A wrong value raises SettingsError with one line per mistake, and a
name that is no setting but looks like one is told to whoever starts the program (`unknown_names`).

The settings stand in the module of what they are about: connections, security, topics, edge, scheme, loop, callbacks,
watching. What must hold between two of them is checked here. Secrets may come from files (secret_files).
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from operations.settings.callbacks import CallbackSettings
from operations.settings.connections import ConnectionSettings
from operations.settings.edge import EdgeSettings
from operations.settings.loop import LoopSettings
from operations.settings.scheme import RetentionSettings, SchemeSettings
from operations.settings.secret_files import SUFFIX, SecretFiles, comes_from_file
from operations.settings.security import SecuritySettings
from operations.settings.topics import TopicSettings
from operations.settings.types import PREFIX, SettingsError
from operations.settings.watching import WatchingSettings

__all__ = ["Settings", "SettingsError", "environment_of", "read_settings", "unknown_names"]

# Between the end of an attempt and the record of it.
_LEASE_MARGIN_MS = 1_000


class Settings(
    ConnectionSettings,
    SecuritySettings,
    TopicSettings,
    WatchingSettings,
    EdgeSettings,
    SchemeSettings,
    LoopSettings,
    CallbackSettings,
    RetentionSettings,
    BaseSettings,
):
    """What can be set. Defaults are for one small machine; docs/operating.md says what to change for a real one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line, files of secrets, the environment; the first that says something is heard."""
        return init_settings, SecretFiles(settings_cls), env_settings

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
        if self.in_flight_transfers_max < self.items_per_bulk_max + self.in_flight_single_transfers_of_all_min:
            raise ValueError(
                f"{PREFIX}IN_FLIGHT_TRANSFERS_MAX must not be less than ITEMS_PER_BULK_MAX and "
                "IN_FLIGHT_SINGLE_TRANSFERS_OF_ALL_MIN together, else the largest bulk is never taken in"
            )
        if self.request_bytes_in_flight_max - self.answer_bytes_in_flight_min < self.body_bytes_max:
            raise ValueError(
                f"{PREFIX}REQUEST_BYTES_IN_FLIGHT_MAX must not be less than BODY_BYTES_MAX and "
                "ANSWER_BYTES_IN_FLIGHT_MIN together, else the largest bulk is never taken in"
            )
        if self.answers_in_flight_min >= self.requests_in_flight_max:
            raise ValueError(f"{PREFIX}ANSWERS_IN_FLIGHT_MIN must be less than REQUESTS_IN_FLIGHT_MAX")
        if self.object_store_attempts_max * self.object_store_attempt_timeout_ms > self.publish_wait_ms:
            raise ValueError(
                f"{PREFIX}OBJECT_STORE_ATTEMPTS_MAX times OBJECT_STORE_ATTEMPT_TIMEOUT_MS must not exceed PUBLISH_WAIT_MS, "
                "else the edge gives up before the last attempt"
            )
        if self.in_flight_refresh_ms > self.in_flight_stale_ms:
            raise ValueError(f"{PREFIX}IN_FLIGHT_REFRESH_MS must not exceed IN_FLIGHT_STALE_MS")
        if (self.kafka_min_insync_replicas or 1) > self.kafka_replication_factor:
            raise ValueError(
                f"{PREFIX}KAFKA_MIN_INSYNC_REPLICAS must not exceed KAFKA_REPLICATION_FACTOR, else no record is ever taken"
            )
        if self.callback_first_pause_ms > self.callback_longest_pause_ms:
            raise ValueError(f"{PREFIX}CALLBACK_FIRST_PAUSE_MS must not exceed CALLBACK_LONGEST_PAUSE_MS")
        if self.callbacks_per_fsp_max > self.callbacks_at_once_max:
            raise ValueError(f"{PREFIX}CALLBACKS_PER_FSP_MAX must not exceed CALLBACKS_AT_ONCE_MAX")
        return self

    @property
    def internal_addresses(self) -> str:
        """Where callbacks may go besides the public internet; the embedded world's FSPs are on this machine."""
        return self.callback_internal_addresses or ("none" if self.database_url else "loopback")


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
    known |= {
        f"{name.upper()}{SUFFIX}" for name, field in Settings.model_fields.items() if comes_from_file(name, field)
    }
    lines = []
    for name in sorted(environment):
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and short not in known:
            close = difflib.get_close_matches(short, known, n=1, cutoff=0.8)
            lines += [f"{name} is no setting; did you mean {PREFIX}{close[0]}?"] if close else []
    return lines


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for processes that are started with them.

    Secrets are handed over as they are: the files they came from need not be readable to the processes, too.
    """
    variables = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if comes_from_file(name, field):
            variables[f"{PREFIX}{name.upper()}{SUFFIX}"] = ""
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            variables[f"{PREFIX}{name.upper()}"] = str(value)
    return variables
