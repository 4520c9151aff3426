"""`bulk-switch` as of a later release: its TransferPrepare has a further field, with a default, in schema version 2.

`python -m tests.chaos.newer_release handler prepare …` is what `bulk-switch handler prepare …` would be there. The message
and its schema are put in place before anything that knows them is loaded; all else is this release's own code.
"""

import dataclasses
from typing import Any, Final

from schemas import codec, messages

FIELD: Final = "corridor"
DEFAULT: Final = "unknown"
# What this release's own handlers do not know to say, its newer dataclass says for them.
WRITTEN: Final = "domestic"


def newer_schema(newest: dict[str, Any]) -> dict[str, Any]:
    """The schema of version 2, which follows from version 1: a field more, with a default for what was written before."""
    return newest | {"fields": [*newest["fields"], {"name": FIELD, "type": "string", "default": DEFAULT}]}


def install() -> None:
    """Make this process one of the later release; called before handlers, topics and codecs are imported."""
    older = messages.TransferPrepare
    fields = [(one.name, one.type) for one in dataclasses.fields(older)]
    newer = dataclasses.make_dataclass(
        older.__name__, [*fields, (FIELD, str, dataclasses.field(default=WRITTEN))], frozen=True, slots=True
    )
    messages.TransferPrepare = newer  # type: ignore[misc, assignment]  # what this module is for
    versions_before = codec.schema_versions

    def versions(message: type[messages.Message]) -> list[dict[str, Any]]:
        found = versions_before(message)
        return [*found, newer_schema(found[-1])] if message is newer else found

    codec.schema_versions = versions


if __name__ == "__main__":
    install()
    from operations.command_line import main

    main()
