"""`bulk-switch participant key`: the public keys with which the edge checks what participants signed.

A key is replaced by adding the new one, waiting until its owner signs with it, and revoking the old one.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bulk_api_adapter.admin import keys
from db.keys import ParticipantKey
from operations.commands.acting import acting
from operations.commands.database import DataFolder
from operations.commands.mistakes import Mistake
from operations.printing import AsJson, clock, print_json, print_table

key = typer.Typer(help="Public keys, for checking signatures.", no_args_is_help=True)

# A certificate chain of the longest keys is shorter; anything longer is another file.
_FILE_BYTES_MAX = 65_536

Name = Annotated[str, typer.Argument(metavar="NAME", help="The participant's name, its FSP id.")]
Moment = Annotated[
    datetime | None, typer.Option(help="In UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])
]


@key.command()
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A public key or certificate in PEM, or a JWK.")],
    kid: Annotated[str | None, typer.Option(help="What the participant calls it in its signatures.")] = None,
    valid_from: Moment = None,
    valid_until: Moment = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Register a public key; those that are there stay valid beside it."""
    given = _read(file)
    with acting(data_folder) as (engine, actor, _):
        keys.add_key(
            engine, name, given, kid=kid, valid_from=_utc(valid_from), valid_until=_utc(valid_until), actor=actor
        )
        _print(name, keys.list_keys(engine, name), as_json=as_json)


@key.command("list")
def list_(name: Name, data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """A participant's keys, revoked ones too."""
    with acting(data_folder) as (engine, _, _):
        _print(name, keys.list_keys(engine, name), as_json=as_json)


@key.command()
def revoke(
    name: Name,
    key_id: Annotated[int, typer.Argument(metavar="KEY", min=1, help="The number that `list` shows.")],
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Let a key count no longer, for ever: what it signed is refused from now on."""
    with acting(data_folder) as (engine, actor, _):
        keys.revoke_key(engine, name, key_id, actor=actor)
        _print(name, keys.list_keys(engine, name), as_json=as_json)


def _read(file: Path) -> str | dict[str, Any]:
    """PEM as text, a JWK as its object."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Mistake(f"{file}: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise Mistake(f"{file} is larger than {_FILE_BYTES_MAX} bytes, and no key is")
    try:
        text = content.decode()
        jwk = orjson.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        raise Mistake(f"{file} is neither PEM nor a JWK") from None
    return text if jwk is None else jwk


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _print(name: str, found: Sequence[ParticipantKey], *, as_json: bool) -> None:
    if as_json:
        print_json([{**_facts(one), "created_by": one.created_by} for one in found])
        return
    print_table(
        f"Keys of {name}",
        ("key", "kid", "algorithm", "SHA-256", "from (UTC)", "until", "revoked"),
        (
            (
                one.participant_key_id,
                one.kid,
                one.algorithm,
                one.fingerprint,
                clock(one.valid_from),
                clock(one.valid_until),
                clock(one.revoked_date),
            )
            for one in found
        ),
    )


def _facts(one: ParticipantKey) -> dict[str, object]:
    return {
        "key": one.participant_key_id,
        "kid": one.kid,
        "algorithm": one.algorithm,
        "fingerprint": one.fingerprint,
        "valid_from": one.valid_from,
        "valid_until": one.valid_until,
        "revoked_date": one.revoked_date,
    }
