"""An FSP that is neither payer nor payee tries every verb with every id, over HTTP: not a row of anybody changes."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from bulk_api_adapter.admin.participants import set_active
from domain.combinations import (
    TOPIC_BULK_FULFIL,
    TOPIC_BULK_PREPARE,
    TOPIC_BULK_PROCESSING,
    TOPIC_SINGLE_FULFIL,
    TOPIC_SINGLE_PREPARE,
    TOPIC_TRANSFER_FULFIL,
    TOPIC_TRANSFER_POSITION,
)
from schemas.fspiop.datetimes import format_datetime
from tests import singles
from tests.bulks import PAYEE, PAYER, STRANGER, answer, bulk, committed, item, provision, refused, world
from tests.flows.over_http import OverHttp, over_http, register_key, whole_database
from tests.flows.test_expiry import end_by_time, expire
from tests.pipeline import Pipeline

Body = dict[str, Any]
INACTIVE, UNKNOWN = "inactivefsp", "unknownfsp"
ERROR = {"errorInformation": {"errorCode": "5100", "errorDescription": "mine now"}}
# What a stranger may be told: that there is no such thing, or that this is not its own.
REFUSALS = {"3000", "3100", "3106", "3202", "3208", "3210"}


@dataclass
class Targets:
    """Bulks in every state and single transfers in several, with what their handlers were still to read put aside."""

    pipeline: Pipeline
    bulks: dict[str, Body] = field(default_factory=dict)
    transfers: dict[str, Body] = field(default_factory=dict)
    # A bulk from the payer to the stranger, and one from the stranger to the payee; both wait for their payee.
    to_stranger: Body = field(default_factory=dict)
    from_stranger: Body = field(default_factory=dict)

    def __post_init__(self) -> None:
        pipeline = self.pipeline
        # Time passes for everything there is, so what runs out of time comes first.
        self._keep("EXPIRED", self._posted())
        expire(pipeline.engine)
        end_by_time(pipeline)
        self._keep("EXPIRING", self._posted())
        expire(pipeline.engine)
        pipeline.tick()
        self._keep("PENDING_PREPARE", self._posted(TOPIC_BULK_PREPARE))
        self._keep("ACCEPTED", self._posted())
        self._keep("PROCESSING", self._answered(self._posted(), TOPIC_BULK_FULFIL))
        until_position = (TOPIC_BULK_FULFIL, TOPIC_TRANSFER_FULFIL, TOPIC_TRANSFER_POSITION)
        self._keep("PENDING_FULFIL", self._answered(self._posted(), *until_position, then_one=True))
        self._keep("COMPLETED", self._answered(self._posted()))
        self._keep("REJECTED", self._answered(self._posted(), state="REJECTED"))
        ahead = format_datetime(pipeline.now() + 60_000)
        self._keep("INVALID", self._answered(self._posted(), completedTimestamp=ahead))
        self._keep("REJECTED at once", self._posted(payeeFsp="ghostfsp"))
        assert {states[-1] for states in world(pipeline.engine).bulks.values()} == {
            name.partition(" ")[0] for name in self.bulks
        }
        self.to_stranger = self._posted(payeeFsp=STRANGER)
        self.from_stranger = self._posted(source=STRANGER, payerFsp=STRANGER)
        self._singles()
        # Stored by the edge, and read by nobody yet.
        body = bulk([item(), item()], now_ms=pipeline.now())
        pipeline.post(body, source=PAYER)
        self._keep("unread", body)

    def _singles(self) -> None:
        pipeline = self.pipeline
        for name, until in (("RECEIVED_PREPARE", [TOPIC_SINGLE_PREPARE]), ("RESERVED", [])):
            body = singles.transfer(now_ms=pipeline.now())
            singles.post(pipeline, body)
            pipeline.run(*until)
            self._forget_the_queues()
            self.transfers[name] = body
        for name, said, until in (
            ("RECEIVED_FULFIL", singles.fulfilled, [TOPIC_SINGLE_FULFIL]),
            ("COMMITTED", singles.fulfilled, []),
            ("ABORTED_ERROR", lambda _: singles.failed(), []),
        ):
            body = singles.transfer(now_ms=pipeline.now())
            singles.post(pipeline, body)
            pipeline.run()
            singles.put(pipeline, body["transferId"], said(body))
            pipeline.run(*until)
            self._forget_the_queues()
            self.transfers[name] = body
            assert singles.states(pipeline, body["transferId"])[-1] == name

    def _posted(self, *until: str, source: str = PAYER, **changes: str) -> Body:
        body = {**bulk([item(), item()], now_ms=self.pipeline.now()), **changes}
        self.pipeline.post(body, source=source)
        self.pipeline.run(*until)
        return body

    def _answered(self, body: Body, *until: str, then_one: bool = False, **changes: str) -> Body:
        results = [committed(one) for one in body["individualTransfers"]]
        self.pipeline.put(body["bulkTransferId"], {**answer(results), **_renamed(changes)}, source=PAYEE)
        for topic in until or [""]:
            self.pipeline.run(*([topic] if topic else []))
        if then_one:
            self.pipeline.step(TOPIC_BULK_PROCESSING, 1)
        return body

    def _keep(self, name: str, body: Body) -> None:
        self.bulks[name] = body
        self._forget_the_queues()

    def _forget_the_queues(self) -> None:
        for queue in self.pipeline.queues.values():
            queue.clear()


def _renamed(changes: Mapping[str, str]) -> Body:
    return {"bulkTransferState" if name == "state" else name: value for name, value in changes.items()}


@pytest.fixture
def parts() -> str:
    """Who may do what is decided by the edge and the rows; the same requests on all parts would only take longer."""
    return "queues"


@pytest.fixture
def targets(pipeline: Pipeline) -> Targets:
    provision(pipeline.engine, fsps=(INACTIVE,))
    for fsp in (PAYER, PAYEE, STRANGER, INACTIVE):
        register_key(pipeline.engine, fsp)
    set_active(pipeline.engine, INACTIVE, is_active=False, actor="test")
    return Targets(pipeline)


def attempts_on_bulks(targets: Targets, source: str) -> Iterator[tuple[str, str, Body | None]]:
    for name, body in targets.bulks.items():
        path, items = f"/bulkTransfers/{body['bulkTransferId']}", body["individualTransfers"]
        yield "GET", path, None
        yield "PUT", path, answer([committed(one) for one in items])
        yield "PUT", path, answer([refused(one) for one in items])
        yield "PUT", path, answer([], state="REJECTED")
        yield "PUT", path, {"bulkTransferState": "PROCESSING"}
        yield "PUT", f"{path}/error", ERROR
        if name != "unread":
            # The same id, for its payer, and as the payer itself. (An id that nobody has read yet belongs to whoever is
            # read first, and the loser is told 3106.)
            yield "POST", "/bulkTransfers", body
            yield "POST", "/bulkTransfers", {**body, "payerFsp": source}
            yield "POST", "/bulkTransfers", {**body, "payerFsp": source, "payeeFsp": PAYER}
        for one in items[:1]:
            member = f"/bulkTransfers/{one['transferId']}"
            yield "GET", member, None
            yield "PUT", member, answer([committed(one)])
            yield "PUT", f"{member}/error", ERROR


def attempts_on_transfers(targets: Targets, source: str) -> Iterator[tuple[str, str, Body | None]]:
    """Single transfers, and the members of bulks by their own ids."""
    members = [one for body in targets.bulks.values() for one in body["individualTransfers"][:1]]
    for one in [*targets.transfers.values(), *members]:
        path = f"/transfers/{one['transferId']}"
        yield "GET", path, None
        yield "PUT", path, singles.fulfilled(one)
        yield "PUT", path, singles.fulfilled(one, "RESERVED")
        yield "PUT", f"{path}/error", ERROR
    for one in targets.transfers.values():
        yield "POST", "/transfers", one
        yield "POST", "/transfers", {**one, "payerFsp": source}
        yield "POST", "/transfers", {**one, "payerFsp": source, "payeeFsp": PAYER}


def attempts_with_own_ids(targets: Targets, source: str) -> Iterator[tuple[str, str, Body | None]]:
    """The stranger's own bulks, with members of others': as the payee of one, and as the payer of another."""
    foreign = [one for body in targets.bulks.values() for one in body["individualTransfers"]]
    for own in (targets.to_stranger, targets.from_stranger):
        path = f"/bulkTransfers/{own['bulkTransferId']}"
        own_member = own["individualTransfers"][0]
        yield "PUT", path, answer([refused(one) for one in foreign])
        yield "PUT", path, answer([committed(own_member), refused(foreign[0])])
        yield "PUT", path, answer([committed(foreign[0])], state="REJECTED")
        if own is targets.from_stranger:
            yield "PUT", path, answer([committed(one) for one in own["individualTransfers"]])
            yield "PUT", f"{path}/error", ERROR


def refusals_to(pipeline: Pipeline, source: str, known: set[int]) -> list[str]:
    """The codes of the new answers to this FSP, each of which says an error and nothing more."""
    query = text("SELECT delivery_id, fsp, kind, callback, content FROM delivery ORDER BY delivery_id")
    with pipeline.engine.connect() as tx:
        rows = [row for row in tx.execute(query).all() if row[0] not in known]
    codes = []
    for _, fsp, kind, callback, content in rows:
        assert (fsp, kind, callback) == (source, "ANSWER", "PUT_ERROR")
        said = orjson.loads(pipeline.store.get(content))
        assert set(said) == {"errorInformation"}
        codes.append(said["errorInformation"]["errorCode"])
    return codes


def without(database: dict[str, list[str]], pipeline: Pipeline, known: set[int]) -> dict[str, list[str]]:
    """The database without delivery rows that are not known; what they are `refusals_to` looks at."""
    kept = [row for row in database["delivery"] if int(row[1:].partition(",")[0]) in known]
    return {**database, "delivery": kept}


def delivery_ids(pipeline: Pipeline) -> set[int]:
    with pipeline.engine.connect() as tx:
        return set(tx.execute(text("SELECT delivery_id FROM delivery")).scalars())


Attempts = Callable[[Targets, str], Iterator[tuple[str, str, Body | None]]]


@pytest.mark.parametrize("attempts", [attempts_on_bulks, attempts_on_transfers, attempts_with_own_ids])
def test_a_stranger_with_its_own_valid_key_changes_nothing(targets: Targets, attempts: Attempts) -> None:
    """D12, D13, BULK-125, BULK-136: refused by what it is, not by how it asks; every refusal is its own."""
    pipeline = targets.pipeline
    with over_http(pipeline, signed=True) as edge:
        before, known = whole_database(pipeline.engine), delivery_ids(pipeline)
        sent = list(attempts(targets, STRANGER))
        for method, path, body in sent:
            response = edge.send(method, path, body, STRANGER)
            assert response.status_code in {200, 202}, (method, path, response.text)
        edge.deliver()
        codes = refusals_to(pipeline, STRANGER, known)
        assert without(whole_database(pipeline.engine), pipeline, known) == before
        assert set(codes) <= REFUSALS
        assert len(codes) == len(sent), "each request has its own refusal"
        finish_the_accepted_one(edge, targets)


def finish_the_accepted_one(edge: OverHttp, targets: Targets) -> None:
    """Nothing of what was tried stands in the way of the bulk's own payee."""
    body = targets.bulks["ACCEPTED"]
    results = answer([committed(one) for one in body["individualTransfers"]])
    assert edge.send("PUT", f"/bulkTransfers/{body['bulkTransferId']}", results, PAYEE).status_code == 200
    edge.deliver()
    assert world(targets.pipeline.engine).bulks[body["bulkTransferId"]][-1] == "COMPLETED"


