"""What tests of callbacks share: participants, notifications, rows written by the real handler, an impatient deliverer."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, event, text

from db.deliveries import Claim, claim_deliveries
from domain.combinations import BULK_FINAL, BULK_FINAL_ERROR, BULK_FORWARD, BULK_GET_ANSWER, Combination
from domain.delivery import Resource, RetryLimits
from handlers.deliverer import DelivererSettings
from handlers.delivery_client import ClientLimits
from handlers.notification import NotificationHandler
from schemas.callback_addresses import LOOPBACK
from schemas.callbacks import ENDPOINT_TYPES
from schemas.messages import Notification

# The receivers of the tests are on this machine.
CLIENT = ClientLimits(allowed=LOOPBACK)
SETTINGS = DelivererSettings(
    client=CLIENT,
    idle_poll_ms=100,
    database_retry_ms=50,
    retry=RetryLimits(backoff_first_ms=5, backoff_max_ms=40),
)
ALL_DELIVERED = "SELECT count(*) > 0 AND bool_and(state = 'DELIVERED') FROM delivery"
ALL_FINISHED = "SELECT count(*) > 0 AND bool_and(state <> 'WAITING') FROM delivery"
PUT_BODY = b'{"bulkTransferState":"COMPLETED","completedTimestamp":"2026-11-03T07:05:09.000Z"}'
ERROR_BODY = b'{"errorInformation":{"errorCode":"3106","errorDescription":"Modified request"}}'

PATHS = {"POST": "/bulkTransfers", "PUT": "/bulkTransfers/{{id}}", "PUT_ERROR": "/bulkTransfers/{{id}}/error"}


def add_participant(engine: Engine, name: str, url: str | None = None, *, is_active: bool = True) -> None:
    """A participant, with its three bulk endpoints below `url` if there is one."""
    with engine.begin() as tx:
        number = tx.execute(
            text(
                "INSERT INTO participant (name, is_active, created_by) VALUES (:name, :is_active, 'tests')"
                " RETURNING participant_id"
            ),
            {"name": name, "is_active": is_active},
        ).scalar_one()
        for (resource, callback), (endpoint_type, *_) in ENDPOINT_TYPES.items() if url is not None else ():
            if resource != Resource.BULK_TRANSFERS:
                continue
            tx.execute(
                text("INSERT INTO participant_endpoint (participant_id, type, value) VALUES (:number, :type, :value)"),
                {"number": number, "type": endpoint_type, "value": f"{url}{PATHS[callback]}"},
            )


def notification(
    combination: Combination,
    to: str,
    content: str = "content/00/none",
    *,
    bulk_transfer_id: UUID | None = None,
    callback: str = "PUT",
    request_id: UUID | None = None,
    not_after_ms: int | None = None,
) -> Notification:
    return Notification(
        type=combination.type,
        action=combination.action,
        status=combination.status,
        bulk_transfer_id=(bulk_transfer_id or uuid4()).bytes,
        to=to,
        callback=callback,
        content=content,
        request_id=None if request_id is None else request_id.bytes,
        not_after_ms=not_after_ms,
    )


def final(to: str, content: str = "content/00/none", bulk_transfer_id: UUID | None = None) -> Notification:
    return notification(BULK_FINAL, to, content, bulk_transfer_id=bulk_transfer_id)


def final_error(to: str, content: str, bulk_transfer_id: UUID | None = None) -> Notification:
    return notification(BULK_FINAL_ERROR, to, content, bulk_transfer_id=bulk_transfer_id, callback="PUT_ERROR")


def answer_to_get(to: str, content: str = "content/00/none", bulk_transfer_id: UUID | None = None) -> Notification:
    return notification(BULK_GET_ANSWER, to, content, bulk_transfer_id=bulk_transfer_id, request_id=uuid4())


def forward(
    to: str, content: str = "content/00/none", bulk_transfer_id: UUID | None = None, not_after_ms: int | None = None
) -> Notification:
    return notification(
        BULK_FORWARD, to, content, bulk_transfer_id=bulk_transfer_id, callback="POST", not_after_ms=not_after_ms
    )


def write(engine: Engine, *messages: Notification) -> None:
    """Let the notification handler write the messages down."""
    with engine.begin() as tx:
        assert NotificationHandler().handle(tx, messages) == []


def claim(
    engine: Engine, *, claims_max: int = 100, per_fsp_max: int = 100, lease_ms: int = 60_000, **in_flight: int
) -> Claim:
    with engine.begin() as tx:
        return claim_deliveries(
            tx, claims_max=claims_max, per_fsp_max=per_fsp_max, in_flight=in_flight, lease_ms=lease_ms
        )


def rows(engine: Engine, query: str, **parameters: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), parameters).mappings()]


def wait_until(engine: Engine, query: str, timeout_s: float = 60, **parameters: Any) -> None:
    """Return once the query's single value is true; a wait inside the database, not a guess at how long things take."""
    deadline = monotonic() + timeout_s
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text(query), parameters).scalar_one():
            assert monotonic() < deadline, f"not true within {timeout_s} s: {query}"
            connection.execute(text("SELECT pg_sleep(0.01)"))


def count_statements(engine: Engine, work: Callable[[], object]) -> list[str]:
    """The statements that `work` sends to the database."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Sequence[Any]) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return statements
