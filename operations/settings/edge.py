"""The HTTP apps: where they listen, whose signatures they ask for, and the limits of a request."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr

from operations.settings.types import Bytes, Count, Milliseconds, Port


class EdgeSettings(BaseModel):
    """The FSPIOP edge and the admin app."""

    # Loopback, because neither app asks who calls: where others can reach them, a gateway with TLS stands before them.
    fspiop_host: str = "127.0.0.1"
    # The bulk API adapter's usual port, so that simulators and test suites of the ecosystem find it.
    fspiop_port: Port = 3003
    admin_host: str = "127.0.0.1"
    # The admin API's usual port.
    admin_port: Port = 3001
    # Empty: the admin app asks for no token (it listens on loopback); anything else must come as `Bearer …`.
    admin_token: SecretStr = SecretStr("")

    # --- Signatures -------------------------------------------------------------------------------------------------
    # Of what FSPs send: not looked at, checked where there is one, or asked for on every POST and PUT (a GET has none).
    signatures: Literal["off", "optional", "required"] = "off"
    # A revoked key stops working within this; the keys are read in one statement, when a request needs them.
    key_refresh_ms: Milliseconds = 5_000
    # Requests whose key is not known let the keys be read again, but all of them together not more often than this.
    key_search_ms: Milliseconds = 500
    # The hub's own private key, PEM without a passphrase; empty: the hub signs nothing. Its kid is told if it has one.
    hub_key_file: str = Field("", description="the file of the key that signs callbacks")
    hub_key_id: str = ""

    # --- Limits -----------------------------------------------------------------------------------------------------
    # A bulk of 1,000 items with the largest ilpPackets stays below this; more is 3104 before it is parsed.
    body_bytes_max: Bytes = 5 * 1024 * 1024
    # A JWS and a traceparent take 2 KiB; more headers than this are someone's mistake or an attack.
    header_bytes_max: Bytes = 64 * 1024
    # FSPIOP allows 1..1000 individual transfers in a bulk; a scheme may allow fewer.
    items_per_bulk_max: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    # From a request's headers to the end of its body; a sender that takes longer is cut off.
    body_wait_ms: Milliseconds = 10_000
    # Store and stream together: a sender gives up after 3 s, so what takes longer is answered with 503/2003 before.
    publish_wait_ms: Milliseconds = 2_500
    # Requests at once, each of which may hold a body in memory; more are answered with 503/2003 at once.
    requests_in_flight_max: Count = 64
    # Their bodies together: twelve of the largest; kept and packed they take twice as much memory.
    request_bytes_in_flight_max: Bytes = 64 * 1024 * 1024
    # Of both, what only PUTs may take: an answer frees funds, so it must get in where new work does not.
    answers_in_flight_min: Annotated[int, Field(ge=0)] = 16
    answer_bytes_in_flight_min: Annotated[int, Field(ge=0)] = 16 * 1024 * 1024
    connections_max: Count = 1_000
    # Past it a payer, and nobody else, is answered with 503/2003: 100 of the largest bulks, 20 s of work for one machine.
    in_flight_transfers_per_payer_max: Count = 100_000
    # Of these, how many only single transfers may take: the bulks that a payer queues must not keep them out (BULK-133).
    in_flight_single_transfers_min: Annotated[int, Field(ge=0)] = 1_000
    # All payers together: 100 s of work for one machine, about the longest wait that bulks outlive. Past it a payer is
    # refused that has more than its even share of this; one that has less gets in.
    in_flight_transfers_max: Count = 500_000
    # Of these, how many only single transfers may take (BULK-133).
    in_flight_single_transfers_of_all_min: Annotated[int, Field(ge=0)] = 50_000
    # Requests that stand unread in one of the topics for new work, whichever edge took them in: bounds topics and objects.
    unread_requests_max: Count = 20_000
    # How soon an FSP may send again after its transfers have ended; the reading takes 20 ms with 100,000 open transfers.
    in_flight_refresh_ms: Milliseconds = 500
    # A restart of the database is waited out; after that no handler works either, and no POST is taken in.
    in_flight_stale_ms: Milliseconds = 10_000
    # After so many failures in a row the object store or the stream is away: one request at a time finds out whether it is
    # back, and the others are answered with 503/2003 before their bodies are read.
    failures_in_a_row_max: Count = 8
    probe_interval_ms: Milliseconds = 500
    # The longest time that a 503 tells an FSP to wait, and so about the longest that it notices late that all is well.
    retry_after_s_max: Count = 10