@pytest.mark.parametrize("source", [INACTIVE, UNKNOWN])
@pytest.mark.parametrize("signed", [True, False])
def test_an_inactive_or_unknown_fsp_changes_nothing(targets: Targets, source: str, *, signed: bool) -> None:
    """D12: an unknown one cannot even sign; where signatures are off it is ignored, for there is nobody to answer."""
    pipeline = targets.pipeline
    with over_http(pipeline, signed=signed) as edge:
        before, known = whole_database(pipeline.engine), delivery_ids(pipeline)
        statuses = set()
        for attempts in (attempts_on_bulks, attempts_on_transfers):
            for method, path, body in attempts(targets, source):
                statuses.add(edge.send(method, path, body, source).status_code)
        edge.deliver()
        assert statuses == ({400} if signed and source == UNKNOWN else {200, 202})
        codes = refusals_to(pipeline, source, known)
        assert without(whole_database(pipeline.engine), pipeline, known) == before
        assert set(codes) <= REFUSALS
        assert bool(codes) == (source == INACTIVE)


def test_somebody_elses_name_is_refused_before_anything_is_kept(targets: Targets) -> None:  # D12, BULK-136
    """Signed with one's own key in the name of the bulk's payee; nothing reaches a topic."""
    pipeline = targets.pipeline
    with over_http(pipeline, signed=True) as edge, over_http(pipeline, signed=False) as open_edge:
        before = whole_database(pipeline.engine)
        body = targets.bulks["ACCEPTED"]
        path = f"/bulkTransfers/{body['bulkTransferId']}"
        results = answer([refused(one) for one in body["individualTransfers"]])
        forged = edge.send("PUT", path, results, PAYEE, key_of=STRANGER)
        assert (forged.status_code, forged.json()["errorInformation"]["errorCode"]) == (400, "3105")
        # Where the gateway says who has connected, that name must be the source's.
        assert open_edge.send("PUT", path, results, PAYEE, x_client_id=STRANGER).status_code == 400
        ends = {topic: pipeline.stream.end_offsets(topic) for topic in pipeline.handlers}
        edge.deliver()
        assert ends == {topic: pipeline.stream.end_offsets(topic) for topic in pipeline.handlers}
        assert whole_database(pipeline.engine) == before


