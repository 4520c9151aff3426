"""`bulk-switch deliver`: a process that sends callbacks."""

from pathlib import Path

from domain.delivery import RetryLimits
from handlers.deliverer import DelivererSettings, run_deliverer
from handlers.delivery_client import ClientLimits
from handlers.metrics import REGISTRY
from handlers.tracing import Tracing
from operations.health_port import LOOPBACK, process_registry
from operations.health_port import health_port as answered_port
from operations.opening import make_object_store, opened_engine
from operations.settings import Settings, SettingsError
from operations.tracing import opened_tracing
from schemas.callback_addresses import allowed_addresses
from schemas.fspiop.signatures import Signer, UnusableSigningKey


def run(settings: Settings, *, health_host: str = LOOPBACK, health_port: int = 0) -> None:
    """Deliver until SIGTERM or SIGINT."""
    trouble = {"process": "is starting"}
    with (
        opened_engine(settings, "deliverer") as engine,
        opened_tracing(settings, "deliverer") as tracing,
        # It is well as long as it lives: it waits out a database that is away, and FSPs' trouble is not its own.
        answered_port(health_host, health_port, trouble.copy, [process_registry(), REGISTRY]),
    ):
        run_deliverer(
            engine, make_object_store(settings), deliverer_settings(settings, tracing), on_start=trouble.clear
        )


def deliverer_settings(settings: Settings, tracing: Tracing | None = None) -> DelivererSettings:
    return DelivererSettings(
        concurrency_max=settings.callbacks_at_once_max,
        concurrency_per_fsp_max=settings.callbacks_per_fsp_max,
        lease_ms=settings.callback_lease_ms,
        stop_timeout_ms=settings.stop_wait_ms,
        client=ClientLimits(
            connections_max=settings.callbacks_at_once_max,
            connect_timeout_ms=settings.callback_connect_timeout_ms,
            read_timeout_ms=settings.callback_read_timeout_ms,
            attempt_timeout_ms=settings.callback_timeout_ms,
            allowed=allowed_addresses(settings.internal_addresses),
        ),
        retry=RetryLimits(
            backoff_first_ms=settings.callback_first_pause_ms,
            backoff_max_ms=settings.callback_longest_pause_ms,
            attempts_max=settings.callback_attempts_max,
            age_max_ms=settings.callback_age_ms,
        ),
        signer=hub_signer(settings),
        tracing=tracing,
    )


def hub_signer(settings: Settings) -> Signer | None:
    """Who signs callbacks with the hub's key, if it has one; raises SettingsError."""
    if not settings.hub_key_file:
        return None
    try:
        return Signer(Path(settings.hub_key_file).read_bytes(), settings.hub_key_id or None)
    except OSError as error:
        raise SettingsError(f"BULK_SWITCH_HUB_KEY_FILE: {settings.hub_key_file}: {error.strerror}") from None
    except UnusableSigningKey as error:
        raise SettingsError(f"BULK_SWITCH_HUB_KEY_FILE: {settings.hub_key_file}: {error}") from None
