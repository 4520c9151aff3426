"""`bulk-switch api` and `bulk-switch admin`: the two HTTP processes."""

from functools import partial

from sqlalchemy import Engine

from bulk_api_adapter.admin.app import make_admin_app, require_loopback_or_token
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.authority import Authority, Signatures
from bulk_api_adapter.fspiop.in_flight import InFlightBound
from bulk_api_adapter.fspiop.key_cache import KeyCacheLimits
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.serving import ConnectionLimits, serve
from db.in_flight import in_flight_figures
from operations.opening import make_object_store, opened_engine, opened_stream
from operations.settings import Settings, SettingsError
from operations.tracing import opened_tracing
from schemas.callback_addresses import allowed_addresses


def run_fspiop(settings: Settings) -> None:
    """Serve the FSPIOP resources until SIGTERM or SIGINT."""
    with (
        opened_engine(settings, "api") as engine,
        opened_stream(settings, engine) as stream,
        opened_tracing(settings, "api") as tracing,
    ):
        limits = edge_limits(settings)
        in_flight = InFlightBound(partial(in_flight_figures, engine), stream, limits)
        serve(
            make_fspiop_app(
                stream,
                make_object_store(settings),
                limits,
                in_flight=in_flight,
                authority=make_authority(settings, engine),
                tracing=tracing,
            ),
            settings.fspiop_host,
            settings.fspiop_port,
            log_level=settings.log_level.lower(),
            limits=connection_limits(settings),
        )


def run_admin(settings: Settings) -> None:
    """Serve the admin resources until SIGTERM or SIGINT; raises SettingsError when they would be open to everybody."""
    require_guarded_admin(settings)
    with opened_engine(settings, "admin") as engine:
        serve(
            make_admin_app(
                engine,
                token=settings.admin_token.get_secret_value() or None,
                object_store=make_object_store(settings),
                allowed=allowed_addresses(settings.internal_addresses),
            ),
            settings.admin_host,
            settings.admin_port,
            log_level=settings.log_level.lower(),
            limits=connection_limits(settings),
        )


def make_authority(settings: Settings, engine: Engine) -> Authority | None:
    """Who checks signatures, where the scheme has them checked."""
    if settings.signatures == "off":
        return None
    limits = KeyCacheLimits(refresh_ms=settings.key_refresh_ms, search_ms=settings.key_search_ms)
    return Authority(engine, Signatures(settings.signatures), limits)


def require_guarded_admin(settings: Settings) -> None:
    """Raises SettingsError."""
    try:
        require_loopback_or_token(settings.admin_host, settings.admin_token.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"BULK_SWITCH_ADMIN_HOST: {error}") from None


def edge_limits(settings: Settings) -> EdgeLimits:
    return EdgeLimits(
        body_bytes_max=settings.body_bytes_max,
        header_bytes_max=settings.header_bytes_max,
        items_max=settings.items_per_bulk_max,
        body_wait_ms=settings.body_wait_ms,
        publish_wait_ms=settings.publish_wait_ms,
        requests_in_flight_max=settings.requests_in_flight_max,
        request_bytes_in_flight_max=settings.request_bytes_in_flight_max,
        answers_in_flight_min=settings.answers_in_flight_min,
        answer_bytes_in_flight_min=settings.answer_bytes_in_flight_min,
        in_flight_transfers_per_payer_max=settings.in_flight_transfers_per_payer_max,
        in_flight_single_transfers_min=settings.in_flight_single_transfers_min,
        in_flight_transfers_max=settings.in_flight_transfers_max,
        in_flight_single_transfers_of_all_min=settings.in_flight_single_transfers_of_all_min,
        unread_requests_max=settings.unread_requests_max,
        in_flight_refresh_ms=settings.in_flight_refresh_ms,
        in_flight_stale_ms=settings.in_flight_stale_ms,
        completed_timestamp_ahead_ms=settings.completed_timestamp_ahead_ms,
        failures_until_probing=settings.failures_in_a_row_max,
        probe_interval_ms=settings.probe_interval_ms,
        retry_after_s_max=settings.retry_after_s_max,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(connections_max=settings.connections_max, stop_wait_ms=settings.stop_wait_ms)
