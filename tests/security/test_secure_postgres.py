"""The database over TLS with a password of its own, and connections that do not outlive a server that vanished."""

import socket

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from db.database_url import split_password
from db.engine import connection_parameters, make_engine
from deploy.services import PostgresService
from operations.opening import opened_engine
from operations.settings import read_settings
from tests.security.conftest import Certificates

pytestmark = pytest.mark.services


def failure(engine: Engine) -> str:
    with pytest.raises(OperationalError) as raised:
        engine.connect()
    engine.dispose()
    return str(raised.value)


def test_a_connection_is_verified_encrypted_and_given_up_when_the_server_vanishes(
    secure_postgres: PostgresService, certificates: Certificates
) -> None:
    url, password = split_password(secure_postgres.url)
    assert password == secure_postgres.password
    url += f"?sslmode=verify-full&sslrootcert={certificates.server.ca_file}"
    settings = read_settings(database_url=url, database_password=password)
    with opened_engine(settings, "tests") as engine, engine.connect() as connection:
        assert connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar_one()
        assert password not in repr(engine)
        assert connection_parameters(engine)["sslmode"] == "verify-full"
        # A machine that is gone answers nothing: without these a process would wait for hours.
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=driver.fileno()) as link:
            try:
                assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                assert [link.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3, 20_000]
            finally:
                # The descriptor is the driver's.
                link.detach()


def test_what_the_url_says_about_patience_stands_above_the_engines_own(secure_postgres: PostgresService) -> None:
    engine = make_engine(f"{secure_postgres.url}?keepalives_idle=77&connect_timeout=3", application_name="tests")
    parameters = connection_parameters(engine)
    assert (parameters["keepalives_idle"], parameters["connect_timeout"]) == ("77", "3")
    assert parameters["keepalives_count"] == "3"


def test_what_is_wrong_is_told_and_the_password_is_not(
    secure_postgres: PostgresService, certificates: Certificates
) -> None:
    url, password = split_password(secure_postgres.url)
    verified = f"{url}?sslmode=verify-full&sslrootcert="
    right, other = certificates.server.ca_file, certificates.other_ca_file
    by_name = verified.replace("127.0.0.1", "127.0.0.2") + str(right)
    mistakes = {
        "password authentication failed": make_engine(
            verified + str(right), application_name="t", password="wrong-mark"
        ),
        "no password supplied": make_engine(verified + str(right), application_name="t"),
        "certificate verify failed": make_engine(verified + str(other), application_name="t", password=password),
        "does not match host name": make_engine(
            by_name.replace("?", "?hostaddr=127.0.0.1&"), application_name="t", password=password
        ),
    }
    for told, engine in mistakes.items():
        text_of_failure = failure(engine)
        assert told in text_of_failure
        assert password not in text_of_failure
        assert "wrong-mark" not in text_of_failure
