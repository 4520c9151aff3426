"""Every setting of the switch: one class, read once, passed down as plain values.

A setting `batch_items` is the environment variable BULK_SWITCH_BATCH_ITEMS. Three URLs choose the world: the database,
the stream and the object store; left alone, all three live in the data folder of this machine. Every limit carries its
unit in its name, its default and the reason for it. A wrong value raises SettingsError with one line per mistake, and a
name that is no setting but looks like one is told to whoever starts the program (`unknown_names`).

The settings stand in the module of what they are about: connections, edge, scheme, loop, callbacks, watching. What must
hold between two of them is checked here.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from operations.settings.callbacks import CallbackSettings
from operations.settings.connections import ConnectionSettings
from operations.settings.edge import EdgeSettings
from operations.settings.loop import LoopSettings
from operations.settings.scheme import RetentionSettings, SchemeSettings
from operations.settings.types import PREFIX
from operations.settings.watching import WatchingSettings

# Between the end of an attempt and the record of it.
_LEASE_MARGIN_MS = 1_000


class SettingsError(Exception):
    """One line per wrong setting, for the person who set it."""


class Settings(
    ConnectionSettings,
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
