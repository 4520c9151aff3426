"""The edge checks signatures with the participants' keys of the moment, and no stranger makes it hammer the database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from sqlalchemy import Engine, event

from bulk_api_adapter.admin.keys import add_key, revoke_key
from bulk_api_adapter.admin.provision import provision_fsp
from bulk_api_adapter.fspiop.authority import Authority, Signatures
from bulk_api_adapter.fspiop.key_cache import KeyCache, KeyCacheLimits, KeysUnavailable
from db.engine import make_engine
from schemas.fspiop.errors import Refusal
from tests.fspiop.requests import BULK_ID, headers, post_body
from tests.fspiop.signing import KeyPair, key_pair, request_headers, signed

BODY = orjson.dumps(post_body())
PATH = "/bulkTransfers"
LIMITS = KeyCacheLimits(refresh_ms=5_000, search_ms=500, read_wait_ms=2_000)


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Checks:
    """Requests of payerfsp, one after the other, on one event loop with one cache."""

    engine: Engine
    signatures: Signatures = Signatures.REQUIRED
    clock: Clock = field(default_factory=Clock)
    limits: KeyCacheLimits = LIMITS

    @contextmanager
    def running(self) -> Iterator[Callable[..., str | None]]:
        """Yields a call that sends a request and returns the code it was refused with, or None."""
        authority = Authority(self.engine, self.signatures)
        authority._cache = KeyCache(self.engine, self.limits, monotonic=self.clock)
        with asyncio.Runner() as runner:

            def send(
                key: KeyPair | None, method: str = "POST", path: str = PATH, body: bytes = BODY, **changes: str | None
            ) -> str | None:
                values = (
                    headers(method, **changes) if key is None else signed(key.signer, method, path, body, **changes)
                )
                return runner.run(code(authority.check(method, path, request_headers(method, values), body)))

            yield send
            authority.close()


async def code(check: Awaitable[None]) -> str | None:
    try:
        await check
    except Refusal as refusal:
        return refusal.error.code
    return None


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def fsp(engine: Engine) -> str:
    provision_fsp(engine, "payerfsp", "USD", 0, 0, {})
    return "payerfsp"


def test_old_and_new_key_count_side_by_side_until_the_old_one_is_revoked(engine: Engine, fsp: str) -> None:
    checks, old, new = Checks(engine), key_pair("old"), key_pair("new", "ES256")
    with checks.running() as send:
        assert send(old) == "3105"
        old_id = add_key(engine, fsp, old.public, actor="tests").participant_key_id
        checks.clock.now += 1
        assert (send(old), send(new)) == (None, "3105")
        add_key(engine, fsp, new.public, actor="tests")
        checks.clock.now += 1
        assert (send(old), send(new)) == (None, None)
        revoke_key(engine, fsp, old_id, actor="tests")
        assert send(old) is None, "within the bound it may still count"
        checks.clock.now += LIMITS.refresh_ms / 1000 + 0.001
        assert (send(old), send(new)) == ("3105", None)


def test_a_key_counts_from_its_beginning_to_its_end_without_another_reading(engine: Engine, fsp: str) -> None:
    now, key = datetime.now(UTC), key_pair("payerfsp")
    checks = Checks(engine, limits=KeyCacheLimits(refresh_ms=10_000_000, search_ms=10_000_000))
    begin, end = now + timedelta(hours=1), now + timedelta(hours=2)
    add_key(engine, fsp, key.public, valid_from=begin, valid_until=end, actor="tests")
    with checks.running() as send, counted(engine) as statements:
        found = []
        for _ in range(3):
            found.append(send(key))
            checks.clock.now += 3_600 + 60
        assert found == ["3105", None, "3105"]
        assert len(statements) == 1


def test_a_key_of_one_fsp_says_nothing_for_another(engine: Engine, fsp: str) -> None:
    provision_fsp(engine, "otherfsp", "USD", 0, 0, {})
    add_key(engine, fsp, key_pair("payerfsp").public, actor="tests")
    add_key(engine, "otherfsp", key_pair("otherfsp").public, actor="tests")
    with Checks(engine).running() as send:
        assert send(key_pair("otherfsp"), fspiop_source="otherfsp") is None
        assert send(key_pair("otherfsp"), fspiop_source=fsp) == "3105"
        assert send(key_pair("payerfsp"), fspiop_source="otherfsp") == "3105"


@pytest.mark.parametrize(
    ("signatures", "method", "wanted"),
    [
        (Signatures.REQUIRED, "POST", "3105"),
        (Signatures.REQUIRED, "PUT", "3105"),
        (Signatures.REQUIRED, "GET", None),
        (Signatures.OPTIONAL, "POST", None),
        (Signatures.OPTIONAL, "PUT", None),
    ],
)
def test_a_request_without_a_signature(engine: Engine, signatures: Signatures, method: str, wanted: str | None) -> None:
    with Checks(engine, signatures).running() as send, counted(engine) as statements:
        assert send(None, method) == wanted
        assert statements == [], "nothing needs to be read for it"


@pytest.mark.parametrize("signatures", Signatures)
def test_a_signature_that_is_there_is_checked(engine: Engine, fsp: str, signatures: Signatures) -> None:
    add_key(engine, fsp, key_pair("payerfsp").public, actor="tests")
    path = f"{PATH}/{BULK_ID}"
    with Checks(engine, signatures).running() as send:
        for method, sent_to, body in (("POST", PATH, BODY), ("PUT", path, b"{}"), ("GET", path, b"")):
            assert send(key_pair("payerfsp"), method, sent_to, body) is None
            assert send(key_pair("otherfsp"), method, sent_to, body) == "3105"
        long = orjson.dumps(post_body(200))
        assert (send(key_pair("payerfsp"), body=long), send(key_pair("otherfsp"), body=long)) == (None, "3105")


def test_a_stranger_cannot_make_the_edge_hammer_the_database(engine: Engine, fsp: str) -> None:
    add_key(engine, fsp, key_pair("payerfsp").public, actor="tests")
    checks = Checks(engine)
    with checks.running() as send, counted(engine) as statements:
        for number in range(200):
            source = "payerfsp" if number % 2 else f"stranger{number}"
            assert send(key_pair("otherfsp"), fspiop_source=source) == "3105"
            checks.clock.now += 0.01
        # Two seconds of them: one reading per 500 ms, whatever they invent.
        assert 1 < len(statements) <= 2_000 / LIMITS.search_ms + 1
        assert send(key_pair("payerfsp")) is None


def test_requests_that_wait_for_the_keys_share_one_reading(engine: Engine, fsp: str) -> None:
    add_key(engine, fsp, key_pair("payerfsp").public, actor="tests")
    cache = KeyCache(engine, LIMITS)

    async def ask() -> list[int]:
        return [len(keys) for keys in await asyncio.gather(*(cache.keys_of(fsp) for _ in range(50)))]

    with counted(engine) as statements:
        assert asyncio.run(ask()) == [1] * 50
    assert len(statements) == 1
    cache.close()


def test_while_the_database_is_away_no_old_key_is_trusted(engine: Engine, fsp: str) -> None:
    add_key(engine, fsp, key_pair("payerfsp").public, actor="tests")
    away = make_engine("postgresql://nobody@127.0.0.1:1/nothing", application_name="tests")
    clock = Clock()
    authority = Authority(engine, Signatures.REQUIRED)
    authority._cache = cache = KeyCache(engine, LIMITS, monotonic=clock)
    values = request_headers("POST", signed(key_pair("payerfsp").signer, "POST", PATH, BODY))
    found = []
    with asyncio.Runner() as runner:
        for at_s, behind in ((0, engine), (4.9, away), (5.1, away), (5.7, engine)):
            clock.now, cache._engine = 1_000 + at_s, behind
            found.append(runner.run(code(authority.check("POST", PATH, values, BODY))))
    authority.close()
    assert found == [None, None, "2003", None]


def test_a_failed_reading_is_not_repeated_by_every_request() -> None:
    away = make_engine("postgresql://nobody@127.0.0.1:1/nothing", application_name="tests")
    clock = Clock()
    cache = KeyCache(away, LIMITS, monotonic=clock)
    attempts = 0

    def count(*_: object) -> None:
        nonlocal attempts
        attempts += 1

    event.listen(away, "do_connect", count)

    async def ask(times: int) -> None:
        for _ in range(times):
            with pytest.raises(KeysUnavailable):
                await cache.keys_of("payerfsp")

    with asyncio.Runner() as runner:
        runner.run(ask(20))
        assert attempts == 1
        clock.now += 1
        runner.run(ask(20))
        assert attempts == 2
    cache.close()
