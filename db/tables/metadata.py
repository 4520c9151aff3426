"""What all tables share: the naming convention, and the types of amounts and times."""

from sqlalchemy import (
    Column,
    MetaData,
    Numeric,
    func,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

AMOUNT = Numeric(22, 4)
INSTANT = TIMESTAMP(timezone=True)


def created_date() -> Column[object]:
    return Column("created_date", INSTANT, nullable=False, server_default=func.now())
