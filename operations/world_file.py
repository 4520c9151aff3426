"""world.json in the data folder: what runs where, so that every other command finds the running world by itself.

Written by `bulk-switch up` whenever a process was started, to a temporary name and renamed, so that a reader sees all
of one version. It may outlive a world that was killed; whoever reads it finds out by asking the database it names.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

from operations.settings import Settings

NAME = "world.json"


class NoWorld(Exception):
    """No world runs in this data folder, as far as its world.json says."""


@dataclass(frozen=True, slots=True)
class World:
    """URLs are those that other processes of this machine use; `processes` are the pids of this moment."""

    database_url: str
    stream_url: str
    object_store_folder: str
    fspiop_url: str
    admin_url: str
    internal_addresses: str
    supervisor: int
    processes: dict[str, int]
    logs: dict[str, str]
    health: dict[str, str]
    ready: bool


def write_world(data_folder: Path, world: World) -> None:
    temporary = data_folder / f".{NAME}"
    temporary.write_bytes(orjson.dumps(world, option=orjson.OPT_INDENT_2))
    temporary.replace(data_folder / NAME)


def remove_world(data_folder: Path) -> None:
    (data_folder / NAME).unlink(missing_ok=True)


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
            "object_store_url": world.object_store_folder,
            "callback_internal_addresses": world.internal_addresses,
        }
    )
