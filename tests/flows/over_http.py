"""The real edge in front of the pipeline: requests over HTTP, signed or not, kept and published as in a running switch.

What the edge has put on its topics is read from the real stream and handed to the pipeline's handlers, in order.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
from sqlalchemy import Engine, text

from bulk_api_adapter.admin.keys import add_key
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.authority import Authority, Signatures
from schemas.codec import codec
from tests.fspiop.requests import headers, transfer_headers
from tests.fspiop.signing import key_pair
from tests.pipeline import Pipeline

# The stream's own tables are the topics, which in production stand in Kafka; progress rows are the reading of them.
_NOT_COMPARED = ("stream_topic", "stream_partition", "stream_record", "handler_progress")


class OverHttp:
    """Sends to the edge app; with `signed` everything is signed with the source's own key, and must be."""

    def __init__(self, pipeline: Pipeline, runner: asyncio.Runner, authority: Authority | None) -> None:
        self._pipeline = pipeline
        self._runner = runner
        self._signs = authority is not None
        app = make_fspiop_app(pipeline.stream, pipeline.store, authority=authority)
        self._lifespan = app.router.lifespan_context(app)
        runner.run(self._lifespan.__aenter__())
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://switch")
        self._read: dict[tuple[str, int], int] = {}

    def close(self) -> None:
        self._runner.run(self._http.aclose())
        self._runner.run(self._lifespan.__aexit__(None, None, None))

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        source: str,
        *,
        key_of: str | None = None,
        **changes: str,
    ) -> httpx.Response:
        """A request of `source`; signed, where everything is, with the key of `key_of`, by default its own."""
        content = b"" if body is None else orjson.dumps(body)
        make = transfer_headers if path.startswith("/transfers") else headers
        values = make(method, fspiop_source=source, **changes)
        if self._signs:
            values |= {"fspiop-uri": path, "fspiop-http-method": method}
            values["fspiop-signature"] = key_pair(key_of or source, "ES256").signer.sign(values, content)
        return self._runner.run(self._http.request(method, path, headers=values, content=content))

    def deliver(self) -> None:
        """Hand what was published to the handlers, and run them until nothing waits."""
        stream = self._pipeline.stream
        for topic, handler in self._pipeline.handlers.items():
            for partition, end in stream.end_offsets(topic).items():
                offset = self._read.get((topic, partition), 0)
                while offset < end and (records := stream.read(topic, partition, offset, 1_000)):
                    for record in records:
                        self._pipeline.queues[topic].extend(codec(handler.message).decode(record.value))
                    offset = records[-1].offset + 1
                self._read[topic, partition] = offset
        self._pipeline.run()


@contextmanager
def over_http(pipeline: Pipeline, *, signed: bool) -> Iterator[OverHttp]:
    with asyncio.Runner() as runner:
        authority = Authority(pipeline.engine, Signatures.REQUIRED) if signed else None
        edge = OverHttp(pipeline, runner, authority)
        try:
            yield edge
        finally:
            edge.close()
            if authority is not None:
                authority.close()


def register_key(engine: Engine, fsp: str) -> None:
    add_key(engine, fsp, key_pair(fsp, "ES256").public, actor="test")


def whole_database(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table but the topics' and the progress rows, as text, in an order that compares."""
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL(:left_out)")
    with engine.connect() as tx:
        tables = tx.execute(query, {"left_out": list(_NOT_COMPARED)}).scalars().all()
        return {
            table: sorted(tx.execute(text(f"SELECT CAST(t AS text) FROM {table} AS t")).scalars()) for table in tables
        }
