"""The acts on the public keys of participants, with which the edge checks what they signed.

A key is replaced by registering the new one beside the old one, and revoking the old one when its owner signs with the new
one. What is revoked stays so, and the edge knows it within `key_refresh_ms`. Refused, in this order: no such participant
3200, the hub (it signs with the key of its own settings) 3100, a key that is none 3100, a validity that is over or backwards
3100, a key or a kid that the participant has already 3000, more than KEYS_PER_PARTICIPANT_MAX 3103.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine

from bulk_api_adapter.admin.acts import begin_act, participant_not_found
from db import keys, participants
from db.clock import now_ms
from db.keys import KEYS_PER_PARTICIPANT_MAX, ParticipantKey
from db.reference_data import HUB_NAME
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal
from schemas.fspiop.keys import GivenKey, UnusableKey, read_key

KID_LENGTH_MAX = 128


def list_keys(engine: Engine, name: str) -> Sequence[ParticipantKey]:
    """A participant's keys, revoked ones too; refuses with 3200 when there is no participant of that name."""
    with engine.connect() as tx:
        if participants.participant_named(tx, name) is None:
            raise participant_not_found(name)
        return keys.keys_of(tx, name)


def add_key(
    engine: Engine,
    name: str,
    given: str | Mapping[str, Any],
    *,
    actor: str,
    kid: str | None = None,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
) -> ParticipantKey:
    """Register a public key: PEM, a certificate, or a JWK; a certificate's own validity holds as well."""
    with begin_act(engine, actor=actor, action="add_key", subject=f"participants/{name}/keys") as act:
        if not participants.lock_participant(act.tx, name):
            raise participant_not_found(name)
        if name == HUB_NAME:
            raise Refusal(ErrorCode.VALIDATION_ERROR, "the hub signs with the key of its settings (HUB_KEY_FILE)")
        try:
            key = read_key(given)
        except UnusableKey as error:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"key: {error}") from None
        kid = kid or key.kid
        _require_new(act.tx, name, key, kid)
        begin, end = _validity(act.tx, key, valid_from, valid_until)
        participant = participants.participant_named(act.tx, name)
        assert participant is not None
        key_id = keys.add_key(
            act.tx,
            participant.participant_id,
            kid=kid,
            algorithm=key.algorithm,
            public_key=key.der,
            fingerprint=key.fingerprint,
            valid_from=begin,
            valid_until=end,
            created_by=actor,
        )
        made = _key(act.tx, name, key_id)
        act.record(before=None, after=_facts(made))
    return made


def revoke_key(engine: Engine, name: str, key_id: int, *, actor: str) -> ParticipantKey:
    """Let a key count no longer, for ever; doing it again changes nothing."""
    with begin_act(engine, actor=actor, action="revoke_key", subject=f"participants/{name}/keys/{key_id}") as act:
        if not participants.lock_participant(act.tx, name):
            raise participant_not_found(name)
        before = _key(act.tx, name, key_id)
        if not keys.revoke_key(act.tx, key_id):
            return before
        after = _key(act.tx, name, key_id)
        act.record(before=_facts(before), after=_facts(after))
    return after


def _require_new(tx: Connection, name: str, key: GivenKey, kid: str | None) -> None:
    there = keys.keys_of(tx, name)
    if any(one.fingerprint == key.fingerprint for one in there):
        raise Refusal(ErrorCode.CLIENT_ERROR, "the key has already been registered; a revoked key stays revoked")
    in_use = [one for one in there if one.revoked_date is None]
    if kid is not None and any(one.kid == kid for one in in_use):
        raise Refusal(ErrorCode.CLIENT_ERROR, "the participant has another key with this kid; revoke that one first")
    if len(in_use) >= KEYS_PER_PARTICIPANT_MAX:
        raise Refusal(
            ErrorCode.TOO_MANY_ELEMENTS, f"the participant has {KEYS_PER_PARTICIPANT_MAX} keys; revoke one first"
        )


def _validity(
    tx: Connection, key: GivenKey, valid_from: datetime | None, valid_until: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """From when until when the key counts; None is now, and without end."""
    now = datetime.fromtimestamp(now_ms(tx) / 1000, UTC)
    begins = [moment for moment in (valid_from, key.valid_from) if moment is not None]
    ends = [moment for moment in (valid_until, key.valid_until) if moment is not None]
    begin, end = max(begins, default=None), min(ends, default=None)
    if end is not None and end <= max(begin or now, now):
        raise Refusal(ErrorCode.VALIDATION_ERROR, "validUntil must be later than now and than validFrom")
    return begin, end


def _key(tx: Connection, name: str, key_id: int) -> ParticipantKey:
    for key in keys.keys_of(tx, name):
        if key.participant_key_id == key_id:
            return key
    raise Refusal(ErrorCode.ID_NOT_FOUND, f"Participant {name} has no key {key_id}")


def _facts(key: ParticipantKey) -> dict[str, Any]:
    """What the audit keeps of a key."""
    moments = {"validFrom": key.valid_from, "validUntil": key.valid_until, "revokedDate": key.revoked_date}
    return {
        "id": key.participant_key_id,
        "kid": key.kid,
        "algorithm": key.algorithm,
        "fingerprint": key.fingerprint,
        **{name: moment.isoformat() for name, moment in moments.items() if moment is not None},
    }
