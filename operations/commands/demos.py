"""`bulk-switch demo`: a bulk of a thousand payments, from POST to both callbacks."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from operations import embedded_postgres
from operations.commands.mistakes import Mistake
from operations.commands.worlds import stopped_by_signals
from operations.demo import DemoFailed, DemoOutcome, Stopped, run_demo
from operations.demo_parts import parts_of_its_own
from operations.demo_report import (
    LiveWatcher,
    make_watcher,
    outcome_document,
    print_next,
    print_outcome,
)
from operations.ports import free_ports
from operations.printing import AsJson, console, print_json
from operations.settings import Settings, read_settings
from operations.world import WorldError, locked

app = typer.Typer()

_INTERRUPTED_STATUS = 130
_FOLDER_PREFIX = "bulk-switch-demo-"


@app.callback()
def _group() -> None:
    """One command, which keeps its name."""


@app.command()
def demo(
    data_folder: Annotated[
        Path | None, typer.Option(help="Keep the world in this folder, not in a temporary one that goes at the end.")
    ] = None,
    stream_url: Annotated[str | None, typer.Option(help="table: or kafka://host:port,…")] = None,
    real: Annotated[
        bool, typer.Option("--real", help="On the Kafka, PostgreSQL and S3 that run (scripts/services).")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """One bulk of 1,000 payments: 900 reserved, 800 committed, 100 aborted by the payee, 100 refused."""
    stop = stopped_by_signals()
    watcher = make_watcher(as_json=as_json)

    def then(outcome: DemoOutcome) -> None:
        if isinstance(watcher, LiveWatcher):
            watcher.close()
        if as_json:
            print_json(outcome_document(outcome))
        else:
            print_outcome(outcome)
            print_next(outcome, kept=keep, command=_command())
        sys.stdout.flush()
        if keep:
            stop.wait()

    if real and data_folder is not None:
        raise Mistake("--data-folder is for the embedded world: what a demo on real parts keeps is in those parts")
    with _folder(data_folder) as folder, ExitStack() as stack:
        fspiop_port, admin_port = free_ports(2)
        settings = read_settings(
            data_folder=folder,
            stream_url=stream_url,
            fspiop_port=fspiop_port,
            admin_port=admin_port,
        )
        settings = stack.enter_context(parts_of_its_own(settings)) if real else _embedded(settings)
        try:
            run_demo(settings, stop, watcher, then)
        except Stopped:
            raise typer.Exit(_INTERRUPTED_STATUS) from None
        except DemoFailed as error:
            raise Mistake(f"the demo did not end as it should: {error}") from None
        finally:
            if isinstance(watcher, LiveWatcher):
                watcher.close()
    if keep and not as_json:
        console().print("Everything has ended.")


def _embedded(settings: Settings) -> Settings:
    """A demo never plays in a database that somebody has set for something else."""
    own = {"database_url": "", "object_store_url": "", "stream_url": _stream_of_its_own(settings.stream_url)}
    return settings.model_copy(update=own)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    _clear_killed_demos()
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    # PostgreSQL, which as root runs as a user of its own, has to pass.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_killed_demos() -> None:
    """Stop the PostgreSQL and remove the folder of every demo that was killed; all else of it died with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        # Somebody else's folder is left to its owner, one that is still being made to its maker.
        if folder.stat().st_uid == os.getuid() and any((folder / part).is_dir() for part in ("postgres", "logs")):
            try:
                with locked(folder):
                    embedded_postgres.stop(folder / "postgres")
                    shutil.rmtree(folder, ignore_errors=True)
            except WorldError:
                continue


def _command() -> str:
    """How this command was called, so that what is printed can be copied."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "bulk-switch"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def _stream_of_its_own(url: str) -> str:
    """On a cluster that has served another demo, its topics are read by nobody; this one's get a namespace."""
    if not url.startswith("kafka://") or "/" in url.removeprefix("kafka://").rstrip("/"):
        return url
    return f"{url.rstrip('/')}/demo-{uuid4().hex[:8]}"
