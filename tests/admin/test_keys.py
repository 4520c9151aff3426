"""The admin resource of keys: registered, listed and revoked, each act with its audit row, and what is no key refused."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from db.keys import KEYS_PER_PARTICIPANT_MAX
from tests.admin.client import AdminClient, assert_refused, audit_of
from tests.fspiop.signing import key_pair


def keys_of(client: AdminClient, name: str = "payerfsp") -> Any:
    return client.get(f"/participants/{name}/keys").json


def test_a_key_is_registered_listed_and_revoked_and_each_act_is_audited(
    client: AdminClient, engine: Engine, fsp: str
) -> None:
    pair = key_pair("payerfsp")
    made = client.post(f"/participants/{fsp}/keys", {"key": pair.public, "kid": "2026"})
    assert made.status == 201
    assert {name: made.json[name] for name in ("kid", "algorithm", "key", "isActive")} == {
        "kid": "2026",
        "algorithm": "RS256",
        "key": pair.public,
        "isActive": 1,
    }
    assert re.fullmatch("[0-9a-f]{64}", made.json["fingerprint"])
    assert keys_of(client) == [made.json]
    path = f"/participants/{fsp}/keys/{made.json['id']}"
    assert_refused(client.put(path, {"isActive": True}), "3100", "a revoked key stays revoked")
    revoked = client.put(path, {"isActive": False})
    assert (revoked.status, revoked.json["isActive"]) == (200, 0)
    assert client.put(path, {"isActive": False}).json == revoked.json, "again changes nothing"
    assert keys_of(client) == [revoked.json]
    acts = [audit for audit in audit_of(engine) if "key" in audit.action]
    assert [(act.action, act.subject) for act in acts] == [
        ("add_key", "participants/payerfsp/keys"),
        ("revoke_key", f"participants/payerfsp/keys/{made.json['id']}"),
    ]
    assert acts[0].before is None
    assert acts[1].before == acts[0].after
    assert acts[1].after is not None
    assert acts[1].after["fingerprint"] == made.json["fingerprint"]
    assert "revokedDate" in acts[1].after


def test_a_revoked_key_does_not_come_back_and_its_kid_may(client: AdminClient, fsp: str) -> None:
    old, new = key_pair("old"), key_pair("new", "ES256")
    path = f"/participants/{fsp}/keys"
    old_id = client.post(path, {"key": old.public, "kid": "a"}).json["id"]
    assert_refused(client.post(path, {"key": new.public, "kid": "a"}), "3000", "another key with this kid")
    assert client.post(path, {"key": new.public, "kid": "b"}).status == 201
    client.put(f"{path}/{old_id}", {"isActive": False})
    assert_refused(client.post(path, {"key": old.public, "kid": "c"}), "3000", "already been registered")
    assert client.post(path, {"key": key_pair("third").public, "kid": "a"}).status == 201
    assert [(key["kid"], key["isActive"]) for key in keys_of(client)] == [("a", 0), ("b", 1), ("a", 1)]


def test_several_fsps_may_have_the_same_key(client: AdminClient, fsp: str) -> None:
    # Simulators of the ecosystem share one.
    assert client.post("/participants", {"name": "otherfsp", "currency": "USD"}).status == 201
    for name in (fsp, "otherfsp"):
        assert client.post(f"/participants/{name}/keys", {"key": key_pair("shared").public}).status == 201


def test_a_jwk_is_taken_with_its_kid_and_the_validity_that_was_asked_for(client: AdminClient, fsp: str) -> None:
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "kid": "rfc7515",
        "alg": "ES256",
    }
    begin, end = "2026-01-01T00:00:00.000Z", "2099-01-01T01:00:00.000+01:00"
    made = client.post(f"/participants/{fsp}/keys", {"key": jwk, "validFrom": begin, "validUntil": end})
    assert made.status == 201, made.content
    assert (made.json["kid"], made.json["algorithm"]) == ("rfc7515", "ES256")
    assert (made.json["validFrom"], made.json["validUntil"]) == (begin, "2099-01-01T00:00:00.000Z")


PUBLIC = key_pair("payerfsp").public
YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%S}.000Z"


@pytest.mark.parametrize(
    ("name", "body", "code", "text"),
    [
        ("payerfsp", {}, "3102", "key is missing"),
        ("payerfsp", {"key": 5}, "3101", "key must be a string"),
        ("payerfsp", {"key": "nonsense"}, "3100", "key: this is no public key"),
        ("payerfsp", {"key": {"kty": "oct", "k": "AA"}}, "3100", "key: the JWK holds a secret"),
        ("payerfsp", {"key": key_pair("payerfsp").private.decode()}, "3100", "key: this is a private key"),
        ("payerfsp", {"key": "x" * 20_000}, "3100", "key must have"),
        ("payerfsp", {"key": PUBLIC, "kid": "x" * 200}, "3100", "kid must have"),
        ("payerfsp", {"key": PUBLIC, "validUntil": "tomorrow"}, "3101", "validUntil must be like"),
        ("payerfsp", {"key": PUBLIC, "validUntil": YESTERDAY}, "3100", "validUntil must be later"),
        ("Hub", {"key": PUBLIC}, "3100", "the hub signs with the key of its settings"),
        ("nobody", {"key": PUBLIC}, "3200", "nobody not found"),
    ],
)
@pytest.mark.usefixtures("fsp")
def test_what_is_no_key_is_refused_by_name(
    client: AdminClient, engine: Engine, name: str, body: dict[str, Any], code: str, text: str
) -> None:
    assert_refused(client.post(f"/participants/{name}/keys", body), code, text)
    assert [audit for audit in audit_of(engine) if audit.action == "add_key"] == []


def test_a_participant_has_no_more_keys_than_a_check_can_try(client: AdminClient, fsp: str) -> None:
    path = f"/participants/{fsp}/keys"
    for number in range(KEYS_PER_PARTICIPANT_MAX):
        assert client.post(path, {"key": key_pair(f"key{number}", "ES256").public}).status == 201
    one_more = {"key": key_pair("one more", "ES256").public}
    assert_refused(client.post(path, one_more), "3103", f"{KEYS_PER_PARTICIPANT_MAX} keys; revoke one first")
    client.put(f"{path}/{keys_of(client)[0]['id']}", {"isActive": False})
    assert client.post(path, one_more).status == 201


def test_a_key_that_is_not_the_participants_cannot_be_revoked_through_it(client: AdminClient, fsp: str) -> None:
    key_id = client.post(f"/participants/{fsp}/keys", {"key": PUBLIC}).json["id"]
    client.post("/participants", {"name": "otherfsp", "currency": "USD"})
    assert_refused(client.put(f"/participants/otherfsp/keys/{key_id}", {"isActive": False}), "3200", "has no key")
    for wrong in ("0", "999999999", "x", "99999999999"):
        assert_refused(client.put(f"/participants/{fsp}/keys/{wrong}", {"isActive": False}), "3200", "has no key")
    assert keys_of(client)[0]["isActive"] == 1
