"""Secrets from files: BULK_SWITCH_<NAME>_FILE names a file that holds what BULK_SWITCH_<NAME> would.

So Docker, Kubernetes and systemd hand secrets over, and so they stand neither in a unit's file nor in what `docker inspect`
shows. Every setting that is a secret may come this way, and the database's URL, which may carry a password. One line end
after the content is an editor's and is left out. Given twice, not readable, empty, longer than a secret can be, more than
a line: SettingsError with the variable's name and the file's, never with what is in it. An empty variable is none.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from operations.settings.types import PREFIX, SettingsError

SUFFIX = "_FILE"
# A URL with everything in it; a private key is never a setting, but a file of its own.
_BYTES_MAX = 8 * 1024
# Besides whatever is a SecretStr.
_MAY_CARRY_A_SECRET = frozenset({"database_url"})


def comes_from_file(name: str, field: FieldInfo) -> bool:
    """Whether BULK_SWITCH_<NAME>_FILE means anything."""
    return field.annotation is SecretStr or name in _MAY_CARRY_A_SECRET


class SecretFiles(PydanticBaseSettingsSource):
    """The settings that files hold; stands beside the environment."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}"
        path = os.environ.get(variable + SUFFIX, "") if comes_from_file(field_name, field) else ""
        if not path:
            return None, field_name, False
        if os.environ.get(variable):
            raise SettingsError(f"{variable}{SUFFIX}: {variable} is given, too; one of them is enough")
        return secret_in(Path(path), variable + SUFFIX), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in _fields(self.settings_cls).items()}
        return {name: value for name, value in found.items() if value is not None}


def secret_in(path: Path, variable: str) -> str:
    """What the file holds; raises SettingsError, which names the variable and never the content."""
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"{variable}: {path}: {error.strerror}") from None
    if len(content) > _BYTES_MAX:
        raise SettingsError(f"{variable}: {path}: longer than {_BYTES_MAX} bytes")
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path}: no text in UTF-8") from None
    if not text:
        raise SettingsError(f"{variable}: {path}: the file is empty")
    if "\n" in text or "\0" in text:
        raise SettingsError(f"{variable}: {path}: more than one line")
    return text


def _fields(settings: type[BaseSettings]) -> dict[str, FieldInfo]:
    return settings.model_fields
