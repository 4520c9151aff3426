"""What the tests of the admin resources share: a client, and an FSP with accounts, a limit and funds."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from bulk_api_adapter.admin.provision import provision_fsp, provision_hub
from domain.money import parse_amount
from tests.admin.client import AdminClient, admin_client


@pytest.fixture
def client(engine: Engine) -> Iterator[AdminClient]:
    with admin_client(engine) as client:
        yield client


@pytest.fixture
def hub(engine: Engine) -> None:
    """The hub's accounts in USD, and the default settlement model."""
    provision_hub(engine, "USD")


@pytest.fixture
def fsp(engine: Engine) -> str:
    """An FSP with a cap of 500 and funds of 1,000 USD."""
    provision_fsp(engine, "payerfsp", "USD", parse_amount("500"), parse_amount("1000"), {})
    return "payerfsp"
