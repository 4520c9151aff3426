"""What operators see of the processes: their log lines."""

from typing import Literal

from pydantic import BaseModel, Field

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class WatchingSettings(BaseModel):
    """Logs."""

    log_level: LogLevel = Field("INFO", description="the least severe lines that are written")
