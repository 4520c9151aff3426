"""Bring a database to the newest schema, or say how it differs from the tables."""

from importlib.resources import files

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from db.reference_data import write_reference_data
from db.tables import metadata

# Two migrators at once wait for each other on this advisory lock ("bulk" in ASCII).
_MIGRATION_LOCK = 0x62756C6B


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("db") / "migrations"))
    config.set_main_option("file_template", "%%(year)d%%(month).2d%%(day).2d_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def migrate(engine: Engine) -> str:
    """Run every migration that is missing, then write the reference data; returns the revision reached."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.commit()
        try:
            command.upgrade(_config(connection), "head")
            write_reference_data(connection)
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
            connection.commit()
    return newest_revision()


def newest_revision() -> str:
    """The revision this release needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def differences(engine: Engine) -> list[object]:
    """What Alembic's autogenerate would change to make the database equal to `db.tables`; [] when nothing."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))


def write_revision(engine: Engine, message: str) -> None:
    """For developers: write a new migration from the difference between the tables and the database."""
    with engine.connect() as connection:
        command.revision(_config(connection), message=message, autogenerate=True)
