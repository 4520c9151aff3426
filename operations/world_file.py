"""world.json in the data folder: what runs where, so that every other command finds the running world by itself.

Written by `bulk-switch up` whenever a process was started, to a temporary name and renamed, so that a reader sees all
of one version, and readable by its user alone. No password is ever in it: commands that need the database's take it from
BULK_SWITCH_DATABASE_PASSWORD, its file, or libpq's own ~/.pgpass. It may outlive a world that was killed; whoever reads it
finds out by asking the database it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from operations.settings import Settings

NAME = "world.json"
TARGETS_NAME = "prometheus-targets.json"


class NoWorld(Exception):
    """No world runs in this data folder, as far as its world.json says."""


@dataclass(frozen=True, slots=True)
class World:
    """URLs are those that other processes of this machine use; `processes` are the pids of this moment."""

    database_url: str
    stream_url: str
    object_store_url: str
    fspiop_url: str
    admin_url: str
    internal_addresses: str
    supervisor: int
    processes: dict[str, int]
    logs: dict[str, str]
    health: dict[str, str]
    ready: bool
    metrics: dict[str, str] = field(default_factory=dict)


def write_world(data_folder: Path, world: World) -> None:
    temporary = data_folder / f".{NAME}"
    temporary.unlink(missing_ok=True)
    # It holds no secret, but says where everything is.
    temporary.touch(mode=0o600)
    temporary.write_bytes(orjson.dumps(world, option=orjson.OPT_INDENT_2))
    temporary.replace(data_folder / NAME)


def write_targets(data_folder: Path, metrics: Mapping[str, str]) -> None:
    """The processes as Prometheus finds them by file (deploy/prometheus/prometheus.yml)."""
    targets = [
        {"targets": [urlsplit(url).netloc], "labels": {"process": name}} for name, url in sorted(metrics.items())
    ]
    temporary = data_folder / f".{TARGETS_NAME}"
    temporary.write_bytes(orjson.dumps(targets, option=orjson.OPT_INDENT_2))
    temporary.replace(data_folder / TARGETS_NAME)


def remove_world(data_folder: Path) -> None:
    (data_folder / NAME).unlink(missing_ok=True)
    (data_folder / TARGETS_NAME).unlink(missing_ok=True)


def read_world(data_folder: Path) -> World:
    """Raises NoWorld."""
    path = data_folder / NAME
    try:
        return World(**orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        raise NoWorld(f"no world runs in {data_folder}: start one with `bulk-switch up`") from None
    except (orjson.JSONDecodeError, TypeError):
        raise NoWorld(f"{path} was written by another release; start the world again with `bulk-switch up`") from None


def settings_of_world(settings: Settings) -> Settings:
    """The settings to reach the running world with: the given database's, or else those of the data folder's world.

    Raises NoWorld.
    """
    if settings.database_url:
        return settings
    world = read_world(settings.data_folder)
    return settings.model_copy(
        update={
            "database_url": world.database_url,
            "stream_url": world.stream_url,
            "object_store_url": world.object_store_url,
            "callback_internal_addresses": world.internal_addresses,
        }
    )
