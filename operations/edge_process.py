"""`bulk-switch api` and `bulk-switch admin`: the two HTTP processes."""

from bulk_api_adapter.admin.app import make_admin_app, require_loopback_or_token
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.serving import ConnectionLimits, serve
from operations.opening import make_object_store, opened_engine, opened_stream
from operations.settings import Settings, SettingsError


def run_fspiop(settings: Settings) -> None:
    """Serve the FSPIOP resources until SIGTERM or SIGINT."""
    with opened_engine(settings, "api") as engine, opened_stream(settings, engine) as stream:
        serve(
            make_fspiop_app(stream, make_object_store(settings), edge_limits(settings)),
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
            make_admin_app(engine, token=settings.admin_token.get_secret_value() or None),
            settings.admin_host,
            settings.admin_port,
            log_level=settings.log_level.lower(),
            limits=connection_limits(settings),
        )


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
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(connections_max=settings.connections_max, stop_wait_ms=settings.stop_wait_ms)
