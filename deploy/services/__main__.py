"""`scripts/services`: Kafka, PostgreSQL and S3 on this machine, without Docker.

    up [NAME …]        start what does not run, wait until it has answered, print the URLs, one a line
    status [--json]    a line per service; exit status 1 when nothing runs
    restart NAME …     stop and start, on the same ports
    down [NAME …]      stop; data and ports stay, unless --remove-data
    env [NAME …]       the switch's settings for what runs, as lines for a shell: eval "$(scripts/services env)";
                       with --tests where the tests find the servers

Names: kafka, kafka-3 (three nodes), postgres, s3; without one, `up` means kafka, postgres and s3, the others whatever
there is. Exit status 0, 1 with a reason on standard error, 2 for a wrong command line.
"""

import shlex
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Annotated, Any

import typer
from sqlalchemy import make_url

from deploy.services.choice import (
    DEFAULT,
    NAMES,
    data_folder,
    make_service,
    running_services,
    switch_environment,
    tests_environment,
)
from deploy.services.errors import ServiceError
from deploy.services.service import Service
from operations.printing import AsJson, print_json

Name = StrEnum("Name", {name: name for name in NAMES})  # type: ignore[misc]  # the names are choice.py's
Names = Annotated[list[Name] | None, typer.Argument(help=f"Any of {', '.join(NAMES)}.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Kafka, PostgreSQL and S3 without Docker.")


@app.command()
def up(names: Names = None) -> None:
    """Start what does not run yet, wait until it has answered, and print the URLs, one a line."""
    services = [make_service(name, data_folder()) for name in (names or DEFAULT)]
    with ThreadPoolExecutor(len(services)) as pool:
        # All at once: most of the time is spent waiting for one of them.
        results = [pool.submit(service.start) for service in services]
        troubles = [str(error) for result in results if (error := result.exception())]
    if troubles:
        raise ServiceError("\n".join(troubles))
    for service in services:
        typer.echo(service.url)


@app.command()
def status(as_json: AsJson = False) -> None:
    """A line per service: up with its URL, silent with the reason, or down."""
    lines = [_described(name) for name in NAMES]
    if as_json:
        print_json({"data_folder": str(data_folder()), "services": lines})
    else:
        for line in lines:
            typer.echo(f"{line['name']} {line['state']} {line.get('url') or line.get('trouble') or ''}".rstrip())
    if all(line["state"] == "down" for line in lines):
        raise typer.Exit(1)


@app.command()
def restart(names: Annotated[list[Name], typer.Argument(help=f"Any of {', '.join(NAMES)}.")]) -> None:
    """Stop and start, on the same ports, with the same data."""
    for name in names:
        service = make_service(name, data_folder())
        service.restart()
        typer.echo(service.url)


@app.command()
def down(
    names: Names = None,
    remove_data: Annotated[bool, typer.Option("--remove-data", help="Data, ports, keys and logs, too.")] = False,
) -> None:
    """Stop in good order; data and ports stay for the next `up`."""
    for name in names or NAMES:
        service = make_service(name, data_folder())
        if service.folder.exists():
            service.stop()
            if remove_data:
                shutil.rmtree(service.folder)


@app.command()
def env(
    names: Names = None,
    tests: Annotated[
        bool, typer.Option("--tests", help="What tests look for, instead of the switch's settings.")
    ] = False,
) -> None:
    """The switch's settings for what runs (or for these), as lines for a shell."""
    running = running_services(data_folder())
    asked = [str(name) for name in names or ()]
    missing = [name for name in asked if name not in running]
    if missing or not running:
        wanted = " ".join(missing)
        what = f"{', '.join(missing)} does not run" if missing else "nothing runs"
        raise ServiceError(f"{what} in {data_folder()}; start it with: scripts/services up {wanted}".rstrip())
    chosen = {name: running[name] for name in asked} if asked else running
    variables = tests_environment(chosen) if tests else switch_environment(chosen)
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _described(name: str) -> dict[str, Any]:
    service = make_service(name, data_folder())
    pids = service.pids()
    line: dict[str, Any] = {"name": name, "state": "down", "pids": pids}
    if pids:
        try:
            service.check()
            line |= {"state": "up", "url": _shown(service)}
        except ServiceError as error:
            line |= {"state": "silent", "trouble": str(error).splitlines()[0]}
    return line


def _shown(service: Service) -> str:
    """The URL without a password: what is shown may be copied into a bug report."""
    url = service.url
    return make_url(url).render_as_string(hide_password=True) if url.startswith("postgresql:") else url


def main() -> None:
    try:
        app(prog_name="scripts/services")
    except ServiceError as error:
        sys.stderr.write(f"scripts/services: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