def test_a_new_bulk_that_names_the_transfers_of_others_hurts_only_itself(targets: Targets) -> None:  # D13
    """The stranger pays with transferIds that are used: its own bulk is refused item by item, theirs go on."""
    pipeline = targets.pipeline
    before = whole_database(pipeline.engine)
    # Those that prepare has written; an id that nobody has used yet belongs to whoever uses it first.
    unwritten = {"unread", "REJECTED at once", "PENDING_PREPARE"}
    foreign = [
        one for name, body in targets.bulks.items() if name not in unwritten for one in body["individualTransfers"]
    ]
    body = {**bulk(foreign, now_ms=pipeline.now()), "payerFsp": STRANGER}
    with over_http(pipeline, signed=True) as edge:
        assert edge.send("POST", "/bulkTransfers", body, STRANGER).status_code == 202
        edge.deliver()
        after = whole_database(pipeline.engine)
        for table, rows in before.items():
            assert set(rows) <= set(after[table]), f"a row of {table} was changed or is gone"
        finish_the_accepted_one(edge, targets)


def test_what_no_id_names_is_not_found(targets: Targets) -> None:
    pipeline = targets.pipeline
    nowhere = str(uuid.uuid4())
    with over_http(pipeline, signed=True) as edge:
        known = delivery_ids(pipeline)
        for method, path, body in (
            ("GET", f"/bulkTransfers/{nowhere}", None),
            ("PUT", f"/bulkTransfers/{nowhere}", answer([])),
            ("PUT", f"/bulkTransfers/{nowhere}/error", ERROR),
            ("GET", f"/transfers/{nowhere}", None),
            ("PUT", f"/transfers/{nowhere}/error", ERROR),
        ):
            edge.send(method, path, body, STRANGER)
        edge.deliver()
        assert refusals_to(pipeline, STRANGER, known) == ["3210", "3210", "3210", "3208", "3208"]
