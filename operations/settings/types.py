"""The types that settings share, the prefix of their environment variables, and what is raised for a wrong one."""

from typing import Annotated

from pydantic import Field

PREFIX = "BULK_SWITCH_"


class SettingsError(Exception):
    """One line per wrong setting, for the person who set it."""


Port = Annotated[int, Field(ge=1, le=65_535)]
Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
# More than the two days by which retention stays behind whatever is under way (operations/retention.py).
Days = Annotated[int, Field(ge=3, le=36_500)]
